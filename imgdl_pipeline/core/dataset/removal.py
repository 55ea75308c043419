"""Remove what must not be kept from all that is made of catalogs: datasets, and near duplicates."""

from collections.abc import Iterator

import pyarrow.compute as pc

from imgdl_pipeline.core.catalog.removal import Found
from imgdl_pipeline.core.dataset.export import export_dataset
from imgdl_pipeline.core.dataset.manifest import Manifest
from imgdl_pipeline.core.dataset.parts import read_index
from imgdl_pipeline.core.model.schemas import NEAR_DUPLICATES
from imgdl_pipeline.core.storage.layout import DATASETS, NEAR_DUPLICATES_PATH, dataset_path
from imgdl_pipeline.core.storage.removed import Removed
from imgdl_pipeline.core.storage.store import Store


def remove_from_datasets(store: Store) -> list[str]:
    """Bring every dataset up to date that has what the list of removed images names.

    Returns:
        The galleries whose datasets were written.

    Raises:
        GalleryBusyError, StoreError, ResourceError, WhereError: As `export_dataset`.
    """
    _remove_near_duplicates(store)
    galleries = [each.gallery for each in left_in_datasets(store)]
    for gallery in galleries:
        manifest = Manifest.read(store, gallery)
        if manifest is not None:
            export_dataset(store, gallery, manifest.settings)
    return galleries


def left_in_datasets(store: Store) -> Iterator[Found]:
    """Yield what the datasets have of what the list of removed images names.

    Raises:
        StoreError: The store failed.
    """
    removed = Removed.read(store)
    if not removed:
        return
    for folder in store.folders(DATASETS):
        gallery = folder.rpartition("/")[2]
        manifest = Manifest.read(store, gallery)
        if manifest is None:
            continue
        index = read_index(store, dataset_path(gallery), manifest)
        urls = index["url"].filter(removed.rows_of(index)).to_pylist()
        if urls:
            yield Found(gallery, tuple(urls), ())


def _remove_near_duplicates(store: Store) -> None:
    removed = Removed.read(store)
    near = store.read_table(NEAR_DUPLICATES_PATH, NEAR_DUPLICATES)
    if near is None or not removed:
        return
    is_named = removed.rows_of(near)
    if pc.any(is_named).as_py():
        store.write_table(NEAR_DUPLICATES_PATH, near.filter(pc.invert(is_named)))
