"""Define the assets: gallery_links → gallery_images → gallery_catalog → gallery_dataset, in one of two forms.

Usually all galleries share the assets, and each is a partition of them. With `asset_per_gallery`, each has
assets of its own. The last one is defined only where a gallery has a dataset.
"""

import hashlib
import inspect
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import dagster as dg
import pyarrow as pa

from imgdl_pipeline.config.galleries import Galleries, Gallery
from imgdl_pipeline.core import sources
from imgdl_pipeline.core.catalog.audit import fresh_for
from imgdl_pipeline.core.catalog.build import build_catalog
from imgdl_pipeline.core.catalog.contact_sheet import SHOWN, contact_sheet
from imgdl_pipeline.core.dataset.export import export_dataset
from imgdl_pipeline.core.dataset.where import WhereError
from imgdl_pipeline.core.listing.build import list_digest, list_gallery, list_warnings
from imgdl_pipeline.core.model.outcome import ResourceError
from imgdl_pipeline.core.model.schemas import CATALOG, DOWNLOADS, LINKS
from imgdl_pipeline.core.model.settings import MissingSecretError
from imgdl_pipeline.core.model.shown import hide_secrets
from imgdl_pipeline.core.sources import SourceError, type_name
from imgdl_pipeline.core.storage.layout import (
    catalog_path,
    dataset_path,
    downloads_path,
    is_shard,
    links_path,
)
from imgdl_pipeline.core.storage.lease import GalleryBusyError
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.sign_of_life import alive
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline.metadata import (
    catalog_metadata,
    column_schema,
    dataset_metadata,
    format_counts,
    images_metadata,
    links_metadata,
)
from imgdl_pipeline.progress import reporting
from imgdl_pipeline.resources import ImageDownloads
from imgdl_pipeline.same_file import Context, make_sure_of_file, version_tags

STORE_VARIABLE = "IMGDL_STORE"
NEAR_DUPLICATES = "near_duplicates"
STAGE_METADATA = "imgdl_pipeline/stage"
GALLERY_METADATA = "imgdl_pipeline/gallery"
"""The metadata of assets that names their stage and, of a gallery's own assets, the gallery."""

StageName = Literal["links", "images", "catalog", "dataset"]


@dataclass(frozen=True, slots=True)
class GalleryStage:
    """A stage of the pipeline, for one gallery or for all.

    Args:
        name: What the stage makes: `links`, `images`, `catalog` or `dataset`.
        gallery: The gallery; None where an asset has a partition per gallery.
        upstream: The keys of the assets that the stage's asset depends on.
    """

    name: StageName
    gallery: Gallery | None = None
    upstream: tuple[dg.AssetKey, ...] = ()


class AssetKeys(NamedTuple):
    """The keys of the assets. The last one is defined where a gallery has a dataset."""

    links: dg.AssetKey
    images: dg.AssetKey
    catalog: dg.AssetKey
    dataset: dg.AssetKey

    @staticmethod
    def of(galleries: Galleries, gallery: str | None = None) -> "AssetKeys":
        """Return the asset keys of a galleries file, with its key prefix if it has one.

        Args:
            galleries: The settings of the file.
            gallery: The gallery whose own assets they are, with `asset_per_gallery`.
        """
        prefix = galleries.assets.key_prefix
        if gallery is None:
            return AssetKeys(*(dg.AssetKey([*prefix, f"gallery_{name}"]) for name in AssetKeys._fields))
        return AssetKeys(*(dg.AssetKey([*prefix, "gallery", gallery, name]) for name in AssetKeys._fields))


def partitions_of(galleries: Galleries) -> dg.StaticPartitionsDefinition:
    """Return the partitions, one per gallery or shard."""
    return dg.StaticPartitionsDefinition([each.partition for each in galleries.galleries])


