"""HTTP for sources: JSON answers and documents, patient with busy servers and clear about failures.

What a galleries file names is trusted to be meant, so a source's own URL may be on any address; where it
redirects to is judged like a stranger's link.
"""

import json
import logging
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import urlencode

import requests
from urllib3 import exceptions as u3

from imgdl_pipeline.core.deadline import Deadline, working_until
from imgdl_pipeline.core.guard import AddressGuard, check_scheme, without_userinfo
from imgdl_pipeline.core.outcome import FetchError
from imgdl_pipeline.core.settings import DownloadSettings
from imgdl_pipeline.core.transport import get, new_session, redirect_target, retry_after

logger = logging.getLogger(__name__)

ANSWER_S = 120.0
"""Seconds for one answer of an API or a link list, however slowly it comes."""

ANSWER_BYTES = 2_000_000_000
LONGEST_WAIT_S = 300.0
"""All waits for one answer together; an API that wants more fails the listing, and says so."""

BUSY_S = 10.0
"""The wait for a busy server that does not say how long."""

FAILURES = 3
"""Requests for one answer that may fail outright, by a 5xx or without any answer."""

SHOWN_CHARS = 200
MAX_REDIRECTS = 5
ANYWHERE = ("0.0.0.0/0", "::/0")


class SourceError(Exception):
    """A gallery's links could not be listed; says which request or line failed, and how."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A JSON answer.

    Args:
        request: What was asked, for errors; holds no secret.
        status: Of HTTP.
        headers: By name, whatever the case.
        data: The parsed JSON.
        text: The answer's first 200 characters.
    """

    request: str
    status: int
    headers: Mapping[str, str]
    data: Any
    text: str

    def error(self, what: str) -> SourceError:
        """The error of an answer that is not what was asked for."""
        return SourceError(f"{self.request}: {what} (status {self.status}): {self.text}")


class Web:
    """Asks on behalf of a source.

    Args:
        settings: The gallery's download settings: User-Agent, and addresses that redirects may lead to.
        environ: Where secrets are looked up.
        sleep: Waits some seconds.
    """

    def __init__(
        self,
        settings: DownloadSettings,
        environ: Mapping[str, str],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.environ = environ
        self._sleep = sleep
        user_agent = settings.user_agent_header
        self._trusted = new_session(AddressGuard(ANYWHERE), user_agent)
        self._guarded = new_session(AddressGuard(settings.allow_addresses), user_agent)

    def __enter__(self) -> "Web":
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
        """Ask for JSON; wait and ask again while the server is busy.

        Args:
            url: Where; redirects are not followed, so that no header leaves for another host.
            parameters: The query.
            headers: Sent with the request, such as a Client-ID; never shown.
            busy: Whether an answer means that one should come back later.

        Raises:
            SourceError: Three requests failed, or the server stayed busy for longer than 300 s.
        """
        request = f"GET {without_userinfo(url)}" + (f"?{urlencode(parameters)}" if parameters else "")
        full = f"{url}?{urlencode(parameters)}" if parameters else url
        waited, failures = 0.0, 0
        while True:
            answer = self._answer_or_problem(full, headers, request)
            if isinstance(answer, Answer) and not _is_passing(answer) and not busy(answer):
                return answer
            problem, wait = _problem(answer)
            if isinstance(answer, str) or answer.status >= 500:
                failures += 1
            wait = 2.0**failures if wait is None else max(wait, 1.0)
            if failures == FAILURES or waited + wait > LONGEST_WAIT_S:
                raise SourceError(f"{problem}; gave up after {waited:.0f} s of waiting")
            logger.warning("%s; asking again in %.0f s", problem, wait)
            self._sleep(wait)
            waited += wait

    def _answer_or_problem(self, url: str, headers: Mapping[str, str] | None, request: str) -> Answer | str:
        """One request: the answer, or in words why there is none."""
        try:
            return self._answer(url, headers, request)
        except (requests.RequestException, u3.HTTPError, OSError, FetchError) as error:
            return f"{request}: {_words(error)}"

    def _answer(self, url: str, headers: Mapping[str, str] | None, request: str) -> Answer:
        deadline = Deadline(ANSWER_S, threading.Event())
        with working_until(deadline), get(self._trusted, url, headers) as response:
            body = response.raw.read(ANSWER_BYTES, decode_content=True)
        text = body.decode("utf-8", "replace")
        try:
            data = json.loads(text)
        except ValueError:
            data = None
        return Answer(request, response.status_code, response.headers, data, text[:SHOWN_CHARS])

    def document(self, url: str) -> IO[bytes]:
        """A whole document, at its start, in a temporary file.

        Raises:
            SourceError: It could not be had.
        """
        shown = f"GET {without_userinfo(url)}"
        try:
            with working_until(Deadline(ANSWER_S, threading.Event())):
                return self._follow(url, shown)
        except (requests.RequestException, u3.HTTPError, OSError, FetchError) as error:
            raise SourceError(f"{shown}: {_words(error)}") from error

    def _follow(self, url: str, shown: str) -> IO[bytes]:
        session: requests.Session = self._trusted
        for _ in range(MAX_REDIRECTS + 1):
            check_scheme(url)
            with get(session, url) as response:
                target = redirect_target(response)
                if target is not None:
                    url, session = target, self._guarded
                    continue
                if response.status_code != 200:
                    start = response.raw.read(SHOWN_CHARS).decode("utf-8", "replace")
                    raise SourceError(f"{shown}: status {response.status_code}: {start}")
                file = tempfile.TemporaryFile()
                while chunk := response.raw.read(1 << 20, decode_content=True):
                    file.write(chunk)
                file.seek(0)
                return file
        raise SourceError(f"{shown}: redirected more than {MAX_REDIRECTS} times")


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
    if isinstance(error, FetchError):
        return error.detail
    return without_userinfo(str(error))
