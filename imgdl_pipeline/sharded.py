"""Define ShardedGallery, the Dagster component of one very large gallery, whose links are in many shards."""

import inspect
import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Final

import dagster as dg

from imgdl_pipeline.assets import (
    STAGE_METADATA,
    GalleryStage,
    Specs,
    code_references,
    failing_in_words,
    file_reference,
    open_store,
    specs_of,
    working,
)
from imgdl_pipeline.component import GalleriesScaffolder, ImageGalleries, LooseAttributes
from imgdl_pipeline.config.galleries import Galleries, Gallery, partition_of
from imgdl_pipeline.config.sharded import Sharded, Shards
from imgdl_pipeline.core.listing.shards import list_shards, shards_with_work
from imgdl_pipeline.core.model.schemas import LINKS
from imgdl_pipeline.core.storage.layout import links_path, shard_name
from imgdl_pipeline.metadata import column_schema, shards_metadata
from imgdl_pipeline.progress import reporting
from imgdl_pipeline.resources import ImageDownloads
from imgdl_pipeline.same_file import version_tags

LIST: Final = "gallery_list"
LIST_JOB_NAME = "list_gallery"
LIST_SCHEDULE_NAME = "daily_list"
WORK_SENSOR = "shards_with_work"

MOST_REQUESTS = 200
"""The most runs that the sensor requests at a time; the next tick requests more."""

SCAFFOLD = """\
type: {type_name}
attributes:
  name: {name}
  shards: 4
  store: data/{name}
  schedule: "0 6 * * *"
  schedule_status: STOPPED
  source: {{type: demo}}
"""


class ShardedScaffolder(GalleriesScaffolder):
    """A scaffolder that writes a working file of the embedded demo gallery, in four shards."""

    text = SCAFFOLD


class _LooseSharded(LooseAttributes):
    strict: ClassVar[type[Galleries] | type[Sharded]] = Sharded


@dg.scaffold_with(ShardedScaffolder)
class ShardedGallery(ImageGalleries):
    """One very large gallery: lists its links, and downloads, validates and catalogs them shard by shard.

    The asset gallery_list divides the links into shards. Each shard is a partition of gallery_images →
    gallery_catalog → gallery_dataset, and a run of its own. A daily schedule lists the links; a sensor then
    requests a run of every shard whose list is newer than its catalog. A subclass may override
    `get_asset_spec` and `execute`.

    Args:
        galleries: The shards, as the attributes of the component's file give them.
        file: Where they stand, to link to from the assets; None where nobody knows.
        resources: The resources to define; by default `image_downloads`.
    """

    galleries: Shards
    attributes = _LooseSharded

    def get_asset_spec(self, stage: GalleryStage) -> dg.AssetSpec:
        """Return the spec of a stage's asset; override this to change keys, owners, tags and so on.

        Args:
            stage: The stage. Its gallery is the whole one for the list, and None for what shards share.
        """
        if stage.name != "links":
            return super().get_asset_spec(stage)
        assets = self.galleries.assets
        spec = dg.AssetSpec(
            dg.AssetKey([*assets.key_prefix, LIST]),
            group_name=assets.group_name,
            description=assets.descriptions.get(LIST) or inspect.getdoc(_list),
            owners=list(assets.owners),
            tags=dict(assets.tags),
            kinds={"parquet", *assets.kinds},
            automation_condition=assets.automation_condition,
            metadata={
                "dagster/column_schema": column_schema(LINKS),
                "dagster/code_references": code_references([*self._references, _CODE]),
                STAGE_METADATA: stage.name,
            },
        )
        return spec.with_io_manager_key(self._tables_key)

    def execute(
        self, context: dg.AssetExecutionContext, stage: GalleryStage, image_downloads: ImageDownloads
    ) -> Iterator[dg.MaterializeResult[None]]:
        """List the links, or run a stage of one shard; override this to do something before or after.

        Raises:
            dagster.Failure: A source, a secret, the store or the disk failed; says why.
        """
        if stage.name != "links":
            yield from super().execute(context, stage, image_downloads)
            return
        whole = self.galleries.whole
        with failing_in_words(whole), working(self.galleries, context, whole):
            yield _list(context, self.galleries, image_downloads)

    @cached_property
    def specs(self) -> Specs:
        """The list and the stages of shards, with the specs of their assets."""
        listing = GalleryStage("links", self.galleries.whole)
        spec = self.get_asset_spec(listing)
        return [(listing, spec), *specs_of(self.galleries, self.get_asset_spec, lists=spec.key)]

    @property
    def _job_description(self) -> str:
        return f"Downloads and catalogs shards of {self.galleries.whole.name}."

    def _run_together(self, assets: list[dg.AssetsDefinition]) -> list[dg.AssetsDefinition]:
        """Return the assets of shards: the list has a job of its own."""
        return assets[1:]

    def _tell_verdicts_again(self, context: dg.AssetExecutionContext, gallery: Gallery) -> None:
        if gallery is not self.galleries.whole:  # which no check is about
            super()._tell_verdicts_again(context, gallery)

    def _beside(self, assets: list[dg.AssetsDefinition], job: Any) -> dg.Definitions:
        """Return the list's job and schedule, and the sensor that runs shards."""
        list_job = dg.define_asset_job(
            self.galleries.assets.named(LIST_JOB_NAME),
            selection=assets[:1],
            tags=version_tags(self.galleries),
            executor_def=dg.in_process_executor,
            description=f"Lists the links of {self.galleries.whole.name}, and divides them into shards.",
        )
        return dg.Definitions(
            jobs=[list_job],
            schedules=self._list_schedule(list_job),
            sensors=[build_work_sensor(self.galleries, job)],
        )

    def _list_schedule(self, job: Any) -> list[dg.ScheduleDefinition]:
        if self.galleries.schedule is None:
            return []
        return [
            dg.ScheduleDefinition(
                name=self.galleries.assets.named(LIST_SCHEDULE_NAME),
                job=job,
                cron_schedule=self.galleries.schedule,
                execution_timezone="UTC",
                default_status=dg.DefaultScheduleStatus[self.galleries.schedule_status],
                description=f"Lists the links; the sensor {WORK_SENSOR} then runs the shards.",
            )
        ]


