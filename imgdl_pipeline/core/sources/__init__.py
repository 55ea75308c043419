"""List the links of a gallery's source: one module per source type, built in or from another package.

A source module has a function `list_links(source, client)`, whose first parameter's type is a
`SourceSettings` with the source's own keys. Another package registers its module by an entry point in the
group `imgdl_pipeline.sources`.
"""

import functools
import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any, get_args, get_type_hints

from imgdl_pipeline.core.deprecated import moved
from imgdl_pipeline.core.http.deadline import Cancelled
from imgdl_pipeline.core.model.links import Link
from imgdl_pipeline.core.model.outcome import ResourceError
from imgdl_pipeline.core.model.settings import MissingSecretError, SourceSettings, did_you_mean
from imgdl_pipeline.core.sources import (
    demo,
    feed,
    gallery_dl,
    iiif,
    imgur,
    openverse,
    sitemap,
    url_list,
    web_page,
    wikimedia_commons,
)
from imgdl_pipeline.core.sources.client import SourceClient, SourceError, Unchanged

logger = logging.getLogger(__name__)

OURS = (
    *(demo, url_list, imgur, wikimedia_commons, feed, sitemap, web_page, iiif, openverse),
    gallery_dl,
)

ENTRY_POINTS = "imgdl_pipeline.sources"


BROKEN: dict[str, str] = {}
"""Sources of other packages that cannot be used: name to error message. Only galleries that use them fail."""


@functools.cache
def _modules() -> dict[type[SourceSettings], ModuleType]:
    """Return every source's module, keyed by the type of its settings."""
    modules = {settings_type(module): module for module in OURS}
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            module = entry.load()
            modules[_settings_of(entry.name, module, [type_name(each) for each in modules])] = module
        except Exception as error:  # noqa: BLE001 -- another package's code
            BROKEN[entry.name] = f"the source {entry.name!r} ({entry.value}): {type(error).__name__}: {error}"
            logger.error("%s", BROKEN[entry.name])  # noqa: TRY400 -- the message is enough
    return modules


def _settings_of(name: str, module: ModuleType, taken: list[str]) -> type[SourceSettings]:
    """Return the settings type of another package's source; its `type` must be the entry point's name."""
    settings = settings_type(module)
    if type_name(settings) != name or name in taken:
        raise TypeError(
            f"its settings' type is {type_name(settings)!r}; it must be the entry point's name, and no "
            "other source's"
        )
    return settings


def settings_type(module: ModuleType) -> type[SourceSettings]:
    """Return the settings type that a source's module takes.

    Raises:
        TypeError: The module has no `list_links` whose first parameter is a SourceSettings with a `type`.
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
    """Return a source's name in galleries files."""
    return str(get_args(settings.model_fields["type"].annotation)[0])


def source_types() -> tuple[type[SourceSettings], ...]:
    """Return the settings type of every available source."""
    return tuple(_modules())


def source_of(attributes: Mapping[str, Any]) -> SourceSettings:
    """Return the settings of a source, as a galleries file has them.

    Args:
        attributes: The source's keys: its `type` and its own.

    Raises:
        ValueError: There is no such type, or something in a value is not allowed.
    """
    by_name = {type_name(each): each for each in source_types()}
    name = str(attributes.get("type"))
    if name not in by_name:
        allowed = f"type: must be one of {', '.join(by_name)}, not {name!r}{did_you_mean(name, by_name)}"
        raise ValueError(BROKEN.get(name) or allowed)
    return by_name[name].model_validate(dict(attributes))


def list_links(source: SourceSettings, client: SourceClient) -> Iterator[Link]:
    """Yield a source's links one at a time, in the source's order; a link may occur more than once.

    Args:
        source: The source's settings.
        client: The client for the source's HTTP requests.

    Raises:
        SourceError: The list could not be fetched, or is broken; the message says where and how.
        Unchanged: The list has not changed since the last listing.
        MissingSecretError: The source needs an environment variable that is not set.
    """
    try:
        yield from _modules()[type(source)].list_links(source, client)
    except (SourceError, Unchanged, MissingSecretError, ResourceError, Cancelled):
        raise
    except Exception as error:
        raise client.unexpected(error) from error


def serving(source: SourceSettings) -> AbstractContextManager[object]:
    """Return a context to keep open while a source's links are fetched: the demo server, or nothing."""
    return demo.DemoServer() if isinstance(source, demo.DemoSource) else nullcontext()


__getattr__ = moved(__name__, {"Web": "imgdl_pipeline.core.sources.client:SourceClient"})

__all__ = [
    "SourceClient",
    "SourceError",
    "Unchanged",
    "list_links",
    "serving",
    "source_of",
    "source_types",
    "type_name",
]
