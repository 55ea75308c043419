"""Keep the ledger of a gallery: what happened to each link, one row per link.

Only the ledger decides what is fetched: a link is fetched if the ledger has no image of it. The ledger is
checkpointed during a run, so that a killed run loses seconds instead of hours.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import chain

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from imgdl_pipeline.core.model.memory import release_memory
from imgdl_pipeline.core.model.schemas import CATALOG, DOWNLOADS, columns, filter_table
from imgdl_pipeline.core.model.temporary import opened_temporary
from imgdl_pipeline.core.storage.checkpoints import CHECKPOINT_S, Checkpoints
from imgdl_pipeline.core.storage.layout import (
    catalog_path,
    checkpoints_path,
    downloads_path,
    is_shard,
    shard_mark,
)
from imgdl_pipeline.core.storage.lease import Lease
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.parts import check_resharded
from imgdl_pipeline.core.storage.store import Store, write_batches
from imgdl_pipeline.core.storage.table_file import TableFile

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
        ReshardError: The gallery of this shard is between two numbers of shards.
        StoreError: The ledger could not be read, or not be written at the end.
    """

    def __init__(self, store: Store, gallery: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._gallery = gallery
        self._clock = clock
        self._lease = Lease(store, gallery)
        self._buffer: list[Download] = []
        self._checkpoint_due = 0.0
        self._file: TableFile | None = None
        self._is_settled = False
        self.writes = 0

    def __enter__(self) -> "Ledger":
        self._lease.__enter__()
        try:
            if is_shard(self._gallery):
                check_resharded(self._store, self._gallery)
            self.open()
        except BaseException:
            self._lease.__exit__()
            raise
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            self.merge()
        except StoreError as failure:
            if error is None:
                raise
            logger.warning("the ledger could not be written either: %s", failure)
        finally:
            self._close_file()
            self._lease.__exit__()

    def open(self) -> None:
        """Open the ledger, and merge the checkpoints of killed runs; the caller must hold the lease."""
        self._store.sweep(
            self._path.rpartition("/")[0], older_than_s=LEASED_S, mark=shard_mark(self._gallery)
        )
        self._checkpoints = Checkpoints(self._store, checkpoints_path(self._gallery), DOWNLOADS)
        self._file = self._store.open_table(self._path)
        if self._file is None:
            made = self._from_catalog()
            if made is not None:
                self._store.write_table(self._path, made)
                self._file = self._store.open_table(self._path)
        self.select(["url"])  # which finds out whether the file can be read at all
        if len(self._checkpoints):
            self._merge(by_time=True)
        self._checkpoint_due = self._clock() + CHECKPOINT_S

    def _from_catalog(self) -> pa.Table | None:
        shared = [name for name in DOWNLOADS.names if name in CATALOG.names]
        schema = columns(CATALOG, *shared, "last_seen")
        catalog = self._store.read_table(catalog_path(self._gallery), schema)
        if catalog is None:
            return None
        logger.warning("%s: the ledger is gone; it is made again from the catalog", self._gallery)
        known = {name: catalog[name] for name in shared} | {
            "tried_at": pc.coalesce(catalog["fetched_at"], catalog["last_seen"])
        }
        for name in DOWNLOADS.names:
            known.setdefault(name, pa.nulls(catalog.num_rows, DOWNLOADS.field(name).type))
        return pa.table({name: known[name] for name in DOWNLOADS.names}).cast(DOWNLOADS)

    @property
    def num_rows(self) -> int:
        """The number of rows that are merged so far."""
        return 0 if self._file is None else self._file.num_rows

    @property
    def table(self) -> pa.Table:
        """All rows that are merged so far, with all columns; `select` and `batches` need less memory."""
        return self.select(DOWNLOADS.names)

    def select(self, names: list[str]) -> pa.Table:
        """Return some columns of the rows that are merged so far.

        Raises:
            StoreError: The ledger could not be read.
        """
        schema = columns(DOWNLOADS, *names)
        release_memory()
        if self._file is None:
            return schema.empty_table()
        with self._store.reading(self._path):
            return _without_future(self._file.read(schema))

    def batches(self, names: list[str] | None = None) -> Iterator[pa.Table]:
        """Yield some or all columns of the rows that are merged so far, a few thousand at a time.

        Raises:
            StoreError: The ledger could not be read.
        """
        if self._file is not None:
            with self._store.reading(self._path):
                for batch in self._file.batches(columns(DOWNLOADS, *(names or DOWNLOADS.names))):
                    yield _without_future(batch)

    def filter(self, is_wanted: npt.NDArray[np.bool_], names: list[str] | None = None) -> pa.Table:
        """Return some of the rows that are merged so far, with some or all columns; raises like `select`."""
        schema = columns(DOWNLOADS, *(names or DOWNLOADS.names))
        if not is_wanted.any():
            return schema.empty_table()
        rows = _filtered((batch.select(schema.names) for batch in self.batches()), is_wanted)
        return pa.concat_tables([schema.empty_table(), *rows])

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
        """Merge the rows added so far into the ledger's one file, and delete the checkpoints."""
        if self._is_settled:
            return
        self.checkpoint()
        if len(self._checkpoints) or self._file is None:
            self._merge()

    def settle(self) -> None:
        """Merge the rows, and close the file, which may be replaced then: only the lease lasts on."""
        self.merge()
        self._close_file()
        self._is_settled = True

    def replace(self, rows: pa.Table) -> None:
        """Replace the rows that have the same URLs as the given rows, and write the ledger."""
        self.checkpoint()
        self._checkpoints.add(rows)
        self._merge()

    @property
    def _path(self) -> str:
        return downloads_path(self._gallery)

    def _merge(self, *, by_time: bool = False) -> None:
        """Write the ledger's one file again; of several rows with the same URL, keep the last.

        Args:
            by_time: Keep the row with the latest `tried_at` instead: a run that was killed while it deleted
                its checkpoints may have left some that are older than the ledger.
        """
        keys = columns(DOWNLOADS, *(["url", "tried_at"] if by_time else ["url"]))
        there = [self.select(keys.names), *self._checkpoints.tables(keys)]
        known = pa.concat_tables(_without_future(each) for each in there)
        is_kept = _is_latest(known, by_time=by_time)
        del there, known
        self._lease.check()
        with opened_temporary() as file:
            write_batches(file, DOWNLOADS, _filtered(chain(self.batches(), self._checkpoint_rows()), is_kept))
            self._store.write_file(self._path, file)
        self._close_file()
        self._file = self._store.open_table(self._path)
        self.writes += 1
        self._checkpoints.clear()

    def _checkpoint_rows(self) -> Iterator[pa.Table]:
        return (_without_future(each) for each in self._checkpoints.batches())

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


LONG_AGO = datetime(1970, 1, 1, tzinfo=timezone.utc)


def _without_future(table: pa.Table) -> pa.Table:
    """Return a table in which rows of the future, which a wrong clock has written, are of long ago.

    So they are due like the oldest rows, lose against newer ones, and do not count as tried by this run.
    """
    if "tried_at" not in table.schema.names:
        return table
    tried_at = table["tried_at"]
    is_future = pc.greater(tried_at, pa.scalar(datetime.now(timezone.utc), tried_at.type))
    if not pc.any(is_future).as_py():
        return table
    mended = pc.if_else(is_future, pa.scalar(LONG_AGO, tried_at.type), tried_at)
    return table.set_column(table.schema.get_field_index("tried_at"), DOWNLOADS.field("tried_at"), mended)


def _is_latest(table: pa.Table, *, by_time: bool) -> npt.NDArray[np.bool_]:
    """Return for each row whether it is the one of its URL to keep: the last, or the latest by `tried_at`."""
    count = table.num_rows
    same = pc.index_in(table["url"], value_set=table["url"]).to_numpy()
    order = np.arange(count)
    if by_time:
        order = np.argsort(pc.fill_null(table["tried_at"].cast(pa.int64()), 0).to_numpy(), kind="stable")
    latest_of = np.empty(count, np.int64)
    latest_of[same[order]] = order  # of several rows, the last is written last
    is_latest: npt.NDArray[np.bool_] = latest_of[same] == np.arange(count)
    return is_latest


def _filtered(batches: Iterable[pa.Table], is_kept: npt.NDArray[np.bool_]) -> Iterator[pa.Table]:
    start = 0
    for batch in batches:
        yield filter_table(batch, pa.array(is_kept[start : start + batch.num_rows]))
        start += batch.num_rows


def download_table(rows: list[Download]) -> pa.Table:
    """Convert rows to an Arrow table."""
    columns = {name: [getattr(row, name) for row in rows] for name in DOWNLOADS.names}
    return pa.Table.from_pydict(columns, schema=DOWNLOADS)


def latest(table: pa.Table) -> pa.Table:
    """Return the last row of each URL, in the order of the table."""
    return filter_table(table, pa.array(_is_latest(table, by_time=False)))