def _materialize_links(
    context: dg.AssetExecutionContext, galleries: Galleries, gallery: Gallery, downloads: ImageDownloads
) -> dg.MaterializeResult[None]:
    """The link list as the gallery's source returned it: one row per distinct link."""
    reporting(gallery.name, "links", context.log.info)
    settings, store = downloads.settings(galleries, gallery), open_store(galleries)
    if downloads.jpegs:
        downloads.jpegs.start()  # start them during the listing; the next step needs them
    links = list_gallery(
        gallery.name,
        gallery.source,
        store,
        settings,
        allow_empty=gallery.allow_empty,
        list_timeout=gallery.list_timeout,
        trusts_source=gallery.trusted,
    )
    for words in list_warnings(links):
        context.log.warning(words)
    return dg.MaterializeResult(
        metadata=links_metadata(links, store.location(links_path(gallery.name))),
        data_version=dg.DataVersion(list_digest(links)),
    )


def _materialize_images(
    context: dg.AssetExecutionContext, galleries: Galleries, gallery: Gallery, downloads: ImageDownloads
) -> dg.MaterializeResult[None]:
    """The image files, and the ledger of what happened to each link."""
    store, report = open_store(galleries), reporting(gallery.name, "images", context.log.info)
    with sources.serving(gallery.source):
        run = downloads.download(galleries, gallery, store, report)
    tried = run.tried_rows("status", "reason")
    context.log.info("%d links tried in %.1f s: %s", tried.num_rows, run.seconds, format_counts(tried))
    if run.waiting:
        context.log.warning("%d links wait for the next run: this one reached its limit", run.waiting)
    return dg.MaterializeResult(metadata=images_metadata(run, store.location(downloads_path(gallery.name))))


DIGESTED = ("url", "status", "reason", "sha256", "duplicate_of", "attributes")
"""The catalog's columns that its data version depends on; facts about an image follow from its SHA-256."""


def _materialize_catalog(
    context: dg.AssetExecutionContext, galleries: Galleries, gallery: Gallery, downloads: ImageDownloads
) -> dg.MaterializeResult[None]:
    """One row per link: what is known of its image, or why there is none."""
    report = reporting(gallery.name, "catalog", context.log.info)
    settings, store = downloads.settings(galleries, gallery), open_store(galleries)
    run = build_catalog(gallery.name, store, settings, jpegs=downloads.jpegs, on_progress=report)
    with run.opened() as catalog:
        context.log.info(
            "%d images checked; %s", run.checked, format_counts(catalog.rows("status", "reason"))
        )
        sheet = contact_sheet(gallery.name, catalog.batches(*SHOWN), store, downloads.jpegs)
        metadata = catalog_metadata(run, catalog, store.location(catalog_path(gallery.name)), sheet)
    return dg.MaterializeResult(
        metadata=metadata,
        data_version=dg.DataVersion(run.digest(*DIGESTED)),
    )


def _materialize_dataset(
    context: dg.AssetExecutionContext, galleries: Galleries, gallery: Gallery, downloads: ImageDownloads
) -> dg.MaterializeResult[None] | None:
    """A dataset of the images, for training jobs and other readers; only of galleries that ask for one."""
    if gallery.dataset is None:
        return None
    report, store = reporting(gallery.name, "dataset", context.log.info), open_store(galleries)
    run = export_dataset(store, gallery.name, gallery.dataset, jpegs=downloads.jpegs, on_progress=report)
    for words in run.warnings:
        context.log.warning(words)
    if not run.images and not gallery.allow_empty:
        words = f"the dataset of {gallery.name} has no images: {run.why_empty}"
        if not is_shard(gallery.name):
            raise dg.Failure(words, allow_retries=False)
        context.log.warning(words)  # a shard may have few links, and those of its gallery are elsewhere
    return dg.MaterializeResult(
        metadata=dataset_metadata(run, store.location(dataset_path(gallery.name))),
        data_version=dg.DataVersion(run.manifest.digest),
    )


