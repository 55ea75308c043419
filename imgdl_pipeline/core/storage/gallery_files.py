"""Count, rename and delete all files of a gallery, without a request to any host."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc

from imgdl_pipeline.core.model.schemas import CATALOG
from imgdl_pipeline.core.storage.layout import (
    catalog_path,
    dataset_leases_path,
    downloads_path,
    gallery_folders,
    images_path,
    leases_path,
    renamed_from_path,
)
from imgdl_pipeline.core.storage.lease import Lease, dataset_lease
from imgdl_pipeline.core.storage.ledger import Ledger
from imgdl_pipeline.core.storage.object_store import LISTED_FILES, StoredFile, StoreError
from imgdl_pipeline.core.storage.parts import is_sharded, parts_of, stored_galleries
from imgdl_pipeline.core.storage.store import Store


@dataclass(frozen=True, slots=True)
class GalleryFiles:
    """The number of a gallery's files in the store, and of their bytes."""

    files: int
    bytes: int


def gallery_files(store: Store, gallery: str) -> GalleryFiles:
    """Count a gallery's files, of all of its shards; raises like `stored_galleries`."""
    sizes = [file.bytes for file in _all_files(store, gallery)]
    return GalleryFiles(len(sizes), sum(sizes))


def _all_files(store: Store, gallery: str) -> Iterator[StoredFile]:
    return (file for folder in gallery_folders(gallery) for file in store.list(folder))


def delete_gallery(store: Store, gallery: str) -> None:
    """Delete all files of a gallery, and of all of its shards.

    Raises:
        GalleryBusyError: A run is at work on the gallery, or on one of its shards.
        StoreError: A file could not be deleted.
    """
    kept = (leases_path(gallery), dataset_leases_path(gallery))
    with ExitStack() as leases:
        for name in sorted({gallery, *parts_of(store, gallery)}):
            leases.enter_context(Lease(store, name))
            leases.enter_context(dataset_lease(store, name))
        for folder in gallery_folders(gallery):
            files = (file.path for file in store.list(folder) if not file.path.startswith(kept))
            while batch := list(islice(files, LISTED_FILES)):
                store.delete(batch)
    for folder in gallery_folders(gallery):
        store.delete_folder(folder)


def rename_gallery(store: Store, old: str, new: str) -> int:
    """Give all files of a gallery to another name, and return how many images it has.

    If it is interrupted, call it again with the same names. The tables are written first: they name the paths
    that the images will have.

    Raises:
        FileExistsError: The new name has files of its own, or differs only in its case, which some disks
            do not distinguish.
        FileNotFoundError: The old name has no files.
        GalleryBusyError: A run is at work on one of the two.
        StoreError: The gallery has shards, or the store failed.
    """
    if _is_done(store, old, new):
        store.delete([renamed_from_path(new)])
        return _count_images(store, new)
    _check(store, old, new)
    with Ledger(store, old) as ledger:
        store.put(renamed_from_path(new), old.encode())
        with Lease(store, new), dataset_lease(store, old), dataset_lease(store, new):
            catalog = store.read_table(catalog_path(old), CATALOG)
            for path, table in ((downloads_path(new), ledger.table), (catalog_path(new), catalog)):
                if table is not None and store.metadata(path) is None:
                    store.write_table(path, _with_paths(table, old, new))
            _move_files(store, old, new)
    delete_gallery(store, old)
    store.delete([renamed_from_path(new)])
    return _count_images(store, new)


def _count_images(store: Store, gallery: str) -> int:
    return sum(1 for _ in store.list(images_path(gallery)))


def unfinished_renames(store: Store) -> dict[str, str]:
    """Return the renames that were interrupted: the new name by the old one.

    Raises:
        StoreError: The store failed.
    """
    marks = {new: store.get(renamed_from_path(new)) for new in stored_galleries(store)}
    return {mark.decode(): new for new, mark in marks.items() if mark is not None}


def _is_done(store: Store, old: str, new: str) -> bool:
    """Return whether an earlier call was interrupted when only its mark was left."""
    return store.get(renamed_from_path(new)) == old.encode() and old not in stored_galleries(store)


def _check(store: Store, old: str, new: str) -> None:
    galleries, continued = stored_galleries(store), store.get(renamed_from_path(new))
    if old not in galleries:
        raise FileNotFoundError(f"{old} has no files in {store.root}")
    if is_sharded(store, old):
        raise StoreError(f"{old} has shards, and a gallery with shards keeps its name")
    if new.lower() == old.lower():
        raise FileExistsError(f"{old} and {new} differ only in their case; rename it by way of another name")
    taken = [name for name in galleries if name.lower() == new.lower()]
    if taken and continued != old.encode():
        raise FileExistsError(f"{taken[0]} has files in {store.root} already")


def _with_paths(table: pa.Table, old: str, new: str) -> pa.Table:
    """Return a ledger or catalog with the paths that its images have under the new name."""
    place = table.schema.get_field_index("path")
    rest = pc.utf8_slice_codeunits(table["path"], len(images_path(old)))
    paths = pc.binary_join_element_wise(pa.scalar(images_path(new)), rest, "")
    return table.set_column(place, table.schema.field(place), paths)


def _move_files(store: Store, old: str, new: str) -> None:
    """Move the files that the new name lacks, without tables with paths."""
    kept = (leases_path(old), dataset_leases_path(old), downloads_path(old), catalog_path(old))
    for source, target in zip(gallery_folders(old), gallery_folders(new), strict=True):
        there = set(store.files(target)["path"].to_pylist())
        for file in store.list(source):
            path = target + file.path.removeprefix(source)
            if path not in there and not file.path.startswith(kept):
                store.move(file.path, path)
