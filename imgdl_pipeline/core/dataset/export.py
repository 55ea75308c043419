"""Make a gallery's dataset, or bring it up to date with the catalog."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from imgdl_pipeline.core.dataset.card import write_card
from imgdl_pipeline.core.dataset.credits import write_attribution, write_credits
from imgdl_pipeline.core.dataset.draft import Draft
from imgdl_pipeline.core.dataset.manifest import ATTRIBUTION, CARD, CREDITS, INDEX, Manifest
from imgdl_pipeline.core.dataset.parts import Parts, read_index
from imgdl_pipeline.core.dataset.rows import CatalogRows, chosen_rows
from imgdl_pipeline.core.dataset.samples import Samples
from imgdl_pipeline.core.jpeg.workers import JpegWorkers, opened
from imgdl_pipeline.core.model.counted import Counted, amount
from imgdl_pipeline.core.model.dataset_settings import DatasetSettings
from imgdl_pipeline.core.model.memory import release_memory
from imgdl_pipeline.core.model.shown import shown
from imgdl_pipeline.core.storage.layout import dataset_path
from imgdl_pipeline.core.storage.lease import dataset_lease
from imgdl_pipeline.core.storage.removed import Removed
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline.version import __version__

SHOWN = 10
"""The most links in a warning."""

MADE_BY = f"imgdl_pipeline {__version__}"


@dataclass(frozen=True, slots=True)
class DatasetRun:
    """The result of an export.

    Args:
        manifest: The dataset's manifest.
        licenses: How many of its images have each `license_id`, None for those without one.
        written: How many files with images were written; the others were taken over.
        missing: Links of images that belong into it, but whose file is gone or altered.
        is_new: Whether the dataset differs from the one before.
        seconds: How long it took.
    """

    manifest: Manifest
    licenses: Counter[str | None]
    written: int
    missing: tuple[str, ...]
    is_new: bool
    seconds: float

    @property
    def warnings(self) -> list[str]:
        """What a person should know of, in words."""
        if not self.missing:
            return []
        links = ", ".join(map(shown, self.missing[:SHOWN])) + (" …" if len(self.missing) > SHOWN else "")
        what = amount(len(self.missing), "image")
        return [f"left out {what} whose file is gone or was altered: {links}"]

    @property
    def why_empty(self) -> str:
        """Why there may be no images, in words."""
        where = self.manifest.settings.where
        if self.missing:
            return "all of their files are gone, or were altered"
        return "its catalog has none" if where is None else f"none is ok, or for none this holds: {where}"

    @property
    def images(self) -> int:
        """The number of the dataset's images."""
        return self.manifest.images

    @property
    def bytes(self) -> int:
        """The size of the dataset's files."""
        return sum(each.bytes for each in self.manifest.files.values())


def export_dataset(
    store: Store,
    gallery: str,
    settings: DatasetSettings,
    *,
    jpegs: JpegWorkers | None = None,
    on_progress: Callable[[Counted], None] = lambda _: None,
) -> DatasetRun:
    """Write a gallery's dataset, or the parts of it whose images changed.

    Readers see the dataset as it was until all is written. If this is interrupted, call it again.

    Args:
        store: The store of the gallery's files.
        gallery: The gallery's name; it must have a catalog.
        settings: The dataset's settings.
        jpegs: The worker processes that make images smaller; if None, start workers for this call.
        on_progress: Called after every image.

    Raises:
        GalleryBusyError: Someone else is writing this dataset.
        StoreError: The store failed.
        ResourceError: No worker process could be started, or no temporary file written.
        WhereError: The settings' condition failed.
    """
    with dataset_lease(store, gallery) as lease, opened(jpegs) as workers:
        while True:
            removed = Removed.read(store)
            with (
                chosen_rows(store, gallery, settings, removed) as rows,
                Draft.of(store, gallery, lease) as draft,
            ):
                run = _export(draft, store, gallery, settings, rows, workers, on_progress)
            if Removed.read(store).table.equals(removed.table):  # else something was removed meanwhile
                return run


def _export(
    draft: Draft,
    store: Store,
    gallery: str,
    settings: DatasetSettings,
    rows: CatalogRows,
    jpegs: JpegWorkers,
    on_progress: Callable[[Counted], None],
) -> DatasetRun:
    started, done, total = time.monotonic(), 0, rows.num_rows
    release_memory()

    def count(images: int = 1) -> None:
        nonlocal done
        done += images
        on_progress(Counted(done, total, "images are in the dataset"))

    samples = Samples(store, settings, jpegs, count)
    parts = Parts.of(settings.format)(
        draft, settings, samples, _earlier(draft, store, gallery, settings), count
    )
    index = parts.write(rows)
    draft.write(INDEX, partial(pq.write_table, index, compression="zstd"))
    there = rows.filter(index["is_there"].to_numpy())
    del index
    release_memory()
    _write_texts(draft, gallery, settings, there)
    manifest = Manifest(settings, MADE_BY, there.num_rows, draft.files)
    is_new = draft.publish(manifest)
    seconds = time.monotonic() - started
    licenses = Counter(
        each for batch in there.batches(["license_id"]) for each in batch["license_id"].to_pylist()
    )
    return DatasetRun(manifest, licenses, parts.written, tuple(samples.missing), is_new, seconds)


def _earlier(draft: Draft, store: Store, gallery: str, settings: DatasetSettings) -> pa.Table | None:
    """Return the index of the current version, with `url` and `shard`; None if no part may be taken over."""
    current = draft.current
    if current is None or not _makes_the_same(current.settings, settings):
        return None
    return read_index(store, dataset_path(gallery), current, ["url", "shard"])


def _makes_the_same(one: DatasetSettings, other: DatasetSettings) -> bool:
    """Return whether two settings make the same samples of the same rows."""
    return one.model_dump(exclude={"where"}) == other.model_dump(exclude={"where"})


def _write_texts(draft: Draft, gallery: str, settings: DatasetSettings, rows: CatalogRows) -> None:
    """Write what is beside the images for people: the card and the credits."""
    files = [each for each in draft.files.values() if each.images]
    draft.write(CARD, lambda file: write_card(file, gallery, settings, rows, files, MADE_BY))
    draft.write(CREDITS, lambda file: write_credits(file, rows))
    draft.write(ATTRIBUTION, lambda file: write_attribution(file, rows, gallery))
