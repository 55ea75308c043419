"""Fetch a file that every host may have, once per host and run, and keep what it says.

What hosts answer can be kept for later runs, too, by an object that is passed in. It is the answer that is
kept, not what it means for a run: that depends on the run's settings.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar
from urllib.parse import urlsplit

import requests
from urllib3 import exceptions as u3

from imgdl_pipeline.core.http import deadline
from imgdl_pipeline.core.http.transport import get, redirect_target, retry_after
from imgdl_pipeline.core.model.outcome import FetchError, Reason, RetryAfter

MAX_BYTES = 512 * 1024  # RFC 9309, 2.5: read at least 500 kibibytes of a robots.txt
MAX_FAILURES = 3
"""Attempts per run at a file that cannot be fetched."""

MAX_FILE_REDIRECTS = 5  # RFC 9309, 2.3.1.2: follow at least five redirects

KEPT_BYTES = 32 * 1024 * 1024
"""Memory for the files of all hosts. An evicted file is fetched again."""

HOST_BYTES = 1_000
"""What a host takes in memory, apart from its file."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class HostFile(Generic[T]):
    """One host's file: what it says, or None if there is none; or why it could not be fetched.

    Args:
        content: What the file says.
        size: The bytes that this takes in memory.
        error: Why the file could not be fetched, after `MAX_FAILURES` attempts.
    """

    content: T | None = None
    size: int = 0
    error: FetchError | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a host answered when it was asked for a file.

    Args:
        status: The HTTP status.
        body: The file's first `MAX_BYTES`, decompressed; empty unless the status is 2xx.
    """

    status: int
    body: bytes = b""

    @property
    def is_file(self) -> bool:
        """Whether the host has the file."""
        return 200 <= self.status < 300

    @property
    def is_trouble(self) -> bool:
        """Whether the host is overloaded or broken.

        All of the host is off limits until it serves its file. RFC 9309 treats 429 as a missing file, but
        here it counts as a failure: a host that limits the rate of requests means requests for images, too.
        """
        return self.status >= 500 or self.status == 429


class KeptAnswers(Protocol):
    """The answers of hosts that other runs have received."""

    def get(self, origin: str) -> Answer | None:
        """Return what a host has answered, or None if nothing is kept that still counts."""

    def put(self, origin: str, answer: Answer) -> None:
        """Keep what a host has answered."""


class NotKept:
    """Keeps nothing, so that each run asks each host."""

    def get(self, origin: str) -> Answer | None:  # noqa: ARG002
        """Return None."""
        return None

    def put(self, origin: str, answer: Answer) -> None:
        """Keep nothing."""


@dataclass(slots=True)
class _Asking:
    """The lock that is held while a host's file is fetched, the failures so far, and where it goes on.

    A redirect may have to wait for its host's pace; then the next link's request goes on with it.
    """

    lock: threading.Lock
    url: str
    redirects: int = 0
    failures: int = 0
    error: Exception | None = None


class HostFiles(Generic[T]):
    """The files of one path at the hosts that this run has asked.

    The shared state, all under `_lock`: the files by host in order of last use, their size in bytes, and
    the hosts' locks and failures.

    Args:
        path: The path of the file at each host.
        read: Returns what a file says, and the bytes that this takes in memory.
        on_read: Called with the origin and what its file says, once it is fetched.
        kept: Where what a host answers is kept for other runs.
    """

    def __init__(
        self,
        path: str,
        read: Callable[[bytes], tuple[T, int]],
        on_read: Callable[[str, T], None] = lambda *_: None,
        kept: KeptAnswers | None = None,
    ) -> None:
        self._path, self._read, self._on_read = path, read, on_read
        self._kept = kept or NotKept()
        self._lock = threading.Lock()
        self._files: OrderedDict[str, HostFile[T]] = OrderedDict()
        self._size = 0
        self._asking: dict[str, _Asking] = {}

    def __repr__(self) -> str:
        with self._lock:
            return f"<HostFiles {self._path} {len(self._files)} hosts, {self._size} bytes>"

    def of(self, url: str, session: requests.Session) -> HostFile[T]:
        """Return the file of a URL's host, and fetch it if need be.

        Args:
            url: The URL, spelled as it will be sent.
            session: The session that fetches the file.

        Raises:
            FetchError, requests.RequestException, urllib3.HTTPError, OSError: It could not be fetched, but
                another attempt may succeed.
        """
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc.rpartition('@')[2].lower()}"
        return self._known(origin) or self._fetch_once(origin, session)

    def contents(self) -> dict[str, T]:
        """Return what the files say that this run has read and still keeps, by origin."""
        with self._lock:
            return {origin: file.content for origin, file in self._files.items() if file.content is not None}

    def _known(self, origin: str) -> HostFile[T] | None:
        with self._lock:
            if origin in self._files:
                self._files.move_to_end(origin)
            return self._files.get(origin)

    def _keep(self, origin: str, file: HostFile[T]) -> HostFile[T]:
        with self._lock:
            self._files[origin] = file
            self._size += HOST_BYTES + file.size
            while self._size > KEPT_BYTES and len(self._files) > 1:
                self._size -= HOST_BYTES + self._files.popitem(last=False)[1].size
        return file

    def _fetch_once(self, origin: str, session: requests.Session) -> HostFile[T]:
        with self._lock:
            asking = self._asking.setdefault(origin, _Asking(threading.Lock(), origin + self._path))
        failures_before = asking.failures
        while not asking.lock.acquire(timeout=deadline.current().slice()):
            pass
        try:
            known = self._known(origin)
            if known is not None:
                return known
            if asking.error is not None and asking.failures > failures_before:
                raise asking.error  # all threads that waited for this request share its failure
            return self._keep(origin, self._read_kept(origin) or self._read_anew(origin, asking, session))
        except (requests.RequestException, u3.HTTPError, OSError, RetryAfter) as error:
            if error is not asking.error:
                self._note_failure(origin, asking, error)
            raise
        finally:
            asking.lock.release()

    def _note_failure(self, origin: str, asking: _Asking, error: Exception) -> None:
        """Count a failure; give the file up after `MAX_FAILURES`. Called with the host's lock held."""
        asking.failures, asking.error = asking.failures + 1, error
        asking.url, asking.redirects = origin + self._path, 0
        if asking.failures < MAX_FAILURES:
            return
        if isinstance(error, RetryAfter) and error.http_status is not None:
            answer = Answer(error.http_status)
            self._kept.put(origin, answer)
            file = self._file(origin, answer)
        else:  # no answer: perhaps it is our own network, so other runs shall ask, too
            words = f"not tried: {self._name} could not be asked for: {error}"
            file = HostFile(error=FetchError(Reason.CONNECTION, words))
        self._keep(origin, file)

    @property
    def _name(self) -> str:
        return self._path.rpartition("/")[2]

    def _read_kept(self, origin: str) -> HostFile[T] | None:
        answer = self._kept.get(origin)
        return None if answer is None else self._file(origin, answer)

    def _read_anew(self, origin: str, asking: _Asking, session: requests.Session) -> HostFile[T]:
        answer = self._fetch(asking, session)
        if answer is None:
            return HostFile()
        self._kept.put(origin, answer)
        return self._file(origin, answer)

    def _file(self, origin: str, answer: Answer) -> HostFile[T]:
        if answer.is_trouble:
            words = f"{self._name} answered {answer.status}, so all of the host is off limits"
            return HostFile(error=FetchError(Reason.ROBOTS, words))
        if not answer.is_file:
            return HostFile()
        content, size = self._read(answer.body)
        self._on_read(origin, content)
        return HostFile(content, size)

    def _fetch(self, asking: _Asking, session: requests.Session) -> Answer | None:
        """Fetch a host's file, and treat each failure as RFC 9309, 2.3.1 specifies for robots.txt.

        Return None if a redirect leads to no answer, which is as if there were no file.
        """
        while asking.redirects <= MAX_FILE_REDIRECTS:
            try:
                answer = self._ask(asking.url, session)
            except FetchError as error:
                if isinstance(error, RetryAfter) or not (asking.redirects or error.reason is Reason.SCHEME):
                    raise
                return None
            if isinstance(answer, Answer):
                return answer
            asking.url, asking.redirects = answer, asking.redirects + 1
        return None

    def _ask(self, url: str, session: requests.Session) -> Answer | str:
        """Return the answer, or the target of a redirect.

        Raises:
            RetryAfter: The host is overloaded or broken.
        """
        with get(session, url) as response:
            target = redirect_target(response)
            if target is not None:
                return target
            answer = Answer(response.status_code)
            if answer.is_trouble:
                words = f"{self._name} answered {answer.status}"
                raise RetryAfter(words, retry_after(response.headers), http_status=answer.status)
            if answer.is_file:
                return Answer(answer.status, response.raw.read(MAX_BYTES, decode_content=True))
            return answer
