"""Give a gallery another number of shards: its rows move between files, and its images stay where they are.

The new files are written beside the old ones, and then take their places. What is interrupted before that has
changed nothing; what is interrupted later is completed by another call with the same number, and nothing else
works on the gallery until then.

Datasets of shards that are gone are deleted: other shards have their rows now. The datasets of all other
shards are as they were until their next run.
"""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass

import pyarrow as pa

from imgdl_pipeline.core.listing.build import unseen_links
from imgdl_pipeline.core.listing.divide import divided, pieces_of, shards_of
from imgdl_pipeline.core.listing.places import Places, count_hosts, place_hosts
from imgdl_pipeline.core.model.schemas import CATALOG, DOWNLOADS, LINKS, columns
from imgdl_pipeline.core.model.temporary import opened_temporary
from imgdl_pipeline.core.storage.layout import (
    MOST_SHARDS,
    TABLE_FOLDERS,
    catalog_path,
    checked_path,
    contact_sheets_path,
    dataset_draft_path,
    dataset_path,
    downloads_path,
    links_path,
    owner_of,
    replaced_dataset_path,
    resharded_folders,
    resharded_path,
    resharding_path,
    shard_name,
    shards_path,
    unseen_links_path,
)
from imgdl_pipeline.core.storage.lease import Lease, dataset_lease
from imgdl_pipeline.core.storage.ledger import Ledger
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.parts import ReshardError, parts_of
from imgdl_pipeline.core.storage.store import Store, write_batches

TABLES: tuple[tuple[Callable[[str], str], pa.Schema], ...] = (
    (catalog_path, CATALOG),
    (downloads_path, DOWNLOADS),
    (links_path, LINKS),
)
"""The tables of a shard, the lists last: a shard whose list is newer than its catalog is due for a run.

All shards are then, to finish what was not done, and to renew their datasets.
"""

DATASET_PLACES = (dataset_path, dataset_draft_path, replaced_dataset_path)


@dataclass(frozen=True, slots=True)
class Resharded:
    """The result of giving a gallery another number of shards.

    Args:
        before: The number of shards that it had.
        places: The places of its hosts from now on.
        links: The number of links in its lists.
        moved: How many of them are in another shard than before; None if an earlier call has moved them.
        datasets: The shards whose datasets were deleted, because they are gone.
    """

    before: int
    places: Places
    links: int
    moved: int | None
    datasets: tuple[str, ...]


def reshard(store: Store, gallery: str, shards: int) -> Resharded:
    """Divide a gallery's rows into another number of shards; the number that it has changes nothing.

    Args:
        store: The store of the gallery's files.
        gallery: The gallery's own name.
        shards: The number of shards from now on.

    Raises:
        ValueError: The number is not from 1 to `MOST_SHARDS`.
        ReshardError: An earlier call with another number was interrupted.
        GalleryBusyError: Someone is at work on one of the shards, or on their list. Nothing was changed.
        StoreError: The gallery has no shards, or the store failed.
    """
    if not 1 <= shards <= MOST_SHARDS:
        raise ValueError(f"a gallery has 1 to {MOST_SHARDS} shards, not {shards}")
    if Places.read(store, gallery) is None:
        raise StoreError(f"{gallery} has no shards in {store.root}")
    with ExitStack() as leases:
        leases.enter_context(Lease(store, gallery))  # whose holder writes lists
        before, under_way = _read_places(store, gallery), store.get(resharding_path(gallery))
        if under_way not in (None, str(shards).encode()):
            raise ReshardError(f"finish `imgdl reshard {gallery} {(under_way or b'').decode()}` first")
        if under_way is None and before.shards == shards:
            return Resharded(shards, before, _count_links(store, gallery, shards), 0, ())
        _hold(leases, store, gallery, before.shards, shards, is_under_way=under_way is not None)
        moved = None
        if under_way is None:
            moved = _write_beside(store, gallery, before.shards, shards)
            store.put(resharding_path(gallery), str(shards).encode())
        datasets = _finish(store, gallery, shards)
    places = _read_places(store, gallery)
    return Resharded(before.shards, places, _count_links(store, gallery, shards), moved, datasets)


