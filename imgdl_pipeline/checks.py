"""Define the asset checks of each gallery: none stops a run, and each reports its findings in its metadata.

All checks of a gallery run in one step, because a step per check would cost more than the check itself.

Dagster plans the checks with a run, and counts those that the run does not reach as failed. So a step that
fails tells the verdicts on the gallery's last catalog again: one broken source turns no verdict red.
"""

import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

# Dagster shows a verdict at its partition only with this, and has no public name for it.
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData,
)

from imgdl_pipeline.assets import gallery_of, partitions_of, store_root, unique_name
from imgdl_pipeline.config.galleries import Galleries, partition_of
from imgdl_pipeline.metadata import markdown_table
from imgdl_pipeline.same_file import make_sure_of_file, version_tags
from imgdl_pipeline.verdicts import CHECKS, Judged, judge

Catalogs = Mapping[str, dg.AssetKey]
"""The key of each gallery's catalog, by the gallery's name: the same for all, or one each."""


def build_checks(galleries: Galleries, catalogs: Catalogs) -> list[dg.AssetChecksDefinition]:
    """Return the checks of the catalogs: one result per gallery and check."""
    if galleries.asset_per_gallery:
        return [_own_checks(galleries, name, key) for name, key in catalogs.items()]
    return [_shared_checks(galleries, catalogs)]


def _specs(catalog: dg.AssetKey, **more: Any) -> list[dg.AssetCheckSpec]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)  # partitioned checks are a preview in Dagster 1.13
        return [
            dg.AssetCheckSpec(name, asset=catalog, description=inspect.getdoc(check), **more)
            for name, check in CHECKS.items()
        ]


def _step_name(catalog: dg.AssetKey) -> str:
    return unique_name("__".join([*catalog.path, "checks"]))


