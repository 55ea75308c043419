"""The resource `downloads`: what one run may set otherwise, and the pool's lifetime."""

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
"""Where Dagster's config has no form for a setting's own type."""


def _override(name: str) -> tuple[Any, Any]:
    field = DownloadSettings.model_fields[name]
    type_: Any = _LAUNCHPAD_TYPES.get(name, field.annotation)
    default = json.dumps(field.default)
    description = f"{field.description}; null: as the galleries file has it, or else {default}"
    return type_ | None, Field(None, description=description)


def _told(error: ValidationError) -> str:
    """What is wrong with a run's own settings, in words."""
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
    """Let Arrow take the system's memory: its own pools reserve some 40 MB where 4 are in use.

    Whoever sets Arrow's own variable for this has chosen another pool.
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

    Every field overrides the galleries file for one run, in the launchpad or in run config; the fields
    are those of `DownloadSettings`.
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
    def yield_for_execution(  # type: ignore[override]  # Dagster's own type promises any
        self,
        context: dg.InitResourceContext,  # noqa: ARG002
    ) -> Iterator["Downloads"]:
        """Give the steps of one process the processes that decode, which end with the last step."""
        with _system_memory(), JpegWorkers() as jpegs:
            opened = self.model_copy()
            opened._jpegs = jpegs
            yield opened

    @property
    def jpegs(self) -> JpegWorkers | None:
        """The processes that decode images; None outside of a run."""
        return self._jpegs

    def settings(self, galleries: Galleries, gallery: Gallery) -> DownloadSettings:
        """The file's defaults, overridden by the gallery, overridden by this run.

        Raises:
            dagster.Failure: This run's own are not allowed; says which and what is.
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
        """Fetch what the gallery lacks; when this returns or raises, the pool's threads have ended."""
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
