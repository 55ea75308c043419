"""Give a gallery another number of shards: its rows move between files, and its images stay where they are.

The new files are written beside the old ones, and then take their places. What is interrupted before that has
changed nothing; what is interrupted later is completed by another call with the same number, and nothing else
works on the gallery until then.
"""

from collections.abc import Callable, Iterable
from contextlib import ExitStack

import pyarrow as pa

from imgdl_pipeline.core.listing.build import unseen_links
from imgdl_pipeline.core.listing.split import (
    Places,
    ReshardError,
    count_hosts,
    divided,
    pieces_of,
    place_hosts,
)
from imgdl_pipeline.core.model.schemas import CATALOG, DOWNLOADS, LINKS, columns
from imgdl_pipeline.core.model.temporary import opened_temporary
from imgdl_pipeline.core.storage.layout import (
    MOST_SHARDS,
    catalog_path,
    checked_path,
    contact_sheets_path,
    downloads_path,
    links_path,
    resharded_path,
    resharding_path,
    shard_name,
    shards_path,
    unseen_links_path,
)
from imgdl_pipeline.core.storage.ledger import Ledger
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.store import Store, write_batches

TABLES: tuple[tuple[Callable[[str], str], pa.Schema], ...] = (
    (links_path, LINKS),
    (downloads_path, DOWNLOADS),
    (catalog_path, CATALOG),
)


def reshard(store: Store, gallery: str, shards: int) -> Places:
    """Divide a gallery's rows into another number of shards, and return the new places of its hosts.

    Args:
        store: The store of the gallery's files.
        gallery: The gallery's own name.
        shards: The number of shards from now on.

    Raises:
        ValueError: The number is not from 1 to `MOST_SHARDS`.
        ReshardError: An earlier call with another number was interrupted.
        GalleryBusyError: A run is at work on one of the shards.
        StoreError: The gallery has no shards, or the store failed.
    """
    if not 1 <= shards <= MOST_SHARDS:
        raise ValueError(f"a gallery has 1 to {MOST_SHARDS} shards, not {shards}")
    before, under_way = Places.read(store, gallery), store.get(resharding_path(gallery))
    if before is None:
        raise StoreError(f"{gallery} has no shards in {store.root}")
    if under_way not in (None, str(shards).encode()):
        raise ReshardError(f"finish `imgdl reshard {gallery} {(under_way or b'').decode()}` first")
    with ExitStack() as leases:
        if under_way is None:
            for name in _names(gallery, before.shards):  # which merges what killed runs left, too
                leases.enter_context(Ledger(store, name))
            _write_beside(store, gallery, before.shards, shards)
            store.put(resharding_path(gallery), str(shards).encode())
    return _finish(store, gallery, before.shards, shards)


def _names(gallery: str, shards: int) -> list[str]:
    return [shard_name(gallery, number) for number in range(shards)]


def _new_places(store: Store, gallery: str, before: int, shards: int) -> Places:
    """Place all hosts as for a first list; the same lists give the same places."""
    url = columns(LINKS, "url")
    places = Places(shards, is_resharded=True)
    counts = count_hosts(
        batch for name in _names(gallery, before) for batch in store.batches(links_path(name), url)
    )
    place_hosts(places, counts, is_new=True)
    return places


def _write_beside(store: Store, gallery: str, before: int, shards: int) -> None:
    places, names = _new_places(store, gallery, before, shards), _names(gallery, before)
    for path_of, schema in TABLES:
        rows = (batch for name in names for batch in store.batches(path_of(name), schema))
        _divide(store, gallery, rows, places, path_of, schema)
    unseen = (batch for name in names for batch in unseen_links(store, name).batches())
    _divide(store, gallery, unseen, places, _unseen_file, LINKS)
    store.put(resharded_path(shards_path(gallery)), places.text())


def _unseen_file(name: str) -> str:
    return f"{unseen_links_path(name)}.parquet"


def _divide(
    store: Store,
    gallery: str,
    rows: Iterable[pa.Table],
    places: Places,
    path_of: Callable[[str], str],
    schema: pa.Schema,
) -> None:
    """Write rows to the files of their new shards, beside the files of now."""
    with opened_temporary() as pieces:
        offsets = divided(rows, places, pieces)
        for name, each in zip(_names(gallery, places.shards), offsets, strict=True):
            with opened_temporary() as file:
                write_batches(file, schema, pieces_of(pieces, each, schema))
                store.write_file(resharded_path(path_of(name)), file)


_CARRIED_OVER = "000000-0.parquet"


def _finish(store: Store, gallery: str, before: int, shards: int) -> Places:
    """Move the new files to their places, and delete what belongs to shards as they were."""
    for name in _names(gallery, max(before, shards)):
        carried = f"{unseen_links_path(name)}/{_CARRIED_OVER}"
        for folder in (checked_path(name), contact_sheets_path(name), unseen_links_path(name)):
            store.delete([file.path for file in store.list(folder) if file.path != carried])
        store.move(resharded_path(_unseen_file(name)), carried)
        for path_of, _ in TABLES:
            store.move(resharded_path(path_of(name)), path_of(name))
    for name in _names(gallery, before)[shards:]:
        store.delete([path_of(name) for path_of, _ in TABLES])
    store.move(resharded_path(shards_path(gallery)), shards_path(gallery))
    store.delete([resharding_path(gallery)])
    places = Places.read(store, gallery)
    assert places is not None  # noqa: S101 -- it has just been written
    return places
