"""Build the catalog: one row per link, with the facts about its image or the reason why there is none.

The catalog is built column by column from the ledger, the stored files and the previous catalog. Only files
that are not in the last catalog and were not checked during download are read and checked, on all cores.
"""

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from imgdl_pipeline.core.jpeg.facts import FACT_NAMES, InvalidImageError, JpegFacts, Limits
from imgdl_pipeline.core.jpeg.worker_client import Image
from imgdl_pipeline.core.jpeg.workers import JpegWorkers, opened
from imgdl_pipeline.core.listing.build import read_links, unseen_links
from imgdl_pipeline.core.model.counted import Counted
from imgdl_pipeline.core.model.licenses import first_license_id
from imgdl_pipeline.core.model.opt_outs import OptOut, from_embedded
from imgdl_pipeline.core.model.outcome import Reason, Status
from imgdl_pipeline.core.model.schemas import (
    CATALOG,
    DOWNLOADS,
    FACTS,
    LINKS,
    filter_table,
    is_first,
    take_column,
)
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.storage.checkpoints import CHECKPOINT_S, Checkpoints
from imgdl_pipeline.core.storage.judged import discard_opted_out, discard_removed
from imgdl_pipeline.core.storage.layout import catalog_path, checked_path, images_path
from imgdl_pipeline.core.storage.ledger import Ledger
from imgdl_pipeline.core.storage.removed import Removed
from imgdl_pipeline.core.storage.store import Store

REMEMBERED = pa.schema(
    (*FACTS, *(CATALOG.field(name) for name in ("attributes", "license_id", "first_seen", "last_seen"))),
    metadata=CATALOG.metadata,
)
"""The columns that are taken from the last catalog; its other columns come from the ledger."""

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
class CatalogRun:
    """The result of building a catalog.

    Args:
        catalog: All of the gallery's rows.
        checked: How many files were checked since the last catalog, most of them during their download.
        new: How many links are new in the catalog.
        seconds: How long the run took.
    """

    catalog: pa.Table
    checked: int
    new: int
    seconds: float


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
    with Ledger(store, gallery) as ledger, opened(jpegs) as jpegs:
        removed = Removed.read(store)
        discard_removed(ledger, store, removed)
        lists = Lists.of(store, gallery)
        previous = store.read_table(catalog_path(gallery), REMEMBERED)
        previous = REMEMBERED.empty_table() if previous is None else previous
        checkpoints = Checkpoints(store, checked_path(gallery), FACTS)
        early = _still_there(checkpoints.tables(), ledger, store, gallery)
        known, early = (known_facts(ledger.table, table) for table in (complete_facts(previous), early))
        to_check = stored_images(ledger.table, pa.concat_tables([known, early]))
        with closing(_check_all(to_check, store, jpegs, Limits.of(settings), removed, on_progress)) as rows:
            checked = pa.concat_tables([_facts_table(rows, checkpoints), early])
        discard_invalid(ledger, store, checked)
        facts = pa.concat_tables([checked, known])
        if discard_opted_out(ledger, store, settings, _in_files(facts)):
            facts = known_facts(ledger.table, facts)
        catalog = assemble(lists, ledger.table, facts, previous)
        new = catalog.num_rows - previous.num_rows
        del early, known, facts, previous  # large for a long list, and writing needs memory too
        store.sweep(catalog_path(gallery).rpartition("/")[0])
        store.write_table(catalog_path(gallery), catalog)
        checkpoints.clear()
        lists.are_seen()
    return CatalogRun(catalog, checked.num_rows, new, time.monotonic() - started)


@dataclass(frozen=True, slots=True)
class Lists:
    """A gallery's link list, and the links that left earlier lists before any catalog included them.

    Args:
        current: The link list, as LINKS.
        unseen: Links that left earlier lists, as LINKS, older ones first; a link may occur more than once.
        kept: The checkpoints that `unseen` was read from.
    """

    current: pa.Table
    unseen: pa.Table
    kept: Checkpoints

    @staticmethod
    def of(store: Store, gallery: str) -> "Lists":
        """Read the lists of a gallery; raise StoreError if there is none yet."""
        kept = unseen_links(store, gallery)
        return Lists(
            read_links(store, gallery), pa.concat_tables([LINKS.empty_table(), *kept.tables()]), kept
        )

    def are_seen(self) -> None:
        """Delete the saved links, which the catalog now includes."""
        self.kept.clear()


