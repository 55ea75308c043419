"""robots.txt, asked for once a host and run, and heeded as RFC 9309 says."""

import re
import threading
from dataclasses import dataclass
from urllib.parse import urlsplit

import requests
from protego import Protego
from urllib3 import exceptions as u3

from imgdl_pipeline.core import deadline
from imgdl_pipeline.core.guard import check_scheme, without_userinfo
from imgdl_pipeline.core.outcome import FetchError, Reason
from imgdl_pipeline.core.transport import get, redirect_target

MAX_BYTES = 512 * 1024  # RFC 9309, 2.5: at least 500 kibibytes are to be read
FAILURES = 3
"""How often a robots.txt that cannot be had is asked for, in one run."""

MAX_REDIRECTS = 5  # RFC 9309, 2.3.1.2: at least five hops are to be followed


@dataclass(frozen=True, slots=True)
class _Rules:
    """What one host's robots.txt says; without a parser, all or nothing is allowed."""

    parser: Protego | None
    refusal: str = ""
    reason: Reason = Reason.ROBOTS

    def check(self, url: str, agent: str) -> None:
        if self.refusal:
            raise FetchError(self.reason, self.refusal)
        if self.parser is not None and not self.parser.can_fetch(url, agent):
            raise FetchError(Reason.ROBOTS, "the host's robots.txt disallows this link")


class Robots:
    """The rules of every host that was asked in this run.

    Its only shared state is one dict of rules and one of locks, both under `_lock`; a host's own lock is
    held while its file is fetched, so that it is fetched once.

    Args:
        user_agent: Rules for its product name, the part before the slash, are looked for.
    """

    def __init__(self, user_agent: str) -> None:
        self._agent = user_agent.partition("/")[0]
        self._lock = threading.Lock()
        self._rules: dict[str, _Rules] = {}
        self._fetching: dict[str, threading.Lock] = {}
        self._failures: dict[str, int] = {}

    def check(self, url: str, session: requests.Session) -> None:
        """Let a link through that its host's robots.txt allows.

        Raises:
            FetchError: `robots`; or why the host could not be asked, as for the link itself.
        """
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc.rpartition('@')[2].lower()}"
        rules = self._rules.get(origin)
        if rules is None:
            rules = self._fetch_once(origin, session)
        rules.check(url, self._agent)

    def _fetch_once(self, origin: str, session: requests.Session) -> _Rules:
        with self._lock:
            fetching = self._fetching.setdefault(origin, threading.Lock())
        while not fetching.acquire(timeout=deadline.current().slice()):
            pass
        try:
            if origin not in self._rules:
                self._rules[origin] = _fetch(f"{origin}/robots.txt", session, self._agent)
            return self._rules[origin]
        except (requests.RequestException, u3.HTTPError, OSError) as error:
            self._note_failure(origin, error)
            raise
        finally:
            fetching.release()

    def _note_failure(self, origin: str, error: Exception) -> None:
        """Called with the host's lock held: a host that can't be asked costs so many deadlines in all."""
        self._failures[origin] = self._failures.get(origin, 0) + 1
        if self._failures[origin] >= FAILURES:
            words = f"not tried: robots.txt could not be asked for: {without_userinfo(str(error))}"
            self._rules[origin] = _Rules(None, words, Reason.CONNECTION)


_AGENT_LINE = re.compile(r"\s*user-agent\s*:\s*([^\s#]*)", re.IGNORECASE)


def only_our_groups(text: str, agent: str) -> str:
    """A robots.txt in which all other agents have one and the same name, once a group.

    The parser keeps every rule once for each agent of its group, so that a file of 200 kB that names a
    thousand agents and ten thousand rules would take gigabytes.
    """
    lines: list[str] = []
    group: set[str] | None = None  # the agents of the group whose names are being read
    for line in filter(str.strip, text.splitlines()):
        match = _AGENT_LINE.match(line)
        if match is None:
            lines.append(line)
            group = None if ":" in line.partition("#")[0] else group
            continue
        name = match[1].lower() if match[1].lower() in ("*", agent.lower()) else "another"
        group = set() if group is None else group
        if name not in group:
            group.add(name)
            lines.append(f"User-agent: {name}")
    return "\n".join(lines)


def _fetch(url: str, session: requests.Session, agent: str) -> _Rules:
    """A host's rules: RFC 9309, 2.3.1 says what each failure means."""
    for _ in range(MAX_REDIRECTS + 1):
        with get(session, url) as response:
            target = redirect_target(response)
            if target is not None:
                check_scheme(target)
                url = target
                continue
            if 200 <= response.status_code < 300:
                text = response.raw.read(MAX_BYTES).decode("utf-8", "replace")
                return _Rules(Protego.parse(only_our_groups(text, agent)))
            if response.status_code >= 500 or response.status_code == 429:
                return _Rules(
                    None,
                    f"robots.txt answered {response.status_code}, so all of the host is off limits",
                )
            return _Rules(None)
    return _Rules(None)  # more redirects than that: treated as if there were no file