@dataclass(frozen=True, slots=True)
class _Stage:
    """How a stage is materialized, and how its asset is described."""

    materialize: Callable[..., dg.MaterializeResult[None] | None]
    schema: pa.Schema | None
    kinds: tuple[str, ...]
    upstream: tuple[StageName, ...]

    @property
    def code(self) -> Any:
        """The code reference to its function."""
        return file_reference(Path(__file__), "code", self.materialize.__code__.co_firstlineno)


_STAGES: dict[StageName, _Stage] = {
    "links": _Stage(_materialize_links, LINKS, ("parquet",), ()),
    "images": _Stage(_materialize_images, DOWNLOADS, ("jpeg", "parquet"), ("links",)),
    "catalog": _Stage(_materialize_catalog, CATALOG, ("parquet",), ("images", "links")),
    "dataset": _Stage(_materialize_dataset, None, ("jpeg",), ("catalog",)),
}

Execute = Callable[
    [dg.AssetExecutionContext, GalleryStage, ImageDownloads], Iterator[dg.MaterializeResult[None]]
]


OnFailure = Callable[[dg.AssetExecutionContext, Gallery], None]
SpecOf = Callable[[GalleryStage], dg.AssetSpec]
Specs = list[tuple[GalleryStage, dg.AssetSpec]]


def specs_of(galleries: Galleries, spec_of: SpecOf | None = None, lists: dg.AssetKey | None = None) -> Specs:
    """Return the stages that have an asset, upstream ones first, with the specs of their assets.

    Args:
        galleries: The settings of the galleries file.
        spec_of: Returns the spec of a stage's asset; by default `asset_spec`.
        lists: The key of an asset that makes the link lists; None where a stage does.
    """
    partitions = partitions_of(galleries)

    def own_spec(stage: GalleryStage) -> dg.AssetSpec:
        return asset_spec(galleries, stage, partitions)

    specs: Specs = []
    for gallery in galleries.galleries if galleries.asset_per_gallery else (None,):
        keys: dict[StageName, dg.AssetKey] = {} if lists is None else {"links": lists}
        members = [gallery] if gallery else galleries.galleries
        for name, how in _STAGES.items():
            if name in keys or (name == "dataset" and not any(each.dataset for each in members)):
                continue
            stage = GalleryStage(name, gallery, tuple(keys[upstream] for upstream in how.upstream))
            spec = (spec_of or own_spec)(stage)
            keys[name] = spec.key
            specs.append((stage, spec))
    return specs


def asset_spec(
    galleries: Galleries,
    stage: GalleryStage,
    partitions: dg.StaticPartitionsDefinition,
    references: Sequence[Any] = (),
) -> dg.AssetSpec:
    """Return the spec of a stage's asset.

    Args:
        galleries: The settings of the galleries file.
        stage: The stage.
        partitions: The result of `partitions_of`, used where all galleries share the asset.
        references: Code references of the UI, besides the one to the stage's code.
    """
    how, gallery = _STAGES[stage.name], stage.gallery
    keys = AssetKeys.of(galleries, gallery.name if gallery else None)
    settings = galleries.asset_settings(gallery) if gallery else galleries.assets
    described = galleries.assets.descriptions.get(f"gallery_{stage.name}")  # type: ignore[call-overload]
    return dg.AssetSpec(
        getattr(keys, stage.name),
        deps=[*stage.upstream, *_lists_of(galleries, stage), *_groups_for(galleries, stage)],
        partitions_def=None if gallery else partitions,
        group_name=_group_name(galleries, gallery),
        description=described or inspect.getdoc(how.materialize),
        owners=list(settings.owners),
        tags=dict(settings.tags),
        kinds={*how.kinds, *galleries.assets.kinds},
        automation_condition=settings.automation_condition,
        freshness_policy=_freshness_policy(galleries, stage),
        skippable=stage.name == "dataset",
        metadata={
            **({"dagster/column_schema": column_schema(how.schema)} if how.schema else {}),
            "dagster/code_references": code_references([*references, how.code]),
            STAGE_METADATA: stage.name,
            **({GALLERY_METADATA: gallery.name} if gallery else {}),
        },
    )


