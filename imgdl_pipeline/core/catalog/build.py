"""Build the catalog: one row per link, with the facts about its image or the reason why there is none.

The catalog is made of the ledger, the stored files and the last catalog; see `assemble.py`. Only files that
are not in the last catalog and were not checked during download are read and checked, on all cores.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc

from imgdl_pipeline.core.catalog.assemble import assemble
from imgdl_pipeline.core.catalog.facts import FreshFacts, add_early, said_in_files
from imgdl_pipeline.core.catalog.row_places import Mask, Sources, known_rows
from imgdl_pipeline.core.catalog.stored import OpenCatalog, StoredCatalog
from imgdl_pipeline.core.jpeg.facts import InvalidImageError, JpegFacts, Limits
from imgdl_pipeline.core.jpeg.worker_client import Image
from imgdl_pipeline.core.jpeg.workers import JpegWorkers, opened
from imgdl_pipeline.core.listing.build import open_links, unseen_links
from imgdl_pipeline.core.model.counted import Counted
from imgdl_pipeline.core.model.digest import TableDigest
from imgdl_pipeline.core.model.opt_outs import OptOut
from imgdl_pipeline.core.model.outcome import Reason, Status
from imgdl_pipeline.core.model.schemas import CATALOG, DOWNLOADS, FACTS, columns
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.model.temporary import opened_temporary
from imgdl_pipeline.core.storage.arrange import NOWHERE, Places
from imgdl_pipeline.core.storage.checkpoints import CHECKPOINT_S, Checkpoints
from imgdl_pipeline.core.storage.judged import discard_opted_out, discard_removed
from imgdl_pipeline.core.storage.layout import catalog_path, checked_path, shard_mark
from imgdl_pipeline.core.storage.ledger import Ledger
from imgdl_pipeline.core.storage.removed import Removed
from imgdl_pipeline.core.storage.store import Store, write_batches
from imgdl_pipeline.core.storage.table_file import TableFile, empty_table_file

BATCH_FILES = 16
"""The most files that a thread takes at a time."""


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A stored file, as the ledger describes it."""

    url: str
    path: str
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class CatalogRun(StoredCatalog):
    """The result of building a catalog. Its rows stay in the store, and are read as far as they are wanted.

    Args:
        checked: How many files were checked since the last catalog, most of them during their download.
        new: How many links are new in the catalog.
        seconds: How long the run took.
    """

    checked: int
    new: int
    seconds: float

    @property
    def catalog(self) -> pa.Table:
        """All of the gallery's rows, with all columns."""
        return self.rows(*CATALOG.names)

    def opened(self) -> OpenCatalog:
        """Open the catalog for many reads; raises like `rows`."""
        file = self.store.open_table(catalog_path(self.gallery)) or empty_table_file(CATALOG)
        return OpenCatalog(self.store, self.gallery, file)

    def digest(self, *names: str) -> str:
        """Return the digest of some columns of text; raises like `rows`."""
        digest = TableDigest(*names)
        for batch in self.batches(*names):
            digest.update(batch)
        return digest.hex()


