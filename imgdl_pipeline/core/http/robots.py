"""Check links against robots.txt as RFC 9309 requires, fetching each host's file once per run."""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from urllib.parse import urlsplit

import requests
from urllib3 import exceptions as u3

from imgdl_pipeline.core.http import deadline
from imgdl_pipeline.core.http.opt_out import product_token
from imgdl_pipeline.core.http.pace import Paces
from imgdl_pipeline.core.http.robots_rules import RobotsRules, read_rules
from imgdl_pipeline.core.http.transport import get, redirect_target, retry_after
from imgdl_pipeline.core.http.urls import host_of
from imgdl_pipeline.core.model.outcome import FetchError, Reason, RetryAfter

MAX_BYTES = 512 * 1024  # RFC 9309, 2.5: read at least 500 kibibytes
MAX_ROBOTS_FAILURES = 3
"""Attempts per run at a robots.txt that cannot be fetched."""

MAX_ROBOTS_REDIRECTS = 5  # RFC 9309, 2.3.1.2: follow at least five redirects

KEPT_BYTES = 32 * 1024 * 1024
"""Memory for the rules of all hosts. An evicted file is fetched again."""

HOST_BYTES = 1_000
"""What a host takes in memory, apart from its rules."""


@dataclass(frozen=True, slots=True)
class _Rules:
    """One host's rules. Without `rules`, everything is allowed, or nothing if `refusal` is set."""

    rules: RobotsRules | None = None
    refusal: str = ""
    reason: Reason = Reason.ROBOTS

    @property
    def size(self) -> int:
        return HOST_BYTES + (self.rules.size() if self.rules else 0)

    def check(self, url: str) -> None:
        if self.refusal:
            raise FetchError(self.reason, self.refusal)
        if self.rules is not None and not self.rules.allow(url):
            raise FetchError(Reason.ROBOTS, "the host's robots.txt disallows this link")


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


class Robots:
    """The robots.txt rules of the hosts that this run has asked.

    The shared state, all under `_lock`: the rules by host in order of last use, their size in bytes, and
    the hosts' locks and failures.

    Args:
        user_agent: The User-Agent whose product token selects the rules.
        paces: How fast each host is asked; files with a Crawl-delay slow their hosts.
    """

    def __init__(self, user_agent: str, paces: Paces | None = None) -> None:
        self._agent = product_token(user_agent)
        self._paces = paces or Paces()
        self._lock = threading.Lock()
        self._rules: OrderedDict[str, _Rules] = OrderedDict()
        self._size = 0
        self._asking: dict[str, _Asking] = {}

    def __repr__(self) -> str:
        with self._lock:
            return f"<Robots {len(self._rules)} hosts, {self._size} bytes>"

    def check(self, url: str, session: requests.Session) -> None:
        """Check that a host's robots.txt allows a link.

        Args:
            url: The link, spelled as it will be sent.
            session: The session that fetches robots.txt.

        Raises:
            FetchError: `robots`, or the reason why robots.txt could not be fetched.
        """
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc.rpartition('@')[2].lower()}"
        rules = self._known(origin) or self._fetch_once(origin, session)
        rules.check(url)

    def _known(self, origin: str) -> _Rules | None:
        with self._lock:
            if origin in self._rules:
                self._rules.move_to_end(origin)
            return self._rules.get(origin)

    def _keep(self, origin: str, rules: _Rules) -> _Rules:
        with self._lock:
            self._rules[origin] = rules
            self._size += rules.size
            while self._size > KEPT_BYTES and len(self._rules) > 1:
                self._size -= self._rules.popitem(last=False)[1].size
        return rules

    def _fetch_once(self, origin: str, session: requests.Session) -> _Rules:
        with self._lock:
            asking = self._asking.setdefault(origin, _Asking(threading.Lock(), f"{origin}/robots.txt"))
        failures_before = asking.failures
        while not asking.lock.acquire(timeout=deadline.current().slice()):
            pass
        try:
            known = self._known(origin)
            if known is not None:
                return known
            if asking.error is not None and asking.failures > failures_before:
                raise asking.error  # all threads that waited for this request share its failure
            rules = _fetch(asking, session, self._agent)
            if rules.rules is not None:
                self._paces.crawl_delay(host_of(origin), rules.rules.crawl_delay_s)
            return self._keep(origin, rules)
        except (requests.RequestException, u3.HTTPError, OSError, RetryAfter) as error:
            if error is not asking.error:
                self._note_failure(origin, asking, error)
            raise
        finally:
            asking.lock.release()

    def _note_failure(self, origin: str, asking: _Asking, error: Exception) -> None:
        """Count a failure; refuse the host after `MAX_ROBOTS_FAILURES`. Called with the host's lock held."""
        asking.failures, asking.error = asking.failures + 1, error
        asking.url, asking.redirects = f"{origin}/robots.txt", 0
        if asking.failures < MAX_ROBOTS_FAILURES:
            return
        if isinstance(error, RetryAfter):
            self._keep(origin, _Rules(refusal=f"{error.detail}, so all of the host is off limits"))
        else:
            words = f"not tried: robots.txt could not be asked for: {error}"
            self._keep(origin, _Rules(refusal=words, reason=Reason.CONNECTION))


def _fetch(asking: _Asking, session: requests.Session, agent: str) -> _Rules:
    """Fetch a host's rules, and treat each failure as RFC 9309, 2.3.1 specifies."""
    while asking.redirects <= MAX_ROBOTS_REDIRECTS:
        try:
            answer = _ask(asking.url, session, agent)
        except FetchError as error:
            if isinstance(error, RetryAfter) or not (asking.redirects or error.reason is Reason.SCHEME):
                raise
            return _Rules()  # a failure behind a redirect is as if there were no file
        if isinstance(answer, _Rules):
            return answer
        asking.url, asking.redirects = answer, asking.redirects + 1
    return _Rules()  # too many redirects: treated as if there were no file


def _ask(url: str, session: requests.Session, agent: str) -> _Rules | str:
    """Return the rules, or the target of a redirect.

    Raises:
        RetryAfter: The host is overloaded or broken. All of the host is off limits until it serves its file.
            RFC 9309 treats 429 as a missing file, but here it counts as a failure: a host that limits the
            rate of requests means requests for images, too.
    """
    with get(session, url) as response:
        target = redirect_target(response)
        if target is not None:
            return target
        if 200 <= response.status_code < 300:
            return _Rules(read_rules(response.raw.read(MAX_BYTES, decode_content=True), agent))
        if response.status_code >= 500 or response.status_code == 429:
            words = f"robots.txt answered {response.status_code}"
            raise RetryAfter(words, retry_after(response.headers), http_status=response.status_code)
        return _Rules()
