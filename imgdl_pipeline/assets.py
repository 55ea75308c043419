"""The three assets, all partitioned by gallery: gallery_links → gallery_images → gallery_catalog."""

import os
import time
from collections.abc import Callable
from datetime import datetime, timezone

import dagster as dg

from imgdl_pipeline.core import sources
from imgdl_pipeline.core.catalog import build_catalog
from imgdl_pipeline.core.columns import CATALOG, DOWNLOADS, LINKS
from imgdl_pipeline.core.downloads import Progress
from imgdl_pipeline.core.links import links_table
from imgdl_pipeline.core.settings import Galleries
from imgdl_pipeline.core.store import Store, catalog_path, downloads_path, links_path
from imgdl_pipeline.metadata import (
    catalog_metadata,
    column_schema,
    images_metadata,
    links_metadata,
)
from imgdl_pipeline.resources import Downloads

GROUP = "galleries"
STORE_VARIABLE = "IMGDL_STORE"
PROGRESS_S = 5.0
"""Seconds between two lines of progress: a line costs Dagster a write to its database."""


def build_assets(galleries: Galleries) -> list[dg.AssetsDefinition]:
    """The assets of a galleries file, with one partition a gallery."""
    partitions = dg.StaticPartitionsDefinition([each.name for each in galleries.galleries])

    @dg.asset(
        partitions_def=partitions,
        group_name=GROUP,
        kinds={"parquet"},
        metadata={"dagster/column_schema": column_schema(LINKS)},
    )
    def gallery_links(context: dg.AssetExecutionContext, downloads: Downloads) -> dg.MaterializeResult[None]:
        """The link list as the gallery's source gave it: one row a distinct link."""
        gallery = galleries.gallery(context.partition_key)
        store, path = open_store(galleries), links_path(gallery.name)
        settings = downloads.settings(galleries, gallery)
        with sources.Web(settings, os.environ) as web:
            listed = sources.list_links(gallery.source, web)
            links = links_table(listed, datetime.now(timezone.utc))
        store.write_table(path, links)
        return dg.MaterializeResult(metadata=links_metadata(links, store.location(path)))

    @dg.asset(
        partitions_def=partitions,
        group_name=GROUP,
        kinds={"jpeg", "parquet"},
        deps=[gallery_links],
        metadata={"dagster/column_schema": column_schema(DOWNLOADS)},
    )
    def gallery_images(context: dg.AssetExecutionContext, downloads: Downloads) -> dg.MaterializeResult[None]:
        """The image files, and the ledger of what happened to each link."""
        gallery, store = galleries.gallery(context.partition_key), open_store(galleries)
        say = every_few_seconds(context.log.info)
        with sources.serving(gallery.source):
            run = downloads.download(galleries, gallery, store, say)
        location = store.location(downloads_path(gallery.name))
        return dg.MaterializeResult(metadata=images_metadata(run, location))

    @dg.asset(
        partitions_def=partitions,
        group_name=GROUP,
        kinds={"parquet"},
        deps=[gallery_images, gallery_links],
        metadata={"dagster/column_schema": column_schema(CATALOG)},
    )
    def gallery_catalog(
        context: dg.AssetExecutionContext, downloads: Downloads
    ) -> dg.MaterializeResult[None]:
        """One row a link: what is known of its image, or why there is none."""
        gallery, store = galleries.gallery(context.partition_key), open_store(galleries)
        settings = downloads.settings(galleries, gallery)
        run = build_catalog(gallery.name, store, max_pixels=settings.max_pixels)
        location = store.location(catalog_path(gallery.name))
        return dg.MaterializeResult(metadata=catalog_metadata(run, location))

    return [gallery_links, gallery_images, gallery_catalog]


def open_store(galleries: Galleries) -> Store:
    """The store: the one that IMGDL_STORE names, or else the galleries file."""
    return Store(os.environ.get(STORE_VARIABLE) or galleries.store)


def every_few_seconds(
    log: Callable[[str], None], clock: Callable[[], float] = time.monotonic
) -> Callable[[Progress], None]:
    """Logs progress, but not every time that it is told of some."""
    due = clock() + PROGRESS_S

    def say(progress: Progress) -> None:
        nonlocal due
        if clock() >= due:
            due = clock() + PROGRESS_S
            log(str(progress))

    return say
