"""Fetch one URL: return its bytes and metadata, or raise a FetchError with the reason.

One call is one attempt under one deadline, including redirects within a host. A redirect to another host is
returned as a `Redirect`, so that the caller can wait for a free slot of that host; and so is a request that
its host's pace does not allow yet. The caller uses
`FetchError.retryable` and `RetryAfter` to decide whether and when to try again.
"""

import base64
import hashlib
import http.client
import re
import ssl
import threading
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import IO, Any
from urllib.parse import urlsplit

import requests
from requests import exceptions as rq
from urllib3 import exceptions as u3

from imgdl_pipeline.core.download.body import CHUNK_BYTES, Body, read_body
from imgdl_pipeline.core.http.address_guard import AddressGuard
from imgdl_pipeline.core.http.connections import Connections
from imgdl_pipeline.core.http.deadline import Deadline, deadline_scope
from imgdl_pipeline.core.http.host_files import KeptAnswers
from imgdl_pipeline.core.http.opt_outs import from_headers, says_reservation
from imgdl_pipeline.core.http.pace import Paces, TooSoon
from imgdl_pipeline.core.http.robots import Robots
from imgdl_pipeline.core.http.robots_rules import RobotsRules
from imgdl_pipeline.core.http.spelling import spelled
from imgdl_pipeline.core.http.transport import (
    Validators,
    header_text,
    new_session,
    prepared,
    redirect_target,
    retry_after,
    send,
)
from imgdl_pipeline.core.http.urls import host_of, host_of_spelled
from imgdl_pipeline.core.model.opt_outs import HEADER, ROBOTS, TDMREP, OptOut, limited
from imgdl_pipeline.core.model.outcome import RETRYABLE_STATUSES, FetchError, Reason, RetryAfter
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.model.shown import hide_secrets
from imgdl_pipeline.core.storage.judged import forbidding
from imgdl_pipeline.core.storage.removed import REMOVED_VERDICT

KEPT_PER_WORKER = 2
"""Connections per worker that are kept open: one for the link that it works on, and one for its next link."""

MAX_REDIRECTS = 10
DIGESTS = ("sha1", "sha256", "md5")
"""Attributes that the bytes must match if the source gives them. So must `bytes`, their number."""

PLACEHOLDER_PATH = "/removed.png"
"""Path on Imgur's hosts to which Imgur redirects requests for deleted images."""


def _is_imgur(host: str) -> bool:
    return host == "imgur.com" or host.endswith(".imgur.com")


@dataclass(frozen=True, slots=True)
class Heard:
    """What a link's owner said in an attempt, and in which places it could have been said.

    Args:
        opt_outs: What was said.
        places: The places that were read.
    """

    opt_outs: tuple[OptOut, ...] = ()
    places: frozenset[str] = frozenset()

    def and_also(self, opt_outs: Iterable[OptOut], *places: str) -> "Heard":
        """Return this with what was heard in further places."""
        return Heard(tuple(limited([*self.opt_outs, *opt_outs])), self.places | {*places})


class NotModified(Exception):
    """Raised when the server reports that the stored bytes are still current.

    Args:
        heard: What their owner said.
    """

    def __init__(self, heard: Heard = Heard()) -> None:
        self.heard = heard
        super().__init__()


@dataclass(frozen=True, slots=True)
class Fetched:
    """The body and metadata of a response.

    Args:
        body: The bytes, positioned at the start; a temporary file is deleted when it is closed.
        bytes: The number of bytes.
        digests: Hex digests by name: sha256, and those that were requested.
    """

    body: IO[bytes]
    bytes: int
    digests: dict[str, str]
    http_status: int
    etag: str | None
    last_modified: str | None
    heard: Heard = Heard()


@dataclass(frozen=True, slots=True)
class Redirect:
    """An unfinished attempt that continues at another host, or at the same host when its pace allows it.

    Each host has its own slots, pauses and pace.

    Args:
        url: The URL to continue with.
        redirects: The number of redirects so far.
        seconds: Seconds left for the attempt.
        wait_s: Seconds after which the host's pace allows the request.
        heard: What the hosts on the way said.
    """

    url: str
    redirects: int
    seconds: float
    wait_s: float = 0.0
    heard: Heard = Heard()

    @property
    def host(self) -> str:
        """Return the host whose slot the rest of the attempt needs."""
        return host_of(self.url)


