"""Where links come from: one module a source type, all behind `list_links`."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from imgdl_pipeline.core.links import Link
from imgdl_pipeline.core.settings import (
    DemoSource,
    ImgurSource,
    Source,
    UrlListSource,
    WikimediaCommonsSource,
)
from imgdl_pipeline.core.sources import demo, imgur, url_list, wikimedia_commons
from imgdl_pipeline.core.sources.web import SourceError, Web

_LISTERS: dict[type[Any], Callable[[Any, Web], Iterator[Link]]] = {
    DemoSource: demo.list_links,
    UrlListSource: url_list.list_links,
    ImgurSource: imgur.list_links,
    WikimediaCommonsSource: wikimedia_commons.list_links,
}
"""The one place where a source's settings meet its code."""


def list_links(source: Source, web: Web) -> Iterator[Link]:
    """What a source lists, in its order, one link at a time; a link may come more than once.

    Args:
        source: Its settings.
        web: For what it asks over HTTP.

    Raises:
        SourceError: The list could not be had, or is broken; says where and how.
        MissingSecretError: It needs an environment variable that is not set.
    """
    return _LISTERS[type(source)](source, web)


def serving(source: Source) -> AbstractContextManager[object]:
    """What must run while a source's links are fetched: the demo gallery's own server, else nothing."""
    return demo.DemoServer() if isinstance(source, DemoSource) else nullcontext()


__all__ = ["SourceError", "Web", "list_links", "serving"]
