"""Give the rows of a large table another order, with memory for a few thousand of them only.

A table whose rows are in the wanted order already, as those of an unchanged gallery, is only read once.
Any other is divided into the pieces of the result first, in a temporary file.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import IO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from imgdl_pipeline.core.model.schemas import BATCH_ROWS
from imgdl_pipeline.core.model.temporary import needing_room, opened_temporary

Places = npt.NDArray[np.int64]

NOWHERE = -1
"""The place of a row that the result does not have."""


@dataclass(slots=True)
class _Piece:
    """The rows of one piece of the result that were found so far, and their places in it."""

    tables: list[pa.Table] = field(default_factory=list)
    places: list[Places] = field(default_factory=list)

    def add(self, table: pa.Table, places: Places) -> None:
        self.tables.append(table)
        self.places.append(places)

    def arranged(self, schema: pa.Schema, rows: int) -> pa.Table:
        """Return the rows in their order, with nulls in places for which there is no row."""
        places = np.concatenate([np.empty(0, np.int64), *self.places])
        found = pa.concat_tables([schema.empty_table(), *self.tables])
        if len(places) == rows and np.array_equal(places, np.arange(rows)):
            return found
        row_of = np.full(rows, NOWHERE, np.int64)
        row_of[places[::-1]] = np.arange(len(places))[::-1]  # of several rows for a place, the first counts
        return found.combine_chunks().take(pa.array(row_of, mask=row_of == NOWHERE))


def arranged(
    batches: Iterable[pa.Table], places: Places, count: int, schema: pa.Schema, rows: int = BATCH_ROWS
) -> Iterator[pa.Table]:
    """Yield the rows of a table in another order, so many at a time.

    Args:
        batches: The table.
        places: Each of its rows' place in the result, or NOWHERE. Of several rows for a place, the first
            counts; a place without a row becomes a row of nulls.
        count: The number of the result's rows.
        schema: The schema of the table, whose columns may all be null.
        rows: The rows of each piece of the result; the last one may have fewer.
    """
    kept = places[places != NOWHERE]
    if np.all(kept[1:] > kept[:-1]):
        yield from _in_order(batches, places, count, schema, rows)
    else:
        with opened_temporary() as file:
            yield from _divided(file, batches, places, count, schema, rows)


def _located(batches: Iterable[pa.Table], places: Places) -> Iterator[tuple[pa.Table, Places]]:
    """Yield the rows that have a place, with their places."""
    start = 0
    for batch in batches:
        here = places[start : start + batch.num_rows]
        start += batch.num_rows
        is_kept = here != NOWHERE
        if not is_kept.all():
            batch, here = batch.filter(pa.array(is_kept)), here[is_kept]
        if len(here):
            yield batch, here


def _in_order(
    batches: Iterable[pa.Table], places: Places, count: int, schema: pa.Schema, rows: int
) -> Iterator[pa.Table]:
    piece, start = _Piece(), 0
    end_of_table = [(schema.empty_table(), np.array([count], np.int64))]
    for batch, here in chain(_located(batches, places), end_of_table):
        done = 0
        while start < count and here[-1] >= start + rows:
            split = int(np.searchsorted(here, start + rows))
            piece.add(batch.slice(done, split - done), here[done:split] - start)
            yield piece.arranged(schema, rows)
            piece, start, done = _Piece(), start + rows, split
        if batch.num_rows:
            piece.add(batch.slice(done), here[done:] - start)
    if start < count:
        yield piece.arranged(schema, count - start)


def _divided(
    file: IO[bytes], batches: Iterable[pa.Table], places: Places, count: int, schema: pa.Schema, rows: int
) -> Iterator[pa.Table]:
    parts: list[list[tuple[int, int, Places]]] = [[] for _ in range(-(-count // rows))]
    for batch, here in _located(batches, places):
        order = np.argsort(here, kind="stable")
        moved, here = batch.combine_chunks().take(pa.array(order)), here[order]
        numbers = here // rows
        starts = np.flatnonzero(np.diff(numbers, prepend=-1))
        for start, end in zip(starts, [*starts[1:], len(here)], strict=True):
            number = int(numbers[start])
            offset = file.tell()
            with needing_room():
                size = file.write(_serialized(moved.slice(start, end - start)))
            parts[number].append((offset, size, (here[start:end] - number * rows).astype(np.int32)))
    for number, each in enumerate(parts):
        piece = _Piece()
        for offset, size, here in each:
            file.seek(offset)
            batch = pa.ipc.read_record_batch(pa.py_buffer(file.read(size)), schema)
            piece.add(pa.Table.from_batches([batch]), here.astype(np.int64))
        yield piece.arranged(schema, min(rows, count - number * rows))


def _serialized(table: pa.Table) -> pa.Buffer:
    [batch] = table.combine_chunks().to_batches()
    return batch.serialize()
