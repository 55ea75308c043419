"""Read what owners say about the use of their images in headers and in a Content-Usage dictionary.

The specifications, all as of 2026-11:

- X-Robots-Tag: no standard. Google's and MDN's pages; `noai` and `noimageai` are DeviantArt's (2022-11).
- TDMRep: W3C Community Group Final Report of 2024-05-10.
- Content-Usage: draft-ietf-aipref-attach-05 (2026-08-19) and draft-ietf-aipref-vocab-08 (2026-09-14), over
  RFC 9651, and in robots.txt over RFC 9309. These are drafts, whose labels may still change.

Everything here is a stranger's text: each function takes time linear in it, and reads no more than its limit.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from http_sf import DictionaryType, StructuredFieldError, Token, parse

from imgdl_pipeline.core.model.opt_outs import FORBIDS, HEADER, MAX_VALUE_CHARS, OptOut, limited

MAX_HEADER_CHARS = 65_536
"""What is read of all lines of one header together. Python's http.client takes no longer line either."""


def says_reservation(headers: "Headers") -> bool:
    """Return whether TDMRep's header says anything, which supersedes tdmrep.json, also if it allows."""
    return reserved(by_name(headers)) is not None


# Headers


Headers = Mapping[str, str | Sequence[str]] | Iterable[tuple[str, str]]
"""Headers in any case, either as pairs, of which several may have the same name, or as a mapping to a value
or to several. Of urllib3's headers, pass `iteritems()`: as a mapping, they join lines with commas."""


def from_headers(headers: Headers, user_agent: str) -> list[OptOut]:
    """Return the opt-outs in an answer's headers.

    Args:
        headers: The headers.
        user_agent: The User-Agent that was sent. X-Robots-Tag rules for other agents are not for us.
    """
    return limited(_from_lines(by_name(headers), user_agent))


def by_name(headers: Headers) -> dict[str, list[str]]:
    """Return the lines of the headers that are known here, up to some `MAX_HEADER_CHARS` of each."""
    lines: dict[str, list[str]] = {name: [] for name in _HEADERS}
    room = dict.fromkeys(_HEADERS, MAX_HEADER_CHARS + 1)  # so that a dictionary is seen to be too long
    for name, value in headers.items() if isinstance(headers, Mapping) else headers:
        known = name.lower()
        for line in [value] if isinstance(value, str) else value:
            if known in lines and room[known] > 0:
                lines[known].append(line[: room[known]])
                room[known] -= len(line) + 1
    return lines


_HEADERS = ("x-robots-tag", "tdm-reservation", "tdm-policy", "content-usage")


def _from_lines(lines: Mapping[str, Sequence[str]], user_agent: str) -> Iterator[OptOut]:
    us = product_token(user_agent).lower()
    for line in lines["x-robots-tag"]:
        yield from (OptOut.of("x-robots-tag", word, HEADER) for word in _robots_words(line, us))
    if reserved(lines):
        yield from reservation(next(iter(lines["tdm-policy"]), ""), HEADER)
    yield from usage_preferences(", ".join(lines["content-usage"]), HEADER)  # RFC 9651, 4.2: lines are joined


_RULES_WITH_VALUES = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
"""Rules with a colon before their value, which must not be mistaken for agents. `none` can be a value."""

_AGENT_NAME = re.compile(r"[^\s,]+")


def _robots_words(line: str, us: str) -> Iterator[str]:
    """Yield the words of an X-Robots-Tag line that are opt-outs and apply to us.

    An agent's name and a colon can stand before any rule. It is for all rules that follow in the line.
    """
    known, scope = FORBIDS["x-robots-tag"], ""
    for part in re.split("[,;]", line.lower()):
        rule = part.strip()
        agent, colon, scoped = rule.partition(":")
        agent = agent.strip()
        if colon and agent in known:
            rule = agent
        elif colon and agent not in _RULES_WITH_VALUES and _AGENT_NAME.fullmatch(agent):
            scope, rule = agent, scoped.strip()
        if rule in known and scope in ("", "*", us):
            yield rule


def reserved(lines: Mapping[str, Sequence[str]]) -> bool | None:
    """Return what TDMRep's header says, or None for nothing. Of contradictory values, the stricter counts."""
    values = {each.strip() for line in lines["tdm-reservation"] for each in line.split(",")}
    return True if "1" in values else False if "0" in values else None


def reservation(policy: Any, where: str) -> Iterator[OptOut]:
    """Yield a reservation, and where its owner says how to get a licence."""
    yield OptOut.of("tdm-reservation", "1", where)
    if isinstance(policy, str) and _POLICY.fullmatch(policy.strip()):
        yield OptOut.of("tdm-policy", policy.strip(), where)


_POLICY = re.compile(rf"(?:https?:/)?/[\x21-\x7e]{{1,{MAX_VALUE_CHARS - 8}}}", re.IGNORECASE)


_CATEGORIES = ("train-ai", "ai-use", "search")


def usage_preferences(text: str, where: str) -> list[OptOut]:
    """Return the categories of use that a Content-Usage dictionary disallows.

    Only the token `n` disallows. `y` allows. All else, also a text that is no dictionary, says nothing.
    `ai-use` is no purpose of a gallery, so its opt-out is only recorded.

    Args:
        text: The value, one character for each byte.
        where: The place that it was read from.
    """
    return disallowed(dictionary(text), where)


def dictionary(text: str) -> DictionaryType:
    """Return the members of a structured-field dictionary; none where it is empty, invalid or too long."""
    if not text or len(text) > MAX_HEADER_CHARS:
        return {}
    try:
        members = parse(text.encode("latin-1"), tltype="dictionary")
    except (StructuredFieldError, UnicodeEncodeError):
        return {}
    return members if isinstance(members, dict) else {}


def disallowed(members: DictionaryType, where: str) -> list[OptOut]:
    """Return the categories of use that a Content-Usage dictionary disallows."""
    return [
        OptOut.of("content-usage", f"{name}=n", where)
        for name in _CATEGORIES
        if isinstance(item := _item(members.get(name)), Token) and str(item) == "n"
    ]


def _item(member: object) -> object:
    """Return a member without its parameters, which mean nothing (vocab-08, 6.5)."""
    return member[0] if isinstance(member, tuple) else member


def product_token(user_agent: str) -> str:
    """Return the agent name that robots.txt files and X-Robots-Tag headers use (RFC 9309, 2.2.1)."""
    return re.split(r"[/\s(]", user_agent, maxsplit=1)[0]
