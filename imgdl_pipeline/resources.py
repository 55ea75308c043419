"""Define the resource `downloads`: the settings that a run can override, and the lifetime of its workers."""

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
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.storage.store import Store

RESOURCE_KEY = "downloads"

_LAUNCHPAD_TYPES: dict[str, Any] = {"allow_addresses": list[str], "recheck": str}
"""Types to use for settings whose own type Dagster's config does not support."""


def _override(name: str) -> tuple[Any, Any]:
    field = DownloadSettings.model_fields[name]
    type_: Any = _LAUNCHPAD_TYPES.get(name, field.annotation)
    default = json.dumps(field.default)
    description = f"{field.description}; null: as the galleries file has it, or else {default}"
    return type_ | None, Field(None, description=description)


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
    before = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(before)


class Downloads(_Overrides):
    """Downloads a gallery's images with a pool of threads, 8 by default.

    Every field overrides the galleries file for one run, in the launchpad or in run config. The fields are
    the same as in `DownloadSettings`.
    """

    limit: int | None = Field(
        None, ge=1, description="for a trial: download this many links at most; null: all"
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
    ) -> Iterator["Downloads"]:
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
        values = {name: getattr(self, name) for name in DownloadSettings.model_fields}
        overrides = {name: value for name, value in values.items() if value is not None}
        try:
            return galleries.download_settings(gallery, overrides)
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
            on_progress=on_progress,
        )


DOWNLOADS_RESOURCE = Downloads(limit=None, force=False)
"""The one instance that every component contributes, so that several components can be merged."""
