"""Fetch JSON and documents over HTTP for sources, with retries for busy servers and clear errors.

A URL in a galleries file is trusted, so a source's own URL may be on any address. The targets of its
redirects are checked like links from untrusted lists.
"""

import hashlib
import ipaddress
import json
import logging
import re
import threading
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import PurePath
from typing import IO, Any, TypeVar
from urllib.parse import urlencode, urlsplit

import requests
from urllib3 import exceptions as u3

from imgdl_pipeline.core.http.address_guard import ANYWHERE, AddressGuard
from imgdl_pipeline.core.http.deadline import Cancelled, Deadline, deadline_scope
from imgdl_pipeline.core.http.robots import Robots
from imgdl_pipeline.core.http.transport import (
    Validators,
    get,
    new_session,
    prepared,
    redirect_target,
    retry_after,
)
from imgdl_pipeline.core.http.urls import without_userinfo
from imgdl_pipeline.core.model.outcome import FetchError
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.model.shown import hide_secrets, shown
from imgdl_pipeline.core.model.temporary import discard, needing_room, temporary_file

logger = logging.getLogger(__name__)

ANSWER_S = 120.0
"""The deadline in seconds for one answer of an API or one link list, however slowly it arrives."""

ANSWER_BYTES = 30_000_000
"""The longest answer of an API, decompressed. A longer one is an error, and so is a longer document, unless
its source allows more."""

JSON_VALUES = 2_000_000
"""The most values in a JSON text that is parsed as a whole; each takes up to 100 bytes of memory."""

LONGEST_WAIT_S = 300.0
"""The most seconds to wait for one answer, all waits added up. An API that asks for more fails the listing,
with an error that says so."""

BUSY_S = 10.0
"""Seconds to wait for a busy server that does not say how long."""

MAX_FAILED_REQUESTS = 3
"""How many requests for one answer may fail with a 5xx or without any answer before the client gives up."""

BARREN_PAGES = 20
"""Pages of a list in a row that may bring nothing new; a list that goes on so has no end."""

SHOWN_CHARS = 200
MAX_DOCUMENT_REDIRECTS = 5
CHUNK_BYTES = 1 << 20

T = TypeVar("T", bound="Answer")


MESSAGE_CHARS = 1_000


class SourceError(Exception):
    """A gallery's links could not be listed; the message says which request or line failed, and how.

    The message is one line without secrets, whatever it quotes.
    """

    def __init__(self, message: str) -> None:
        super().__init__(shown(message, MESSAGE_CHARS))


class Unchanged(Exception):
    """The source lists the same links as the last time."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An API's answer.

    Args:
        request: The request, for error messages; contains no secret.
        status: The HTTP status.
        headers: The headers by name, case-insensitive.
        data: The parsed JSON; None if the body is not JSON.
        text: The answer's first 200 characters.
    """

    request: str
    status: int
    headers: Mapping[str, str]
    data: Any
    text: str

    def close(self) -> None:
        """Do nothing: a plain answer holds no resources."""

    def error(self, what: str) -> SourceError:
        """Return a SourceError that describes what is wrong with this answer."""
        return SourceError(f"{self.request}: {what} (status {self.status}): {self.text}")


@dataclass(frozen=True, slots=True)
class Document(Answer):
    """An answer that may be long.

    Args:
        url: The final URL after redirects, the base of relative links; without a password.
        file: A temporary file with the body, positioned at its start; closing it deletes it.
    """

    url: str
    file: IO[bytes]

    def close(self) -> None:
        """Close the temporary file."""
        self.file.close()

    @property
    def charset(self) -> str | None:
        """Return the charset that the Content-Type states, or None if it states none."""
        parameters = self.headers.get("Content-Type", "").partition(";")[2]
        return next(iter(re.findall(r"charset\s*=\s*[\"']?([\w.:-]+)", parameters, re.IGNORECASE)), None)

    def read(self) -> bytes:
        """Return the whole body."""
        return self.file.read()

    def json(self) -> Any:
        """Return the body as JSON, or None if it is not JSON.

        Raises:
            SourceError: It has more than `JSON_VALUES` values.
        """
        body = self.read()
        _check_values(self.request, body)
        return parsed_json(body)


