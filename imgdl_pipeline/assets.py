"""Define the three assets, all partitioned by gallery: gallery_links → gallery_images → gallery_catalog."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import dagster as dg
import pyarrow as pa

from imgdl_pipeline.config.galleries import Galleries, Gallery
from imgdl_pipeline.core import sources
from imgdl_pipeline.core.catalog.build import build_catalog
from imgdl_pipeline.core.catalog.contact_sheet import contact_sheet
from imgdl_pipeline.core.listing.build import list_gallery, list_warnings
from imgdl_pipeline.core.model.outcome import ResourceError
from imgdl_pipeline.core.model.schemas import CATALOG, DOWNLOADS, LINKS
from imgdl_pipeline.core.model.settings import MissingSecretError
from imgdl_pipeline.core.model.shown import hide_secrets
from imgdl_pipeline.core.sources import SourceError, type_name
from imgdl_pipeline.core.storage.layout import catalog_path, downloads_path, links_path
from imgdl_pipeline.core.storage.lease import GalleryBusyError
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline.metadata import (
    catalog_metadata,
    column_schema,
    format_counts,
    images_metadata,
    links_metadata,
)
from imgdl_pipeline.resources import Downloads

STORE_VARIABLE = "IMGDL_STORE"
PROGRESS_S = 5.0
"""Seconds between two progress lines, because each line costs Dagster a write to its database."""


class AssetKeys(NamedTuple):
    """The keys of the three assets."""

    links: dg.AssetKey
    images: dg.AssetKey
    catalog: dg.AssetKey

    @staticmethod
    def of(galleries: Galleries) -> "AssetKeys":
        """Return the asset keys of a galleries file, with its key prefix if it has one."""
        prefix = galleries.assets.key_prefix
        return AssetKeys(*(dg.AssetKey([*prefix, f"gallery_{name}"]) for name in AssetKeys._fields))


def partitions_of(galleries: Galleries) -> dg.StaticPartitionsDefinition:
    """Return the partitions, one per gallery."""
    return dg.StaticPartitionsDefinition([each.name for each in galleries.galleries])


def build_assets(galleries: Galleries) -> list[dg.AssetsDefinition]:
    """Return the assets of a galleries file, with one partition per gallery."""
    return [_links_asset(galleries), _images_asset(galleries), _catalog_asset(galleries)]


_Body = Callable[..., dg.MaterializeResult[None]]


def _asset(
    galleries: Galleries, key: dg.AssetKey, schema: pa.Schema, *kinds: str, **more: Any
) -> Callable[[_Body], dg.AssetsDefinition]:
    """Return the asset decorator with the settings that all three assets share."""
    settings = galleries.assets
    make: Callable[[_Body], dg.AssetsDefinition] = dg.asset(
        key=key,
        partitions_def=partitions_of(galleries),
        group_name=settings.group_name,
        description=settings.descriptions.get(key.path[-1]),  # type: ignore[call-overload]
        owners=list(settings.owners),
        tags=dict(settings.tags),
        kinds={*kinds, *settings.kinds},
        metadata={"dagster/column_schema": column_schema(schema)},
        **more,
    )
    return make


def _links_asset(galleries: Galleries) -> dg.AssetsDefinition:
    keys = AssetKeys.of(galleries)

    @_asset(galleries, keys.links, LINKS, "parquet", deps=_upstream(galleries))
    def gallery_links(context: dg.AssetExecutionContext, downloads: Downloads) -> dg.MaterializeResult[None]:
        """The link list as the gallery's source returned it: one row per distinct link."""
        gallery = galleries.gallery(context.partition_key)
        with failing_in_words(gallery):
            store, settings = open_store(galleries), downloads.settings(galleries, gallery)
            if downloads.jpegs:
                downloads.jpegs.start()  # start them during the listing; the next step needs them
            links = list_gallery(
                gallery.name,
                gallery.source,
                store,
                settings,
                allow_empty=gallery.allow_empty,
                list_timeout=gallery.list_timeout,
            )
        for words in list_warnings(links):
            context.log.warning(words)
        return dg.MaterializeResult(metadata=links_metadata(links, store.location(links_path(gallery.name))))

    return gallery_links