def _in_files(facts: pa.Table) -> dict[str, list[OptOut]]:
    """Return what the metadata of files says against their use, by link."""
    may_say = pc.fill_null(pc.match_substring(facts["embedded"], '"data_mining"'), fill_value=False)
    rows = facts.select(["url", "embedded"]).filter(may_say).to_pylist()
    found = {row["url"]: from_embedded(json.loads(row["embedded"])) for row in rows}
    return {url: said for url, said in found.items() if said}


def _still_there(checked: list[pa.Table], ledger: Ledger, store: Store, gallery: str) -> pa.Table:
    """Return the earlier check results whose file exists and has the size that the ledger records."""
    early = pa.concat_tables([FACTS.empty_table(), *checked])
    if not early.num_rows:
        return early
    stored = store.files(images_path(gallery))
    row = pc.index_in(early["url"], value_set=ledger.table["url"].combine_chunks())
    place = pc.index_in(pc.take(ledger.table["path"], row), value_set=stored["path"].combine_chunks())
    is_there = pc.equal(pc.take(stored["bytes"], place), pc.take(ledger.table["bytes"], row))
    return early.filter(pc.fill_null(is_there, fill_value=False))


def complete_facts(previous: pa.Table) -> pa.Table:
    """Return the last catalog's facts about images, without rows of an older version, which lack columns."""
    is_ok = pc.equal(previous["status"], Status.OK.value)
    return previous.select(FACTS.names).filter(pc.and_(is_ok, pc.is_valid(previous["orientation"])))


def known_facts(ledger: pa.Table, facts: pa.Table) -> pa.Table:
    """Return the facts of files whose bytes have not changed."""
    row = pc.index_in(facts["url"], value_set=ledger["url"].combine_chunks())
    is_same = pc.and_(
        pc.equal(pc.take(ledger["sha256"], row), facts["sha256"]),
        pc.equal(pc.take(ledger["status"], row), Status.OK.value),
    )
    return filter_table(facts, pc.fill_null(is_same, fill_value=False)).cast(FACTS)


