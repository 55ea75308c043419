"""HTTP for sources: JSON answers and documents, patient with busy servers and clear about failures.

What a galleries file names is trusted to be meant, so a source's own URL may be on any address; where it
redirects to is judged like a stranger's link.
"""

import hashlib
import json
import logging
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, TypeVar
from urllib.parse import urlencode

import requests
from urllib3 import exceptions as u3

from imgdl_pipeline.core.http.address_guard import ANYWHERE, AddressGuard
from imgdl_pipeline.core.http.deadline import Deadline, deadline_scope
from imgdl_pipeline.core.http.transport import Validators, get, new_session, redirect_target, retry_after
from imgdl_pipeline.core.http.urls import check_scheme, without_secrets, without_userinfo
from imgdl_pipeline.core.model.outcome import FetchError
from imgdl_pipeline.core.model.settings import DownloadSettings

logger = logging.getLogger(__name__)

ANSWER_S = 120.0
"""Seconds for one answer of an API or a link list, however slowly it comes."""

ANSWER_BYTES = 100_000_000
"""A longer answer of an API is an error; so is a longer document, unless its source allows more."""

LONGEST_WAIT_S = 300.0
"""All waits for one answer together; an API that wants more fails the listing, and says so."""

BUSY_S = 10.0
"""The wait for a busy server that does not say how long."""

MAX_FAILED_REQUESTS = 3
"""Requests for one answer that may fail outright, by a 5xx or without any answer."""

SHOWN_CHARS = 200
MAX_DOCUMENT_REDIRECTS = 5
CHUNK_BYTES = 1 << 20

T = TypeVar("T", bound="Answer")


class SourceError(Exception):
    """A gallery's links could not be listed; says which request or line failed, and how."""


class Unchanged(Exception):
    """What the source lists is what it listed the last time."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An API's answer.

    Args:
        request: What was asked, for errors; holds no secret.
        status: Of HTTP.
        headers: By name, whatever the case.
        data: The parsed JSON; None where it is none.
        text: The answer's first 200 characters.
    """

    request: str
    status: int
    headers: Mapping[str, str]
    data: Any
    text: str

    def close(self) -> None:
        """Let go of what the answer holds: nothing."""

    def error(self, what: str) -> SourceError:
        """The error of an answer that is not what was asked for."""
        return SourceError(f"{self.request}: {what} (status {self.status}): {self.text}")


@dataclass(frozen=True, slots=True)
class Document(Answer):
    """An answer that may be long.

    Args:
        url: Where it came from in the end, which relative links in it start from; without a password.
        file: What came, at its start; it is gone once it is closed.
    """

    url: str
    file: IO[bytes]

    def close(self) -> None:
        """Let go of the file."""
        self.file.close()

    def read(self) -> bytes:
        """All of it, at once."""
        return self.file.read()