@contextmanager
def ignoring_beta() -> Iterator[None]:
    """Silence Dagster's warning about its code references, which are in beta."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        yield


def file_reference(file: Path, label: str, line: int = 1) -> Any:
    """Return a code reference to a file, which the UI shows as a link."""
    with ignoring_beta():
        return dg.LocalFileCodeReference(file_path=str(file.absolute()), line_number=line, label=label)


def _group_name(galleries: Galleries, gallery: Gallery | None) -> str:
    """Return the group of an asset; a gallery's own assets have their own unless the file names one."""
    if gallery is None:
        return galleries.assets.group_name
    named = gallery.assets.model_fields_set | galleries.assets.model_fields_set
    return (
        galleries.asset_settings(gallery).group_name if "group_name" in named else unique_name(gallery.name)
    )


def code_references(references: list[Any]) -> dg.CodeReferencesMetadataValue:
    """Return code references as metadata, without Dagster's warning."""
    with ignoring_beta():
        return dg.CodeReferencesMetadataValue(code_references=references)


def _freshness_policy(galleries: Galleries, stage: GalleryStage) -> dg.FreshnessPolicy | None:
    """Return the policy of a gallery's own catalog: Dagster judges assets, but no single partitions."""
    if stage.gallery is None or stage.name != "catalog":
        return None
    window = fresh_for(
        galleries.schedule_of(stage.gallery), galleries.check_settings(stage.gallery).fresh_days
    )
    return None if window is None else dg.FreshnessPolicy.time_window(fail_window=window)


def materialize(
    galleries: Galleries,
    context: dg.AssetExecutionContext,
    stage: GalleryStage,
    downloads: ImageDownloads,
) -> dg.MaterializeResult[None] | None:
    """Run a stage of one gallery, and return its result; None for the dataset of a gallery without one.

    Raises:
        dagster.Failure: A source, a secret, the store or the disk failed; says why.
    """
    if stage.gallery is None:
        raise ValueError("a stage runs for one gallery")
    with failing_in_words(stage.gallery), working(galleries, context, stage.gallery):
        return _STAGES[stage.name].materialize(context, galleries, stage.gallery, downloads)


def build_assets(
    galleries: Galleries,
    specs: Specs | None = None,
    execute: Execute | None = None,
    on_failure: OnFailure = lambda *_: None,
) -> list[dg.AssetsDefinition]:
    """Return the assets of a galleries file.

    Args:
        galleries: The settings of the file.
        specs: The stages with their specs; by default those of `specs_of`.
        execute: Runs a stage of one gallery, and yields its result; by default `materialize`.
        on_failure: Called in a step that fails, before its error is raised.
    """

    def own_execute(
        context: dg.AssetExecutionContext, stage: GalleryStage, downloads: ImageDownloads
    ) -> Iterator[dg.MaterializeResult[None]]:
        result = materialize(galleries, context, stage, downloads)
        if result is not None:
            yield result

    return [
        _asset(galleries, stage, spec, execute or own_execute, on_failure)
        for stage, spec in specs or specs_of(galleries)
    ]


def _asset(
    galleries: Galleries,
    stage: GalleryStage,
    spec: dg.AssetSpec,
    execute: Execute,
    on_failure: OnFailure,
) -> dg.AssetsDefinition:
    @dg.multi_asset(
        name=unique_name("__".join(spec.key.path)),
        specs=[spec],
        op_tags=version_tags(galleries),
        pool=galleries.assets.pool if stage.name == "images" else None,
    )
    def gallery_asset(
        context: dg.AssetExecutionContext, image_downloads: ImageDownloads
    ) -> Iterator[dg.MaterializeResult[None]]:
        gallery = stage.gallery or gallery_of(context.partition_key, galleries)
        try:
            yield from execute(context, replace(stage, gallery=gallery), image_downloads)
        except Exception:
            try:
                on_failure(context, gallery)
            except Exception as error:  # noqa: BLE001 -- the step's own error is the one to show
                context.log.warning("what follows a failure failed, too: %s", hide_secrets(str(error)))
            raise

    return gallery_asset


