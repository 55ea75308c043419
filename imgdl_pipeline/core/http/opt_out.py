"""Check the response headers with which owners opt out of the use of their images."""

import re
from collections.abc import Iterable

from imgdl_pipeline.core.model.outcome import FetchError, Reason

OPT_OUTS = frozenset({"noai", "noimageai", "noindex", "noimageindex", "none"})
"""The X-Robots-Tag rules that count as an opt-out; `none` is short for noindex and nofollow."""

RULES_WITH_VALUES = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
"""Rules with a colon before their value, which must not be mistaken for agent names."""


def check_opt_out(x_robots_tags: Iterable[str], user_agent: str) -> None:
    """Refuse a response whose X-Robots-Tag headers opt out.

    Args:
        x_robots_tags: The header's values, one per header line. A value may begin with the name of the agent
            that it applies to, as in `otherbot: noindex`.
        user_agent: The User-Agent that was sent. Only rules for all agents and for its product name count.

    Raises:
        FetchError: `opt_out` if a header opts out.
    """
    us = product_token(user_agent).lower()
    for value in x_robots_tags:
        scope = ""
        for part in value.lower().split(","):
            rule = part.strip()
            agent, colon, scoped_rule = rule.partition(":")
            if colon and _AGENT.fullmatch(agent) and agent.strip() not in RULES_WITH_VALUES:
                scope, rule = agent.strip(), scoped_rule.strip()
            if rule in OPT_OUTS and scope in ("", "*", us):
                raise FetchError(Reason.OPT_OUT, f"X-Robots-Tag says {rule}")


_AGENT = re.compile(r"\s*[^\s,]+\s*")
"""An agent name before a colon, which is a single word. Dates also contain colons, but several words."""


def product_token(user_agent: str) -> str:
    """Return the agent name that robots.txt files and X-Robots-Tag headers use (RFC 9309, 2.2.1)."""
    return re.split(r"[/\s(]", user_agent, maxsplit=1)[0]
