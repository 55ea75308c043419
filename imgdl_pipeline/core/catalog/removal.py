"""Remove images for good: their files, their rows' contents, and whatever was made of them."""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from imgdl_pipeline.core.model.links import Link
from imgdl_pipeline.core.model.outcome import Reason
from imgdl_pipeline.core.model.schemas import CATALOG, DOWNLOADS, columns
from imgdl_pipeline.core.model.temporary import opened_temporary
from imgdl_pipeline.core.storage.checkpoints import Checkpoints
from imgdl_pipeline.core.storage.layout import (
    REMOVED_LEASES,
    REMOVED_PATH,
    catalog_path,
    checked_path,
    checkpoints_path,
    contact_sheets_path,
    downloads_path,
    resharded_folders,
)
from imgdl_pipeline.core.storage.lease import GalleryBusyError, Lease
from imgdl_pipeline.core.storage.ledger import Ledger
from imgdl_pipeline.core.storage.parts import ReshardError, check_resharded, stored_parts
from imgdl_pipeline.core.storage.removed import REMOVED_VERDICT, Removal, Removed, with_entries
from imgdl_pipeline.core.storage.store import Store, write_batches

_KEPT = ("url", "first_seen", "last_seen", "tried_at", "attempts", "elapsed_s")
"""The columns of a row that say nothing of the picture."""


_FOUND = columns(DOWNLOADS, "url", "sha256", "path", "reason")
"""The columns of a ledger that tell what is found."""


@dataclass(frozen=True, slots=True)
class Found:
    """What one gallery, or one shard of it, has of the images to remove.

    Args:
        gallery: The gallery's name, or the shard's, such as `laion/0007`.
        urls: Their links.
        paths: Their files.
    """

    gallery: str
    urls: tuple[str, ...]
    paths: tuple[str, ...]


def removals(
    urls: Sequence[str] = (),
    sha256s: Sequence[str] = (),
    phashes: Sequence[str] = (),
    distance: int = 0,
    files: Sequence[Path] = (),
    reason: str = "",
) -> list[Removal]:
    """Return the entries that are asked for.

    Args:
        urls: Links.
        sha256s: SHA-256s of files, 64 hex digits each.
        phashes: Perceptual hashes, 16 hex digits each.
        distance: The most bits by which another picture's hash may differ.
        files: Files with a link or hash per line, or CSV files with the columns `url`, `sha256`, `phash` and
            `distance`.
        reason: Why, in words.

    Raises:
        ValueError: Nothing is asked for, there is no reason, or something is no link and no hash.
    """
    now = datetime.now(timezone.utc)
    asked: list[dict[str, Any]] = [
        *({"url": url} for url in urls),
        *({"sha256": each} for each in sha256s),
        *({"phash": each, "distance": distance} for each in phashes),
        *(row for file in files for row in _rows_of(file, distance)),
    ]
    if not asked:
        raise ValueError("name what to remove: by url, sha256 or phash, or a file of them")
    if not reason.strip():
        raise ValueError("give the reason, for whoever asks later")
    return [_entry(row, reason.strip(), now) for row in asked]


def _rows_of(file: Path, distance: int) -> Iterator[dict[str, Any]]:
    try:
        yield from _named_in(file, distance)
    except UnicodeDecodeError:
        raise ValueError(f"{file} is no text in UTF-8") from None


def _named_in(file: Path, distance: int) -> Iterator[dict[str, Any]]:
    with file.open(newline="", encoding="utf-8-sig") as lines:
        if file.suffix.lower() == ".csv":
            try:
                table = csv.DictReader(lines)
                there = list(table.fieldnames or ())
                if not set(there) & {"url", "sha256", "phash"}:
                    raise ValueError(f"{file} has no column url, sha256 or phash, but {', '.join(there)}")
                for row in table:
                    named = {key: value for key, value in row.items() if key in _NAMED and value}
                    yield {"distance": distance, **named} if "phash" in named else named
            except csv.Error as error:
                raise ValueError(f"{file}: {error}") from None
            return
        for line in map(str.strip, lines):
            if line:
                is_sha256, is_phash = (re.fullmatch(each, line) for each in (_SHA256, _PHASH))
                name = "sha256" if is_sha256 else "phash" if is_phash else "url"
                yield {name: line, **({"distance": distance} if is_phash else {})}