def _list(
    context: dg.AssetExecutionContext, galleries: Shards, downloads: ImageDownloads
) -> dg.MaterializeResult[None]:
    """The links as the gallery's source returned them, divided into shards: one row per distinct link."""
    gallery, store = galleries.whole, open_store(galleries)
    reporting(gallery.name, "links", context.log.info)
    listed = list_shards(
        gallery.name,
        gallery.source,
        store,
        downloads.settings(galleries, gallery),
        len(galleries.galleries),
        allow_empty=gallery.allow_empty,
        list_timeout=gallery.list_timeout,
        trusts_source=gallery.trusted,
    )
    for words in listed.warnings:
        context.log.warning(words)
    folder = store.location(links_path(gallery.name).rpartition("/")[0])
    return dg.MaterializeResult(
        metadata=shards_metadata(listed, folder), data_version=dg.DataVersion(listed.split.digest)
    )


_CODE = file_reference(Path(__file__), "code", _list.__code__.co_firstlineno)


def build_work_sensor(galleries: Shards, job: Any) -> dg.SensorDefinition:
    """Return the sensor that requests a run of every shard that has work: once for each of its lists.

    Args:
        galleries: The shards.
        job: The job that downloads and catalogs a shard.
    """
    gallery = galleries.whole.name

    @dg.sensor(
        name=galleries.assets.named(WORK_SENSOR),
        job=job,
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus[galleries.schedule_status],
        description="Requests a run of every shard whose list is newer than its catalog.",
    )
    def shards_with_work_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        requested: dict[str, str] = json.loads(context.cursor or "{}")
        work = shards_with_work(open_store(galleries), gallery, len(galleries.galleries))
        wanted = {
            partition_of(shard_name(gallery, number)): written.isoformat() for number, written in work.items()
        }
        new = [(key, at) for key, at in wanted.items() if requested.get(key) != at][:MOST_REQUESTS]
        return dg.SensorResult(
            run_requests=list(_requests(gallery, new)),
            skip_reason=None if new else _why_none(gallery, len(wanted)),
            cursor=json.dumps({**requested, **dict(new)}),
        )

    return shards_with_work_sensor


def _requests(gallery: str, new: list[tuple[str, str]]) -> Iterator[dg.RunRequest]:
    for key, at in new:
        yield dg.RunRequest(run_key=f"{gallery}/{key} {at}", partition_key=key)


def _why_none(gallery: str, waiting: int) -> str:
    if not waiting:
        return f"no shard of {gallery} has a list that is newer than its catalog"
    return f"a run was requested already of each of the {waiting} shards of {gallery} that have work"
