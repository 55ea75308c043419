"""Find the parts of stored galleries: the gallery itself, or its shards.

Every room that goes over a gallery's tables goes over its parts. They are found by their files, not by the
number of shards in `_shards.json`: what a removal overlooks stays forever.
"""

from collections.abc import Iterable, Iterator

import pyarrow as pa

from imgdl_pipeline.core.storage.layout import (
    DATASETS,
    TABLE_FOLDERS,
    catalog_path,
    dataset_draft_path,
    dataset_path,
    gallery_of,
    is_shard,
    owner_of,
    replaced_dataset_path,
    resharding_path,
    shard_of_dataset,
    shards_path,
    whole_gallery,
)
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.store import Store


class ReshardError(StoreError):
    """The gallery has another number of shards than is wanted; the message names the command."""


def check_resharded(store: Store, gallery: str) -> None:
    """Make sure that a gallery is not between two numbers of shards.

    Raises:
        ReshardError: It is, because the call that gave it other shards was interrupted.
        StoreError: The store failed.
    """
    under_way = store.get(resharding_path(gallery))
    if under_way is not None:
        name = whole_gallery(gallery)
        raise ReshardError(
            f"{name} was given {under_way.decode()} shards, but not all of its files: "
            f"run `imgdl reshard {name} {under_way.decode()}` again"
        )


def is_sharded(store: Store, gallery: str) -> bool:
    """Return whether a gallery's list was split into shards; raises StoreError."""
    return store.get(shards_path(gallery)) is not None


def parts_of(store: Store, gallery: str) -> tuple[str, ...]:
    """Return the parts of a gallery that have files, in order: itself, or its shards; of a shard, itself.

    Images do not count: after another number of shards, they stay in the folders of shards that are gone.

    Raises:
        StoreError: The store could not be listed.
    """
    if is_shard(gallery):
        return (gallery,)
    folders = (f"{stage}/gallery={gallery}" for stage in TABLE_FOLDERS)
    owners = {owner_of(file.path) for folder in folders for file in store.list(folder)}
    return _in_order(gallery, {*owners, *_with_datasets(store, gallery)})


def cataloged_parts(store: Store, gallery: str) -> tuple[str, ...]:
    """Return what may have a catalog: a gallery or shard itself, or a gallery's shards.

    Raises:
        StoreError: The store could not be listed.
        ReshardError: The gallery is between two numbers of shards.
    """
    if is_shard(gallery) or not is_sharded(store, gallery):
        return (gallery,)
    check_resharded(store, gallery)
    return parts_of(store, gallery)


def catalogs_of(store: Store, gallery: str, schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the catalog of a gallery or shard, or of a gallery with shards those of all that have one.

    Raises:
        StoreError: A catalog could not be read.
        ReshardError: The gallery is between two numbers of shards.
    """
    for part in cataloged_parts(store, gallery):
        catalog = store.read_table(catalog_path(part), schema)
        if catalog is not None:
            yield catalog


def stored_parts(store: Store) -> dict[str, tuple[str, ...]]:
    """Return the parts of each gallery that has files, as `parts_of`, in the order of the galleries' names.

    Raises:
        StoreError: The store could not be listed.
    """
    found: dict[str, set[str | None]] = {gallery: set() for gallery in sorted(stored_galleries(store))}
    for stage in TABLE_FOLDERS:
        for file in store.list(stage):
            owner = owner_of(file.path)
            if owner is not None and whole_gallery(owner) in found:
                found[whole_gallery(owner)].add(owner)
    return {
        gallery: _in_order(
            gallery, owners if gallery in owners else {*owners, *_with_datasets(store, gallery)}
        )
        for gallery, owners in found.items()
    }


def stored_galleries(store: Store) -> set[str]:
    """Return the names of the galleries that have files in the store.

    Raises:
        StoreError: The store could not be listed.
    """
    folders = (folder for place in ("images", *TABLE_FOLDERS, DATASETS) for folder in store.folders(place))
    return {name for name in map(gallery_of, folders) if name is not None}


def _with_datasets(store: Store, gallery: str) -> set[str | None]:
    """Return the shards of a gallery that have a dataset, or what an interrupted export has left."""
    places = (dataset_path(gallery), dataset_draft_path(gallery), replaced_dataset_path(gallery))
    return {shard_of_dataset(folder) for place in places for folder in store.folders(place)}


def _in_order(gallery: str, owners: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(sorted(name for name in owners if name is not None)) or (gallery,)
