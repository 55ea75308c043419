"""`python -m imgdl_pipeline [GALLERY]`: run one gallery and print a short summary."""

import os
import sys
from pathlib import Path
from typing import Any

import dagster as dg

from imgdl_pipeline.component import JOB_NAME
from imgdl_pipeline.config.galleries_file import GalleriesFileError
from imgdl_pipeline.core.model.outcome import Status
from imgdl_pipeline.definitions import defs, galleries

UI_COMMAND = "make dev"
QUIET = {"loggers": {"console": {"config": {"log_level": "WARNING"}}}}


def main(gallery: str = "demo") -> int:
    """Run the gallery's job in this process; the run shows in the UI of the same DAGSTER_HOME.

    Args:
        gallery: Its name in the galleries file.

    Returns:
        The exit code: 0 when the run succeeded.
    """
    home = os.environ.get("DAGSTER_HOME")
    if home:
        Path(home).mkdir(parents=True, exist_ok=True)
    with dg.DagsterInstance.get() if home else dg.DagsterInstance.ephemeral() as instance:
        try:
            known = galleries()
        except GalleriesFileError as error:
            return _failed(str(error))
        names = [each.name for each in known.galleries]
        if gallery not in names:
            return _failed(f"there is no gallery {gallery}, only {', '.join(names)}")
        job = defs().resolve_job_def(known.assets.named(JOB_NAME))
        result = job.execute_in_process(
            instance=instance, partition_key=gallery, run_config=QUIET, raise_on_error=False
        )
    if not result.success:
        return _failed(f"the run of {gallery} failed: {_cause(result)}")
    metadata = _metadata(result)
    print(summary(gallery, metadata["gallery_images"], metadata["gallery_catalog"]))
    if home:
        print(f"look at it in the web UI: {UI_COMMAND}")
    return 0


def _cause(result: dg.ExecuteInProcessResult) -> str:
    """Return what the first failed step's innermost error says."""
    for event in result.all_events:
        if event.is_step_failure:
            error = event.step_failure_data.error
            while error is not None and error.cause is not None:
                error = error.cause
            return "unknown" if error is None else error.message.strip()
    return "unknown"


def _failed(why: str) -> int:
    print(why, file=sys.stderr)
    return 1


def summary(gallery: str, images: dict[str, Any], catalog: dict[str, Any]) -> str:
    """What a run did, for a person.

    Args:
        gallery: Its name.
        images: Metadata of `gallery_images`.
        catalog: Metadata of `gallery_catalog`.
    """
    lines = [f"{gallery}: {catalog['dagster/row_count']} links"]
    for status in Status:
        reasons = {key: value for key, value in catalog.items() if key.startswith(f"{status.value}/")}
        told = ", ".join(f"{value} {key.partition('/')[2]}" for key, value in reasons.items())
        lines.append(f"  {status.value:8} {catalog[status.value]:6}" + (f"   {told}" if told else ""))
    what = "image" if images["fetched"] == 1 else "images"
    lines += [
        f"downloaded {images['fetched']} {what}, {images['bytes'] / 1e6:.1f} MB, "
        f"in {images['seconds']:.1f} s: {images['images_per_second']:.0f} a second",
        f"catalog: {catalog['path']}",
    ]
    return "\n".join(lines)


def _metadata(result: dg.ExecuteInProcessResult) -> dict[str, dict[str, Any]]:
    """What each asset says of itself, by its name without a prefix."""
    made = [
        event.step_materialization_data.materialization for event in result.get_asset_materialization_events()
    ]
    return {
        each.asset_key.path[-1]: {key: entry.value for key, entry in each.metadata.items()} for each in made
    }


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
