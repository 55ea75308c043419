"""Run a gallery's job in this process, as the terminal does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from imgdl_pipeline.assets import NEAR_DUPLICATES, near_duplicates_key
from imgdl_pipeline.component import JOB_NAME, ImageGalleries
from imgdl_pipeline.config.galleries import Gallery
from imgdl_pipeline.core.dataset.where import uses_groups
from imgdl_pipeline.near_duplicates import JOB_NAME as NEAR_DUPLICATES_JOB
from imgdl_pipeline.progress import Watch, watching
from imgdl_pipeline.resources import RESOURCE_KEY
from imgdl_pipeline.sharded import LIST_JOB_NAME, ShardedGallery

QUIET = {"console": {"config": {"log_level": "CRITICAL"}}}
INTERRUPTED = dg.DagsterExecutionInterruptedError.__name__


@dataclass(frozen=True, slots=True)
class GalleryRun:
    """The result of a gallery's run.

    Args:
        gallery: The gallery's name.
        run_id: Dagster's name of the run.
        error: What made it fail, in words; None for a success.
        was_interrupted: Whether someone stopped it.
        metadata: What each asset reports, by stage: `links`, `images`, `catalog`, `dataset`.
        failed_checks: What each check found that failed with the severity ERROR, by its name.
        warnings: The same for the severity WARN.
    """

    gallery: str
    run_id: str
    error: str | None
    was_interrupted: bool
    metadata: Mapping[str, Mapping[str, Any]]
    failed_checks: Mapping[str, str] = field(default_factory=dict)
    warnings: Mapping[str, str] = field(default_factory=dict)

    @property
    def succeeded(self) -> bool:
        """Whether the run was a success, and no check found an error."""
        return self.error is None and not self.failed_checks


def run_gallery(
    component: ImageGalleries,
    definitions: dg.Definitions,
    gallery: str,
    instance: dg.DagsterInstance,
    *,
    limit: int | None = None,
    force: bool = False,
    watch: Watch = lambda *_: None,
) -> GalleryRun:
    """Run a gallery's job in this process; it appears in the UI of the same Dagster instance.

    Args:
        component: The component of the galleries file.
        definitions: What Dagster loads from it.
        gallery: The gallery's name.
        instance: Where the run is recorded.
        limit: Download this many links at most; None for all.
        force: Ask for every link again.
        watch: Called with the progress.
    """
    config = {
        "loggers": QUIET,
        "resources": {RESOURCE_KEY: {"config": {"limit": limit, "force": force}}},
    }
    request = component.runs[gallery]
    with watching(watch):
        result = _run(component, definitions, instance, JOB_NAME, run_config=config, **request)
    return _told(component, gallery, result)


def run_list(
    component: ShardedGallery,
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    *,
    watch: Watch = lambda *_: None,
) -> GalleryRun:
    """List the links of a very large gallery in this process, and divide them into shards.

    Args:
        component: The component of the gallery.
        definitions: What Dagster loads from it.
        instance: Where the run is recorded.
        watch: Called with the progress.
    """
    with watching(watch):
        result = _run(component, definitions, instance, LIST_JOB_NAME, run_config={"loggers": QUIET})
    return _told(component, component.galleries.whole.name, result)


def run_near_duplicates(
    component: ImageGalleries,
    definitions: dg.Definitions,
    galleries: Sequence[Gallery],
    instance: dg.DagsterInstance,
    *,
    watch: Watch = lambda *_: None,
) -> tuple[GalleryRun, list[GalleryRun]]:
    """Look for near duplicates, and bring the datasets up to date that choose by their groups.

    Args:
        component: The component of a galleries file with `near_duplicates`.
        definitions: What Dagster loads from it.
        galleries: The galleries whose datasets count.
        instance: Where the runs are recorded.
        watch: Called with the progress.

    Returns:
        The search, and the runs of the datasets.
    """
    config = {"loggers": QUIET}
    watch(NEAR_DUPLICATES, NEAR_DUPLICATES, None)
    search = _run(component, definitions, instance, NEAR_DUPLICATES_JOB, run_config=config)
    told = _told(component, NEAR_DUPLICATES, search)
    if not told.succeeded:
        return told, []
    runs = []
    for gallery in galleries:
        if gallery.dataset is not None and uses_groups(gallery.dataset.where):
            request = {**component.runs[gallery.name], "asset_selection": [component.dataset_key(gallery)]}
            with watching(watch):
                result = _run(component, definitions, instance, JOB_NAME, run_config=config, **request)
            runs.append(_told(component, gallery.name, result))
    return told, runs


def _run(
    component: ImageGalleries,
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    name: str,
    **request: Any,
) -> dg.ExecuteInProcessResult:
    job = definitions.resolve_job_def(component.galleries.assets.named(name))
    return job.execute_in_process(instance=instance, raise_on_error=False, **request)


def _told(component: ImageGalleries, gallery: str, result: dg.ExecuteInProcessResult) -> GalleryRun:
    """Return what a run did."""
    verdicts = [each for each in result.get_asset_check_evaluations() if not each.passed]
    of_severity = {
        severity: {each.check_name: each.description or "" for each in verdicts if each.severity is severity}
        for severity in dg.AssetCheckSeverity
    }
    stages: dict[dg.AssetKey, str] = {spec.key: stage.name for stage, spec in component.specs}
    stages[near_duplicates_key(component.galleries)] = NEAR_DUPLICATES
    return GalleryRun(
        gallery=gallery,
        run_id=result.run_id,
        error=None if result.success else _cause(result),
        was_interrupted=_was_interrupted(result),
        metadata=_metadata(result, stages),
        failed_checks=of_severity[dg.AssetCheckSeverity.ERROR],
        warnings=of_severity[dg.AssetCheckSeverity.WARN],
    )


def _cause(result: dg.ExecuteInProcessResult) -> str:
    """Return why a run failed: the description of its first failure, or what its innermost error says."""
    for event in result.all_events:
        data = event.step_failure_data if event.is_step_failure else None
        if data is None:
            continue
        if data.user_failure_data and data.user_failure_data.description:
            return data.user_failure_data.description
        error = data.error
        while error is not None and error.cause is not None:
            error = error.cause
        return "unknown" if error is None else error.message.strip()
    return next((event.message for event in result.all_events if event.is_run_failure), None) or "unknown"


def _was_interrupted(result: dg.ExecuteInProcessResult) -> bool:
    errors = (event.step_failure_data.error for event in result.all_events if event.is_step_failure)
    return any(error is not None and error.cls_name == INTERRUPTED for error in errors)


def _metadata(
    result: dg.ExecuteInProcessResult, stages: Mapping[dg.AssetKey, str]
) -> dict[str, dict[str, Any]]:
    made = [
        event.step_materialization_data.materialization for event in result.get_asset_materialization_events()
    ]
    return {
        stages[each.asset_key]: {key: entry.value for key, entry in each.metadata.items()}
        for each in made
        if each.asset_key in stages
    }
