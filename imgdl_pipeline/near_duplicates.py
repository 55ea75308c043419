"""Define the asset `near_duplicates`, over all galleries, and the job and schedule that run it."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from imgdl_pipeline.assets import (
    code_references,
    failing_in_words,
    file_reference,
    near_duplicates_key,
    open_store,
    unique_name,
    working,
)
from imgdl_pipeline.config.galleries import Galleries
from imgdl_pipeline.core.model.schemas import NEAR_DUPLICATES
from imgdl_pipeline.core.near_duplicates.groups import find_near_duplicates
from imgdl_pipeline.core.near_duplicates.sheet import near_duplicates_sheet
from imgdl_pipeline.core.storage.layout import NEAR_DUPLICATES_PATH
from imgdl_pipeline.metadata import column_schema, near_duplicates_metadata
from imgdl_pipeline.resources import ImageDownloads
from imgdl_pipeline.same_file import version_tags

JOB_NAME = "find_near_duplicates"


def build_near_duplicates(
    galleries: Galleries, catalogs: Sequence[dg.AssetKey], references: Sequence[Any] = ()
) -> dg.AssetsDefinition:
    """Return the asset of images that look alike.

    Args:
        galleries: The settings of the galleries file, with `near_duplicates`.
        catalogs: The keys of the galleries' catalogs.
        references: Code references of the UI, besides the one to this code.
    """
    key, settings = near_duplicates_key(galleries), galleries.near_duplicates
    if settings is None:
        raise ValueError("the galleries file has no near_duplicates")

    @dg.asset(
        key=key,
        deps=[dg.AssetDep(each, partition_mapping=dg.AllPartitionMapping()) for each in catalogs],
        group_name=galleries.assets.group_name,
        description=galleries.assets.descriptions.get("near_duplicates") or inspect.getdoc(find),
        owners=list(galleries.assets.owners),
        tags=dict(galleries.assets.tags),
        kinds={"parquet", *galleries.assets.kinds},
        op_tags=version_tags(galleries),
        metadata={
            "dagster/column_schema": column_schema(NEAR_DUPLICATES),
            "dagster/code_references": code_references(
                [*references, file_reference(Path(__file__), "code", find.__code__.co_firstlineno)]
            ),
        },
    )
    def near_duplicates(
        context: dg.AssetExecutionContext, image_downloads: ImageDownloads
    ) -> dg.MaterializeResult[None]:
        with failing_in_words(), working(galleries, context):
            return find(galleries, settings.distance, image_downloads)

    return near_duplicates


def find(galleries: Galleries, distance: int, downloads: ImageDownloads) -> dg.MaterializeResult[None]:
    """Images of all galleries that look alike, in groups: one row for each image that has company."""
    store = open_store(galleries)
    found = find_near_duplicates(store, [each.name for each in galleries.galleries], distance)
    sheet = near_duplicates_sheet(found, store, downloads.jpegs)
    metadata = near_duplicates_metadata(found, store.location(NEAR_DUPLICATES_PATH), sheet)
    return dg.MaterializeResult(metadata=metadata)


def near_duplicates_job(galleries: Galleries, asset: dg.AssetsDefinition) -> Any:
    """Return the job that looks for near duplicates."""
    return dg.define_asset_job(
        galleries.assets.named(JOB_NAME),
        selection=[asset],
        tags=version_tags(galleries),
        executor_def=dg.in_process_executor,
        description="Looks for images that look alike, over all galleries.",
    )


def near_duplicates_schedule(galleries: Galleries, job: Any) -> list[dg.ScheduleDefinition]:
    """Return the job's schedule, at the time of the galleries' runs; none if the file has none."""
    if galleries.schedule is None:
        return []
    return [
        dg.ScheduleDefinition(
            name=unique_name(galleries.assets.named(JOB_NAME)),
            job=job,
            cron_schedule=galleries.schedule,
            execution_timezone="UTC",
            default_status=dg.DefaultScheduleStatus[galleries.schedule_status],
            description="Looks for near duplicates in the catalogs as they are at that time.",
        )
    ]