_NAMED = ("url", "sha256", "phash", "distance")
_SHA256, _PHASH = "[0-9A-Fa-f]{64}", "[0-9A-Fa-f]{16}"


def _entry(row: dict[str, Any], reason: str, now: datetime) -> Removal:
    """Return a row as an entry, after checking that it names one thing, in the form that the tables have."""
    [*named] = [name for name in ("url", "sha256", "phash") if row.get(name)]
    if len(named) != 1:
        raise ValueError(f"{row!r:.200}: give one of url, sha256 and phash")
    name, value = named[0], str(row[named[0]]).strip()
    if name == "url":
        if "://" not in value:
            raise ValueError(f"{value!r:.100} is no link, no SHA-256 and no perceptual hash")
        return Removal(reason, now, url=Link.from_text(value).url)
    if not re.fullmatch(_SHA256 if name == "sha256" else _PHASH, value):
        raise ValueError(f"{value!r:.100} is no {name}: give {64 if name == 'sha256' else 16} hex digits")
    if name == "sha256":
        return Removal(reason, now, sha256=value.lower())
    distance = int(row.get("distance") or 0)
    if not 0 <= distance <= 64:
        raise ValueError(f"distance must be 0 to 64, not {distance}")
    return Removal(reason, now, phash=value.lower(), distance=distance)


def would_remove(store: Store, entries: Sequence[Removal]) -> list[Found]:
    """Return what `remove` would find; nothing is changed.

    Raises:
        StoreError: The store failed.
    """
    return list(find(store, _extended(store, entries)))


def _extended(store: Store, entries: Sequence[Removal]) -> Removed:
    """Return the list with more entries, and with the bytes of the links among them."""
    removed = Removed.read(store)
    return Removed(with_entries(removed, [*entries, *_their_bytes(store, removed, entries)]))


def find(store: Store, removed: Removed) -> Iterator[Found]:
    """Yield what each gallery or shard still has of what a list names; nothing is changed.

    Raises:
        StoreError: The store failed.
    """
    for part in chain.from_iterable(stored_parts(store).values()):
        yield from found_in(part, removed, [*ledgers_of(store, part, _FOUND), *_catalogs_of(store, part)])


def found_in(name: str, removed: Removed, tables: Sequence[pa.Table]) -> Iterator[Found]:
    """Yield what tables still have of what a list names, under a name; nothing if they have nothing."""
    left = [table.filter(pc.and_(removed.rows_of(table), _is_left(table))) for table in tables]
    urls = dict.fromkeys(url for table in left for url in table["url"].to_pylist())
    paths = dict.fromkeys(path for table in left for path in table["path"].drop_null().to_pylist())
    if urls:
        yield Found(name, tuple(urls), tuple(paths))


def _is_left(table: pa.Table) -> pa.ChunkedArray:
    """Return for each row whether it is no tombstone yet."""
    return pc.fill_null(pc.not_equal(table["reason"], Reason.REMOVED.value), fill_value=True)


def remove(store: Store, entries: Sequence[Removal]) -> list[Found]:
    """Put entries on the list, and remove everything of all galleries that the list names.

    The list is written first: from then on, no run keeps or asks for what it names. If this is interrupted,
    call it again; it also removes what earlier entries name.

    Args:
        store: The store of all galleries' files.
        entries: What to remove, besides what is on the list already.

    Returns:
        What each gallery or shard had.

    Raises:
        GalleryBusyError: A run is at work on a gallery or shard, or a gallery is between two numbers of
            shards. The list is written, and the others are done.
        StoreError: The store failed.
    """
    with Lease(store, "the list of removed images", folder=REMOVED_LEASES):
        removed = _extended(store, entries)
        store.write_table(REMOVED_PATH, removed.table)
    found, busy = list(find(store, removed)), []
    for each in found:
        try:
            _remove_from(store, each.gallery, removed)
        except (GalleryBusyError, ReshardError) as error:
            busy.append(str(error))
    for gallery, parts in stored_parts(store).items():
        busy += _delete_unfinished(store, gallery) if parts != (gallery,) else ()
    if busy:
        raise GalleryBusyError("; ".join(busy))
    return found


