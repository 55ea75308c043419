"""Keep the ledger of a gallery: what happened to each link, one row per link.

Only the ledger decides what is fetched: a link is fetched if the ledger has no image of it. The ledger is
checkpointed during a run, so that a killed run loses seconds instead of hours.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from imgdl_pipeline.core.model.schemas import CATALOG, DOWNLOADS, filter_table, is_first
from imgdl_pipeline.core.storage.checkpoints import CHECKPOINT_S, Checkpoints
from imgdl_pipeline.core.storage.layout import catalog_path, checkpoints_path, downloads_path
from imgdl_pipeline.core.storage.lease import Lease
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.store import Store

logger = logging.getLogger(__name__)

LEASED_S = 1.0
"""Seconds after which half-written files are swept; newer ones may be leases that other runs are writing."""


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
    checked_at: datetime | None = None
    failures: int | None = None
    opt_outs: str | None = "[]"


class Ledger:
    """The ledger of one gallery, whose new rows are buffered, checkpointed, and merged at the end.

    Use it in a `with` block, during which no other run writes the gallery's ledger.

    Args:
        store: The store of the gallery's files.
        gallery: The gallery's name.
        clock: Returns the time in seconds, to decide when a checkpoint is due.

    Raises:
        GalleryBusyError: Another run has the ledger open.
        StoreError: The ledger could not be read, or not be written at the end.
    """

    def __init__(self, store: Store, gallery: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._gallery = gallery
        self._clock = clock
        self._lease = Lease(store, gallery)
        self._buffer: list[Download] = []
        self._checkpoint_due = 0.0
        self._is_there = False
        self.table = DOWNLOADS.empty_table()

    def __enter__(self) -> "Ledger":
        self._lease.__enter__()
        try:
            self.open()
        except BaseException:
            self._lease.__exit__()
            raise
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            self._close()
        except StoreError as failure:
            if error is None:
                raise
            logger.warning("the ledger could not be written either: %s", failure)
        finally:
            self._lease.__exit__()

    def open(self) -> None:
        """Read the ledger and the checkpoints of killed runs; the caller must hold the lease."""
        self._store.sweep(downloads_path(self._gallery).rpartition("/")[0], older_than_s=LEASED_S)
        self._checkpoints = Checkpoints(self._store, checkpoints_path(self._gallery), DOWNLOADS)
        known = self._store.read_table(downloads_path(self._gallery), DOWNLOADS)
        self._is_there = known is not None
        found = [self._from_catalog() if known is None else known, *self._checkpoints.tables()]
        now = datetime.now(timezone.utc)
        self.table = _merged([_without_future(each, now) for each in found if each is not None], by_time=True)
        if len(self._checkpoints):
            self._write(self.table)
        self._checkpoint_due = self._clock() + CHECKPOINT_S

    def _from_catalog(self) -> pa.Table | None:
        """Rebuild a lost ledger from the catalog's columns, so that no image and no row is lost with it."""
        shared = [name for name in DOWNLOADS.names if name in CATALOG.names]
        schema = pa.schema([CATALOG.field(name) for name in (*shared, "last_seen")], CATALOG.metadata)
        catalog = self._store.read_table(catalog_path(self._gallery), schema)
        if catalog is None:
            return None
        logger.warning("%s: the ledger is gone; it is made again from the catalog", self._gallery)
        columns = {name: catalog[name] for name in shared} | {
            "tried_at": pc.coalesce(catalog["fetched_at"], catalog["last_seen"])
        }
        for name in DOWNLOADS.names:
            columns.setdefault(name, pa.nulls(catalog.num_rows, DOWNLOADS.field(name).type))
        return pa.table({name: columns[name] for name in DOWNLOADS.names}).cast(DOWNLOADS)

    def add(self, row: Download) -> None:
        """Add a row, and write a checkpoint when one is due."""
        self._buffer.append(row)
        if self._clock() >= self._checkpoint_due:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Write the rows added since the last checkpoint to a file of their own."""
        if self._buffer:
            self._lease.check()
            self._checkpoints.add(download_table(self._buffer))
            self._buffer.clear()
        self._checkpoint_due = self._clock() + CHECKPOINT_S

    def merge(self) -> None:
        """Merge the rows added so far into `table`, without writing it."""
        self.checkpoint()
        self.table = _merged([self.table, *self._checkpoints.tables()])

    def replace(self, rows: pa.Table) -> None:
        """Replace the rows that have the same URLs as the given rows, and write the ledger."""
        self._write(_merged([self.table, rows]))

    def _close(self) -> None:
        """Merge everything into the ledger's one file, and delete the checkpoints."""
        if len(self._checkpoints) or self._buffer or not self._is_there:
            self._write(_merged([self.table, *self._checkpoints.tables(), download_table(self._buffer)]))
            self._buffer.clear()

    def _write(self, table: pa.Table) -> None:
        """Write the ledger's one file, and delete the checkpoints, whose rows it now includes."""
        self.table = table
        self._lease.check()
        self._store.write_table(downloads_path(self._gallery), table)
        self._is_there = True
        self._checkpoints.clear()


LONG_AGO = datetime(1970, 1, 1, tzinfo=timezone.utc)


def _without_future(table: pa.Table, now: datetime) -> pa.Table:
    """Return a table in which rows of the future, which a wrong clock has written, are of long ago.

    So they are due like the oldest rows, lose against newer ones, and do not count as tried by this run.
    """
    tried_at = table["tried_at"]
    is_future = pc.greater(tried_at, pa.scalar(now, tried_at.type))
    if not pc.any(is_future).as_py():
        return table
    mended = pc.if_else(is_future, pa.scalar(LONG_AGO, tried_at.type), tried_at)
    return table.set_column(table.schema.get_field_index("tried_at"), DOWNLOADS.field("tried_at"), mended)


def _merged(tables: list[pa.Table], *, by_time: bool = False) -> pa.Table:
    """Merge tables; of several rows with the same URL, keep the last.

    Args:
        tables: The tables, older ones first.
        by_time: Order rows by `tried_at` instead: a run that was killed while it deleted its checkpoints may
            have left some that are older than the ledger.
    """
    there = [table for table in tables if table.num_rows]
    if len(there) < 2:  # there are no duplicates, and looking for them takes time and memory
        return there[0] if there else DOWNLOADS.empty_table()
    rows = pa.concat_tables(there)
    return latest(rows.sort_by("tried_at") if by_time else rows)


def download_table(rows: list[Download]) -> pa.Table:
    """Convert rows to an Arrow table."""
    columns = {name: [getattr(row, name) for row in rows] for name in DOWNLOADS.names}
    return pa.Table.from_pydict(columns, schema=DOWNLOADS)


def latest(table: pa.Table) -> pa.Table:
    """Return the last row of each URL, in the order of the table."""
    newest_first = pc.take(table["url"], _descending(table.num_rows)).combine_chunks()
    return filter_table(table, pc.take(is_first(newest_first), _descending(table.num_rows)))


def _descending(count: int) -> pa.Array:
    return pa.array(np.arange(count)[::-1])
