"""Remove what must not be kept from all that is made of catalogs: datasets, and near duplicates."""

from collections.abc import Iterator, Sequence
from itertools import chain

import pyarrow.compute as pc

from imgdl_pipeline.core.catalog.removal import Found, remove
from imgdl_pipeline.core.dataset.draft import Draft
from imgdl_pipeline.core.dataset.export import export_dataset
from imgdl_pipeline.core.dataset.manifest import INDEX, MANIFEST, Manifest
from imgdl_pipeline.core.dataset.parts import read_index, there_of
from imgdl_pipeline.core.model.schemas import NEAR_DUPLICATES
from imgdl_pipeline.core.near_duplicates.groups import without_rows
from imgdl_pipeline.core.storage.layout import (
    NEAR_DUPLICATES_PATH,
    catalog_path,
    dataset_draft_path,
    dataset_path,
    replaced_dataset_path,
)
from imgdl_pipeline.core.storage.lease import GalleryBusyError, dataset_lease
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.parts import stored_parts
from imgdl_pipeline.core.storage.removed import Removal, Removed
from imgdl_pipeline.core.storage.store import Store


def remove_everywhere(store: Store, entries: Sequence[Removal]) -> tuple[list[Found], list[str]]:
    """Put entries on the list, and remove all that it names: from galleries first, then from datasets.

    Returns:
        What each gallery or shard had, and the ones whose datasets were written.

    Raises:
        GalleryBusyError: Someone is at work on a gallery or a dataset. The others are done, and a run that is
            at work heeds the list, too.
        StoreError, ResourceError, WhereError: As `export_dataset`.
    """
    busy: list[str] = []
    found, written = [], []
    try:
        found = remove(store, entries)
    except GalleryBusyError as error:
        busy.append(str(error))
    try:
        written = remove_from_datasets(store)
    except GalleryBusyError as error:
        busy.append(str(error))
    if busy:
        words = "; ".join(dict.fromkeys(busy))
        raise GalleryBusyError(f"{words}; what was named is on the list of removals, so remove it again then")
    return found, written


def remove_from_datasets(store: Store) -> list[str]:
    """Bring every dataset up to date that has what the list of removed images names.

    What an interrupted writer left behind is deleted. So is a dataset whose gallery has no catalog any more:
    it cannot be written anew.

    Returns:
        The galleries or shards whose datasets were written.

    Raises:
        GalleryBusyError: Someone is writing a dataset. The others are done.
        StoreError, ResourceError, WhereError: As `export_dataset`.
    """
    removed = Removed.read(store)
    if not removed:
        return []
    _remove_near_duplicates(store, removed)
    written, busy = [], []
    for part in chain.from_iterable(stored_parts(store).values()):
        try:
            if _remove_from(store, part, removed):
                written.append(part)
        except GalleryBusyError as error:
            busy.append(str(error))
    if busy:
        raise GalleryBusyError("; ".join(busy))
    return written


def _remove_from(store: Store, gallery: str, removed: Removed) -> bool:
    """Remove what the list names from one dataset, and return whether it had any of it."""
    has_catalog = store.metadata(catalog_path(gallery)) is not None
    is_ours = has_catalog or Manifest.read(store, gallery) is not None
    if not is_ours or not _has_files(store, gallery):
        return False
    with dataset_lease(store, gallery) as lease, Draft.of(store, gallery, lease) as draft:
        manifest = draft.current
    if manifest is None:  # what a first export that was interrupted left behind
        store.delete_folder(dataset_path(gallery))
        return False
    if not _named(store, gallery, manifest, removed):
        return False
    if has_catalog:
        export_dataset(store, gallery, manifest.settings)
    else:
        store.delete_folder(dataset_path(gallery))
    return True


def _has_files(store: Store, gallery: str) -> bool:
    return any(True for place in _PLACES for _ in store.list(place(gallery)))


_PLACES = (dataset_path, dataset_draft_path, replaced_dataset_path)
"""Where a dataset may be, whole or not."""


def left_in_datasets(store: Store) -> Iterator[Found]:
    """Yield what the datasets have of what the list of removed images names.

    What an interrupted writer left behind counts as well: nobody knows what is in it.

    Raises:
        StoreError: The store failed.
    """
    removed = Removed.read(store)
    if removed:
        yield from _left_in_groups(store, removed)
    for part in chain.from_iterable(stored_parts(store).values()) if removed else ():
        manifest = Manifest.read(store, part)
        named = _named(store, part, manifest, removed) if manifest else []
        known = {each.name for each in manifest.files.values()} | {MANIFEST} if manifest else set()
        paths = [file.path for place in _PLACES for file in store.list(place(part))]
        strays = [path for path in paths if path.removeprefix(f"{dataset_path(part)}/") not in known]
        if named or strays:
            yield Found(part, tuple(named), tuple(strays))


def _left_in_groups(store: Store, removed: Removed) -> Iterator[Found]:
    """Yield what near duplicates have of what the list names, by gallery."""
    near = store.read_table(NEAR_DUPLICATES_PATH, NEAR_DUPLICATES)
    if near is not None:
        left = near.filter(removed.rows_of(near))
        for gallery in pc.unique(left["gallery"]).to_pylist():
            urls = left.filter(pc.equal(left["gallery"], gallery))["url"].to_pylist()
            yield Found(gallery, tuple(urls), ())


def _named(store: Store, gallery: str, manifest: Manifest, removed: Removed) -> list[str]:
    """Return the links of a dataset that the list names.

    Raises:
        StoreError: The store failed, or nobody knows what is in the dataset.
    """
    index = read_index(store, dataset_path(gallery), manifest)
    if index is None:
        place = store.location(dataset_path(gallery))
        raise StoreError(f"{place} has lost its file {INDEX}: run the gallery, which writes it anew")
    there = there_of(index)
    urls: list[str] = there["url"].filter(removed.rows_of(there)).to_pylist()
    return urls


def _remove_near_duplicates(store: Store, removed: Removed) -> None:
    near = store.read_table(NEAR_DUPLICATES_PATH, NEAR_DUPLICATES)
    if near is None:
        return
    is_named = removed.rows_of(near)
    if pc.any(is_named).as_py():
        store.write_table(NEAR_DUPLICATES_PATH, without_rows(near, is_named))