class Fetcher:
    """Fetches images for any number of threads, with one session per thread.

    Args:
        settings: Limits, rules and the User-Agent.
        stop: Event that cancels every fetch within a quarter of a second.
        paces: How fast each host is asked; None for a pace as the settings have it.
        removed: Links that are never asked for, spelled as they would be sent.
        tls: The TLS context; None uses the shared one.
        kept_robots: The robots.txt that other runs have fetched; None if none are kept.
    """

    def __init__(
        self,
        settings: DownloadSettings,
        stop: threading.Event,
        *,
        paces: Paces | None = None,
        removed: Container[str] = frozenset(),
        tls: ssl.SSLContext | None = None,
        kept_robots: KeptAnswers | None = None,
    ) -> None:
        self._settings = settings
        self._stop = stop
        self._tls = tls
        self._removed = removed
        self._guard = AddressGuard(settings.allow_addresses)
        self._connections = Connections(self._guard, tls, KEPT_PER_WORKER * settings.workers)
        self._paces = paces or Paces(settings.requests_per_second)
        self._robots = Robots(settings.user_agent_header, self._paces, kept_robots)
        self._local = threading.local()
        self._sessions: list[requests.Session] = []

    def __enter__(self) -> "Fetcher":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections that nobody uses."""
        for session in self._sessions:
            session.close()
        self._connections.close()

    def fetch(
        self,
        url: str,
        expected: Mapping[str, Any] | None = None,
        validators: Validators | None = None,
        own_headers: Mapping[str, str] | None = None,
        redirect: Redirect | None = None,
    ) -> Fetched | Redirect:
        """Make one attempt at a URL, or continue one after a redirect.

        Args:
            url: The URL as the source gave it.
            expected: Hex digests by name and `bytes`, which the body must match.
            validators: The validators of the stored bytes.
            own_headers: Headers for the link's own origin, which are sent to no other.
            redirect: The result of the last call, if the attempt continues there.

        Raises:
            FetchError: The bytes could not be fetched, or do not match.
            NotModified: The stored bytes are still current.
            Cancelled: The run is ending.
        """
        redirect = redirect or Redirect(url, 0, self._settings.timeout)
        conditions = (validators or Validators()).headers()
        with deadline_scope(Deadline(redirect.seconds, self._stop)) as deadline:
            headers = _Headers(url, own_headers or {}, conditions)
            try:
                return self._follow(redirect, headers, _Expected(expected or {}), deadline)
            except _TRANSLATED as error:
                raise fetch_error(error, self._settings.timeout) from error
            except FetchError as error:
                error.detail = hide_secrets(error.detail, headers.secrets())
                raise

    def usage(self) -> dict[str, RobotsRules]:
        """Return the rules of every robots.txt that was read and says anything about use, by origin."""
        return self._robots.usage()

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = new_session(self._guard, self._settings, self._tls, self._paces, self._connections)
            self._local.session = session
            self._sessions.append(session)
        return session

    def _follow(
        self, redirect: Redirect, headers: "_Headers", expected: "_Expected", deadline: Deadline
    ) -> Fetched | Redirect:
        url, heard = redirect.url, redirect.heard
        for redirects in range(redirect.redirects, MAX_REDIRECTS + 1):
            try:
                arrived, heard = self._request(url, headers, expected, heard)
            except TooSoon as error:
                return Redirect(url, redirects, deadline.left(), error.seconds, heard)
            except FetchError as error:
                error.host = redirect.host
                raise
            if isinstance(arrived, Fetched):
                return arrived
            url = arrived
            if host_of_spelled(url) != redirect.host:
                return Redirect(url, redirects + 1, deadline.left(), heard=heard)
        raise FetchError(Reason.REDIRECTS, f"redirected more than {MAX_REDIRECTS} times")

    def _request(
        self, url: str, headers: "_Headers", expected: "_Expected", heard: Heard
    ) -> tuple[Fetched | str, Heard]:
        """Send one request; return the fetched body, or the URL of a redirect, and what was heard by then."""
        session, request = self._session(), prepared(url)
        if str(request.url) in self._removed:
            raise FetchError(Reason.REMOVED, REMOVED_VERDICT["detail"])
        heard, reserved = self._check_link(str(request.url), session, heard)
        with send(session, request, headers.for_url(str(request.url))) as response:
            target = redirect_target(response)
            if target is not None:
                return target, self._heed(self._said(response, heard, reserved))
            if response.status_code == 304 and headers.conditions:
                raise NotModified(self._heed(self._said(response, heard, reserved, is_whole=False)))
            return self._receive(response, expected, heard, reserved), heard

    def _check_link(
        self, url: str, session: requests.Session, heard: Heard
    ) -> tuple[Heard, list[OptOut] | None]:
        """Ask the host's own files about a link; return what was heard, and what tdmrep.json says.

        The latter counts only if no header says otherwise.
        """
        parts = urlsplit(url)
        if parts.path == PLACEHOLDER_PATH and _is_imgur(parts.hostname or ""):
            raise FetchError(Reason.PLACEHOLDER, "the image was removed: the link leads to removed.png")
        if not self._settings.robots_txt:
            return heard, None
        heard = self._heed(heard.and_also(self._robots.check(url, session), ROBOTS))
        return heard, self._robots.reservations(url, session)

    def _said(
        self,
        response: requests.Response,
        heard: Heard,
        reserved: list[OptOut] | None,
        *,
        is_whole: bool = True,
    ) -> Heard:
        """Return what was heard with an answer's headers, of which a 304 may leave some out."""
        headers = list(response.raw.headers.iteritems())
        said = from_headers(headers, self._settings.user_agent_header)
        if is_whole or said:
            heard = heard.and_also(said, HEADER)
        if reserved is None:
            return heard
        return heard.and_also([] if says_reservation(headers) else reserved, TDMREP)

    def _heed(self, heard: Heard) -> Heard:
        """Refuse a link whose owner forbids the gallery's purpose, before its body is read.

        Raises:
            FetchError: `opt_out`.
        """
        refused = forbidding(heard.opt_outs, self._settings)
        if refused is None:
            return heard
        error = FetchError(Reason.OPT_OUT, refused.words(self._settings.purpose.value))
        error.opt_outs, error.places = heard.opt_outs, heard.places
        raise error

    def _receive(
        self,
        response: requests.Response,
        expected: "_Expected",
        heard: Heard,
        reserved: list[OptOut] | None,
    ) -> Fetched:
        try:
            _check_status(response)
            heard = self._heed(self._said(response, heard, reserved))
            fetched = _receive_body(response, expected, self._settings.max_bytes)
        except FetchError as error:
            error.http_status = response.status_code
            if not error.places:
                error.opt_outs, error.places = heard.opt_outs, heard.places
            raise
        return replace(fetched, heard=heard)


