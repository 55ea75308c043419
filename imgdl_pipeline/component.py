"""Define ImageGalleries, the Dagster component of a galleries file."""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import BaseModel, ConfigDict

from imgdl_pipeline.assets import AssetKeys, build_assets
from imgdl_pipeline.checks import build_checks, build_freshness_sensor
from imgdl_pipeline.config.galleries import Galleries
from imgdl_pipeline.config.galleries_file import KeyPath, parse_attributes
from imgdl_pipeline.resources import DOWNLOADS_RESOURCE, RESOURCE_KEY

JOB_NAME = "download_galleries"
CHECK_JOB_NAME = "check_galleries"
SCHEDULE_NAME = "daily_galleries"
FRESHNESS_SENSOR = "gallery_freshness"
"""Names of the definitions. Two galleries files in one code location need key prefixes to keep them apart."""

SCAFFOLD = """\
type: {type_name}
attributes:
  store: data
  schedule: "0 6 * * *"
  schedule_status: STOPPED
  galleries:
    - name: demo
      source: {{type: demo}}
"""


class GalleriesScaffolder(dg.Scaffolder[Any]):
    """A scaffolder that writes a working galleries file with the embedded demo gallery."""

    def scaffold(self, request: dg.ScaffoldRequest[Any]) -> None:
        """Write the `defs.yaml`."""
        request.target_path.mkdir(parents=True, exist_ok=True)
        text = SCAFFOLD.format(type_name=request.type_name)
        (request.target_path / "defs.yaml").write_text(text)


class _Attributes(BaseModel):
    """A model that passes everything on to `ImageGalleries.load`, and shows tools the strict schema.

    It cannot be strict itself, because Dagster renders templates after it has validated this model.
    """

    model_config = ConfigDict(extra="allow")

    @classmethod
    def model_json_schema(cls, *_args: Any, **_kwargs: Any) -> dict[str, Any]:
        """Return the JSON schema of a galleries file's attributes."""
        return Galleries.editor_schema()


@dg.scaffold_with(GalleriesScaffolder)
class ImageGalleries(dg.Component):
    """Image galleries: lists their links, downloads the images, validates and catalogs the JPEGs.

    Each gallery is a partition of three assets: gallery_links → gallery_images → gallery_catalog. A job
    and a daily schedule run them, one run a gallery.

    Args:
        galleries: The attributes of a galleries file.
        file: Where they stand, to link to from the assets; None where nobody knows.
    """

    def __init__(self, galleries: Galleries, file: Path | None = None) -> None:
        self.galleries = galleries
        self.file = file

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        """Return the description of the component for `dg list components` and the docs."""
        return dg.ComponentTypeSpec(tags=["images", "downloads", "parquet"])

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """Return the model that `dg check yaml` validates with."""
        return _Attributes

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> "ImageGalleries":
        """Create the component from a `defs.yaml`.

        Raises:
            GalleriesFileError: Something in it is not allowed; the message says where and what is allowed.
        """
        raw = attributes.model_dump() if attributes else {}
        resolution = context.resolution_context
        tree = resolution.source_position_tree

        def locate(path: KeyPath) -> str:
            return _place(tree, path)

        file = Path(tree.position.filename) if tree else None
        return cls(parse_attributes(raw, locate, resolution.scope), file)

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:  # noqa: ARG002
        """Return the assets, their checks, the jobs, schedule and sensor, and the resource `downloads`."""
        assets, keys = build_assets(self.galleries), AssetKeys.of(self.galleries)
        checks = build_checks(self.galleries, keys)
        job = self._job(JOB_NAME, assets, "Lists, downloads and catalogs the gallery of one partition.")
        of_checks = dg.AssetSelection.checks(checks)
        check_job = self._job(CHECK_JOB_NAME, of_checks, "Checks the gallery of one partition.")
        sensor = self.galleries.assets.named(FRESHNESS_SENSOR)
        return dg.Definitions(
            assets=self._with_code_references(assets),
            asset_checks=[checks],
            jobs=[job, check_job],
            schedules=self._schedules(job),
            sensors=[build_freshness_sensor(self.galleries, check_job, sensor)],
            resources={RESOURCE_KEY: DOWNLOADS_RESOURCE},
        )

    def _job(self, name: str, selection: Any, description: str) -> Any:
        return dg.define_asset_job(
            self.galleries.assets.named(name),
            selection=selection,
            executor_def=dg.in_process_executor,
            description=description,
        )

    def _schedules(self, job: Any) -> list[dg.ScheduleDefinition]:
        if self.galleries.schedule is None:
            return []
        names = [gallery.name for gallery in self.galleries.galleries]

        @dg.schedule(
            name=self.galleries.assets.named(SCHEDULE_NAME),
            job=job,
            cron_schedule=self.galleries.schedule,
            execution_timezone="UTC",
            default_status=dg.DefaultScheduleStatus[self.galleries.schedule_status],
            description="One run per gallery.",
        )
        def daily_galleries(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest]:
            tick = context.scheduled_execution_time.isoformat()
            for name in names:  # the run key keeps a tick that is evaluated twice from running twice
                yield dg.RunRequest(run_key=f"{name} {tick}", partition_key=name)

        return [daily_galleries]

    def _with_code_references(self, assets: list[dg.AssetsDefinition]) -> Sequence[Any]:
        """Add the UI's code references to the assets: code, galleries file, and the file's own references."""
        named = [_reference(each) for each in self.galleries.assets.code_references]
        if self.file is not None:
            named.insert(
                0,
                dg.LocalFileCodeReference(
                    file_path=str(self.file.absolute()), line_number=1, label="galleries file"
                ),
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.BetaWarning)
            references = {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=named)}
            return dg.with_source_code_references(
                [
                    each.map_asset_specs(lambda spec: spec.merge_attributes(metadata=references))
                    for each in assets
                ]
            )


def _reference(place: str) -> Any:
    if place.startswith(("http://", "https://")):
        return dg.UrlCodeReference(url=place)
    return dg.LocalFileCodeReference(file_path=str(Path(place).absolute()))


def _place(tree: Any, path: KeyPath) -> str:
    """Return where a value is, as far as Dagster knows; a component made in Python code has no file."""
    if tree is None:
        return "galleries"
    for part in path:
        tree = tree.children.get(part, tree)
    return f"{tree.position.filename}:{tree.position.start.line}"
