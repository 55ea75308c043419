"""Name the hosts of URLs, and remove user names and passwords from them."""

import re
from urllib.parse import urlsplit

from imgdl_pipeline.core.http.spelling import DEFAULT_PORTS, spelled
from imgdl_pipeline.core.model.outcome import FetchError
from imgdl_pipeline.core.model.settings import HOST_SLOTS

_USERINFO = re.compile(r"//[^/?#\s]*@")


def without_userinfo(url: str) -> str:
    """Return a URL without a user name and password."""
    return _USERINFO.sub("//", url, count=1)


def host_of(url: str) -> str:
    """Return the host and port of a URL in one normal spelling, or an empty text if it is not a URL.

    A host in `HOST_SLOTS` is returned without a port, so that all of its ports share its slots.
    """
    try:
        return host_of_spelled(spelled(url))
    except FetchError:
        return ""


def host_of_spelled(url: str) -> str:
    """Return the host and port of a URL that is spelled already, as `host_of` does."""
    parts = urlsplit(url)
    host = (parts.hostname or "").removesuffix(".")
    return host if host in HOST_SLOTS else f"{host}:{parts.port or DEFAULT_PORTS[parts.scheme]}"
