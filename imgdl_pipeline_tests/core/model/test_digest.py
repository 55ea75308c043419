import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from imgdl_pipeline.core.model.digest import TableDigest

rows = st.lists(st.tuples(st.text(max_size=5), st.none() | st.text(max_size=5)), max_size=12)


def table(of):
    return pa.table(
        {"url": [row[0] for row in of], "attributes": [row[1] for row in of]},
        schema=pa.schema([("url", pa.string()), ("attributes", pa.string())]),
    )


def digest(of):
    return TableDigest.of(table(of), "url", "attributes")


@given(rows, rows)
def test_only_the_same_rows_have_the_same_digest(one, other):
    assert (digest(one) == digest(other)) == (one == other)


@given(rows, st.integers(1, 5))
def test_batches_do_not_matter(of, size):
    grown = TableDigest("url", "attributes")
    for batch in table(of).to_batches(max_chunksize=size):
        grown.update(batch)
    assert grown.hex() == digest(of)


def test_text_does_not_move_from_one_row_to_the_next_unseen():
    assert digest([("ab", None), ("c", None)]) != digest([("a", None), ("bc", None)])
    assert digest([("a", "")]) != digest([("a", None)])
