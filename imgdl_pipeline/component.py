"""Define ImageGalleries, the Dagster component of a galleries file."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import dagster as dg
from dagster.components import DefsStateConfig, DefsStateConfigArgs
from pydantic import BaseModel, ConfigDict

from imgdl_pipeline.assets import (
    GalleryStage,
    Specs,
    asset_spec,
    build_assets,
    file_reference,
    ignoring_beta,
    materialize,
    partitions_of,
    runs_of,
    specs_of,
    unique_name,
)
from imgdl_pipeline.checks import build_check_job, build_checks, log_verdicts
from imgdl_pipeline.config.galleries import Galleries, Gallery
from imgdl_pipeline.config.galleries_file import GalleriesFileError, KeyPath, Problem, parse_attributes
from imgdl_pipeline.config.sharded import Sharded
from imgdl_pipeline.freshness import build_freshness_sensor
from imgdl_pipeline.jobs import build_remove_job
from imgdl_pipeline.lost_runs import build_lost_runs_sensor
from imgdl_pipeline.near_duplicates import (
    build_near_duplicates,
    near_duplicates_job,
    near_duplicates_schedule,
)
from imgdl_pipeline.resources import IMAGE_DOWNLOADS, RESOURCE_KEY, ImageDownloads
from imgdl_pipeline.same_file import version_tags
from imgdl_pipeline.tables import GalleryTables

JOB_NAME = "download_galleries"
CHECK_JOB_NAME = "check_galleries"
REMOVE_JOB_NAME = "remove_images"
SCHEDULE_NAME = "daily_galleries"
FRESHNESS_SENSOR = "gallery_freshness"
LOST_RUNS_SENSOR = "lost_runs"
TABLES_KEY = "gallery_tables"
"""Names of the definitions. Two galleries files in one code location need key prefixes to keep them apart."""

SCAFFOLD = """\
type: {type_name}
attributes:
  store: data/{name}
  assets: {{key_prefix: [{name}]}}
  schedule: "0 6 * * *"
  schedule_status: STOPPED
  galleries:
    - name: demo
      source: {{type: demo}}
"""


class GalleriesScaffolder(dg.Scaffolder[Any]):
    """A scaffolder that writes a working galleries file with the embedded demo gallery.

    Its key prefix and its store are named after its folder, so that several files live side by side.
    """

    text = SCAFFOLD

    def scaffold(self, request: dg.ScaffoldRequest[Any]) -> None:
        """Write the `defs.yaml`."""
        request.target_path.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"[^A-Za-z0-9_]+", "_", request.target_path.name).strip("_") or "galleries"
        text = self.text.format(type_name=request.type_name, name=name)
        (request.target_path / "defs.yaml").write_text(text)


class LooseAttributes(BaseModel):
    """A model that passes everything on to `ImageGalleries.load`, and shows tools the strict schema.

    It cannot be strict itself, because Dagster renders templates after it has validated this model.
    """

    model_config = ConfigDict(extra="allow")
    strict: ClassVar[type[Galleries] | type[Sharded]] = Galleries

    @classmethod
    def model_json_schema(cls, *_args: Any, **_kwargs: Any) -> dict[str, Any]:
        """Return the JSON schema of the file's attributes."""
        return cls.strict.editor_schema()