def _delete_unfinished(store: Store, gallery: str) -> Iterator[str]:
    """Delete what `reshard` has left if it changed nothing before it was interrupted; yield why it stays."""
    folders = resharded_folders(gallery)
    if not any(True for folder in folders for _ in store.list(folder)):
        return
    try:
        with Lease(store, gallery):
            check_resharded(store, gallery)
            for folder in folders:
                store.delete_folder(folder)
    except (GalleryBusyError, ReshardError) as error:
        yield str(error)


def _their_bytes(store: Store, removed: Removed, entries: Sequence[Removal]) -> Iterator[Removal]:
    """Yield an entry for the bytes that a removed link has, so that no copy of them stays elsewhere."""
    reasons = {each.url: each for each in entries if each.url is not None}
    if not reasons:
        return
    wanted = pa.array(list(reasons), pa.string())
    for part in chain.from_iterable(stored_parts(store).values()):
        for ledger in ledgers_of(store, part, _FOUND):
            has_bytes = pc.and_(pc.is_in(ledger["url"], value_set=wanted), pc.is_valid(ledger["sha256"]))
            for row in ledger.filter(has_bytes).select(["url", "sha256"]).to_pylist():
                if not removed.names("", row["sha256"]):
                    yield replace(reasons[row["url"]], url=None, sha256=row["sha256"])


def _remove_from(store: Store, gallery: str, removed: Removed) -> None:
    """Remove what the list names from one gallery: files first, then the contents of the rows."""
    with Ledger(store, gallery) as ledger:
        tables = [ledger.select(["url", "sha256", "path"]), *_catalogs_of(store, gallery)]
        named = pa.concat_tables(
            table.filter(removed.rows_of(table)).select(["url", "path"]) for table in tables
        )
        urls, has_catalog = named["url"].combine_chunks(), len(tables) > 1
        del tables
        store.delete(sorted(set(named["path"].drop_null().to_pylist())))
        for folder in (checked_path(gallery), contact_sheets_path(gallery)):
            store.delete([file.path for file in store.list(folder)])
        is_named = pc.is_in(ledger.select(["url"])["url"], value_set=urls).to_numpy()
        ledger.replace(_without_pictures(ledger.filter(is_named), urls))
        if has_catalog:  # last: it alone has the hashes by which a picture is found again
            batches = store.batches(catalog_path(gallery), CATALOG)
            with opened_temporary() as file:
                write_batches(file, CATALOG, (_without_pictures(each, urls) for each in batches))
                store.write_file(catalog_path(gallery), file)


def _without_pictures(table: pa.Table, urls: pa.Array) -> pa.Table:
    """Return a table in which the rows of some links are tombstones, which hold nothing of the picture."""
    gone, is_removed = {"attributes": "{}", **REMOVED_VERDICT}, pc.is_in(table["url"], value_set=urls)
    for place, field in enumerate(table.schema):
        if field.name not in _KEPT:
            value = pa.scalar(gone.get(field.name), field.type)
            column = pc.if_else(is_removed, value, table[field.name])
            table = table.set_column(place, field, column)
    if "duplicate_of" in table.schema.names:
        is_copy = pc.is_in(table["duplicate_of"], value_set=urls)
        place = table.schema.get_field_index("duplicate_of")
        column = pc.if_else(is_copy, pa.scalar(None, pa.string()), table["duplicate_of"])
        table = table.set_column(place, table.schema.field(place), column)
    return table


def ledgers_of(store: Store, part: str, schema: pa.Schema = DOWNLOADS) -> list[pa.Table]:
    """Return the ledger of a gallery or shard, and what killed runs left of theirs."""
    ledger = store.read_table(downloads_path(part), schema)
    left = list(Checkpoints(store, checkpoints_path(part), DOWNLOADS).tables(schema))
    return left if ledger is None else [ledger, *left]


SEEN = pa.schema(
    [CATALOG.field(name) for name in ("url", "status", "reason", "path", "sha256", "phash")],
    metadata=CATALOG.metadata,
)


def _catalogs_of(store: Store, part: str) -> list[pa.Table]:
    """Return the columns SEEN of the catalog of a gallery or shard, if there is one."""
    catalog = store.read_table(catalog_path(part), SEEN)
    return [] if catalog is None else [catalog]