def unique_name(text: str) -> str:
    """Return a text as a name that Dagster allows for steps and schedules, another one for each text."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", text)
    return name if name == text else f"{name}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def runs_of(galleries: Galleries, specs: Specs) -> dict[str, dict[str, Any]]:
    """Return what a `dagster.RunRequest` says to run each gallery: its partition, or its own assets."""
    if not galleries.asset_per_gallery:
        return {each.name: {"partition_key": each.partition} for each in galleries.galleries}
    keys: dict[str, list[dg.AssetKey]] = {each.name: [] for each in galleries.galleries}
    for stage, spec in specs:
        if stage.gallery:
            keys[stage.gallery.name].append(spec.key)
    return {name: {"asset_selection": selected} for name, selected in keys.items()}


def gallery_of(name: str, galleries: Galleries) -> Gallery:
    """Return the gallery of a partition.

    Raises:
        dagster.Failure: There is no such gallery any more; the run may have waited in a queue.
    """
    try:
        return galleries.gallery(name)
    except KeyError:
        raise dg.Failure(
            f"the gallery {name} is not in the galleries file any more", allow_retries=False
        ) from None


FAILURES = (SourceError, MissingSecretError, StoreError, ResourceError, GalleryBusyError, WhereError)
"""The errors whose message is enough for a person."""


@contextmanager
def working(galleries: Galleries, context: Context, gallery: Gallery | None = None) -> Iterator[None]:
    """Make sure of the galleries file, then show in the store that the run is alive; see `lost_runs.py`.

    Raises:
        dagster.Failure: This process has another galleries file than the run was requested with.
        StoreError: The store cannot be opened.
    """
    step = context.op_execution_context if isinstance(context, dg.AssetExecutionContext) else context
    make_sure_of_file(context, galleries, store_root(galleries), gallery)
    with alive(open_store(galleries), step.run_id, str(step.op_handle)):
        yield


@contextmanager
def failing_in_words(gallery: Gallery | None = None) -> Iterator[None]:
    """End a step that a source, a secret, the store or the disk fails with the cause as its description.

    The errors behind the cause are left out: they quote what was sent, secrets too, and Dagster stores them.

    Raises:
        dagster.Failure: The step failed for one of these reasons.
    """
    try:
        yield
    except FAILURES as error:
        words = hide_secrets(str(error))
        place = {"gallery": gallery.name, "source": type_name(type(gallery.source))} if gallery else {}
        raise dg.Failure(words, metadata={**place, "error": type(error).__name__}) from None


def _lists_of(galleries: Galleries, stage: GalleryStage) -> list[dg.AssetDep]:
    """Return the assets that write galleries' link lists, each once, with a mapping for any partitioning."""
    if stage.name != "links":
        return []
    members = [stage.gallery] if stage.gallery else galleries.galleries
    named = (getattr(each.source, "asset", None) for each in members)
    keys = (dg.AssetKey.from_user_string(name) for name in dict.fromkeys(filter(None, named)))
    return [dg.AssetDep(key, partition_mapping=dg.AllPartitionMapping()) for key in keys]


def _groups_for(galleries: Galleries, stage: GalleryStage) -> list[dg.AssetKey]:
    """Return the asset whose groups a dataset may choose by."""
    is_used = stage.name == "dataset" and galleries.near_duplicates is not None
    return [near_duplicates_key(galleries)] if is_used else []


def near_duplicates_key(galleries: Galleries) -> dg.AssetKey:
    """Return the key of the asset of near duplicates."""
    return dg.AssetKey([*galleries.assets.key_prefix, NEAR_DUPLICATES])


def open_store(galleries: Galleries) -> Store:
    """Open the store that IMGDL_STORE names, or else the one in the galleries file."""
    return Store(store_root(galleries))


def store_root(galleries: Galleries) -> str:
    """Return the store that IMGDL_STORE names, or else the one in the galleries file."""
    return os.environ.get(STORE_VARIABLE) or galleries.store