@dg.scaffold_with(GalleriesScaffolder)
class ImageGalleries(dg.StateBackedComponent):
    """Image galleries: lists their links, downloads the images, validates and catalogs the JPEGs.

    Each gallery is a partition of gallery_links → gallery_images → gallery_catalog → gallery_dataset, or has
    assets of its own; those without a dataset lack the last one. A job and a daily schedule run them, one run
    per gallery. A subclass may override `get_asset_spec` and `execute`.

    Args:
        galleries: The attributes of a galleries file.
        file: Where they stand, to link to from the assets; None where nobody knows.
        resources: The resources to define; by default `image_downloads`.
    """

    attributes: ClassVar[type[LooseAttributes]] = LooseAttributes

    def __init__(
        self,
        galleries: Galleries,
        file: Path | None = None,
        resources: Mapping[str, Any] | None = None,
    ) -> None:
        self.galleries = galleries
        self.file = file
        self._resources = {RESOURCE_KEY: IMAGE_DOWNLOADS} if resources is None else resources
        self._is_in_project = False

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        """Return the description of the component for `dg list components` and the docs."""
        return dg.ComponentTypeSpec(tags=["images", "downloads", "parquet"])

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """Return the model that `dg check yaml` validates with."""
        return cls.attributes

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> "ImageGalleries":
        """Create the component of a `defs.yaml`.

        Raises:
            GalleriesFileError: Something in it is not allowed; the message says where and what is allowed.
        """
        raw = attributes.model_dump() if attributes else {}
        resolution = context.resolution_context
        tree = resolution.source_position_tree

        def locate(path: KeyPath) -> str:
            return _place(tree, path)

        file = Path(tree.position.filename) if tree else None
        galleries = parse_attributes(raw, locate, resolution.scope, file=file, model=cls.attributes.strict)
        component = cls(galleries, file)
        component._is_in_project = tree is not None
        context.component_tree.mark_component_defs_state_key(
            defs_state_key=component.defs_state_config.key, loc=context.component_loc
        )
        return component

    @property
    def defs_state_config(self) -> DefsStateConfig:
        """How `dg utils refresh-defs-state` finds the component; loading never fetches anything."""
        args = DefsStateConfigArgs.model_validate(
            {"management_type": "LOCAL_FILESYSTEM", "refresh_if_dev": False}
        )
        return DefsStateConfig.from_args(args, default_key=self.galleries.assets.named(type(self).__name__))

    def write_state_to_path(self, state_path: Path) -> None:
        """Fetch the rows of `galleries_from`, which are kept beside the file; as `imgdl refresh` does.

        Raises:
            SourceError: They could not be fetched.
        """
        state_path.write_text(str(self.refresh()))

    def refresh(self) -> int:
        """Fetch the rows of `galleries_from`, and return how many there are; 0 without that key.

        Raises:
            SourceError: They could not be fetched.
        """
        made_from = self.galleries.galleries_from
        if made_from is None or not made_from.is_remote:
            return 0
        return made_from.refresh(self.file or Path("galleries"), self.galleries.download)

    def build_defs_from_state(
        self,
        context: dg.ComponentLoadContext,
        state_path: Path | None,  # noqa: ARG002 -- the rows are kept beside the galleries file
    ) -> dg.Definitions:
        """Return the definitions, which `build_defs` makes of the kept rows."""
        return self.build_defs(context)

    def get_asset_spec(self, stage: GalleryStage) -> dg.AssetSpec:
        """Return the spec of a stage's asset; override this to change keys, owners, tags and so on.

        Args:
            stage: The stage; its gallery is None where all galleries share the asset.
        """
        spec = asset_spec(self.galleries, stage, self._partitions, self._references)
        return spec.with_io_manager_key(self._tables_key)

    def execute(
        self, context: dg.AssetExecutionContext, stage: GalleryStage, image_downloads: ImageDownloads
    ) -> Iterator[dg.MaterializeResult[None]]:
        """Run a stage of one gallery; override this to do something before or after, or to add metadata.

        Raises:
            dagster.Failure: A source, a secret, the store or the disk failed; says why.
        """
        result = materialize(self.galleries, context, stage, image_downloads)
        if result is not None:
            yield result

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Return the assets, their checks, the jobs, schedules and sensors, and the resource.

        Raises:
            GalleriesFileError: Another component of the project has the same asset keys.
        """
        if self._is_in_project:
            self._check_siblings(context)
        assets = build_assets(self.galleries, self.specs, self.execute, self._tell_verdicts_again)
        job = dg.define_asset_job(
            self.galleries.assets.named(JOB_NAME),
            selection=self._run_together(assets),
            tags=version_tags(self.galleries),
            executor_def=dg.in_process_executor,
            description=self._job_description,
        )
        check_job = build_check_job(
            self.galleries, self._catalogs, self.galleries.assets.named(CHECK_JOB_NAME)
        )
        remove_job = build_remove_job(self.galleries, self.galleries.assets.named(REMOVE_JOB_NAME))
        sensor = self.galleries.assets.named(FRESHNESS_SENSOR)
        own = dg.Definitions(
            assets=assets,
            asset_checks=build_checks(self.galleries, self._catalogs),
            jobs=[job, check_job, remove_job],
            sensors=[
                build_freshness_sensor(self.galleries, check_job, sensor),
                build_lost_runs_sensor(self.galleries, self.galleries.assets.named(LOST_RUNS_SENSOR)),
            ],
            resources={**self._resources, self._tables_key: GalleryTables(self.galleries)},
        )
        return dg.Definitions.merge(own, self._beside(assets, job))

    def _run_together(self, assets: list[dg.AssetsDefinition]) -> list[dg.AssetsDefinition]:
        """Return the assets that a run of one gallery materializes."""
        return assets

    def _beside(self, assets: list[dg.AssetsDefinition], job: Any) -> dg.Definitions:  # noqa: ARG002
        """Return what starts the job by itself, and near duplicates if the file asks for them."""
        schedules = [self._schedule(job, *each) for each in self._by_schedule().items()]
        if self.galleries.near_duplicates is None:
            return dg.Definitions(schedules=schedules)
        catalogs = list(dict.fromkeys(self._catalogs.values()))
        asset = build_near_duplicates(self.galleries, catalogs, self._references)
        near_job = near_duplicates_job(self.galleries, asset)
        schedules += near_duplicates_schedule(self.galleries, near_job)
        return dg.Definitions(assets=[asset], jobs=[near_job], schedules=schedules)

    def _check_siblings(self, context: dg.ComponentLoadContext) -> None:
        """Say which key to set where two files of a project would define the same assets."""
        for other in context.component_tree.get_all_components(of_type=ImageGalleries):
            if other is not self and self.galleries.assets.is_like(other.galleries.assets):
                places = " and ".join(sorted(str(each.file or "Python code") for each in (self, other)))
                words = f"two components have the same one, and so the same asset keys: {places}"
                raise GalleriesFileError(Problem(str(self.file), f"attributes.assets.key_prefix: {words}"))

    def _by_schedule(self) -> dict[str, list[Gallery]]:
        """Return the galleries by the cron expression of their runs."""
        found: dict[str, list[Gallery]] = {}
        for gallery in self.galleries.galleries:
            cron = self.galleries.schedule_of(gallery)
            if cron is not None:
                found.setdefault(cron, []).append(gallery)
        return found

    def _schedule(self, job: Any, cron: str, members: Sequence[Gallery]) -> dg.ScheduleDefinition:
        is_daily = cron == self.galleries.schedule
        name = SCHEDULE_NAME if is_daily else unique_name(f"galleries_{cron.replace('*', 'x')}")

        @dg.schedule(
            name=self.galleries.assets.named(name),
            job=job,
            cron_schedule=cron,
            execution_timezone="UTC",
            default_status=dg.DefaultScheduleStatus[self.galleries.schedule_status],
            description="One run per gallery." if is_daily else f"One run per gallery, at {cron}.",
        )
        def daily_galleries(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest]:
            tick = context.scheduled_execution_time.isoformat()
            for gallery in members:  # the run key keeps a tick that is evaluated twice from running twice
                yield dg.RunRequest(run_key=f"{gallery.name} {tick}", **self.runs[gallery.name])

        return daily_galleries

    @cached_property
    def runs(self) -> dict[str, dict[str, Any]]:
        """What a request of a gallery's run says, by the gallery's name; see `runs_of`."""
        return runs_of(self.galleries, self.specs)

    @cached_property
    def specs(self) -> Specs:
        """The stages that have an asset, with the specs of their assets."""
        return specs_of(self.galleries, self.get_asset_spec)

    @cached_property
    def _catalogs(self) -> dict[str, dg.AssetKey]:
        """The key of each gallery's catalog."""
        catalogs = [(stage.gallery, spec.key) for stage, spec in self.specs if stage.name == "catalog"]
        own = {gallery.name: key for gallery, key in catalogs if gallery}
        return own or {each.name: catalogs[0][1] for each in self.galleries.galleries}

    def dataset_key(self, gallery: Gallery) -> dg.AssetKey:
        """Return the key of the asset that has a gallery's dataset.

        Raises:
            StopIteration: No gallery that shares the asset has a dataset.
        """
        datasets = ((stage.gallery, spec.key) for stage, spec in self.specs if stage.name == "dataset")
        return next(key for own, key in datasets if own is None or own.name == gallery.name)

    @property
    def _job_description(self) -> str:
        return "Lists, downloads and catalogs galleries."

    def _tell_verdicts_again(self, context: dg.AssetExecutionContext, gallery: Gallery) -> None:
        log_verdicts(context, self.galleries, gallery.name, self._catalogs[gallery.name])

    @property
    def _tables_key(self) -> str:
        return self.galleries.assets.named(TABLES_KEY)

    @cached_property
    def _partitions(self) -> dg.StaticPartitionsDefinition:
        return partitions_of(self.galleries)

    @cached_property
    def _references(self) -> list[Any]:
        """The UI's links from the assets to the galleries file, and the file's own ones."""
        named = [_reference(each) for each in self.galleries.assets.code_references]
        if self.file is None or self._is_in_project:  # a project adds its defs.yaml by itself
            return named
        return [file_reference(self.file, "galleries file"), *named]


def _reference(place: str) -> Any:
    if place.startswith(("http://", "https://")):
        with ignoring_beta():
            return dg.UrlCodeReference(url=place)
    return file_reference(Path(place), place)


def _place(tree: Any, path: KeyPath) -> str:
    """Return where a value is, as far as Dagster knows; a component made in Python code has no file."""
    if tree is None:
        return "galleries"
    for part in path:
        tree = tree.children.get(part, tree)
    return f"{tree.position.filename}:{tree.position.start.line}"