class SourceClient:
    """An HTTP client for sources.

    Args:
        settings: The gallery's download settings: User-Agent, proxies, addresses that redirects may lead to.
        environ: The environment variables that secrets are read from.
        sleep: A function that waits for a number of seconds; None waits until `stop` is set at most.
        validators: The value of `validators` after the last listing, for conditional requests.
        seconds: How long all requests and waits together may take.
        trusts_source: Whether the galleries file's author wrote the source's own URL. One that comes from
            someone else's table must not lead where links from untrusted lists may not lead.
    """

    def __init__(
        self,
        settings: DownloadSettings,
        environ: Mapping[str, str],
        sleep: Callable[[float], None] | None = None,
        validators: Mapping[str, Mapping[str, str]] | None = None,
        seconds: float = float("inf"),
        *,
        trusts_source: bool = True,
    ) -> None:
        self.trusts_source = trusts_source
        self.stop = threading.Event()
        self._deadline = Deadline(seconds, self.stop)
        self.environ = environ
        self.validators: dict[str, Mapping[str, str]] = {}
        self.warnings: list[str] = []
        self.entries = 0
        self._entries: set[int] = set()
        self._barren = 0
        self._robots = Robots(settings.user_agent_header)
        self._known = validators or {}
        self._sleep = sleep or self._wait
        self._last: Answer | None = None
        allowed = ANYWHERE if trusts_source else settings.allow_addresses
        self._trusted = new_session(AddressGuard(allowed), settings)
        self._guarded = new_session(AddressGuard(settings.allow_addresses), settings)

    def __enter__(self) -> "SourceClient":
        return self

    def __exit__(self, *exc: object) -> None:
        self._trusted.close()
        self._guarded.close()

    def json(
        self,
        url: str,
        parameters: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        busy: Callable[[Answer], bool] = lambda _: False,
        pause: Callable[[Answer], float | None] = lambda _: None,
    ) -> Answer:
        """Request JSON from an API; wait and retry while the server is busy.

        Args:
            url: The API's URL; redirects are not followed, so that no header is sent to another host.
            parameters: The query parameters.
            headers: Headers to send, such as a Client-ID; never shown.
            busy: Returns whether an answer asks the client to come back later.
            pause: Returns the seconds that a busy answer asks to wait in a way of its own; else Retry-After
                counts.

        Raises:
            SourceError: Three requests failed, or the server stayed busy for longer than 300 s, or says that
                it will.
        """
        query = urlencode(parameters or {})
        full = f"{url}{'&' if '?' in url else '?'}{query}" if query else url
        request = f"GET {hide_secrets(full)}"
        return self._patiently(request, lambda: self._ask_api(full, headers or {}, request), busy, pause)

    def unexpected(self, error: Exception) -> SourceError:
        """Return a SourceError for a source that failed to process the last answer."""
        place = traceback.extract_tb(error.__traceback__)[-1]
        line = f"{PurePath(place.filename).name}:{place.lineno}"
        words = f"this is not what was expected: {type(error).__name__} in {line}: {error}"
        return SourceError(words) if self._last is None else self._last.error(words)

    @contextmanager
    def document(
        self,
        url: str,
        *,
        limit: int | None = ANSWER_BYTES,
        conditionally: bool = False,
        is_trusted: bool = True,
        heeds_robots: bool = False,
        accepted: Collection[int] = (200,),
    ) -> Iterator[Document]:
        """Fetch a whole document for the length of a `with` block; redirects are followed.

        Args:
            url: The document's URL.
            limit: The most bytes it may have; None for no limit, because it is kept in a file.
            conditionally: Fetch it only if it has changed since the last listing.
            is_trusted: Whether the URL comes from the galleries file. A URL from someone else's document must
                not lead to an address that links from untrusted lists may not lead to.
            accepted: The statuses of answers that are no error.
            heeds_robots: Whether the host's robots.txt must allow the document.

        Raises:
            SourceError: The document could not be fetched.
            Unchanged: The document has not changed.
        """
        request = f"GET {hide_secrets(url)}"
        key = hashlib.sha256(url.encode()).hexdigest()  # a URL may hold a secret
        validators = self._known.get(key, {}) if conditionally else {}
        session = self._trusted if is_trusted else self._guarded

        def ask() -> Document:
            return self._fetch(url, session, validators, request, limit, heeds_robots=heeds_robots)

        found = self._patiently(request, ask)
        with found.file:
            if found.status == 304 and validators:
                self.validators[key] = validators
                raise Unchanged
            if found.status not in accepted:
                raise found.error("the document could not be fetched")
            if conditionally:
                self.validators[key] = Validators.of(found.headers).headers()
            yield found

    def left(self) -> float:
        """Return the seconds left for the listing.

        Raises:
            Cancelled: There are none, or the run is ending.
        """
        try:
            return self._deadline.left()
        except TimeoutError:
            raise Cancelled from None

    def warn(self, words: str) -> None:
        """Say in the log and in the list's metadata what limits the list, or what it leaves out."""
        self.warnings.append(shown(words))
        logger.warning("%s", self.warnings[-1])

    def is_known(self, name: str, text: str) -> bool:
        """Return whether a text was the same at the last listing; keep its digest for the next."""
        key, digest = (hashlib.sha256(each.encode()).hexdigest() for each in (name, text))
        self.validators[key] = {"digest": digest}
        return self._known.get(key) == {"digest": digest}

    def begin_list(self) -> None:
        """Note that the next page is of another list, so that it need not bring anything new."""
        self._barren = 0

    def saw(self, entries: Iterable[str]) -> None:
        """Count the entries of a page, named by their identities.

        Raises:
            SourceError: `BARREN_PAGES` in a row brought no entry that had not been there before.
        """
        before = len(self._entries)
        for entry in entries:
            self.entries += 1
            self._entries.add(hash(entry))
        self._barren = 0 if len(self._entries) > before else self._barren + 1
        if self._barren == BARREN_PAGES:
            raise SourceError(f"{BARREN_PAGES} pages in a row bring nothing new (BARREN_PAGES)")

    def _wait(self, seconds: float) -> None:
        self.stop.wait(min(seconds, self.left()))
        self.left()

    def _patiently(
        self,
        request: str,
        ask: Callable[[], T],
        busy: Callable[[T], bool] = lambda _: False,
        pause: Callable[[T], float | None] = lambda _: None,
    ) -> T:
        """Retry until there is an answer that is neither busy nor a temporary failure."""
        waited, failures = 0.0, 0
        while True:
            answer = _answer_or_problem(ask, request)
            if not isinstance(answer, str) and not _is_passing(answer) and not busy(answer):
                self._last = answer
                return answer
            problem, wait = _problem(answer)
            if not isinstance(answer, str):
                wait = pause(answer) or wait
            if isinstance(answer, str) or answer.status >= 500:
                failures += 1
            if not isinstance(answer, str):
                answer.close()
            wait = 2.0**failures if wait is None else max(wait, 1.0)
            if wait > LONGEST_WAIT_S:
                at = datetime.now(timezone.utc) + timedelta(seconds=min(wait, 366 * 86_400))
                raise SourceError(
                    f"{problem}; it asks to wait {wait:.0f} s: try again at {at:%Y-%m-%d %H:%M} UTC"
                )
            if failures == MAX_FAILED_REQUESTS or waited + wait > LONGEST_WAIT_S:
                raise SourceError(f"{problem}; gave up after {waited:.0f} s of waiting")
            logger.warning("%s; asking again in %.0f s", shown(problem, MESSAGE_CHARS), wait)
            self._sleep(wait)
            waited += wait

    def _ask_api(self, url: str, headers: Mapping[str, str], request: str) -> Answer:
        with self._in_time(), get(self._trusted, url, headers) as response:
            body = response.raw.read(ANSWER_BYTES + 1, decode_content=True)
        _check_length(request, len(body), ANSWER_BYTES)
        _check_values(request, body)
        sent = [word for value in headers.values() for word in (value, value.split()[-1])]
        text = shown(hide_secrets(_start(body), sent), SHOWN_CHARS)
        return Answer(request, response.status_code, response.headers, parsed_json(body), text)

    def _fetch(
        self,
        url: str,
        session: requests.Session,
        validators: Mapping[str, str],
        request: str,
        limit: int | None,
        *,
        heeds_robots: bool,
    ) -> Document:
        with self._in_time():
            for _ in range(MAX_DOCUMENT_REDIRECTS + 1):
                if heeds_robots:
                    self._robots.check(str(prepared(url).url), session)
                with get(session, url, validators) as response:
                    target = redirect_target(response)
                    if target is None:
                        return _received(response, url, request, limit)
                    url, session = target, self._guarded
        raise SourceError(f"{request}: redirected more than {MAX_DOCUMENT_REDIRECTS} times")

    def _in_time(self) -> AbstractContextManager[Deadline]:
        return deadline_scope(Deadline(min(ANSWER_S, self.left()), self.stop))


