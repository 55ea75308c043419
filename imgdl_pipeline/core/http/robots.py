"""Ask each host's robots.txt and tdmrep.json, once per run, before its links are asked for.

A robots.txt that another run has fetched on the same day is not asked for again, where such are kept.
"""

from urllib.parse import urlsplit

import requests
from urllib3 import exceptions as u3

from imgdl_pipeline.core.http import deadline
from imgdl_pipeline.core.http.host_files import HostFiles, KeptAnswers
from imgdl_pipeline.core.http.opt_outs import product_token
from imgdl_pipeline.core.http.pace import Paces
from imgdl_pipeline.core.http.robots_rules import RobotsRules, read_rules
from imgdl_pipeline.core.http.tdmrep import TdmRules, tdmrep_rules
from imgdl_pipeline.core.http.urls import host_of
from imgdl_pipeline.core.model.opt_outs import OptOut
from imgdl_pipeline.core.model.outcome import FetchError, Reason

TDMREP_PATH = "/.well-known/tdmrep.json"


class Robots:
    """What the hosts that this run has asked say about all of their files.

    Args:
        user_agent: The User-Agent whose product token selects the rules of a robots.txt.
        paces: How fast each host is asked; a robots.txt with a Crawl-delay slows its host.
        kept: The robots.txt that other runs have fetched; None if none are kept.
    """

    def __init__(self, user_agent: str, paces: Paces | None = None, kept: KeptAnswers | None = None) -> None:
        agent, paces = product_token(user_agent), paces or Paces()

        def read(body: bytes) -> tuple[RobotsRules, int]:
            rules = read_rules(body, agent)
            return rules, rules.size()

        def slow_down(origin: str, rules: RobotsRules) -> None:
            paces.crawl_delay(host_of(origin), rules.crawl_delay_s)

        self._files = HostFiles("/robots.txt", read, slow_down, kept)
        self._tdmrep = HostFiles(TDMREP_PATH, _read_tdmrep)

    def __repr__(self) -> str:
        return f"<Robots {self._files!r}>"

    def check(self, url: str, session: requests.Session) -> list[OptOut]:
        """Check that a host's robots.txt allows a link, and return what it says about its use (RFC 9309).

        Args:
            url: The link, spelled as it will be sent.
            session: The session that fetches robots.txt.

        Raises:
            FetchError: `robots`, or the reason why robots.txt could not be fetched.
        """
        file = self._files.of(url, session)
        if file.error is not None:
            raise FetchError(file.error.reason, file.error.detail)
        if file.content is None:
            return []
        if not file.content.allow(url):
            raise FetchError(Reason.ROBOTS, "the host's robots.txt disallows this link")
        return file.content.opt_outs(url)

    def usage(self) -> dict[str, RobotsRules]:
        """Return the rules of the hosts asked by this run that say anything about use, by origin."""
        return {origin: rules for origin, rules in self._files.contents().items() if rules.usage}

    def reservations(self, url: str, session: requests.Session) -> list[OptOut]:
        """Return what a host's tdmrep.json says about a link; nothing if it cannot be fetched.

        Raises:
            TooSoon: The host's pace does not allow the request yet.
        """
        parts = urlsplit(url)
        place = f"{parts.scheme}://{parts.netloc}{TDMREP_PATH}"
        try:
            rules = self._files.of(url, session).content
            if rules is not None and not rules.allow(place):
                return []
            file = self._tdmrep.of(url, session)
        except (requests.RequestException, u3.HTTPError, OSError, FetchError):
            deadline.current().left()  # which raises if it has taken all of the attempt's time
            return []
        return [] if file.content is None else file.content.opt_outs(url)


def _read_tdmrep(body: bytes) -> tuple[TdmRules, int]:
    return tdmrep_rules(body.decode("utf-8", "replace")), len(body)