class SourceClient:
    """Asks on behalf of a source.

    Args:
        settings: The gallery's download settings: User-Agent, proxies, addresses that redirects may lead to.
        environ: Where secrets are looked up.
        sleep: Waits some seconds.
        validators: What `validators` was after the last listing, to ask for documents conditionally.
    """

    def __init__(
        self,
        settings: DownloadSettings,
        environ: Mapping[str, str],
        sleep: Callable[[float], None] = time.sleep,
        validators: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self.environ = environ
        self.validators: dict[str, Mapping[str, str]] = {}
        self._known = validators or {}
        self._sleep = sleep
        self._last: Answer | None = None
        self._trusted = new_session(AddressGuard(ANYWHERE), settings)
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
    ) -> Answer:
        """Ask an API for JSON; wait and ask again while the server is busy.

        Args:
            url: Where; redirects are not followed, so that no header leaves for another host.
            parameters: The query.
            headers: Sent with the request, such as a Client-ID; never shown.
            busy: Whether an answer means that one should come back later.

        Raises:
            SourceError: Three requests failed, or the server stayed busy for longer than 300 s.
        """
        full = f"{url}?{urlencode(parameters)}" if parameters else url
        request = f"GET {without_secrets(full)}"
        return self._patiently(request, lambda: self._ask_api(full, headers or {}, request), busy)

    def unexpected(self, error: Exception) -> SourceError:
        """The error of a source that could make nothing of what it was given last."""
        words = f"this is not what was expected: {type(error).__name__}: {error}"
        return SourceError(words) if self._last is None else self._last.error(words)

    @contextmanager
    def document(
        self,
        url: str,
        *,
        limit: int | None = ANSWER_BYTES,
        conditionally: bool = False,
        is_trusted: bool = True,
    ) -> Iterator[Document]:
        """A whole document, for the length of a `with` block; redirects are followed.

        Args:
            url: Where.
            limit: Bytes that it may have; None for any number, as it waits in a file.
            conditionally: Ask for it only if it has changed since the last listing.
            is_trusted: Whether the galleries file names it; what a document of others names may not lie at
                an address that strangers' links may not lead to.

        Raises:
            SourceError: It could not be had.
            Unchanged: It has not changed.
        """
        request = f"GET {without_secrets(url)}"
        key = hashlib.sha256(url.encode()).hexdigest()  # a URL may hold a secret
        validators = self._known.get(key, {}) if conditionally else {}
        session = self._trusted if is_trusted else self._guarded

        def ask() -> Document:
            return self._fetch(url, session, validators, request, limit)

        found = self._patiently(request, ask, lambda _: False)
        with found.file:
            if found.status == 304 and validators:
                self.validators[key] = validators
                raise Unchanged
            if found.status != 200:
                raise found.error("the document could not be had")
            if conditionally:
                self.validators[key] = Validators.of(found.headers).headers()
            yield found

    def _patiently(self, request: str, ask: Callable[[], T], busy: Callable[[T], bool]) -> T:
        """Ask until there is an answer that is neither busy nor a passing failure."""
        waited, failures = 0.0, 0
        while True:
            answer = _answer_or_problem(ask, request)
            if not isinstance(answer, str) and not _is_passing(answer) and not busy(answer):
                self._last = answer
                return answer
            problem, wait = _problem(answer)
            if isinstance(answer, str) or answer.status >= 500:
                failures += 1
            if not isinstance(answer, str):
                answer.close()
            wait = 2.0**failures if wait is None else max(wait, 1.0)
            if failures == MAX_FAILED_REQUESTS or waited + wait > LONGEST_WAIT_S:
                raise SourceError(f"{problem}; gave up after {waited:.0f} s of waiting")
            logger.warning("%s; asking again in %.0f s", problem, wait)
            self._sleep(wait)
            waited += wait

    def _ask_api(self, url: str, headers: Mapping[str, str], request: str) -> Answer:
        with _in_time(), get(self._trusted, url, headers) as response:
            body = response.raw.read(ANSWER_BYTES + 1, decode_content=True)
        _check_length(request, len(body), ANSWER_BYTES)
        sent = [word for value in headers.values() for word in (value, value.split()[-1])]
        text = without_secrets(_shown(body), sent)
        return Answer(request, response.status_code, response.headers, parsed_json(body), text)

    def _fetch(
        self,
        url: str,
        session: requests.Session,
        validators: Mapping[str, str],
        request: str,
        limit: int | None,
    ) -> Document:
        with _in_time():
            for _ in range(MAX_DOCUMENT_REDIRECTS + 1):
                check_scheme(url)
                with get(session, url, validators) as response:
                    target = redirect_target(response)
                    if target is None:
                        return _received(response, url, request, limit)
                    url, session = target, self._guarded
        raise SourceError(f"{request}: redirected more than {MAX_DOCUMENT_REDIRECTS} times")


def _check_length(request: str, size: int, limit: int | None) -> None:
    if limit is not None and size > limit:
        raise SourceError(f"{request}: the answer is longer than {limit} bytes")


def parsed_json(text: bytes) -> Any:
    """What a JSON text holds; None where it is none."""
    try:
        return json.loads(text.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError):
        return None


@contextmanager
def _in_time() -> Iterator[None]:
    with deadline_scope(Deadline(ANSWER_S, threading.Event())):
        yield


def _received(response: requests.Response, url: str, request: str, limit: int | None) -> Document:
    file = tempfile.TemporaryFile()
    try:
        while chunk := response.raw.read(CHUNK_BYTES, decode_content=True):
            file.write(chunk)
            _check_length(request, file.tell(), limit)
    except BaseException:
        file.close()
        raise
    file.seek(0)
    start = without_secrets(_shown(file.read(4 * SHOWN_CHARS)))
    file.seek(0)
    bare_url = without_userinfo(url, mark="")
    return Document(request, response.status_code, response.headers, None, start, bare_url, file)


def _shown(start: bytes) -> str:
    return start[: 4 * SHOWN_CHARS].decode("utf-8", "replace")[:SHOWN_CHARS]


def _answer_or_problem(ask: Callable[[], T], request: str) -> T | str:
    """One request: the answer, or in words why there is none."""
    try:
        return ask()
    except FetchError as error:
        if not error.retryable:  # to ask again would be in vain
            raise SourceError(f"{request}: {error.detail}") from error
        return f"{request}: {error.detail}"
    except (requests.RequestException, u3.HTTPError, OSError) as error:
        return f"{request}: {_words(error)}"


def _is_passing(answer: Answer) -> bool:
    return answer.status == 429 or answer.status >= 500


def _problem(answer: Answer | str) -> tuple[str, float | None]:
    """What is in the way, in words, and the seconds a busy server asks for, where it does."""
    if isinstance(answer, str):
        return answer, None
    seconds = retry_after(answer.headers)
    if seconds is None and answer.status < 500:
        seconds = BUSY_S
    return str(answer.error("the server is busy")), seconds


def _words(error: BaseException) -> str:
    if isinstance(error, requests.exceptions.InvalidHeader):  # its words quote the value, which is a secret
        return "a header that is to be sent holds what no header may"
    return without_secrets(str(error))
