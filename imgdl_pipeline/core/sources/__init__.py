"""Where links come from: one module a source type, ours and those of other packages.

Such a module has a function `list_links(source, client)`, whose first parameter's type is a `SourceSettings`
with the source's own keys. Another package's module is named by an entry point in the group
`imgdl_pipeline.sources`.
"""

import functools
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import entry_points
from types import ModuleType
from typing import get_args, get_type_hints

from imgdl_pipeline.core.deprecated import moved
from imgdl_pipeline.core.model.links import Link
from imgdl_pipeline.core.model.settings import MissingSecretError, SourceSettings
from imgdl_pipeline.core.sources import (
    demo,
    feed,
    gallery_dl,
    iiif,
    imgur,
    openverse,
    url_list,
    wikimedia_commons,
)
from imgdl_pipeline.core.sources.client import SourceClient, SourceError, Unchanged

logger = logging.getLogger(__name__)

OURS = (demo, url_list, imgur, wikimedia_commons, feed, iiif, openverse, gallery_dl)

ENTRY_POINTS = "imgdl_pipeline.sources"


BROKEN: dict[str, str] = {}
"""Other packages' sources that cannot be used, by name, with what they lack: only their galleries suffer."""


@functools.cache
def _modules() -> dict[type[SourceSettings], ModuleType]:
    """Every source's module, by the type of its settings."""
    modules = {settings_type(module): module for module in OURS}
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            module = entry.load()
            modules[_settings_of(entry.name, module, [type_name(each) for each in modules])] = module
        except Exception as error:  # noqa: BLE001 -- another package's code
            BROKEN[entry.name] = f"the source {entry.name!r} ({entry.value}): {type(error).__name__}: {error}"
            logger.error("%s", BROKEN[entry.name])  # noqa: TRY400 -- its words are enough
    return modules


def _settings_of(name: str, module: ModuleType, taken: list[str]) -> type[SourceSettings]:
    """The settings of another package's source, whose type must be its name."""
    settings = settings_type(module)
    if type_name(settings) != name or name in taken:
        raise TypeError(
            f"its settings' type is {type_name(settings)!r}; it must be the entry point's name, and no "
            "other source's"
        )
    return settings


def settings_type(module: ModuleType) -> type[SourceSettings]:
    """The settings that a source's module takes.

    Raises:
        TypeError: It has no `list_links` whose first parameter is a SourceSettings with a `type`.
    """
    hints = get_type_hints(getattr(module, "list_links", None)) if hasattr(module, "list_links") else {}
    first = next(iter(hints.values()), None)
    if not (isinstance(first, type) and issubclass(first, SourceSettings) and "type" in first.model_fields):
        raise TypeError(
            "there must be a function list_links, and its first parameter must be annotated with a "
            "SourceSettings that has a type, as in type: Literal['name']"
        )
    return first


def type_name(settings: type[SourceSettings]) -> str:
    """A source's name in galleries files."""
    return str(get_args(settings.model_fields["type"].annotation)[0])


def source_types() -> tuple[type[SourceSettings], ...]:
    """The settings of every source there is."""
    return tuple(_modules())


def list_links(source: SourceSettings, client: SourceClient) -> Iterator[Link]:
    """What a source lists, in its order, one link at a time; a link may come more than once.

    Args:
        source: Its settings.
        client: For what it asks over HTTP.

    Raises:
        SourceError: The list could not be had, or is broken; says where and how.
        Unchanged: It is what it was the last time.
        MissingSecretError: It needs an environment variable that is not set.
    """
    try:
        yield from _modules()[type(source)].list_links(source, client)
    except (SourceError, Unchanged, MissingSecretError):
        raise
    except Exception as error:
        raise client.unexpected(error) from error


def serving(source: SourceSettings) -> AbstractContextManager[object]:
    """What must run while a source's links are fetched: the demo gallery's own server, else nothing."""
    return demo.DemoServer() if isinstance(source, demo.DemoSource) else nullcontext()


__getattr__ = moved(__name__, {"Web": "imgdl_pipeline.core.sources.client:SourceClient"})

__all__ = ["SourceClient", "SourceError", "Unchanged", "list_links", "serving", "source_types", "type_name"]
