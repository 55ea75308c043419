"""Work on one shard of a very large gallery, in this process: for Dagster, or for any other engine."""

from collections.abc import Callable
from dataclasses import dataclass

from imgdl_pipeline.core.catalog.build import CatalogRun, build_catalog
from imgdl_pipeline.core.download.run import DownloadRun, Progress, download_gallery
from imgdl_pipeline.core.jpeg.workers import JpegWorkers, opened
from imgdl_pipeline.core.listing.shards import shard_places
from imgdl_pipeline.core.model.counted import Counted
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.storage.layout import shard_name
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.store import Store


@dataclass(frozen=True, slots=True)
class ShardRun:
    """The results of a shard's two steps, whose rows stay in the store."""

    images: DownloadRun
    catalog: CatalogRun


def run_shard(
    store: Store,
    gallery: str,
    shard: int | str,
    settings: DownloadSettings,
    *,
    limit: int | None = None,
    force: bool = False,
    jpegs: JpegWorkers | None = None,
    on_progress: Callable[[Progress | Counted], None] = lambda _: None,
) -> ShardRun:
    """Download the images of one shard's list, and build its catalog.

    Args:
        store: The store of the gallery's files, in which `split` has written the lists.
        gallery: The gallery's own name.
        shard: The shard's number, or its partition's name, such as `0007`.
        settings: The download settings.
        limit: Maximum number of links to fetch.
        force: Request every link again.
        jpegs: The processes that validate images; None starts some and ends them afterwards.
        on_progress: Called with the progress of both steps.

    Raises:
        ReshardError: The gallery is being given another number of shards.
        GalleryBusyError: Another run is at work on the shard.
        StoreError: There is no such shard, or the store failed.
    """
    number, places = int(shard), shard_places(store, gallery)
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
        return ShardRun(images, build_catalog(name, store, settings, jpegs=jpegs, on_progress=on_progress))