def _own_checks(galleries: Galleries, gallery: str, catalog: dg.AssetKey) -> dg.AssetChecksDefinition:
    """Return the checks of a catalog that is one gallery's own."""

    @dg.multi_asset_check(name=_step_name(catalog), specs=_specs(catalog), can_subset=True)
    def gallery_checks(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        yield from _results(context, galleries, gallery)

    return gallery_checks


def _shared_checks(galleries: Galleries, catalogs: Catalogs) -> dg.AssetChecksDefinition:
    """Return the checks of a catalog in which each gallery is a partition."""
    [catalog] = set(catalogs.values())
    specs = _specs(catalog, partitions_def=partitions_of(galleries))

    @dg.multi_asset_check(name=_step_name(catalog), specs=specs, can_subset=True)
    def gallery_checks(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        step = context.op_execution_context
        if step.has_partition_key:
            yield from _results(context, galleries, step.partition_key)
        else:  # Dagster's button "Execute all" asks for no partition, and takes no result without one
            names = [key.name for key in context.selected_asset_check_keys]
            log_all_verdicts(step, galleries, catalogs, names)

    return gallery_checks


def _results(
    context: dg.AssetCheckExecutionContext, galleries: Galleries, gallery: str
) -> Iterator[dg.AssetCheckResult]:
    keys = {key.name: key for key in context.selected_asset_check_keys}
    for each in judge(galleries, gallery_of(gallery, galleries), keys):
        yield dg.AssetCheckResult(
            asset_key=keys[each.check].asset_key,
            check_name=each.check,
            **each.verdict.told(each.catalog),
        )


def log_verdicts(
    context: dg.OpExecutionContext | dg.AssetExecutionContext,
    galleries: Galleries,
    gallery: str,
    catalog: dg.AssetKey,
) -> None:
    """Log every check's verdict on a gallery's last catalog.

    Raises:
        StoreError: The store cannot be opened.
        dagster.Failure: There is no such gallery any more.
    """
    for each in judge(galleries, gallery_of(gallery, galleries), CHECKS):
        _log(context, galleries, each, catalog)


def log_all_verdicts(
    context: dg.OpExecutionContext, galleries: Galleries, catalogs: Catalogs, checks: Sequence[str]
) -> None:
    """Log the verdicts on every gallery, and for each check the worst of them with a table of all.

    Raises:
        StoreError: The store cannot be opened.
    """
    found: dict[str, list[Judged]] = {check: [] for check in checks}
    for gallery in galleries.galleries:
        for each in judge(galleries, gallery, checks):
            found[each.check].append(each)
    for judged in found.values():
        judged.sort(key=lambda each: each.badness)
        *others, worst = judged
        for each in others:
            _log(context, galleries, each, catalogs[each.gallery])
        if galleries.asset_per_gallery:
            _log(context, galleries, worst, catalogs[worst.gallery])
            continue
        table = _table(judged)
        _log(context, galleries, worst, catalogs[worst.gallery], table)  # Dagster shows the one logged last
        _log_worst(context, judged, catalogs[worst.gallery], table)


Table = dict[str, dg.MarkdownMetadataValue]


def _table(judged: Sequence[Judged]) -> Table:
    """Return a table of a check's verdicts on all galleries, the worst first."""
    rows = [
        [each.gallery, ("passed", "warn", "error")[each.badness], each.verdict.words]
        for each in reversed(judged)
    ]
    return {"galleries": markdown_table(["gallery", "verdict", "because"], rows)}


def _log_worst(
    context: dg.OpExecutionContext, judged: Sequence[Judged], catalog: dg.AssetKey, table: Table
) -> None:
    """Log a check's verdict on all galleries, which belongs to no partition."""
    worst, bad = judged[-1], sum(not each.verdict.passed for each in judged)
    _log_event(
        context,
        dg.AssetCheckEvaluation(
            asset_key=catalog,
            check_name=worst.check,
            passed=worst.verdict.passed,
            severity=worst.verdict.severity,
            description=f"{bad} of {len(judged)} galleries do not pass",
            metadata=table,
        ),
    )


def _log(
    context: dg.OpExecutionContext | dg.AssetExecutionContext,
    galleries: Galleries,
    judged: Judged,
    catalog: dg.AssetKey,
    table: Table | None = None,
) -> None:
    partition = None if galleries.asset_per_gallery else partition_of(judged.gallery)
    told = judged.verdict.told(judged.catalog)
    _log_event(
        context,
        dg.AssetCheckEvaluation(
            asset_key=catalog,
            check_name=judged.check,
            partition=partition,
            target_materialization_data=_last_materialization(context.instance, catalog, partition),
            **{**told, "metadata": {**told["metadata"], **(table or {})}},
        ),
    )


def _log_event(
    context: dg.OpExecutionContext | dg.AssetExecutionContext, evaluation: dg.AssetCheckEvaluation
) -> None:
    context.log_event(evaluation)  # type: ignore[arg-type]  # the method takes it, its annotation forgot it


def _last_materialization(
    instance: dg.DagsterInstance, catalog: dg.AssetKey, partition: str | None
) -> AssetCheckEvaluationTargetMaterializationData | None:
    """Return the materialization that a verdict is on, or None if there is none."""
    of_partition = None if partition is None else [partition]
    wanted = dg.AssetRecordsFilter(asset_key=catalog, asset_partitions=of_partition)
    for record in instance.fetch_materializations(wanted, limit=1).records:
        return AssetCheckEvaluationTargetMaterializationData(
            storage_id=record.storage_id, run_id=record.run_id, timestamp=record.timestamp
        )
    return None


def build_check_job(galleries: Galleries, catalogs: Catalogs, name: str) -> dg.JobDefinition:
    """Return the job that checks one gallery, or every gallery if it is run without a partition.

    It logs its verdicts as events, because a job of asset checks has no partitions to choose from.
    """

    @dg.op(
        name=f"{name}_step",
        description="Checks the gallery of one partition, or every gallery.",
        tags=version_tags(galleries),
    )
    def check(context: dg.OpExecutionContext) -> None:
        make_sure_of_file(context, galleries, store_root(galleries))
        if context.has_partition_key:
            gallery = gallery_of(context.partition_key, galleries).name
            log_verdicts(context, galleries, gallery, catalogs[gallery])
        else:
            log_all_verdicts(context, galleries, catalogs, list(CHECKS))

    @dg.job(
        name=name,
        partitions_def=partitions_of(galleries),
        tags=version_tags(galleries),
        executor_def=dg.in_process_executor,
        description="Checks the gallery of one partition; without a partition, every gallery.",
    )
    def check_galleries() -> None:
        check()

    return check_galleries
