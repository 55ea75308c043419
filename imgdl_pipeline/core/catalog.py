"""The catalog: one row a link, with what is known of its image or why there is none.

It is made from the ledger, the stored files and the catalog before it, column by column. Only files that the
last catalog does not know are read and checked, on all cores.
"""

import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc

from imgdl_pipeline.core.columns import CATALOG, DOWNLOADS
from imgdl_pipeline.core.downloads import read_links
from imgdl_pipeline.core.ledger import Ledger
from imgdl_pipeline.core.outcome import Reason, Status
from imgdl_pipeline.core.store import Store, catalog_path
from imgdl_pipeline.core.validation import InvalidImageError, JpegFacts, validate_jpeg

FACTS = pa.schema(
    CATALOG.field(name) for name in ("url", "status", "reason", "detail", *JpegFacts.__dataclass_fields__)
)
"""What checking a file gives: its facts, or a status that is not ok, with the reason."""

BATCH_ROWS = 1_000


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A file that the ledger says is there, and what it says of it."""

    url: str
    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class CatalogRun:
    """What a run did.

    Args:
        catalog: All of the gallery's rows.
        checked: How many files were read and checked.
        seconds: How long it took.
    """

    catalog: pa.Table
    checked: int
    seconds: float


def build_catalog(
    gallery: str,
    store: Store,
    *,
    max_pixels: int,
    threads: int | None = None,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> CatalogRun:
    """Check what is new, write the catalog, and take files that are no whole JPEG out of the store.

    The verdict on such a file is written to the ledger too, so that its link is tried again.

    Args:
        gallery: Its name; its link list must exist.
        store: Where its files lie.
        max_pixels: An image of more is not decoded.
        threads: How many files are checked at a time; None takes one a core.
        on_progress: Called with the numbers of files checked and to be checked.

    Raises:
        StoreError: The store failed.
    """
    started = time.monotonic()
    links = read_links(store, gallery)
    written = store.read_table(catalog_path(gallery), CATALOG)
    previous = CATALOG.empty_table() if written is None else written
    with Ledger(store, gallery) as ledger:
        known = known_facts(ledger.table, previous)
        to_check = stored_images(ledger.table, known)
        checked = _facts_table(
            _check_all(to_check, store, max_pixels, threads or os.cpu_count() or 1, on_progress)
        )
        discard_invalid(ledger, store, checked)
        facts = pa.concat_tables([checked, known])
        catalog = assemble(links, ledger.table, facts, previous)
    if written is None or not catalog.equals(written):
        store.write_table(catalog_path(gallery), catalog)
    return CatalogRun(catalog, checked.num_rows, time.monotonic() - started)


def known_facts(ledger: pa.Table, previous: pa.Table) -> pa.Table:
    """What the last catalog says of files that are still the same bytes."""
    row = pc.index_in(previous["url"], value_set=ledger["url"].combine_chunks())
    is_same = pc.and_(
        pc.equal(pc.take(ledger["sha256"], row), previous["sha256"]),
        pc.and_(
            pc.equal(previous["status"], Status.OK.value),
            pc.equal(pc.take(ledger["status"], row), Status.OK.value),
        ),
    )
    return previous.filter(pc.fill_null(is_same, fill_value=False)).select(FACTS.names).cast(FACTS)


def stored_images(ledger: pa.Table, known: pa.Table) -> pa.Table:
    """The ledger's stored files whose facts are not known yet."""
    is_known = pc.is_in(ledger["url"], value_set=known["url"].combine_chunks())
    is_stored = pc.equal(ledger["status"], Status.OK.value)
    return ledger.filter(pc.and_not(is_stored, is_known)).select(["url", "path", "sha256"])


def check_file(image: StoredImage, store: Store, max_pixels: int) -> JpegFacts:
    """Check one stored file against the ledger and as a JPEG.

    Raises:
        InvalidImageError: Why it has no place in the catalog.
    """
    data = store.get(image.path)
    if data is None:
        raise InvalidImageError(
            Reason.INCOMPLETE, "its file is gone from the store; the next run fetches it again"
        )
    digest = hashlib.sha256(data).hexdigest()
    if digest != image.sha256:
        raise InvalidImageError(Reason.HASH_MISMATCH, f"the stored file was altered: its sha256 is {digest}")
    return validate_jpeg(data, max_pixels)


