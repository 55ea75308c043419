"""Check the scheme of URLs, name their hosts, and remove secrets from them."""

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from imgdl_pipeline.core.model.outcome import FetchError, Reason
from imgdl_pipeline.core.model.settings import HOST_SLOTS


def check_scheme(url: str) -> None:
    """Check that a link is an http or https URL with a host.

    Raises:
        FetchError: `scheme` if it is not.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise FetchError(Reason.SCHEME, "this is not a valid URL") from error
    if parts.scheme not in ("http", "https"):
        named = f"{parts.scheme}: links are" if parts.scheme else "a link without a scheme is"
        raise FetchError(Reason.SCHEME, f"{named} not fetched, only http and https")
    if not parts.hostname:
        raise FetchError(Reason.SCHEME, "this is not a valid URL: it names no host")


_AUTHORITY = re.compile(r"//[^/?#\s]*@")


def without_userinfo(text: str, mark: str = "…@") -> str:
    """Return a text with the user names and passwords in its URLs replaced by a mark."""
    return _AUTHORITY.sub(f"//{mark}", text)


_SECRET_PARAMETER = re.compile(r"([?&;][^=&#\s]*(?:key|token|secret|sig|passw|auth)[^=&#\s]*=)[^&#\s]+", re.I)


def without_secrets(text: str, secrets: Iterable[str] = ()) -> str:
    """Return a text without the user names, passwords and keys in its URLs, and without other secrets.

    Args:
        text: Any text, including messages of servers, which may repeat what they were sent.
        secrets: Further secrets to remove.
    """
    for secret in filter(None, secrets):
        text = text.replace(secret, "…")
    return _SECRET_PARAMETER.sub(r"\1…", without_userinfo(text))


DEFAULT_PORTS = {"http": 80, "https": 443}


def host_of(url: str) -> str:
    """Return the host and port of a URL in one normal spelling, or an empty text if it is not a URL.

    A host in `HOST_SLOTS` is returned without a port, so that all of its ports share its slots.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return ""
    host = (parts.hostname or "").rstrip(".")
    return host if host in HOST_SLOTS or not host else f"{host}:{port}"