def _images_asset(galleries: Galleries) -> dg.AssetsDefinition:
    keys, pool = AssetKeys.of(galleries), galleries.assets.pool

    @_asset(galleries, keys.images, DOWNLOADS, "jpeg", "parquet", deps=[keys.links], pool=pool)
    def gallery_images(context: dg.AssetExecutionContext, downloads: Downloads) -> dg.MaterializeResult[None]:
        """The image files, and the ledger of what happened to each link."""
        gallery = galleries.gallery(context.partition_key)
        with failing_in_words(gallery):
            store = open_store(galleries)
            with sources.serving(gallery.source):
                run = downloads.download(galleries, gallery, store, every_few_seconds(context.log.info))
        context.log.info(
            "%d links tried in %.1f s: %s", run.tried.num_rows, run.seconds, format_counts(run.tried)
        )
        if run.waiting:
            context.log.warning("%d links wait for the next run: this one reached its limit", run.waiting)
        location = store.location(downloads_path(gallery.name))
        return dg.MaterializeResult(metadata=images_metadata(run, location))

    return gallery_images


def _catalog_asset(galleries: Galleries) -> dg.AssetsDefinition:
    keys = AssetKeys.of(galleries)

    @_asset(galleries, keys.catalog, CATALOG, "parquet", deps=[keys.images, keys.links])
    def gallery_catalog(
        context: dg.AssetExecutionContext, downloads: Downloads
    ) -> dg.MaterializeResult[None]:
        """One row per link: what is known of its image, or why there is none."""
        gallery = galleries.gallery(context.partition_key)
        say = every_few_seconds(context.log.info)
        with failing_in_words(gallery):
            store, settings = open_store(galleries), downloads.settings(galleries, gallery)
            run = build_catalog(gallery.name, store, settings, jpegs=downloads.jpegs, on_progress=say)
            context.log.info("%d images checked; %s", run.checked, format_counts(run.catalog))
            sheet = contact_sheet(gallery.name, run.catalog, store, downloads.jpegs)
        location = store.location(catalog_path(gallery.name))
        return dg.MaterializeResult(metadata=catalog_metadata(run, location, sheet))

    return gallery_catalog


@contextmanager
def failing_in_words(gallery: Gallery) -> Iterator[None]:
    """End a step that a source, a secret, the store or the disk fails with the cause as its description.

    The errors behind the cause are left out: they quote what was sent, secrets too, and Dagster stores them.

    Raises:
        dagster.Failure: The step failed for one of these reasons.
    """
    try:
        yield
    except (SourceError, MissingSecretError, StoreError, ResourceError, GalleryBusyError) as error:
        words = hide_secrets(str(error))
        place = {"gallery": gallery.name, "source": type_name(type(gallery.source))}
        raise dg.Failure(words, metadata={**place, "error": type(error).__name__}) from None


def _upstream(galleries: Galleries) -> list[dg.AssetDep]:
    """Return the assets that write galleries' link lists, each once, with a mapping for any partitioning."""
    named = (getattr(each.source, "asset", None) for each in galleries.galleries)
    keys = (dg.AssetKey.from_user_string(name) for name in dict.fromkeys(filter(None, named)))
    return [dg.AssetDep(key, partition_mapping=dg.AllPartitionMapping()) for key in keys]


def open_store(galleries: Galleries) -> Store:
    """Open the store that IMGDL_STORE names, or else the one in the galleries file."""
    return Store(os.environ.get(STORE_VARIABLE) or galleries.store)


def every_few_seconds(
    log: Callable[[str], None], clock: Callable[[], float] = time.monotonic
) -> Callable[[object], None]:
    """Return a progress callback that logs at most once every PROGRESS_S seconds."""
    due = clock() + PROGRESS_S

    def say(progress: object) -> None:
        nonlocal due
        if clock() >= due:
            due = clock() + PROGRESS_S
            log(str(progress))

    return say