def _check_all(
    images: pa.Table,
    store: Store,
    max_pixels: int,
    threads: int,
    on_progress: Callable[[int, int], None],
) -> Iterator[dict[str, object]]:
    """A row of FACTS for each file. The decoders release the GIL, so threads use all cores."""

    def check(image: StoredImage) -> dict[str, object]:
        try:
            facts = check_file(image, store, max_pixels)
        except InvalidImageError as error:
            return {
                "url": image.url,
                "status": error.reason.status.value,
                "reason": error.reason.value,
                "detail": error.detail,
            }
        return {"url": image.url, "status": Status.OK.value, **asdict(facts)}

    rows = (
        StoredImage(**row)
        for batch in images.to_batches(max_chunksize=BATCH_ROWS)
        for row in batch.to_pylist()
    )
    with ThreadPoolExecutor(threads, thread_name_prefix="validate") as executor:
        for number, facts in enumerate(_mapped(executor, check, rows, threads * 4), start=1):
            on_progress(number, images.num_rows)
            yield facts


def _mapped(
    executor: ThreadPoolExecutor,
    function: Callable[[StoredImage], dict[str, object]],
    items: Iterable[StoredImage],
    ahead: int,
) -> Iterator[dict[str, object]]:
    """As `executor.map`, but with a few items at a time, so that memory stays flat."""
    items = iter(items)
    futures: deque[Future[dict[str, object]]] = deque(
        executor.submit(function, item) for item in islice(items, ahead)
    )
    try:
        while futures:
            yield futures.popleft().result()
            futures.extend(executor.submit(function, item) for item in islice(items, 1))
    finally:
        for future in futures:
            future.cancel()


def _facts_table(rows: Iterator[dict[str, object]]) -> pa.Table:
    batches = []
    while batch := list(islice(rows, BATCH_ROWS)):
        batches.append(pa.RecordBatch.from_pylist(batch, schema=FACTS))
    return pa.Table.from_batches(batches, schema=FACTS)


def discard_invalid(ledger: Ledger, store: Store, checked: pa.Table) -> None:
    """Write the verdict on files that are no whole JPEG to the ledger, then delete them."""
    invalid = checked.filter(pc.not_equal(checked["status"], Status.OK.value))
    if not invalid.num_rows:
        return
    row = pc.index_in(invalid["url"], value_set=ledger.table["url"].combine_chunks())
    rows = ledger.table.take(row)
    replaced = {
        **{name: invalid[name] for name in ("status", "reason", "detail")},
        **{name: pa.nulls(rows.num_rows, DOWNLOADS.field(name).type) for name in _OF_A_STORED_FILE},
    }
    for name, column in replaced.items():
        rows = rows.set_column(rows.schema.get_field_index(name), DOWNLOADS.field(name), column)
    paths = ledger.table.take(row)["path"].to_pylist()
    ledger.replace(rows)
    store.delete(paths)


_OF_A_STORED_FILE = ("path", "sha256", "bytes", "etag", "last_modified", "fetched_at")


def assemble(links: pa.Table, ledger: pa.Table, facts: pa.Table, previous: pa.Table) -> pa.Table:
    """The catalog's rows: the listed links in their order, then those that are listed no more, in theirs.

    Args:
        links: As LINKS.
        ledger: As DOWNLOADS; a link that was not tried yet has no row in it, and gets none.
        facts: As FACTS.
        previous: The last catalog.
    """
    ledger = _in_listed_order(ledger, links, previous)
    url = ledger["url"].combine_chunks()
    listed, known, before = (
        table.take(pc.index_in(url, value_set=table["url"].combine_chunks()))
        for table in (links, facts, previous)
    )
    columns = {name: ledger[name] for name in DOWNLOADS.names}
    columns |= {name: known[name] for name in JpegFacts.__dataclass_fields__}
    columns["duplicate_of"] = _duplicate_of(url, ledger["sha256"].combine_chunks())
    columns["attributes"] = pc.coalesce(listed["attributes"], before["attributes"], "{}")
    columns["first_seen"] = pc.coalesce(before["first_seen"], listed["listed_at"], ledger["tried_at"])
    columns["last_seen"] = pc.coalesce(listed["listed_at"], before["last_seen"], ledger["tried_at"])
    return pa.table({name: columns[name] for name in CATALOG.names}).cast(CATALOG)


def _in_listed_order(ledger: pa.Table, links: pa.Table, previous: pa.Table) -> pa.Table:
    places = {
        name: pc.index_in(ledger["url"], value_set=table["url"].combine_chunks())
        for name, table in (("listed", links), ("before", previous))
    }
    by_place = [("listed", "ascending"), ("before", "ascending")]  # nulls go to the end
    return ledger.take(pc.sort_indices(pa.table(places), sort_keys=by_place))


def _duplicate_of(url: pa.Array, sha256: pa.Array) -> pa.Array:
    """For each stored file, the url of the first with the same bytes; null for that first one."""
    first = pc.index_in(sha256, value_set=sha256)
    is_copy = pc.and_(pc.is_valid(sha256), pc.not_equal(first, pa.array(range(len(url)), pa.int32())))
    return pc.if_else(is_copy, pc.take(url, first), pa.scalar(None, pa.string()))
