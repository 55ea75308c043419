"""One URL: its bytes and facts, or a FetchError that says why not.

One call is one attempt under one deadline, with the redirects within a host. A redirect to another host is
returned as a `Redirect`, so that the caller can wait for that host's turn. The caller decides from
`FetchError.retryable` and `RetryAfter` whether and when to try again.
"""

import http.client
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import urlsplit

import requests
from requests import exceptions as rq
from urllib3 import exceptions as u3

from imgdl_pipeline.core.download.body import read_body
from imgdl_pipeline.core.http.address_guard import AddressGuard
from imgdl_pipeline.core.http.deadline import Deadline, deadline_scope
from imgdl_pipeline.core.http.opt_out import check_opt_out
from imgdl_pipeline.core.http.robots import Robots
from imgdl_pipeline.core.http.transport import (
    Validators,
    header_text,
    new_session,
    prepared,
    redirect_target,
    retry_after,
    send,
)
from imgdl_pipeline.core.http.urls import check_scheme, host_of, without_userinfo
from imgdl_pipeline.core.model.outcome import RETRYABLE_STATUSES, FetchError, Reason, RetryAfter
from imgdl_pipeline.core.model.settings import DownloadSettings

MAX_REDIRECTS = 10
DIGESTS = ("sha1", "sha256", "md5")
"""Attributes that, where a source gives them, the bytes must match; `bytes`, their number, too."""

PLACEHOLDER_PATH = "/removed.png"
"""Imgur sends whoever asks for a deleted image there."""


class NotModified(Exception):
    """The server says that what we have is still what it has."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What one answer held.

    Args:
        body: At its start; a temporary file that is gone once it is closed.
        bytes: How many there are.
        digests: Hex digests by name: sha256, and those that were asked for.
    """

    body: IO[bytes]
    bytes: int
    digests: dict[str, str]
    http_status: int
    etag: str | None
    last_modified: str | None


@dataclass(frozen=True, slots=True)
class Redirect:
    """Where an attempt goes on: a redirect has led to another host, whose slots and pauses are its own.

    Args:
        url: Where.
        redirects: How many there were.
        seconds: How long the attempt may still take.
    """

    url: str
    redirects: int
    seconds: float

    @property
    def host(self) -> str:
        """Whose turn it is to be."""
        return host_of(self.url)