def _check_length(request: str, size: int, limit: int | None) -> None:
    if limit is not None and size > limit:
        raise SourceError(f"{request}: the answer is longer than {limit} bytes")


def _check_values(request: str, text: bytes) -> None:
    values = text.count(b",") + text.count(b"{") + text.count(b"[")
    if values > JSON_VALUES:
        raise SourceError(f"{request}: the answer has more than {JSON_VALUES} values (JSON_VALUES)")


def parsed_json(text: bytes) -> Any:
    """Parse a JSON text; return None if it is not valid JSON, or has more than `JSON_VALUES` values."""
    if text.count(b",") + text.count(b"{") + text.count(b"[") > JSON_VALUES:
        return None
    try:
        return json.loads(text.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError):
        return None


def _received(response: requests.Response, url: str, request: str, limit: int | None) -> Document:
    file = temporary_file()
    try:
        while chunk := response.raw.read(CHUNK_BYTES, decode_content=True):
            with needing_room():
                file.write(chunk)
            _check_length(request, file.tell(), limit)
        with needing_room():
            file.seek(0)
    except BaseException:
        discard(file)
        raise
    start = shown(_start(file.read(4 * SHOWN_CHARS)), SHOWN_CHARS)
    file.seek(0)
    bare_url = without_userinfo(url)
    return Document(request, response.status_code, response.headers, None, start, bare_url, file)


