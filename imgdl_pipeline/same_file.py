"""Make sure that a run works from the galleries file that it was requested with, on whatever machine it runs.

Each step's definition carries the file's digest as a tag. Dagster keeps the definitions of the process that
requests a run with the run, so that a process with other ones can notice. The digest is also a tag of the
project's jobs, and so of their runs, for people to see; retried runs may inherit an older one.
"""

import socket
from pathlib import Path
from typing import Any

import dagster as dg

from imgdl_pipeline.config.file_version import FileVersion
from imgdl_pipeline.config.galleries import Galleries, Gallery

TAG = "imgdl_pipeline/galleries_file"
"""The tag whose value is the digest of the galleries file."""

Context = dg.AssetExecutionContext | dg.OpExecutionContext

REMOTE_LAUNCHERS = (
    "dagster_aws",
    "dagster_azure",
    "dagster_celery",
    "dagster_celery_docker",
    "dagster_celery_k8s",
    "dagster_docker",
    "dagster_gcp",
    "dagster_k8s",
)
"""Packages whose run launchers start runs elsewhere than in the code server's machine and folder."""

REMOTE_EXECUTORS = ("celery", "celery-docker", "celery-k8s", "docker", "ecs", "k8s")
"""Names of the executors that run steps elsewhere."""

_checked: dict[str, str] = {}
"""The run that this process checked last, and the digest then: an edit counts from the next run on."""


def version_tags(galleries: Galleries) -> dict[str, str]:
    """Return the tag with the digest of the galleries file; none for settings that come from no file."""
    return {} if galleries.version is None else {TAG: galleries.version.digest}


def make_sure_of_file(
    context: Context, galleries: Galleries, store: str, gallery: Gallery | None = None
) -> None:
    """Make sure that this process has the galleries file that its run was requested with.

    A run that this very process has requested always passes.

    Args:
        context: The step's context.
        galleries: The settings as this process has loaded them.
        store: The store's root.
        gallery: The gallery that the step is for.

    Raises:
        dagster.Failure: It has another version, or a path that only one machine has; says what to do.
    """
    step = context.op_execution_context if isinstance(context, dg.AssetExecutionContext) else context
    version = galleries.version
    if version is None or step.run.remote_job_origin is None or _checked.get(step.run_id) == version.digest:
        return
    place = _elsewhere(step)
    words = _told(step, version, is_elsewhere=place is not None)
    if words is None and place is not None:
        words = _relative(store, gallery, place)
    if words is not None:
        raise dg.Failure(words, metadata={"host": socket.gethostname()}, allow_retries=False)
    _checked.clear()
    _checked[step.run_id] = version.digest


def _told(step: dg.OpExecutionContext, version: FileVersion, *, is_elsewhere: bool) -> str | None:
    """Return what is wrong with this process's version of the file, or None."""
    file, host = version.file or "the galleries file", socket.gethostname()
    if version.is_old():
        return (
            f"{file} on {host} was edited after this process had loaded it, so the process would work from "
            "the old file: restart the worker, reload the code location, and start the run again"
        )
    requested = _requested(step)
    if requested in (None, version.digest):
        return None
    if not is_elsewhere:
        step.log.info("%s was edited after this run was requested; it works with the file as it is now", file)
        return None
    return (
        f"this run was requested with version {requested} of the galleries file, and this process has loaded "
        f"version {version.digest} from {file} on {host}: if the process has the newer one, reload the code "
        "location; if not, put the new file there and restart the worker; then start the run again"
    )


def _requested(step: dg.OpExecutionContext) -> str | None:
    """Return the digest of the file that the run was requested with, or None if nobody knows."""
    name, kept = step.run.job_snapshot_id, None
    if name is not None and step.instance.has_job_snapshot(name):
        definitions = step.instance.get_job_snapshot(name).node_defs_snapshot.op_def_snaps
        kept = next((each.tags.get(TAG) for each in definitions if each.name == step.op_def.name), None)
    return kept or step.run.tags.get(TAG)


def _elsewhere(step: dg.OpExecutionContext) -> str | None:
    """Return what runs this step on another machine or in another container than the code server, or None."""
    executor = step.job_def.executor_def.name
    if executor in REMOTE_EXECUTORS:
        return f"the executor {executor}"
    try:
        classes: tuple[type[Any], ...] = type(step.instance.run_launcher).__mro__
    except Exception:  # noqa: BLE001 -- whatever keeps it from being imported here, it is none of Dagster's own
        return "the instance's run launcher"
    is_remote = any(each.__module__.partition(".")[0] in REMOTE_LAUNCHERS for each in classes)
    return classes[0].__name__ if is_remote else None


def _relative(store: str, gallery: Gallery | None, place: str) -> str | None:
    """Return which path every machine would take for a folder or file of its own, or None."""
    why = f"is a relative path, and {place} runs steps on other machines"
    if _is_relative(store):
        return (
            f"the store {store!r} {why}: write an absolute path of a folder that all of them share, "
            "or s3://bucket/prefix, in `store` or in IMGDL_STORE"
        )
    path = getattr(gallery.source, "path", None) if gallery is not None else None
    if gallery is not None and isinstance(path, str) and _is_relative(path):
        return (
            f"the gallery {gallery.name}: source.path: {path!r} {why}: write an absolute path of a file "
            "that all of them share, or the list's URL"
        )
    return None


def _is_relative(path: str) -> bool:
    return "://" not in path and not Path(path).expanduser().is_absolute()