def _read_places(store: Store, gallery: str) -> Places:
    places = Places.read(store, gallery)
    if places is None:
        raise StoreError(f"{store.location(shards_path(gallery))} was deleted meanwhile")
    return places


def _count_links(store: Store, gallery: str, shards: int) -> int:
    total = 0
    for name in _names(gallery, shards):
        table = store.open_table(links_path(name))
        if table is not None:
            with table:
                total += table.num_rows
    return total


def _names(gallery: str, shards: int) -> list[str]:
    return [shard_name(gallery, number) for number in range(shards)]


def _hold(
    leases: ExitStack, store: Store, gallery: str, before: int, shards: int, *, is_under_way: bool
) -> None:
    """Take the right to write all shards, old and new; before any file moves, merge what killed runs left."""
    for number, name in enumerate(_names(gallery, max(before, shards))):
        if is_under_way or number >= before:
            leases.enter_context(Lease(store, name))
        else:
            leases.enter_context(Ledger(store, name)).settle()
    for name in _names(gallery, before)[shards:]:
        leases.enter_context(dataset_lease(store, name))


def _new_places(store: Store, gallery: str, before: int, shards: int) -> Places:
    """Place all hosts as for a first list; the same lists give the same places."""
    url = columns(LINKS, "url")
    places = Places(shards, is_resharded=True)
    counts = count_hosts(
        batch for name in _names(gallery, before) for batch in store.batches(links_path(name), url)
    )
    place_hosts(places, counts, is_new=True)
    return places


def _write_beside(store: Store, gallery: str, before: int, shards: int) -> int:
    """Write all new files beside the old ones, and return how many links are in another shard."""
    for folder in resharded_folders(gallery):  # another number's, whose call was interrupted
        store.delete_folder(folder)
    places, names = _new_places(store, gallery, before, shards), _names(gallery, before)
    for path_of, schema in TABLES:
        rows = (batch for name in names for batch in store.batches(path_of(name), schema))
        _divide(store, gallery, rows, places, path_of, schema)
    unseen = (batch for name in names for batch in unseen_links(store, name).batches())
    _divide(store, gallery, unseen, places, _unseen_file, LINKS)
    store.put(resharded_path(shards_path(gallery)), places.text())
    return _count_moved(store, gallery, before, places)


def _count_moved(store: Store, gallery: str, before: int, places: Places) -> int:
    moved = 0
    for number, name in enumerate(_names(gallery, before)):
        for batch in store.batches(links_path(name), columns(LINKS, "url")):
            moved += int((shards_of(batch["url"], places) != number).sum())
    return moved


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


def _finish(store: Store, gallery: str, shards: int) -> tuple[str, ...]:
    """Move the new files to their places, and delete what belongs to shards as they were."""
    for name in _names(gallery, shards):
        carried = f"{unseen_links_path(name)}/{_CARRIED_OVER}"
        for folder in (checked_path(name), contact_sheets_path(name), unseen_links_path(name)):
            store.delete([file.path for file in store.list(folder) if file.path != carried])
        store.move(resharded_path(_unseen_file(name)), carried)
    for path_of, _ in TABLES:
        for name in _names(gallery, shards):
            store.move(resharded_path(path_of(name)), path_of(name))
    datasets = _delete_gone(store, gallery, shards)
    store.move(resharded_path(shards_path(gallery)), shards_path(gallery))
    store.delete([resharding_path(gallery)])
    return datasets


def _delete_gone(store: Store, gallery: str, shards: int) -> tuple[str, ...]:
    """Delete the tables and datasets of shards that are gone, and return those that had a dataset."""
    gone = set(parts_of(store, gallery)) - {gallery, *_names(gallery, shards)}
    for stage in TABLE_FOLDERS:
        files = [file.path for file in store.list(f"{stage}/gallery={gallery}")]
        store.delete([path for path in files if owner_of(path) in gone])
    folders = {name: [place(name) for place in DATASET_PLACES] for name in sorted(gone)}
    had = [name for name in folders if any(True for each in folders[name] for _ in store.list(each))]
    for name in had:
        for folder in folders[name]:
            store.delete_folder(folder)
    return tuple(had)