class Fetcher:
    """Fetches images for any number of threads, each with a session of its own.

    Args:
        settings: Limits, rules and the User-Agent.
        stop: Once set, every fetch is abandoned within a quarter of a second.
        tls: The context for TLS; None takes the shared one.
    """

    def __init__(
        self,
        settings: DownloadSettings,
        stop: threading.Event,
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._settings = settings
        self._stop = stop
        self._tls = tls
        self._guard = AddressGuard(settings.allow_addresses)
        self._robots = Robots(settings.user_agent_header)
        self._local = threading.local()
        self._sessions: list[requests.Session] = []

    def __enter__(self) -> "Fetcher":
        return self

    def __exit__(self, *exc: object) -> None:
        for session in self._sessions:
            session.close()

    def fetch(
        self,
        url: str,
        expected: Mapping[str, Any] | None = None,
        validators: Validators | None = None,
        own_headers: Mapping[str, str] | None = None,
        redirect: Redirect | None = None,
    ) -> Fetched | Redirect:
        """One attempt at a URL, or the rest of one.

        Args:
            url: As the source gave it.
            expected: Hex digests by name and `bytes`, which what comes must match.
            validators: Of the bytes that are there already.
            own_headers: What the link's own host wants to see, and no other host may.
            redirect: What the last call gave, to go on from there.

        Raises:
            FetchError: Why there are no bytes, or not those that were expected.
            NotModified: The bytes that are there already are the current ones.
            Cancelled: The run is ending.
        """
        redirect = redirect or Redirect(url, 0, self._settings.timeout)
        conditions = (validators or Validators()).headers()
        with deadline_scope(Deadline(redirect.seconds, self._stop)) as deadline:
            try:
                headers = _Headers(url, own_headers or {}, conditions)
                return self._follow(redirect, headers, _Expected(expected or {}), deadline)
            except _TRANSLATED as error:
                raise fetch_error(error, self._settings.timeout) from error

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = new_session(self._guard, self._settings, self._tls)
            self._local.session = session
            self._sessions.append(session)
        return session

    def _follow(
        self, redirect: Redirect, headers: "_Headers", expected: "_Expected", deadline: Deadline
    ) -> Fetched | Redirect:
        url = redirect.url
        for redirects in range(redirect.redirects, MAX_REDIRECTS + 1):
            try:
                check_scheme(url)
                arrived = self._request(url, headers, expected)
            except FetchError as error:
                error.host = redirect.host
                raise
            if isinstance(arrived, Fetched):
                return arrived
            url = arrived
            check_scheme(url)
            if host_of(url) != redirect.host:
                return Redirect(url, redirects + 1, deadline.left())
        raise FetchError(Reason.REDIRECTS, f"redirected more than {MAX_REDIRECTS} times")

    def _request(self, url: str, headers: "_Headers", expected: "_Expected") -> Fetched | str:
        """One request: what was fetched, or where it was redirected to."""
        session, request = self._session(), prepared(url)
        self._check_link(str(request.url), session)
        with send(session, request, headers.for_url(str(request.url))) as response:
            if response.status_code == 304 and headers.conditions:
                self._check_opt_out(response)
                raise NotModified
            return redirect_target(response) or self._receive(response, expected)

    def _check_link(self, url: str, session: requests.Session) -> None:
        if urlsplit(url).path == PLACEHOLDER_PATH:
            raise FetchError(Reason.PLACEHOLDER, "the image was removed: removed.png stands for it")
        if self._settings.robots_txt:
            self._robots.check(url, session)

    def _check_opt_out(self, response: requests.Response) -> None:
        if self._settings.opt_out_headers:
            tags = response.raw.headers.getlist("X-Robots-Tag")
            check_opt_out(tags, self._settings.user_agent_header)

    def _receive(self, response: requests.Response, expected: "_Expected") -> Fetched:
        try:
            _check_status(response)
            self._check_opt_out(response)
            _check_encoding(response)
            return _receive_body(response, expected, self._settings.max_bytes)
        except FetchError as error:
            error.http_status = response.status_code
            raise


@dataclass(frozen=True, slots=True)
class _Headers:
    """What is sent with a link's requests.

    Args:
        url: The link's.
        own: For its own origin only: they may be secrets.
        conditions: For whichever host has the bytes in the end.
    """

    url: str
    own: Mapping[str, str]
    conditions: Mapping[str, str]

    def for_url(self, url: str) -> Mapping[str, str]:
        """Those for one request; `url` is spelled as it will be sent."""
        if self.own and _origin(url) == _origin(str(prepared(self.url).url)):
            return {**self.conditions, **self.own}
        return self.conditions


def _origin(url: str) -> tuple[str, str]:
    """Scheme, host and port: what a secret of a link may be sent to."""
    return url.partition(":")[0].lower(), host_of(url)


@dataclass(frozen=True, slots=True)
class _Expected:
    """What the source says of the bytes; empty values say nothing."""

    attributes: Mapping[str, Any]

    def digest_names(self) -> list[str]:
        return [name for name in DIGESTS if self.attributes.get(name)]

    def check(self, digests: Mapping[str, str], size: int) -> None:
        for name in self.digest_names():
            wanted = str(self.attributes[name]).strip().lower()
            if wanted != digests[name]:
                raise FetchError(Reason.HASH_MISMATCH, f"{name} is {digests[name]}, the source gave {wanted}")
        wanted_size = str(self.attributes.get("bytes") or "").strip().removesuffix(".0")  # as pandas has it
        if wanted_size.isdecimal() and int(wanted_size) != size:
            raise FetchError(Reason.HASH_MISMATCH, f"{size} bytes came, the source gave {wanted_size}")


def _check_status(response: requests.Response) -> None:
    status = response.status_code
    if status == 200:
        return
    detail = f"the server answered {status} {header_text(response.reason or '')}".rstrip()
    if status in (429, 503):
        raise RetryAfter(detail, retry_after(response.headers), http_status=status)
    raise FetchError(Reason.HTTP, detail, retryable=status in RETRYABLE_STATUSES)


def _check_encoding(response: requests.Response) -> None:
    encoding = response.headers.get("Content-Encoding", "")
    if encoding.lower() not in ("identity", ""):
        raise FetchError(Reason.NOT_JPEG, f"the answer is {encoding}-encoded, though identity was asked for")


def _receive_body(response: requests.Response, expected: _Expected, max_bytes: int) -> Fetched:
    announced = response.headers.get("Content-Length", "")
    if announced.isdecimal() and int(announced[:20]) > max_bytes:
        raise FetchError(Reason.TOO_LARGE, f"Content-Length is {announced}, and max_bytes is {max_bytes}")
    body = read_body(response.raw, expected.digest_names(), max_bytes)
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
    return None if value is None else header_text(value)[:1000]


_TRANSLATED = (rq.RequestException, u3.HTTPError, http.client.HTTPException, OSError, UnicodeError)
"""Every foreign error that an attempt can end in."""


def fetch_error(error: BaseException, timeout: float) -> FetchError:
    """The one place where errors of requests, urllib3 and the sockets become ours.

    requests hides most causes in others, so the whole chain is looked through, and the most telling
    link of it decides.
    """
    chain = list(_chain(error))
    for kinds, reason, words, retryable in _TRANSLATIONS:
        for cause in chain:
            if isinstance(cause, kinds):
                detail = words.format(cause=without_userinfo(str(cause)), timeout=f"{timeout:g}")
                return FetchError(reason, detail, retryable=retryable)
    return FetchError(Reason.CONNECTION, without_userinfo(str(error)), retryable=True)


_TRANSLATIONS: tuple[tuple[tuple[type[BaseException], ...], Reason, str, bool], ...] = (
    ((u3.InvalidHeader,), Reason.CONNECTION, "the answer is no valid HTTP: {cause}", True),
    (
        (rq.InvalidHeader,),  # its own words quote the value, which is a secret
        Reason.CONNECTION,
        "a header that the link needs holds what no header may",
        False,
    ),
    (
        (rq.InvalidURL, rq.MissingSchema, rq.InvalidSchema, u3.LocationValueError, UnicodeError),
        Reason.SCHEME,
        "this is no valid URL: {cause}",
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
    ((http.client.HTTPException,), Reason.CONNECTION, "the answer is no valid HTTP: {cause}", True),
    ((OSError,), Reason.CONNECTION, "{cause}", True),
)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and all that it wraps, innermost first."""
    seen: list[BaseException] = []
    todo: list[Any] = [error]
    while todo:
        each = todo.pop()
        if isinstance(each, BaseException) and not any(each is other for other in seen):
            seen.append(each)
            todo += [each.__cause__, each.__context__, getattr(each, "reason", None), *each.args]
    return reversed(seen)
