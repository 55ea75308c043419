"""Work on one shard of a very large gallery, in this process: for Dagster, or for any other engine."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow.compute as pc

from imgdl_pipeline.core.catalog.build import CatalogRun, build_catalog
from imgdl_pipeline.core.dataset.export import export_dataset
from imgdl_pipeline.core.download.run import DownloadRun, Progress, download_gallery
from imgdl_pipeline.core.jpeg.workers import JpegWorkers, opened
from imgdl_pipeline.core.listing.shards import shard_places
from imgdl_pipeline.core.model.counted import Counted
from imgdl_pipeline.core.model.dataset_settings import DatasetSettings
from imgdl_pipeline.core.model.outcome import Status
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.storage.layout import shard_name
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.store import Store


@dataclass(frozen=True, slots=True)
class ShardRun:
    """What a shard's catalog holds, and what the run did: numbers only, so that engines can pass it on.

    Args:
        shard: The shard's name, such as `laion/0007`.
        links: Links in the catalog: the sum of the next four.
        ok: Links whose image is stored.
        invalid: Links that gave no whole, valid JPEG.
        failed: Links whose host gave no image.
        refused: Links that a rule forbids.
        fetched: Links whose bytes this run fetched.
        bytes: How many bytes those have.
        waiting: Links that a limit left to the next run.
        in_dataset: Images in the shard's dataset; None where none was asked for.
        seconds: How long it took.
    """

    shard: str
    links: int
    ok: int
    invalid: int
    failed: int
    refused: int
    fetched: int
    bytes: int
    waiting: int
    in_dataset: int | None
    seconds: float


def run_shard(
    store: Store,
    gallery: str,
    shard: int | str,
    settings: DownloadSettings,
    *,
    dataset: DatasetSettings | None = None,
    limit: int | None = None,
    force: bool = False,
    jpegs: JpegWorkers | None = None,
    on_progress: Callable[[Progress | Counted], None] = lambda _: None,
) -> ShardRun:
    """Download the images of one shard's list, build its catalog, and write its dataset.

    What is done already is not done again, so a call that was interrupted, or has failed, can be repeated.

    Args:
        store: The store of the gallery's files, in which `list_shards` has written the lists.
        gallery: The gallery's own name.
        shard: The shard's number, or its partition's name, such as `0007`.
        settings: The download settings.
        dataset: The settings of the shard's dataset; None for no dataset.
        limit: Maximum number of links to fetch.
        force: Request every link again.
        jpegs: The processes that decode images; None starts one per core at most, and ends them afterwards.
        on_progress: Called with the progress of each step.

    Raises:
        ReshardError: The gallery is being given another number of shards.
        GalleryBusyError: Another run is at work on the shard.
        StoreError: There is no such shard, or the store failed.
        ResourceError: The disk is full, or no process could be started.
        WhereError: The dataset's condition failed.
    """
    started, number, places = time.monotonic(), int(shard), shard_places(store, gallery)
    if not 0 <= number < places.shards:
        raise StoreError(f"{gallery} has the shards 0 to {places.shards - 1}, and not {number}")
    name = shard_name(gallery, number)
    with opened(jpegs) as jpegs:
        images = download_gallery(
            name,
            store,
            settings,
            limit=limit,
            force=force,
            jpegs=jpegs,
            spread=places.spread_hosts(),
            on_progress=on_progress,
        )
        catalog = build_catalog(name, store, settings, jpegs=jpegs, on_progress=on_progress)
        made = export_dataset(store, name, dataset, jpegs=jpegs, on_progress=on_progress) if dataset else None
    in_dataset = None if made is None else made.manifest.images
    return _counted(name, images, catalog, in_dataset, time.monotonic() - started)


def _counted(
    name: str, images: DownloadRun, catalog: CatalogRun, in_dataset: int | None, seconds: float
) -> ShardRun:
    by_status = Counter(catalog.rows("status")["status"].to_pylist())
    fetched = images.fetched_rows("bytes")["bytes"]
    return ShardRun(
        shard=name,
        links=by_status.total(),
        **{status.value: by_status[status.value] for status in Status},
        fetched=len(fetched),
        bytes=pc.sum(fetched).as_py() or 0,
        waiting=images.waiting,
        in_dataset=in_dataset,
        seconds=seconds,
    )