@dataclass(frozen=True, slots=True)
class _Headers:
    """The headers that are sent with a link's requests.

    Args:
        url: The link's URL.
        own: Headers for the link's own origin only, because they may be secrets.
        conditions: Conditional headers, for every host.
    """

    url: str
    own: Mapping[str, str]
    conditions: Mapping[str, str]

    def secrets(self) -> list[str]:
        """Return what nothing that is stored may repeat: the own headers, and a password in them."""
        words = (word for value in self.own.values() for word in (value, *value.split()))
        found = [word for word in words if len(word) > 3]
        for word in found.copy():
            with suppress(ValueError):
                plain = base64.b64decode(word, validate=True).decode()
                found += [each for each in (plain, plain.partition(":")[2]) if len(each) > 3]
        return sorted(found, key=len, reverse=True)

    def for_url(self, url: str) -> Mapping[str, str]:
        """Return the headers for one request; `url` must be spelled as it will be sent."""
        if self.own and _origin(url) == _origin(spelled(self.url)):
            return {**self.conditions, **self.own}
        return self.conditions


def _origin(url: str) -> tuple[str, str]:
    """Return a spelled URL's scheme, host and port. A link's secrets are sent only to its own origin."""
    return url.partition(":")[0], host_of_spelled(url)


@dataclass(frozen=True, slots=True)
class _Expected:
    """The digests and size that the source gives for the bytes; empty values are ignored."""

    attributes: Mapping[str, Any]

    def digest_names(self) -> list[str]:
        return [
            name for name in DIGESTS if name in self.attributes and hex_digest(name, self.attributes[name])
        ]

    def check(self, digests: Mapping[str, str], size: int) -> None:
        for name in self.digest_names():
            wanted = hex_digest(name, self.attributes.get(name))
            if wanted != digests[name]:
                raise FetchError(Reason.HASH_MISMATCH, f"{name} is {digests[name]}, the source gave {wanted}")
        wanted_size = _digits(self.attributes.get("bytes"))
        if wanted_size and wanted_size != str(size):
            raise FetchError(Reason.HASH_MISMATCH, f"{size} bytes came, the source gave {wanted_size[:20]}")


