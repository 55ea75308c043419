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

from imgdl_pipeline.assets import partitions_of, unique_name
from imgdl_pipeline.config.galleries import Galleries
from imgdl_pipeline.metadata import markdown_table
from imgdl_pipeline.verdicts import CHECKS, ERROR, Inspected, Verdict, inspected, judge

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
        yield from _results(context, inspected(galleries, gallery))

    return gallery_checks


def _shared_checks(galleries: Galleries, catalogs: Catalogs) -> dg.AssetChecksDefinition:
    """Return the checks of a catalog in which each gallery is a partition."""
    [catalog] = set(catalogs.values())
    specs = _specs(catalog, partitions_def=partitions_of(galleries))

    @dg.multi_asset_check(name=_step_name(catalog), specs=specs, can_subset=True)
    def gallery_checks(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        step = context.op_execution_context
        if step.has_partition_key:
            yield from _results(context, inspected(galleries, step.partition_key))
        else:  # Dagster's button "Execute all" asks for no partition, and takes no result without one
            names = [key.name for key in context.selected_asset_check_keys]
            log_all_verdicts(step, galleries, catalogs, names)

    return gallery_checks


def _results(context: dg.AssetCheckExecutionContext, seen: Inspected) -> Iterator[dg.AssetCheckResult]:
    for key in context.selected_asset_check_keys:
        told = judge(seen, key.name).told(seen.location)
        yield dg.AssetCheckResult(asset_key=key.asset_key, check_name=key.name, **told)


def log_verdicts(
    context: dg.OpExecutionContext | dg.AssetExecutionContext,
    galleries: Galleries,
    gallery: str,
    catalog: dg.AssetKey,
) -> None:
    """Log every check's verdict on a gallery's last catalog.

    Raises:
        StoreError: The store failed.
    """
    seen = inspected(galleries, gallery)
    for name in CHECKS:
        _log(context, galleries, seen, catalog, name, judge(seen, name))


def log_all_verdicts(
    context: dg.OpExecutionContext, galleries: Galleries, catalogs: Catalogs, names: Sequence[str]
) -> None:
    """Log the verdicts on every gallery, and for each check the worst of them with a table of all.

    Raises:
        StoreError: The store failed.
    """
    found: dict[str, list[tuple[Inspected, Verdict]]] = {name: [] for name in names}
    for gallery in catalogs:
        seen = inspected(galleries, gallery)
        for name in names:
            found[name].append((seen, judge(seen, name)))
    for name, judged in found.items():
        judged.sort(key=lambda each: _badness(each[1]))  # Dagster shows the one that was logged last
        for seen, verdict in judged:
            _log(context, galleries, seen, catalogs[seen.gallery], name, verdict)
        if not galleries.asset_per_gallery:
            _log_worst(context, judged, catalogs[judged[-1][0].gallery], name)


def _badness(verdict: Verdict) -> int:
    return 0 if verdict.passed else 1 + (verdict.severity is ERROR)


def _log_worst(
    context: dg.OpExecutionContext,
    judged: Sequence[tuple[Inspected, Verdict]],
    catalog: dg.AssetKey,
    name: str,
) -> None:
    """Log a check's verdict on all galleries, which belongs to no partition."""
    worst = judged[-1][1]
    bad = [seen.gallery for seen, verdict in judged if not verdict.passed]
    rows = [
        [seen.gallery, "passed" if verdict.passed else verdict.severity.value.lower(), verdict.words]
        for seen, verdict in reversed(judged)
    ]
    _log_event(
        context,
        dg.AssetCheckEvaluation(
            asset_key=catalog,
            check_name=name,
            passed=worst.passed,
            severity=worst.severity,
            description=f"{len(bad)} of {len(judged)} galleries do not pass",
            metadata={"galleries": markdown_table(["gallery", "verdict", "because"], rows)},
        ),
    )


def _log(
    context: dg.OpExecutionContext | dg.AssetExecutionContext,
    galleries: Galleries,
    seen: Inspected,
    catalog: dg.AssetKey,
    name: str,
    verdict: Verdict,
) -> None:
    partition = None if galleries.asset_per_gallery else seen.gallery
    _log_event(
        context,
        dg.AssetCheckEvaluation(
            asset_key=catalog,
            check_name=name,
            partition=partition,
            target_materialization_data=_last_materialization(context.instance, catalog, partition),
            **verdict.told(seen.location),
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

    @dg.op(name=f"{name}_step", description="Checks the gallery of one partition, or every gallery.")
    def check(context: dg.OpExecutionContext) -> None:
        if context.has_partition_key:
            log_verdicts(context, galleries, context.partition_key, catalogs[context.partition_key])
        else:
            log_all_verdicts(context, galleries, catalogs, list(CHECKS))

    @dg.job(
        name=name,
        partitions_def=partitions_of(galleries),
        executor_def=dg.in_process_executor,
        description="Checks the gallery of one partition; without a partition, every gallery.",
    )
    def check_galleries() -> None:
        check()

    return check_galleries
