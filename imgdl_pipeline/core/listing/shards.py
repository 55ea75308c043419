"""Fetch the list of a very large gallery from its source, and replace the lists of its shards with it."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone

import pyarrow as pa

from imgdl_pipeline.core.listing.build import (
    LIST_TIMEOUT_S,
    LISTED_AT,
    ask_for_a_contact,
    check_empty,
    listing_within,
    warn_of_cuts,
)
from imgdl_pipeline.core.listing.places import Places, checked_places
from imgdl_pipeline.core.listing.split import Split, split
from imgdl_pipeline.core.model.links import Link
from imgdl_pipeline.core.model.settings import CONTACT_HOSTS, DownloadSettings, SourceSettings
from imgdl_pipeline.core.sources import SourceClient, list_links
from imgdl_pipeline.core.storage.layout import (
    catalog_path,
    is_shard,
    links_path,
    shard_name,
    whole_gallery,
)
from imgdl_pipeline.core.storage.lease import Lease
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.store import Store


@dataclass(frozen=True, slots=True)
class ShardsListed:
    """The result of listing a very large gallery.

    Args:
        split: How its links were divided.
        warnings: What limits the list, or what its source left out.
        seconds: How long it took.
    """

    split: Split
    warnings: tuple[str, ...]
    seconds: float

    @property
    def links(self) -> tuple[int, ...]:
        """Distinct links by shard."""
        return self.split.links


def list_shards(
    gallery: str,
    source: SourceSettings,
    store: Store,
    settings: DownloadSettings,
    shards: int,
    *,
    allow_empty: bool = False,
    list_timeout: float = LIST_TIMEOUT_S,
    trusts_source: bool = True,
    environ: Mapping[str, str] = os.environ,
) -> ShardsListed:
    """Fetch the links of a gallery's source, and store them as the lists of its shards.

    The old lists are kept if the source fails on any page, or if it suddenly lists nothing. Memory does not
    grow with the number of links.

    Args:
        gallery: The gallery's own name.
        source: The settings of the gallery's source.
        store: The store of the gallery's files.
        settings: The download settings for the source's requests.
        shards: The number of shards.
        allow_empty: Let an empty list replace one that had links.
        list_timeout: Seconds that the source may take, whatever it does; dividing its links comes after that.
        trusts_source: Whether the source may be at a private address, on this disk, or another program.
        environ: The environment variables that secrets are read from.

    Raises:
        SourceError: The source failed, took too long, or lists nothing although it listed links before.
        MissingSecretError: The source needs an environment variable that is not set.
        ReshardError: The gallery has another number of shards in the store.
        GalleryBusyError: Another run is listing the gallery.
        StoreError: A list could not be stored.
    """
    started = datetime.now(timezone.utc)
    client = SourceClient(settings, environ, seconds=list_timeout, trusts_source=trusts_source)

    def listing(spool: Callable[[], int]) -> int:
        with client:
            given = listing_within(list_timeout, client, spool)
        if not given:
            check_empty(gallery, client, _before(store, gallery, shards), allow_empty=allow_empty)
        return given

    def links() -> Iterator[Link]:
        try:
            yield from list_links(source, client)
        except (AttributeError, TypeError, ValueError) as error:  # another package's source gives no links
            raise client.unexpected(error) from error

    if store.metadata(links_path(gallery)) is not None:
        raise StoreError(f"{store.root} has a gallery {gallery} without shards: give this one another name")
    with Lease(store, gallery):
        made = split(gallery, store, links(), shards, started, listing)
    warn_of_cuts(gallery, client, made.cut)
    if settings.user_agent is None and any(map(_asks_for_a_contact, made.hosts)):
        ask_for_a_contact(gallery)
    seconds = (datetime.now(timezone.utc) - started).total_seconds()
    return ShardsListed(made, tuple(client.warnings), seconds)


def _asks_for_a_contact(host: str) -> bool:
    name = host.partition(":")[0]
    return any(name == each or name.endswith(f".{each}") for each in CONTACT_HOSTS)


def _before(store: Store, gallery: str, shards: int) -> pa.Table | None:
    """Return the column `listed_at` of all lists so far, or None before the first."""
    paths = (links_path(shard_name(gallery, number)) for number in range(shards))
    tables = [table for path in paths if (table := store.read_table(path, LISTED_AT)) is not None]
    return pa.concat_tables(tables) if tables else None


def shard_places(store: Store, gallery: str, shards: int | None = None) -> Places:
    """Return where the links of a gallery's hosts are.

    Args:
        store: The store of the gallery's files.
        gallery: The gallery's own name.
        shards: The number of shards that it must have; None for any.

    Raises:
        ReshardError: The gallery has another number of shards, or is being given one.
        StoreError: Its list was not split yet.
    """
    places = checked_places(store, gallery, shards)
    if places is None:
        raise StoreError(
            f"{gallery} has no shards in {store.root}: materialize gallery_list first, "
            f"as `imgdl run {gallery}` does"
        )
    return places


def hosts_spread(store: Store, name: str, shards: int | None = None) -> dict[str, int]:
    """Return the hosts whose links are in several shards, and in how many; none for a gallery without shards.

    Args:
        store: The store of the gallery's files.
        name: The name of a gallery or shard.
        shards: The number of shards that a shard's gallery must have; None for any.

    Raises:
        ReshardError: The gallery has another number of shards, or is being given one.
        StoreError: Its list was not split yet.
    """
    return shard_places(store, whole_gallery(name), shards).spread_hosts() if is_shard(name) else {}


def shards_with_work(store: Store, gallery: str, shards: int | None = None) -> dict[int, datetime]:
    """Return the shards whose list is newer than their catalog, and when each list was written.

    Args:
        store: The store of the gallery's files.
        gallery: The gallery's own name.
        shards: The number of shards; None for as many as the store has.

    Raises:
        ReshardError: The gallery is being given another number of shards; not raised if that is named.
        StoreError: The store failed, or has no list of the gallery and no number of shards is named.
    """
    shards = shard_places(store, gallery).shards if shards is None else shards
    written = {
        file.path: file.modified
        for path in (links_path, catalog_path)
        for file in store.list(path(gallery).rpartition("/")[0])
    }
    work = {}
    for number in range(shards):
        name = shard_name(gallery, number)
        listed, cataloged = written.get(links_path(name)), written.get(catalog_path(name))
        if listed is not None and (cataloged is None or cataloged < listed):
            work[number] = listed
    return work