_DIGEST_PREFIX = re.compile(r"(md5|sha-?1|sha-?256)[:=]", re.IGNORECASE)


def hex_digest(name: str, value: Any) -> str | None:
    """Return a digest as hex digits: from hex or base64, with or without a prefix such as `sha256:`.

    Return None for what is no such digest, such as an empty cell, `nan` or `n/a`.
    """
    text = _DIGEST_PREFIX.sub("", str(value or "").strip(), count=1).strip()
    size: int = hashlib.new(name, usedforsecurity=False).digest_size
    if re.fullmatch(rf"[0-9A-Fa-f]{{{2 * size}}}", text):
        return text.lower()
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return data.hex() if len(data) == size else None


def check_expected(file: IO[bytes], attributes: Mapping[str, Any]) -> Body:
    """Read a stored image and compare it with its source's attributes.

    Raises:
        FetchError: `hash_mismatch`.
    """
    expected = _Expected(attributes)
    names = {"sha256", *expected.digest_names()}
    hashes = {name: hashlib.new(name, usedforsecurity=False) for name in names}
    size = 0
    while chunk := file.read(CHUNK_BYTES):
        size += len(chunk)
        for digest in hashes.values():
            digest.update(chunk)
    digests = {name: digest.hexdigest() for name, digest in hashes.items()}
    expected.check(digests, size)
    return Body(file, size, digests)


def _digits(value: Any) -> str:
    """Return a size's digits without leading zeros, and without the `.0` that pandas writes; "" for none."""
    text = str(value or "").strip().removesuffix(".0")
    return (text.lstrip("0") or "0") if text.isascii() and text.isdigit() else ""


def _check_status(response: requests.Response) -> None:
    status = response.status_code
    if status in (200, 203) or (status == 206 and _is_complete(response)):
        return
    detail = f"the server answered {status} {header_text(response.reason or '')}".rstrip()
    if status in (429, 503):
        raise RetryAfter(detail, retry_after(response.headers), http_status=status)
    raise FetchError(Reason.HTTP, detail, retryable=status in RETRYABLE_STATUSES)


_RANGE = re.compile(r"bytes 0-(\d{1,18})/(\d{1,18})")


def _is_complete(response: requests.Response) -> bool:
    """Return whether a part is the whole, as some servers answer though no range was asked for."""
    match = _RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    return match is not None and int(match[1]) + 1 == int(match[2])


ZLIB_CODINGS = frozenset({"gzip", "x-gzip", "deflate"})
OTHER_CODINGS = frozenset({"br", "zstd", "compress", "x-compress", "dcb", "dcz", "exi", "pack200-gzip"})
"""The content codings of IANA's registry: those that are decoded, and those that are not. Any other word in a
Content-Encoding, such as `aws-chunked` or `utf-8`, names none, and the bytes are as they are."""