def _start(body: bytes) -> str:
    return body[: 4 * SHOWN_CHARS].decode("utf-8", "replace")


def is_trusted_like(own: str, url: str) -> bool:
    """Return whether a URL from a document may be trusted like the galleries file's own URL.

    That is so at the same origin if the own URL gives its host as an address: a name server may turn a name
    into another address the second time.
    """
    try:
        ipaddress.ip_address(urlsplit(own).hostname or "")
    except ValueError:
        return False
    return own.lower().split("/", 3)[:3] == url.lower().split("/", 3)[:3]


def _answer_or_problem(ask: Callable[[], T], request: str) -> T | str:
    """Send one request; return the answer, or a message that says why there is none."""
    try:
        return ask()
    except FetchError as error:
        if not error.retryable:  # a retry would fail in the same way
            raise SourceError(f"{request}: {error.detail}") from error
        return f"{request}: {error.detail}"
    except (requests.RequestException, u3.HTTPError, OSError) as error:
        return f"{request}: {_words(error)}"


def _is_passing(answer: Answer) -> bool:
    return answer.status == 429 or answer.status >= 500


def _problem(answer: Answer | str) -> tuple[str, float | None]:
    """Return the problem as a message, and the seconds that a busy server asks to wait, if it does."""
    if isinstance(answer, str):
        return answer, None
    seconds = retry_after(answer.headers)
    if seconds is None and answer.status < 500:
        seconds = BUSY_S
    return str(answer.error("the server is busy")), seconds


def _words(error: BaseException) -> str:
    if isinstance(error, requests.exceptions.InvalidHeader):  # its message quotes the value, a secret
        return "a header that is to be sent holds what no header may"
    return str(error)
