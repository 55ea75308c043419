"""URLs: which may be fetched, whose slots they take, and how they are shown without secrets."""

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from imgdl_pipeline.core.model.outcome import FetchError, Reason
from imgdl_pipeline.core.model.settings import HOST_SLOTS


def check_scheme(url: str) -> None:
    """Let only http and https links with a host through.

    Raises:
        FetchError: `scheme`.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise FetchError(Reason.SCHEME, "this is no valid URL") from error
    if parts.scheme not in ("http", "https"):
        named = f"{parts.scheme}: links are" if parts.scheme else "a link without a scheme is"
        raise FetchError(Reason.SCHEME, f"{named} not fetched, only http and https")
    if not parts.hostname:
        raise FetchError(Reason.SCHEME, "this is no valid URL: it names no host")


_AUTHORITY = re.compile(r"//[^/?#\s]*@")


def without_userinfo(text: str, mark: str = "…@") -> str:
    """A text in which no URL shows a user's name or password, but a mark in their place."""
    return _AUTHORITY.sub(f"//{mark}", text)


_SECRET_PARAMETER = re.compile(r"([?&;][^=&#\s]*(?:key|token|secret|sig|passw|auth)[^=&#\s]*=)[^&#\s]+", re.I)


def without_secrets(text: str, secrets: Iterable[str] = ()) -> str:
    """A text in which no URL shows a user's name, a password or a key, nor anything else that is secret.

    Args:
        text: Of ours, or of strangers: servers repeat what they were sent.
        secrets: What else it must not hold.
    """
    for secret in filter(None, secrets):
        text = text.replace(secret, "…")
    return _SECRET_PARAMETER.sub(r"\1…", without_userinfo(text))


DEFAULT_PORTS = {"http": 80, "https": 443}


def host_of(url: str) -> str:
    """The host and port that a URL leads to, however they are spelled; links that are no URLs share one.

    A host that `HOST_SLOTS` names is one host on all of its ports.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return ""
    host = (parts.hostname or "").rstrip(".")
    return host if host in HOST_SLOTS or not host else f"{host}:{port}"
