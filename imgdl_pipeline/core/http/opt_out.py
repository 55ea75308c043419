"""What owners say of the use of their images, in the headers of an answer."""

import re
from collections.abc import Iterable

from imgdl_pipeline.core.model.outcome import FetchError, Reason

OPT_OUTS = frozenset({"noai", "noimageai", "noindex", "noimageindex", "none"})
"""The X-Robots-Tag rules that we heed; `none` is short for noindex and nofollow."""

RULES_WITH_VALUES = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
"""Rules that are written with a colon, as the name of an agent is."""


def check_opt_out(x_robots_tags: Iterable[str], user_agent: str) -> None:
    """Refuse an answer whose X-Robots-Tag headers opt out of what we do.

    Args:
        x_robots_tags: The values of the header, one for each time it was sent. A value may begin with the
            name of the agent it is meant for, as in `otherbot: noindex`.
        user_agent: Ours; only rules for everyone and for its product name count.

    Raises:
        FetchError: `opt_out`.
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
"""An agent's name before a colon is one word; a date, which has commas and colons too, has more."""


def product_token(user_agent: str) -> str:
    """The name by which robots.txt files and X-Robots-Tag headers know an agent (RFC 9309, 2.2.1)."""
    return re.split(r"[/\s(]", user_agent, maxsplit=1)[0]
