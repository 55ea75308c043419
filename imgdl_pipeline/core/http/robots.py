"""robots.txt, asked for once a host and run, and heeded as RFC 9309 says."""

import re
import threading
from collections import OrderedDict
from dataclasses import dataclass
from urllib.parse import urlsplit

import requests
from protego import Protego
from urllib3 import exceptions as u3

from imgdl_pipeline.core.http import deadline
from imgdl_pipeline.core.http.opt_out import product_token
from imgdl_pipeline.core.http.transport import get, redirect_target, retry_after
from imgdl_pipeline.core.http.urls import check_scheme, without_userinfo
from imgdl_pipeline.core.model.outcome import FetchError, Reason, RetryAfter

MAX_BYTES = 512 * 1024  # RFC 9309, 2.5: at least 500 kibibytes are to be read
MAX_ROBOTS_FAILURES = 3
"""How often a robots.txt that cannot be had is asked for, in one run."""

MAX_ROBOTS_REDIRECTS = 5  # RFC 9309, 2.3.1.2: at least five hops are to be followed

KEPT_RULES = 50_000
"""Lines of all hosts' files that are remembered, some 600 bytes each; a forgotten file is asked for again."""


@dataclass(frozen=True, slots=True)
class _Rules:
    """What one host's robots.txt says; without a parser, all or nothing is allowed."""

    parser: Protego | None = None
    lines: int = 0
    refusal: str = ""
    reason: Reason = Reason.ROBOTS

    def check(self, url: str, agent: str) -> None:
        if self.refusal:
            raise FetchError(self.reason, self.refusal)
        if self.parser is not None and not self.parser.can_fetch(url, agent):
            raise FetchError(Reason.ROBOTS, "the host's robots.txt disallows this link")


@dataclass(slots=True)
class _Asking:
    """A host's lock, held while its file is fetched, and what went wrong before."""

    lock: threading.Lock
    failures: int = 0
    error: Exception | None = None


class Robots:
    """The rules of the hosts that were asked in this run.

    Its shared state, all under `_lock`: the rules by host, the least lately used first, how many lines they
    have, and what is being asked.

    Args:
        user_agent: Rules for its product token are looked for.
    """

    def __init__(self, user_agent: str) -> None:
        self._agent = product_token(user_agent)
        self._lock = threading.Lock()
        self._rules: OrderedDict[str, _Rules] = OrderedDict()
        self._lines = 0
        self._asking: dict[str, _Asking] = {}

    def __repr__(self) -> str:
        with self._lock:
            return f"<Robots {len(self._rules)} hosts, {self._lines} rules>"

    def check(self, url: str, session: requests.Session) -> None:
        """Let a link through that its host's robots.txt allows.

        Args:
            url: Spelled as it will be sent.
            session: To ask with.

        Raises:
            FetchError: `robots`; or why the host could not be asked, as for the link itself.
        """
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc.rpartition('@')[2].lower()}"
        rules = self._known(origin) or self._fetch_once(origin, session)
        rules.check(url, self._agent)

    def _known(self, origin: str) -> _Rules | None:
        with self._lock:
            if origin in self._rules:
                self._rules.move_to_end(origin)
            return self._rules.get(origin)

    def _keep(self, origin: str, rules: _Rules) -> _Rules:
        with self._lock:
            self._rules[origin] = rules
            self._lines += rules.lines
            while self._lines > KEPT_RULES and len(self._rules) > 1:
                self._lines -= self._rules.popitem(last=False)[1].lines
        return rules

    def _fetch_once(self, origin: str, session: requests.Session) -> _Rules:
        with self._lock:
            asking = self._asking.setdefault(origin, _Asking(threading.Lock()))
        failures_before = asking.failures
        while not asking.lock.acquire(timeout=deadline.current().slice()):
            pass
        try:
            known = self._known(origin)
            if known is not None:
                return known
            if asking.error is not None and asking.failures > failures_before:
                raise asking.error  # all who have waited for one answer share its failure
            return self._keep(origin, _fetch(f"{origin}/robots.txt", session, self._agent))
        except (requests.RequestException, u3.HTTPError, OSError, RetryAfter) as error:
            if error is not asking.error:
                self._note_failure(origin, asking, error)
            raise
        finally:
            asking.lock.release()

    def _note_failure(self, origin: str, asking: _Asking, error: Exception) -> None:
        """Called with the host's lock held: a host that can't be asked costs so many attempts in all."""
        asking.failures, asking.error = asking.failures + 1, error
        if asking.failures < MAX_ROBOTS_FAILURES:
            return
        if isinstance(error, RetryAfter):
            self._keep(origin, _Rules(refusal=f"{error.detail}, so all of the host is off limits"))
        else:
            words = f"not tried: robots.txt could not be asked for: {without_userinfo(str(error))}"
            self._keep(origin, _Rules(refusal=words, reason=Reason.CONNECTION))


_AGENT_LINE = re.compile(r"\s*user-?agent\s*:\s*([^\s#/]*)", re.IGNORECASE)


def own_group(text: str, agent: str) -> list[str]:
    """The rules for an agent: of all groups that name it, or else of those for everyone (RFC 9309, 2.2.1).

    The parser would keep every rule once for each agent of its group, so that a file of 200 kB that names a
    thousand agents and ten thousand rules would take gigabytes.
    """
    rules: dict[str, list[str]] = {}
    group: set[str] = set()
    is_naming = False
    for line in filter(str.strip, text.splitlines()):
        match = _AGENT_LINE.match(line)
        if match:
            group = group if is_naming else set()
            group.add(match[1].lower())
        is_naming = match is not None or (is_naming and ":" not in line.partition("#")[0])
        for name in group & {"*", agent.lower()}:
            lines = rules.setdefault(name, [])
            lines += [] if match else [line]
    return rules.get(agent.lower(), rules.get("*", []))


def _parsed(lines: list[str]) -> Protego:
    return Protego.parse("\n".join(["User-agent: *", *lines]))


def _fetch(url: str, session: requests.Session, agent: str) -> _Rules:
    """A host's rules: RFC 9309, 2.3.1 says what each failure means."""
    for redirects in range(MAX_ROBOTS_REDIRECTS + 1):
        try:
            answer = _ask(url, session, agent)
        except FetchError as error:
            if redirects and not isinstance(error, RetryAfter):  # another host's trouble is not this one's
                return _Rules()
            raise
        if isinstance(answer, _Rules):
            return answer
        url = answer
    return _Rules()  # more redirects than that: treated as if there were no file


def _ask(url: str, session: requests.Session, agent: str) -> _Rules | str:
    """The rules, or where the file is said to lie.

    Raises:
        RetryAfter: The host is busy or broken: until it gives its file, all of it is off limits. RFC 9309
            lets 429 pass as if there were no file; who says that we ask too much means the images, too.
    """
    check_scheme(url)
    with get(session, url) as response:
        target = redirect_target(response)
        if target is not None:
            return target
        if 200 <= response.status_code < 300:
            text = response.raw.read(MAX_BYTES, decode_content=True).decode("utf-8-sig", "replace")
            lines = own_group(text, agent)
            return _Rules(_parsed(lines), len(lines)) if lines else _Rules()
        if response.status_code >= 500 or response.status_code == 429:
            words = f"robots.txt answered {response.status_code}"
            raise RetryAfter(words, retry_after(response.headers), http_status=response.status_code)
        return _Rules()
