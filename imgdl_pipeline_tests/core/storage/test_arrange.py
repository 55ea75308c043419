import numpy as np
import pyarrow as pa
import pytest

from imgdl_pipeline.core.storage.arrange import NOWHERE, arranged

SCHEMA = pa.schema([("number", pa.int64()), ("text", pa.string())])


def table_of(count):
    return pa.table({"number": range(count), "text": [f"row {each}" for each in range(count)]}, schema=SCHEMA)


def pieces(places, count, rows=4):
    table = table_of(len(places))
    batches = [table.slice(start, 3) for start in range(0, len(places), 3)]
    return list(arranged(batches, np.array(places, np.int64), count, SCHEMA, rows))


def numbers(places, count):
    return pa.concat_tables([SCHEMA.empty_table(), *pieces(places, count)])["number"].to_pylist()


def test_rows_in_order_stay_in_order_without_a_temporary_file(monkeypatch):
    monkeypatch.setattr("imgdl_pipeline.core.storage.arrange.opened_temporary", None)
    assert numbers(range(10), 10) == list(range(10))
    assert numbers([NOWHERE, 0, 5, NOWHERE, 9], 11) == [1, *[None] * 4, 2, *[None] * 3, 4, None]


def test_rows_in_another_order_are_put_in_order():
    assert numbers([9, 0, 5, NOWHERE, 1], 11) == [1, 4, *[None] * 3, 2, *[None] * 3, 0, None]


def test_of_several_rows_for_one_place_the_first_counts():
    assert numbers([1, 1, 0, 0, 1], 2) == [2, 0]


@pytest.mark.parametrize("places", [range(10), range(9, -1, -1)])
def test_each_piece_has_so_many_rows_and_the_last_one_the_rest(places):
    assert [piece.num_rows for piece in pieces(places, 10)] == [4, 4, 2]
    assert all(piece.schema == SCHEMA for piece in pieces(places, 10))


def test_nothing_has_no_pieces_and_no_rows_are_rows_of_nulls():
    assert pieces([], 0) == []
    assert numbers([], 3) == [None] * 3
    assert numbers([NOWHERE], 0) == []


def test_any_arrangement_is_that_of_a_table_in_memory():
    random = np.random.default_rng(20)
    for _ in range(100):
        count, rows = random.integers(1, 60, 2)
        places = random.integers(NOWHERE, count, rows)
        expected = {place: row for row, place in reversed(list(enumerate(places.tolist())))}
        assert numbers(places, count) == [expected.get(place) for place in range(count)]