def _codings(response: requests.Response) -> int:
    """Return how often the body is compressed.

    Raises:
        FetchError: `not_jpeg` if it has a coding that is not decoded.
    """
    words = [each.strip().lower() for each in response.headers.get("Content-Encoding", "").split(",")]
    for word in words:
        if word in OTHER_CODINGS:
            raise FetchError(Reason.NOT_JPEG, f"the answer is {word}-encoded, though identity was asked for")
    return sum(word in ZLIB_CODINGS for word in words)


def _receive_body(response: requests.Response, expected: _Expected, max_bytes: int) -> Fetched:
    announced = response.headers.get("Content-Length", "")
    if announced.isdecimal() and int(announced[:20]) > max_bytes:
        raise FetchError(Reason.TOO_LARGE, f"Content-Length is {announced}, and max_bytes is {max_bytes}")
    body = read_body(response.raw, expected.digest_names(), max_bytes, codings=_codings(response))
    try:
        expected.check(body.digests, body.bytes)
    except BaseException:
        body.file.close()
        raise
    return Fetched(
        body=body.file,
        bytes=body.bytes,
        digests=body.digests,
        http_status=response.status_code,
        etag=_optional_text(response.headers.get("ETag")),
        last_modified=_optional_text(response.headers.get("Last-Modified")),
    )


def _optional_text(value: str | None) -> str | None:
    """Return a header that can be sent again and stored: neither long nor with control characters."""
    text = None if value is None else header_text(value)
    return text if text is not None and len(text) <= 1000 and text.isprintable() else None


_TRANSLATED = (rq.RequestException, u3.HTTPError, http.client.HTTPException, OSError, UnicodeError)
"""Every error of other libraries that can end an attempt."""


def fetch_error(error: BaseException, timeout: float) -> FetchError:
    """Return the FetchError for an error of requests, urllib3 or a socket.

    All such errors are translated here. requests wraps most causes in other errors, so the whole chain is
    searched, and the first entry of `_TRANSLATIONS` that matches any error in the chain decides.
    """
    chain = list(_chain(error))
    for kinds, reason, words, retryable in _TRANSLATIONS:
        for cause in chain:
            if isinstance(cause, kinds):
                detail = words.format(cause=str(cause), timeout=f"{timeout:g}")
                return FetchError(reason, detail, retryable=retryable)
    return FetchError(Reason.CONNECTION, str(error), retryable=True)


_TRANSLATIONS: tuple[tuple[tuple[type[BaseException], ...], Reason, str, bool], ...] = (
    ((u3.InvalidHeader,), Reason.CONNECTION, "the answer is not valid HTTP: {cause}", True),
    (
        (rq.InvalidHeader,),  # its own message quotes the value, which is a secret
        Reason.CONNECTION,
        "a header that the link needs holds what no header may",
        False,
    ),
    (
        (rq.InvalidURL, rq.MissingSchema, rq.InvalidSchema, u3.LocationValueError, UnicodeError),
        Reason.SCHEME,
        "this is not a valid URL: {cause}",
        False,
    ),
    ((TimeoutError, u3.TimeoutError), Reason.TIMEOUT, "not done within {timeout} s", True),
    ((ssl.SSLCertVerificationError,), Reason.TLS, "{cause}", False),
    ((ssl.SSLError, u3.SSLError), Reason.TLS, "{cause}", True),
    (
        (u3.IncompleteRead, http.client.IncompleteRead, u3.InvalidChunkLength),
        Reason.INCOMPLETE,
        "the body ended early: {cause}",
        True,
    ),
    ((http.client.RemoteDisconnected,), Reason.CONNECTION, "closed without an answer", True),
    ((http.client.HTTPException,), Reason.CONNECTION, "the answer is not valid HTTP: {cause}", True),
    ((OSError,), Reason.CONNECTION, "{cause}", True),
)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Return an error and all errors that it wraps, innermost first."""
    seen: list[BaseException] = []
    todo: list[Any] = [error]
    while todo:
        each = todo.pop()
        if isinstance(each, BaseException) and not any(each is other for other in seen):
            seen.append(each)
            todo += [each.__cause__, each.__context__, getattr(each, "reason", None), *each.args]
    return reversed(seen)
