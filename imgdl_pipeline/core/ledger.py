"""The ledger: what happened to each link of a gallery, one row a link.

It is the only memory there is: a link is fetched when the ledger has no image of it. It is checkpointed while
a run goes on, so that a killed run loses seconds and not hours.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from imgdl_pipeline.core.columns import DOWNLOADS
from imgdl_pipeline.core.store import Store, checkpoints_path, downloads_path

CHECKPOINT_S = 5.0
"""Seconds between two checkpoints of the ledger."""


@dataclass(frozen=True, slots=True)
class Download:
    """A row of the ledger; the fields are the columns of DOWNLOADS."""

    url: str
    status: str
    tried_at: datetime
    attempts: int
    elapsed_s: float
    reason: str | None = None
    detail: str | None = None
    path: str | None = None
    sha256: str | None = None
    bytes: int | None = None
    http_status: int | None = None
    etag: str | None = None
    last_modified: str | None = None
    fetched_at: datetime | None = None


class Ledger:
    """The rows of one gallery, as they come: buffered, checkpointed, and merged in the end.

    Args:
        store: Where the gallery's files lie.
        gallery: Its name.
        clock: Seconds, for the time between checkpoints.
    """

    def __init__(self, store: Store, gallery: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._gallery = gallery
        self._clock = clock
        self._folder = checkpoints_path(gallery)
        self._buffer: list[Download] = []
        self._checkpoint_due = clock() + CHECKPOINT_S
        self._checkpoints = sorted(file.path for file in store.list(self._folder))
        known = store.read_table(downloads_path(gallery), DOWNLOADS)
        self._is_there = known is not None
        self.table = self._merged(known)

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def add(self, row: Download) -> None:
        """Take a row; now and then, write a checkpoint."""
        self._buffer.append(row)
        if self._clock() >= self._checkpoint_due:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Write what came since the last checkpoint, as a file of its own."""
        if self._buffer:
            number = len(self._checkpoints)
            path = f"{self._folder}/{number:06d}-{time.time_ns()}.parquet"
            self._store.write_table(path, download_table(self._buffer))
            self._checkpoints.append(path)
            self._buffer.clear()
        self._checkpoint_due = self._clock() + CHECKPOINT_S

    def replace(self, rows: pa.Table) -> None:
        """Put other rows in the place of those with the same urls, and write the ledger."""
        self._write(self._merged(self.table, rows))

    def close(self) -> None:
        """Merge everything into the ledger's one file, and drop the checkpoints."""
        if self._checkpoints or self._buffer or not self._is_there:
            self._write(self._merged(self.table, download_table(self._buffer)))
            self._buffer.clear()

    def _write(self, table: pa.Table) -> None:
        """Write the one file, and drop the checkpoints that it holds now."""
        self.table = table
        self._store.write_table(downloads_path(self._gallery), table)
        self._is_there = True
        self._store.delete(self._checkpoints)
        self._checkpoints.clear()

    def _merged(self, ledger: pa.Table | None, newest: pa.Table | None = None) -> pa.Table:
        checkpoints = [self._store.read_table(path, DOWNLOADS) for path in self._checkpoints]
        tables = [DOWNLOADS.empty_table(), ledger, *checkpoints, newest]
        return latest(pa.concat_tables([table for table in tables if table is not None]))


def download_table(rows: list[Download]) -> pa.Table:
    """Rows as Arrow has them."""
    return pa.Table.from_pylist([asdict(row) for row in rows], schema=DOWNLOADS)


def latest(table: pa.Table) -> pa.Table:
    """The last row of each url; the rest of the order stays."""
    newest_first = pc.take(table["url"], _descending(table.num_rows)).combine_chunks()
    first = pc.index_in(newest_first, value_set=newest_first)
    is_first = pc.equal(first, pa.array(range(table.num_rows), pa.int32()))
    keep = pc.take(is_first, _descending(table.num_rows))
    return table.filter(keep) if not pc.all(keep).as_py() else table


def _descending(count: int) -> pa.Array:
    return pa.array(range(count - 1, -1, -1), pa.int64())
