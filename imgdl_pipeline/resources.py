"""Define the resource `image_downloads`: the settings that a run can override, and its workers' lifetime."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
import pyarrow as pa
from pydantic import Field, PrivateAttr, ValidationError, create_model

from imgdl_pipeline.config.galleries import Galleries, Gallery
from imgdl_pipeline.core.download.run import DownloadRun, Progress, download_gallery
from imgdl_pipeline.core.jpeg.workers import JpegWorkers
from imgdl_pipeline.core.listing.shards import hosts_spread
from imgdl_pipeline.core.model.memory import keep_little_memory
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.storage.store import Store

RESOURCE_KEY = "image_downloads"
OLD_RESOURCE_KEY = "downloads"
"""The resource's key up to version 0.5, which run config of a process of our own may still have."""

_LAUNCHPAD_TYPES: dict[str, Any] = {"allow_addresses": list[str], "processes": Any, "recheck": Any}
"""Types to use for settings whose own type Dagster's config does not support."""


def _override(name: str) -> tuple[Any, Any]:
    field = DownloadSettings.model_fields[name]
    type_: Any = _LAUNCHPAD_TYPES.get(name, field.annotation)
    default = json.dumps(field.default)
    description = f"{field.description}; null: as the galleries file has it, or else {default}"
    return type_ | None if type_ is not Any else Any, Field(None, description=description)


def _told(error: ValidationError) -> str:
    """Return a message that says what is wrong with a run's own settings."""
    place = f"resources.{RESOURCE_KEY}.config"
    return "; ".join(
        f"{place}.{'.'.join(map(str, each['loc']))}: {each['msg']}, not {each['input']!r}"
        for each in error.errors()
    )


_Overrides = create_model(  # type: ignore[call-overload]
    "_Overrides",
    __base__=dg.ConfigurableResource,
    __module__=__name__,
    **{name: _override(name) for name in DownloadSettings.model_fields},
)


@contextmanager
def _system_memory() -> Iterator[None]:
    """Let Arrow use the system's memory pool: its own pools reserve some 40 MB when 4 MB are in use.

    Do nothing if Arrow's own environment variable chooses a pool.
    """
    if "ARROW_DEFAULT_MEMORY_POOL" in os.environ:
        yield
        return
    keep_little_memory()
    before = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(before)


class ImageDownloads(_Overrides):
    """Downloads a gallery's images with a pool of threads, 8 by default.

    Every field overrides the galleries file for one run, in the launchpad or in run config. The fields are
    the same as in `DownloadSettings`.
    """

    limit: int | None = Field(
        None, description="for a trial: download this many links, 1 at least, at most; null: all"
    )

    force: bool = Field(
        False,
        description="ask for every link again: failed ones too, and images conditionally",
    )

    _jpegs: JpegWorkers | None = PrivateAttr(None)

    @contextmanager
    def yield_for_execution(  # type: ignore[override]  # Dagster declares Any
        self,
        context: dg.InitResourceContext,  # noqa: ARG002
    ) -> Iterator["ImageDownloads"]:
        """Start the worker processes that decode images, for all steps of one process, and end them after."""
        with _system_memory(), JpegWorkers() as jpegs:
            opened = self.model_copy()
            opened._jpegs = jpegs
            yield opened

    @property
    def jpegs(self) -> JpegWorkers | None:
        """Return the worker processes that decode images; None outside a run."""
        return self._jpegs

    def settings(self, galleries: Galleries, gallery: Gallery) -> DownloadSettings:
        """Return the file's defaults, overridden by the gallery, then by this run.

        Raises:
            dagster.Failure: A setting of this run is not allowed; the message says which and what is allowed.
        """
        return self._checked(galleries.download_settings(gallery))

    def _overrides(self) -> dict[str, Any]:
        """Return the fields of this run that are not as they are by default."""
        fields = type(self).model_fields
        return {name: getattr(self, name) for name in _FIELDS if getattr(self, name) != fields[name].default}

    def _checked(self, settings: DownloadSettings) -> DownloadSettings:
        values = {name: getattr(self, name) for name in DownloadSettings.model_fields}
        overrides = {name: value for name, value in values.items() if value is not None}
        if self.limit is not None and self.limit < 1:
            place = f"resources.{RESOURCE_KEY}.config.limit"
            raise dg.Failure(f"{place}: must be 1 or more, not {self.limit}", allow_retries=False)
        try:
            return settings.overridden_by(overrides)
        except ValidationError as error:
            raise dg.Failure(_told(error), allow_retries=False) from None

    def download(
        self,
        galleries: Galleries,
        gallery: Gallery,
        store: Store,
        on_progress: Callable[[Progress], None],
    ) -> DownloadRun:
        """Fetch the gallery's missing images; when this returns or raises, the pool's threads have ended."""
        return download_gallery(
            gallery.name,
            store,
            self.settings(galleries, gallery),
            limit=self.limit,
            force=self.force,
            jpegs=self._jpegs,
            spread=hosts_spread(store, gallery.name, len(galleries.galleries)),
            on_progress=on_progress,
        )


_FIELDS = (*DownloadSettings.model_fields, "limit", "force")

IMAGE_DOWNLOADS = ImageDownloads(limit=None, force=False)
"""The one instance that every component contributes, so that several components can be merged."""


def _deprecated(name: str) -> tuple[Any, Any]:
    annotation: Any = ImageDownloads.model_fields[name].annotation
    return annotation | None if annotation is not Any else Any, Field(
        None, description=f"deprecated: use {RESOURCE_KEY}"
    )


_OldDownloads = create_model(  # type: ignore[call-overload]
    "_OldDownloads",
    __base__=dg.ConfigurableResource,
    __module__=__name__,
    **{name: _deprecated(name) for name in _FIELDS},
)


class _RenamedDownloads(ImageDownloads):
    """Downloads images as run config says under the resource's key or its old one; the new key wins."""

    downloads: dg.ResourceDependency[_OldDownloads]

    @contextmanager
    def yield_for_execution(  # type: ignore[override]  # Dagster declares Any
        self, context: dg.InitResourceContext
    ) -> Iterator[ImageDownloads]:
        """Start the worker processes like `ImageDownloads`, after a warning about the old key."""
        values = {name: getattr(self.downloads, name) for name in _FIELDS}
        old = {name: value for name, value in values.items() if value is not None}
        if old and context.log:
            context.log.warning(
                "run config: resources.%s is deprecated, and goes with version 1; write resources.%s",
                OLD_RESOURCE_KEY,
                RESOURCE_KEY,
            )
        merged = ImageDownloads(**{"limit": None, "force": False, **old, **self._overrides()})
        with merged.yield_for_execution(context) as opened:
            yield opened


_OLD_DOWNLOADS = _OldDownloads.configure_at_launch()

RENAMED_DOWNLOADS: dict[str, Any] = {
    RESOURCE_KEY: _RenamedDownloads(limit=None, force=False, downloads=_OLD_DOWNLOADS),
    OLD_RESOURCE_KEY: _OLD_DOWNLOADS,
}
"""The resources of a process of our own, whose old key no other project's resource can have."""
