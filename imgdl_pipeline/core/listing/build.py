"""Fetch a gallery's link list from its source, and replace the previous list with it."""

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import IO, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from imgdl_pipeline.core.http.deadline import Cancelled
from imgdl_pipeline.core.listing.within import Interrupted, call_within
from imgdl_pipeline.core.model.digest import TableDigest
from imgdl_pipeline.core.model.links import ATTRIBUTES_CHARS, DistinctLinks, TooLargeError
from imgdl_pipeline.core.model.schemas import CATALOG, LINKS, columns
from imgdl_pipeline.core.model.settings import CONTACT_HOSTS, DownloadSettings, SourceSettings
from imgdl_pipeline.core.model.temporary import needing_room, opened_temporary
from imgdl_pipeline.core.sources import SourceClient, SourceError, Unchanged, list_links
from imgdl_pipeline.core.storage.checkpoints import Checkpoints
from imgdl_pipeline.core.storage.layout import (
    catalog_path,
    is_shard,
    links_path,
    unseen_links_path,
    validators_path,
)
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.parts import is_sharded
from imgdl_pipeline.core.storage.store import Store, parquet_writer, write_batches
from imgdl_pipeline.core.storage.table_file import TableFile

logger = logging.getLogger(__name__)

T = TypeVar("T")

LIST_TIMEOUT_S = 3600.0
"""How long a source may take by default, in seconds."""

LISTED = pa.schema([LINKS.field("url"), LINKS.field("listed_at")], metadata=LINKS.metadata)
LISTED_AT = pa.schema([LINKS.field("listed_at")], metadata=LINKS.metadata)
"""The column that is read of most old lists, enough for their length and time."""

WARNINGS = b"imgdl_pipeline.warnings"
"""The key in the metadata of a returned list for what limits it."""

DIGEST = b"imgdl_pipeline.digest"
"""The key in the metadata of a returned list for the digest of its links and their attributes."""

DIGESTED = ("url", "attributes")
"""The columns of a list that its digest depends on."""

LENGTH_BEFORE = b"imgdl_pipeline.links_before"
"""The key in a list's metadata for the number of links in the list before it."""

NEVER = datetime.min.replace(tzinfo=timezone.utc)

ABANDONED_S = 60.0
"""Seconds after which a half-written list counts as abandoned; lists are written without a lease."""


def list_gallery(
    gallery: str,
    source: SourceSettings,
    store: Store,
    settings: DownloadSettings,
    *,
    allow_empty: bool = False,
    list_timeout: float = LIST_TIMEOUT_S,
    trusts_source: bool = True,
    environ: Mapping[str, str] = os.environ,
) -> pa.Table:
    """Fetch the links of a gallery's source, and store them.

    The old list is kept if the source fails on any page, or if it suddenly lists nothing. If the source
    reports that nothing has changed, only the list's time is updated.

    Args:
        gallery: The gallery's name.
        source: The settings of the gallery's source.
        store: The store of the gallery's files.
        settings: The download settings for the source's requests.
        allow_empty: Let an empty list replace one that had links.
        list_timeout: Seconds that the source may take, whatever it does.
        trusts_source: Whether the source may be at a private address, on this disk, or another program.
        environ: The environment variables that secrets are read from.

    Returns:
        The columns `url` and `listed_at` of the list; `read_links` reads all of them.

    Raises:
        SourceError: The source failed, took too long, or lists nothing although it listed links before.
        MissingSecretError: The source needs an environment variable that is not set.
        StoreError: The list could not be stored.
    """
    path, now = links_path(gallery), datetime.now(timezone.utc)
    if is_sharded(store, gallery):
        raise StoreError(
            f"{store.root} has the shards of a very large gallery {gallery}: give this one another name"
        )
    before = store.read_table(path, LISTED_AT)
    known = _known_validators(gallery, source, store, before)
    client = SourceClient(
        settings, environ, validators=known, seconds=list_timeout, trusts_source=trusts_source
    )
    length_before = {} if before is None else {LENGTH_BEFORE: str(before.num_rows).encode()}
    with opened_temporary() as file:

        def write() -> str:
            try:
                return _write_list(gallery, source, client, now, length_before, file)
            except Unchanged:
                file.seek(0)
                file.truncate()
                return _write_again(store, gallery, now, length_before, file)

        with client:
            digest = listing_within(list_timeout, client, write)
        file.seek(0)
        links = pq.read_table(file, columns=LISTED.names)
        if settings.user_agent is None:
            _ask_for_a_contact(gallery, links)
        if not links.num_rows:
            check_empty(gallery, client, before, allow_empty=allow_empty)
        store.sweep(path.rpartition("/")[0], older_than_s=ABANDONED_S)
        keep_unseen(store, gallery, before, links)
        store.write_file(path, file)
    if client.validators:
        _keep_validators(gallery, source, store, client.validators, links)
    said = {WARNINGS: json.dumps(client.warnings).encode(), DIGEST: digest.encode()}
    return links.replace_schema_metadata({**(links.schema.metadata or {}), **said})