def build_catalog(
    gallery: str,
    store: Store,
    settings: DownloadSettings,
    *,
    jpegs: JpegWorkers | None = None,
    on_progress: Callable[[Counted], None] = lambda _: None,
) -> CatalogRun:
    """Check new files, write the catalog, and delete files from the store that are not complete JPEGs.

    The verdict on such a file is also written to the ledger, so that its link is tried again.

    Args:
        gallery: The gallery's name; its link list must exist.
        store: The store of the gallery's files.
        settings: The download settings; an image beyond their limits is not decoded.
        jpegs: The worker processes that check files; if None, start workers for this call and end them.
        on_progress: Called after every file.

    Raises:
        StoreError: The store failed.
    """
    started = time.monotonic()
    removed = Removed.read(store)
    with (
        Ledger(store, gallery) as ledger,
        opened(jpegs) as jpegs,
        open_links(store, gallery) as links,
        opened_temporary() as file,
        FreshFacts(file) as fresh,
        store.open_table(catalog_path(gallery)) or empty_table_file(CATALOG) as previous,
        store.reading(catalog_path(gallery)),
    ):
        discard_removed(ledger, store, removed)
        checkpoints = Checkpoints(store, checked_path(gallery), FACTS)
        known = known_rows(ledger, previous)
        early = add_early(fresh, store, gallery, ledger)
        to_check = _unchecked(ledger, [known, early])
        limits = Limits.of(settings)
        with closing(_check_all(ledger, to_check, store, jpegs, limits, removed, on_progress)) as rows:
            _add_checked(fresh, rows, checkpoints)
        said = _said_before(previous, known)
        discard_invalid(ledger, store, fresh.invalid())
        discard_opted_out(ledger, store, settings, {**said, **fresh.opt_outs})
        unseen = unseen_links(store, gallery)
        new = _write(store, gallery, Sources(ledger, links, unseen, fresh, previous)) - previous.num_rows
        checkpoints.clear()
        unseen.clear()
    return CatalogRun(store, gallery, fresh.count, new, time.monotonic() - started)


def _write(store: Store, gallery: str, sources: Sources) -> int:
    """Write the catalog, and return the number of its rows."""
    store.sweep(catalog_path(gallery).rpartition("/")[0], mark=shard_mark(gallery))
    with opened_temporary() as file:
        write_batches(file, CATALOG, assemble(sources))
        store.write_file(catalog_path(gallery), file)
    return sources.ledger.num_rows


def _unchecked(ledger: Ledger, known: list[Places]) -> Mask:
    """Return for each row of the ledger whether it has a file whose facts are not known yet.

    Args:
        ledger: The ledger.
        known: The rows of the files whose facts are known.
    """
    wanted: Mask = pc.equal(ledger.select(["status"])["status"], Status.OK.value).to_numpy().copy()
    for rows in known:
        wanted[rows[rows != NOWHERE]] = False
    return wanted


def _said_before(previous: TableFile, known: Places) -> dict[str, list[OptOut]]:
    """Return what files say against their use, as the last catalog has it of files that have not changed."""
    said, start = {}, 0
    for batch in previous.batches(columns(CATALOG, "url", "embedded")):
        is_known = known[start : start + batch.num_rows] != NOWHERE
        said.update(said_in_files(batch.filter(pa.array(is_known))))
        start += batch.num_rows
    return said


def check_file(image: StoredImage, store: Store, jpegs: JpegWorkers, limits: Limits) -> JpegFacts:
    """Check one stored file against the ledger, and that it is a complete JPEG.

    Raises:
        InvalidImageError: The file failed a check; the error has the reason.
    """

    @contextmanager
    def opened_image() -> Iterator[Image]:
        file = store.open(image.path)
        if file is None:
            raise InvalidImageError(
                Reason.INCOMPLETE, "its file is gone from the store; the next run fetches it again"
            )
        with file:
            yield file

    size = 0 if store.is_local else image.bytes
    return jpegs.validate_stored(opened_image, size, limits, image.sha256)