def stored_images(ledger: pa.Table, known: pa.Table) -> pa.Table:
    """Return the ledger's stored files whose facts are not known yet."""
    is_known = pc.is_in(ledger["url"], value_set=known["url"].combine_chunks())
    is_stored = pc.equal(ledger["status"], Status.OK.value)
    return ledger.select(["url", "path", "sha256", "bytes"]).filter(pc.and_not(is_stored, is_known))


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
    images: pa.Table,
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

    size = max(1, min(BATCH_FILES, images.num_rows // (4 * threads)))
    batches = (images.slice(start, size) for start in range(0, images.num_rows, size))
    with ThreadPoolExecutor(threads, thread_name_prefix="validate") as executor:
        try:
            for number, facts in enumerate(_mapped(executor, check_batch, batches, threads * 2), start=1):
                on_progress(Counted(number, images.num_rows, "new images checked"))
                yield facts
        finally:
            stopped.set()


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


def _facts_table(rows: Iterator[dict[str, object]], checkpoints: Checkpoints) -> pa.Table:
    """Collect all rows in a table, and write a checkpoint of new rows every CHECKPOINT_S seconds."""
    tables, batch, due = [FACTS.empty_table()], [], time.monotonic() + CHECKPOINT_S
    for row in rows:
        batch.append(row)
        if time.monotonic() >= due:
            tables.append(pa.Table.from_pylist(batch, schema=FACTS))
            checkpoints.add(tables[-1])
            batch, due = [], time.monotonic() + CHECKPOINT_S
    return pa.concat_tables([*tables, pa.Table.from_pylist(batch, schema=FACTS)])


def discard_invalid(ledger: Ledger, store: Store, checked: pa.Table) -> None:
    """Write the verdict on files that are not complete JPEGs to the ledger, then delete the files."""
    invalid = checked.filter(pc.not_equal(checked["status"], Status.OK.value))
    if not invalid.num_rows:
        return
    row = pc.index_in(invalid["url"], value_set=ledger.table["url"].combine_chunks())
    rows = ledger.table.take(row)
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


def assemble(lists: Lists, ledger: pa.Table, facts: pa.Table, previous: pa.Table) -> pa.Table:
    """Return the catalog's rows: listed links in list order, then links no longer listed in catalog order.

    Args:
        lists: The gallery's lists.
        ledger: The ledger, as DOWNLOADS; a link that was not tried yet has no row in it, and gets none.
        facts: The facts about images, as FACTS.
        previous: The last catalog.
    """
    order = _listed_order(ledger["url"], lists.current["url"], previous["url"])
    tried = _Rows(ledger, order)
    url = tried["url"].combine_chunks()
    newest_first = lists.unseen.take(pa.array(range(lists.unseen.num_rows - 1, -1, -1), pa.int64()))
    listed, known, before, missed_first, missed_last = (
        _Rows(table, pc.index_in(url, value_set=table["url"].combine_chunks()))
        for table in (lists.current, facts, previous, lists.unseen, newest_first)
    )
    columns = {name: known[name] for name in FACT_NAMES}
    columns["duplicate_of"] = _duplicate_of(url, tried["sha256"].combine_chunks())
    columns["attributes"] = pc.coalesce(
        listed["attributes"], missed_last["attributes"], before["attributes"], "{}"
    )
    columns["first_seen"] = pc.coalesce(
        before["first_seen"], missed_first["listed_at"], listed["listed_at"], tried["tried_at"]
    )
    columns["last_seen"] = pc.coalesce(
        listed["listed_at"], missed_last["listed_at"], before["last_seen"], tried["tried_at"]
    )
    columns["opt_outs"] = pc.fill_null(tried["opt_outs"], "[]")
    is_same = pc.and_(
        pc.equal(before["attributes"], columns["attributes"]),
        pc.equal(pc.fill_null(before["embedded"], ""), pc.fill_null(columns["embedded"], "")),
    )
    is_removed = pc.fill_null(pc.equal(tried["reason"], Reason.REMOVED.value), fill_value=False)
    columns["attributes"] = pc.if_else(is_removed, "{}", columns["attributes"])
    known_ids = pc.if_else(pc.fill_null(is_same, fill_value=False), before["license_id"], None)
    columns["license_id"] = license_ids(columns["attributes"], columns["embedded"], known_ids)
    columns |= {name: tried[name] for name in CATALOG.names if name not in columns}
    return pa.table({name: columns[name] for name in CATALOG.names}).cast(CATALOG)


def license_ids(attributes: pa.ChunkedArray, embedded: pa.ChunkedArray, known: pa.ChunkedArray) -> pa.Array:
    """Return each row's licence: as the source names it, or else as the file does; null where neither does.

    Args:
        attributes: JSON objects of what the source says.
        embedded: JSON objects of what the file says, or null.
        known: The identifiers that need not be made again, or null.
    """
    mentions = pc.or_(*(_mentions_license(column) for column in (attributes, embedded)))
    has_license = pc.and_(mentions, pc.is_null(known))
    places = np.flatnonzero(has_license.to_numpy(zero_copy_only=False))
    said, own = (take_column(column, pa.array(places)).to_pylist() for column in (attributes, embedded))
    found = np.full(len(attributes), None, dtype=object)
    for place, *texts in zip(places, said, own, strict=True):
        found[place] = first_license_id(*map(_license_of, texts))
    return pc.coalesce(known, pa.array(found, pa.string()))


def _mentions_license(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.fill_null(pc.match_substring(column, '"license'), fill_value=False)


def _license_of(text: str | None) -> tuple[str | None, str | None]:
    """Return the name and the URL of the licence in a JSON object."""
    values = json.loads(text or "{}")
    name, url = values.get("license"), values.get("license_url")
    return name if isinstance(name, str) else None, url if isinstance(url, str) else None


@dataclass(frozen=True, slots=True)
class _Rows:
    """A selection of a table's rows that copies a column only when it is read: a full copy would be large."""

    table: pa.Table
    places: pa.Array

    def __getitem__(self, name: str) -> pa.ChunkedArray:
        return take_column(self.table[name], self.places)


def _listed_order(url: pa.ChunkedArray, listed: pa.ChunkedArray, before: pa.ChunkedArray) -> pa.Array:
    """Return row numbers: those of listed URLs in list order, then the others in the last catalog's order."""
    places = {
        name: pc.index_in(url, value_set=values.combine_chunks())
        for name, values in (("listed", listed), ("before", before))
    }
    by_place = [("listed", "ascending"), ("before", "ascending")]  # nulls go to the end
    return pc.sort_indices(pa.table(places), sort_keys=by_place)


def _duplicate_of(url: pa.Array, sha256: pa.Array) -> pa.Array:
    """Return for each stored file the URL of the first file with the same bytes; null for that first one."""
    is_copy = pc.and_not(pc.is_valid(sha256), is_first(sha256))
    first = pc.take(url, pc.index_in(sha256, value_set=sha256))
    return pc.if_else(is_copy, first, pa.scalar(None, pa.string()))
