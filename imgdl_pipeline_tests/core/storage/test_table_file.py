import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from imgdl_pipeline.core.model.schemas import BATCH_ROWS, LINKS, columns
from imgdl_pipeline.core.storage import object_store
from imgdl_pipeline.core.storage.object_store import UnreadableError
from imgdl_pipeline.core.storage.store import write_batches
from imgdl_pipeline.core.storage.table_file import empty_table_file
from imgdl_pipeline_tests.support.rows import NOW

URL = columns(LINKS, "url")


def links(count, attributes="{}"):
    rows = {"url": [f"https://h.org/{number}" for number in range(count)]}
    rows |= {
        "attributes": [attributes] * count,
        "listed_at": [NOW] * count,
        "request_headers": [None] * count,
    }
    return pa.table(rows, schema=LINKS)


@pytest.mark.parametrize("small", [0, 1 << 20], ids=["a copy on disk", "a copy in memory"])
def test_a_file_that_is_replaced_while_it_is_read_stays_as_it_was(any_store, monkeypatch, small):
    monkeypatch.setattr(object_store, "SMALL_BYTES", small)
    any_store.write_table("a.parquet", links(25_000))
    with any_store.open_table("a.parquet") as file:
        batches = file.batches(URL)
        first = next(batches)
        any_store.write_table("a.parquet", links(3))
        assert [first.num_rows, *(batch.num_rows for batch in batches)] == [10_000, 10_000, 5_000]
        assert file.num_rows == file.read(URL).num_rows == 25_000
    assert sum(batch.num_rows for batch in any_store.batches("a.parquet", URL)) == 3


def test_a_file_that_does_not_exist_is_none_and_has_no_batches(any_store):
    assert any_store.open_table("a.parquet") is None
    assert list(any_store.batches("a.parquet", URL)) == []


def test_a_file_that_is_damaged_behind_its_footer_is_named(store, tmp_path):
    store.write_table("a.parquet", links(5_000))
    file = tmp_path / "store/a.parquet"
    data = bytearray(file.read_bytes())
    data[10:200] = bytes(190)
    file.write_bytes(data)
    with pytest.raises(UnreadableError, match=r"a\.parquet is not a Parquet file"):
        list(store.batches("a.parquet", URL))


def test_equal_rows_give_equal_files_however_they_come(tmp_path):
    table, files = links(23_000), []
    for step in (7_000, 23_000, 100):
        with (tmp_path / "file").open("w+b") as file:
            write_batches(file, LINKS, (table.slice(start, step) for start in range(0, 23_000, step)))
            file.seek(0)
            files.append(file.read())
    assert files[0] == files[1] == files[2]
    groups = pq.ParquetFile(tmp_path / "file").metadata
    assert [groups.row_group(each).num_rows for each in range(groups.num_row_groups)] == [
        BATCH_ROWS,
        BATCH_ROWS,
        3_000,
    ]


def test_no_rows_give_a_file_with_the_columns(store, tmp_path):
    with (tmp_path / "file").open("w+b") as file:
        write_batches(file, LINKS, [])
        store.write_file("a.parquet", file)
    assert store.read_table("a.parquet", LINKS).equals(LINKS.empty_table())
    assert list(empty_table_file(LINKS).batches(URL)) == []


def test_an_equal_file_is_recognised_piece_by_piece(any_store, tmp_path, monkeypatch):
    monkeypatch.setattr(object_store, "CHUNK_BYTES", 10)
    any_store.put("a", b"0123456789" * 10)
    for data, is_equal in (
        (b"0123456789" * 10, True),
        (b"0123456789" * 9 + b"012345678x", False),
        (b"0", False),
    ):
        (tmp_path / "file").write_bytes(data)
        with (tmp_path / "file").open("rb") as file:
            assert any_store.holds("a", file) is is_equal
            assert not any_store.holds("missing", file)