def _check_all(
    ledger: Ledger,
    is_wanted: Mask,
    store: Store,
    jpegs: JpegWorkers,
    limits: Limits,
    removed: Removed,
    on_progress: Callable[[Counted], None],
) -> Generator[dict[str, object], None, None]:
    """Yield a row of FACTS for each file.

    One thread per worker process reads files and waits for their results. A thread takes several files at a
    time, because handing over one file costs a tenth of its decoding. If there are few files, each is handed
    over alone.
    """
    stopped, threads = threading.Event(), jpegs.count

    def check(image: StoredImage) -> dict[str, object]:
        try:
            facts = check_file(image, store, jpegs, limits)
        except InvalidImageError as error:
            return {"url": image.url, "sha256": image.sha256, **error.row()}
        return {"url": image.url, "sha256": image.sha256, **removed.verdict(facts.row())}

    def check_batch(batch: pa.Table) -> list[dict[str, object]]:
        return [check(StoredImage(**row)) for row in batch.to_pylist() if not stopped.is_set()]

    count = int(is_wanted.sum())
    size = max(1, min(BATCH_FILES, count // (4 * threads)))
    batches = _files(ledger, is_wanted, size) if count else iter(())
    with ThreadPoolExecutor(threads, thread_name_prefix="validate") as executor:
        try:
            for number, facts in enumerate(_mapped(executor, check_batch, batches, threads * 2), start=1):
                on_progress(Counted(number, count, "new images checked"))
                yield facts
        finally:
            stopped.set()


def _files(ledger: Ledger, is_wanted: Mask, size: int) -> Iterator[pa.Table]:
    """Yield some of the ledger's rows, as StoredImage, so many at a time."""
    start = 0
    for batch in ledger.batches(["url", "path", "sha256", "bytes"]):
        wanted = batch.filter(pa.array(is_wanted[start : start + batch.num_rows]))
        start += batch.num_rows
        yield from (wanted.slice(first, size) for first in range(0, wanted.num_rows, size))


def _mapped(
    executor: ThreadPoolExecutor,
    function: Callable[[pa.Table], list[dict[str, object]]],
    batches: Iterable[pa.Table],
    ahead: int,
) -> Iterator[dict[str, object]]:
    """Yield results like `executor.map`, but submit only a few batches at a time to keep memory flat."""
    batches = iter(batches)
    futures: deque[Future[list[dict[str, object]]]] = deque(
        executor.submit(function, batch) for batch in islice(batches, ahead)
    )
    try:
        while futures:
            yield from futures.popleft().result()
            futures.extend(executor.submit(function, batch) for batch in islice(batches, 1))
    finally:
        for future in futures:
            future.cancel()


def _add_checked(fresh: FreshFacts, rows: Iterator[dict[str, object]], checkpoints: Checkpoints) -> None:
    """Collect all rows, and write a checkpoint of new rows every CHECKPOINT_S seconds."""
    batch, due = [], time.monotonic() + CHECKPOINT_S
    for row in rows:
        batch.append(row)
        if time.monotonic() >= due:
            table = pa.Table.from_pylist(batch, schema=FACTS)
            fresh.add(table)
            checkpoints.add(table)
            batch, due = [], time.monotonic() + CHECKPOINT_S
    fresh.add(pa.Table.from_pylist(batch, schema=FACTS))


def discard_invalid(ledger: Ledger, store: Store, invalid: pa.Table) -> None:
    """Write the verdict on files that are not complete JPEGs to the ledger, then delete the files."""
    if not invalid.num_rows:
        return
    is_invalid = pc.is_in(ledger.select(["url"])["url"], value_set=invalid["url"]).to_numpy()
    rows = ledger.filter(is_invalid)
    invalid = invalid.take(pc.index_in(rows["url"], value_set=invalid["url"]))
    paths = rows["path"].to_pylist()
    replaced = {
        **{name: invalid[name] for name in ("status", "reason", "detail")},
        **{name: pa.nulls(rows.num_rows, DOWNLOADS.field(name).type) for name in _OF_A_STORED_FILE},
        "failures": _failures(rows["failures"], invalid["reason"]),
    }
    for name, column in replaced.items():
        rows = rows.set_column(rows.schema.get_field_index(name), DOWNLOADS.field(name), column)
    ledger.replace(rows)
    store.delete(paths)


def _failures(before: pa.ChunkedArray, reason: pa.ChunkedArray) -> pa.ChunkedArray:
    """Add 1 to the failure counts; set 1 for a file altered in the store, which is not its host's fault."""
    one = pa.scalar(1, pa.int32())
    is_altered = pc.equal(reason, Reason.HASH_MISMATCH.value)
    return pc.if_else(is_altered, one, pc.add(pc.fill_null(before, 0), one))


_OF_A_STORED_FILE = ("path", "sha256", "bytes", "etag", "last_modified", "fetched_at")