def list_warnings(links: pa.Table) -> list[str]:
    """Return what limits a list that `list_gallery` has returned, or what its source left out."""
    words: list[str] = json.loads((links.schema.metadata or {}).get(WARNINGS, b"[]"))
    return words


def list_digest(links: pa.Table) -> str:
    """Return the digest of a list that `list_gallery` has returned: the same for the same links."""
    digest: bytes = (links.schema.metadata or {}).get(DIGEST, b"")
    return digest.decode()


def listing_within(list_timeout: float, client: SourceClient, write: Callable[[], T]) -> T:
    """Call a function that takes a source's links, for so many seconds at most.

    Raises:
        SourceError: The source failed, took too long, or has too many links.
    """
    try:
        return call_within(list_timeout, client.stop, write)
    except (TimeoutError, Cancelled, Interrupted):
        raise SourceError(
            f"the source did not list its links within {list_timeout:g} s; list_timeout allows more"
        ) from None
    except TooLargeError as error:
        raise SourceError(f"the list is too large: {error}") from None


def _write_list(
    gallery: str,
    source: SourceSettings,
    client: SourceClient,
    now: datetime,
    metadata: dict[bytes, bytes],
    file: IO[bytes],
) -> str:
    """Write a source's links to a Parquet file as they come, and return their digest."""
    distinct, digest = DistinctLinks(now), TableDigest(*DIGESTED)
    schema = LINKS.with_metadata({**LINKS.metadata, **metadata})
    with parquet_writer(file, schema) as writer:
        try:
            for batch in distinct.batches(list_links(source, client)):
                digest.update(batch)
                with needing_room():
                    writer.write_batch(batch.replace_schema_metadata(schema.metadata))
        except (AttributeError, TypeError, ValueError) as error:  # another package's source gives no links
            raise client.unexpected(error) from error
    warn_of_cuts(gallery, client, distinct.cut)
    return digest.hex()


def warn_of_cuts(gallery: str, client: SourceClient, cut: int) -> None:
    """Note in a list's warnings that some links' attributes were too long."""
    if cut:
        client.warn(
            f"{gallery}: {cut} links have attributes of more than {ATTRIBUTES_CHARS} characters "
            "(ATTRIBUTES_CHARS); their long texts are cut, or all of them left out"
        )


def _ask_for_a_contact(gallery: str, links: pa.Table) -> None:
    hosts = "|".join(re.escape(host) for host in CONTACT_HOSTS)
    asking = pc.match_substring_regex(links["url"], rf"^\w+://([^/?#]*\.)?({hosts})([:/?#]|$)")
    if pc.any(asking).as_py():
        ask_for_a_contact(gallery)


def ask_for_a_contact(gallery: str) -> None:
    """Log that hosts of a list want to know whom to write to."""
    logger.warning(
        "%s: Wikimedia's hosts ask for a contact in the User-Agent; set download.user_agent, "
        "as in my-gallery/1.0 (me@example.org)",
        gallery,
    )


def unseen_links(store: Store, gallery: str) -> Checkpoints:
    """Return the saved links that left the list before a catalog included them; the next catalog does.

    Raises:
        StoreError: The saved links could not be listed.
    """
    return Checkpoints(store, unseen_links_path(gallery), LINKS)


def keep_unseen(store: Store, gallery: str, before: pa.Table | None, links: pa.Table) -> None:
    """Save the links of a list that no catalog has read if neither the new list nor the catalog has them.

    Args:
        store: The store of the gallery's files.
        gallery: The gallery's name.
        before: The column `listed_at` of its list so far.
        links: The column `url` of the list that replaces it.
    """
    listed_at = _time_of(before)
    if listed_at is None:
        return
    last_seen = _catalog_column(store, gallery, "last_seen")
    if (pc.max(last_seen).as_py() or NEVER) >= listed_at:
        return
    with open_links(store, gallery) as old, store.reading(links_path(gallery)):
        is_lost = _is_lost(old.read(columns(LINKS, "url"))["url"], links, store, gallery)
        if is_lost.any():
            kept, start = unseen_links(store, gallery), 0
            for batch in old.batches(LINKS):
                lost = batch.filter(pa.array(is_lost[start : start + batch.num_rows]))
                start += batch.num_rows
                if lost.num_rows:
                    kept.add(lost)


def _is_lost(urls: pa.ChunkedArray, links: pa.Table, store: Store, gallery: str) -> npt.NDArray[np.bool_]:
    """Return for each link whether the new list or the catalog lacks it."""
    is_known = pc.is_in(urls, value_set=_catalog_column(store, gallery, "url"))
    is_lost: npt.NDArray[np.bool_] = pc.invert(
        pc.and_(is_known, pc.is_in(urls, value_set=links["url"]))
    ).to_numpy()
    return is_lost


def _catalog_column(store: Store, gallery: str, name: str) -> pa.ChunkedArray:
    """Return a column of the last catalog, empty if there is no catalog."""
    schema = columns(CATALOG, name)
    catalog = store.read_table(catalog_path(gallery), schema)
    return (schema.empty_table() if catalog is None else catalog)[name]


def _write_again(
    store: Store, gallery: str, now: datetime, metadata: dict[bytes, bytes], file: IO[bytes]
) -> str:
    """Write the links of the last list to a Parquet file as those of today's, and return their digest."""
    digest = TableDigest(*DIGESTED)
    place, listed_at = LINKS.get_field_index("listed_at"), pa.scalar(now, LINKS.field("listed_at").type)
    with open_links(store, gallery) as old, store.reading(links_path(gallery)):

        def listed_again() -> Iterator[pa.Table]:
            for batch in old.batches(LINKS):
                digest.update(batch)
                column = pa.repeat(listed_at, batch.num_rows)
                yield batch.set_column(place, LINKS.field("listed_at"), column)

        write_batches(file, LINKS.with_metadata({**LINKS.metadata, **metadata}), listed_again())
    return digest.hex()


def _known_validators(
    gallery: str, source: SourceSettings, store: Store, before: pa.Table | None
) -> dict[str, dict[str, str]]:
    """Return the ETags that belong to exactly this source and list; they are not valid for any other."""
    try:
        kept = json.loads(store.get(validators_path(gallery)) or b"{}")
        documents: dict[str, dict[str, str]] = kept["documents"]
        return documents if kept["of"] == _identity(source, before) else {}
    except (ValueError, KeyError, TypeError):
        return {}


def _keep_validators(
    gallery: str,
    source: SourceSettings,
    store: Store,
    documents: dict[str, Mapping[str, str]],
    links: pa.Table,
) -> None:
    """Save the ETags after the list is stored: a list older than its ETags would never be updated."""
    kept = {"of": _identity(source, links), "documents": documents}
    store.put(validators_path(gallery), json.dumps(kept).encode())


def _identity(source: SourceSettings, links: pa.Table | None) -> str:
    """Return a digest that identifies a source and its list; a source's keys may hold secrets."""
    return hashlib.sha256(f"{source.model_dump_json()} {_time_of(links)}".encode()).hexdigest()


def _time_of(links: pa.Table | None) -> datetime | None:
    """Return when a list was made, or None if there is no list or it is empty."""
    listed_at: datetime | None = (
        links["listed_at"][0].as_py() if links is not None and links.num_rows else None
    )
    return listed_at


@dataclass(frozen=True, slots=True)
class Lengths:
    """The number of links in a list and in the list before it; `before` is None for the first list."""

    now: int
    before: int | None

    @property
    def lost(self) -> float:
        """Return the share of the earlier list by which this one is shorter; 0 if it is not shorter."""
        return max(0.0, 1 - self.now / self.before) if self.before else 0.0


def lengths(store: Store, gallery: str) -> Lengths:
    """Return the lengths of a gallery's last two lists.

    Raises:
        StoreError: There is no list yet, or it could not be read.
    """
    links = read_links(store, gallery, LISTED_AT)
    before = (store.metadata(links_path(gallery)) or {}).get(LENGTH_BEFORE)
    return Lengths(links.num_rows, None if before is None else int(before))


def check_empty(gallery: str, client: SourceClient, before: pa.Table | None, *, allow_empty: bool) -> None:
    """Reject an empty list that replaces links, because it is usually a failure of the source.

    Args:
        gallery: The gallery's name.
        client: The client that the source was listed with; it gets a warning if the source had entries.
        before: The column `listed_at` of the list so far.
        allow_empty: Whether an empty list may replace one that had links.

    Raises:
        SourceError: There were links before, and the gallery does not allow an empty list.
    """
    if client.entries:
        client.warn(f"{gallery}: the source has {client.entries} entries, and 0 of them give a link")
    listed_at = _time_of(before)
    if before is None or listed_at is None:
        logger.warning("%s: the source lists nothing", gallery)
        return
    earlier = f"{before.num_rows} links on {listed_at:%Y-%m-%d}"
    words = f"{gallery}: the source lists nothing, and listed {earlier}"
    if not allow_empty:
        raise SourceError(f"{words}; the old list stays, unless the gallery has allow_empty: true")
    logger.warning("%s; the list is empty now, as allow_empty lets it be", words)


def read_links(store: Store, gallery: str, schema: pa.Schema = LINKS) -> pa.Table:
    """Return the gallery's link list, or some of its columns.

    Raises:
        StoreError: There is no list yet.
    """
    with open_links(store, gallery) as links, store.reading(links_path(gallery)):
        return links.read(schema)


def open_links(store: Store, gallery: str) -> TableFile:
    """Open the gallery's link list for a `with` block, in which another list may replace it.

    Raises:
        StoreError: There is no list yet.
    """
    links = store.open_table(links_path(gallery))
    if links is None:
        asset = "gallery_list" if is_shard(gallery) else "gallery_links"
        raise StoreError(f"{store.location(links_path(gallery))} does not exist: materialize {asset} first")
    return links
