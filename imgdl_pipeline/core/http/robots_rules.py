"""Read the rules of a robots.txt file as RFC 9309 and Google's parser do, in time linear in its size."""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from imgdl_pipeline.core.http.opt_outs import dictionary, disallowed
from imgdl_pipeline.core.http.spelling import without_dots
from imgdl_pipeline.core.model.opt_outs import ROBOTS, OptOut, limited

MAX_LINE = 2083 * 8 - 1
"""Bytes read of a line, as by Google's parser. The rest of a longer line is ignored."""

RULE_BYTES = 128
"""What a rule takes in memory, apart from the text of its pattern."""

MAX_WILDCARD_BYTES = 64 * 1024
"""The most bytes of patterns with a `*` that are checked. Each takes up to 0.4 ns per byte of the path."""

_AGENT = ("user-agent", "useragent", "user agent")
_ALLOW = ("allow",)
_DISALLOW = ("disallow", "dissallow", "dissalow", "disalow", "diasllow", "disallaw")
_DELAY = ("crawl-delay", "crawl delay")
_USAGE = "content-usage"
_BLANKS = " \t\v\f"


class Rule(NamedTuple):
    """A pattern for paths, in which `*` stands for any text, and a `$` as the last character for the end."""

    pattern: str
    allows: bool

    def matches(self, path: str) -> bool:
        """Return whether the pattern matches a path. Both are in the spelling that `_normal` returns.

        Only the first place of each part between two wildcards is tried. If a later place leads to a match,
        so does the first. Therefore the path is passed over once, however many wildcards there are.
        """
        head, *parts = self.pattern.removesuffix("$").split("*")
        if not path.startswith(head):
            return False
        place, end = len(head), len(path)
        if self.pattern.endswith("$"):
            if not parts:
                return place == end
            tail = parts.pop()
            if not path.endswith(tail):
                return False
            end -= len(tail)
        for part in parts:
            found = path.find(part, place, end)
            if found < 0:
                return False
            place = found + len(part)
        return place <= end


class UsageRule(NamedTuple):
    """A Content-Usage line: its rank, the pattern of its paths, and what it says against their use."""

    rank: int
    rule: Rule
    opt_outs: tuple[OptOut, ...]


class RobotsRules(NamedTuple):
    """The rules that apply to one agent, the longest first, and the pause in seconds asked of it."""

    rules: tuple[Rule, ...]
    crawl_delay_s: float
    usage: tuple[UsageRule, ...] = ()

    def opt_outs(self, url: str) -> list[OptOut]:
        """Return what the longest Content-Usage rule that matches a URL says, or several as long."""
        path = path_of(url)
        found = self._opt_outs(path)
        if "/./" in path or "/../" in path:  # escaped dots, which some servers resolve
            found += self._opt_outs(without_dots(path))
        return limited(found)

    def _opt_outs(self, path: str) -> list[OptOut]:
        matching = [each for each in self.usage if each.rule.matches(path)]
        longest = max((each.rank for each in matching), default=0)
        return [opt_out for each in matching if each.rank == longest for opt_out in each.opt_outs]

    def allow(self, url: str) -> bool:
        """Return whether the longest rule that matches a URL allows it, or True if there is none."""
        path = path_of(url)
        is_allowed = self._allow(path)
        if is_allowed and ("/./" in path or "/../" in path):  # escaped dots, which some servers resolve
            return self._allow(without_dots(path))
        return is_allowed

    def _allow(self, path: str) -> bool:
        return next((rule.allows for rule in self.rules if rule.matches(path)), True)

    def size(self) -> int:
        """Return the approximate number of bytes that the rules take in memory."""
        patterns = (*self.rules, *(each.rule for each in self.usage))
        return sum(RULE_BYTES + len(rule.pattern) for rule in patterns)


def read_rules(body: bytes, agent: str) -> RobotsRules:
    """Return the rules of all groups that name an agent, or else those for all agents (RFC 9309, 2.2.1).

    A group ends at the first user-agent line after one of its rules. Other lines, such as Sitemap and
    Crawl-delay, do not end it (2.2.4). Nothing is allowed if the patterns with a `*` exceed
    `MAX_WILDCARD_BYTES`.

    Args:
        body: The file, or its first bytes.
        agent: The agent's product token.
    """
    us = _token(agent)
    rules: dict[str, set[tuple[int, Rule]]] = {}
    usage: dict[str, dict[UsageRule, None]] = {}
    delays: dict[str, float] = {}
    group: set[str] = set()
    has_rules = False
    for key, value in _entries(body):
        if key.startswith(_AGENT):
            if has_rules:
                group, has_rules = set(), False
            group |= {_token(value)} & {us, "*"} - {""}
            for name in group:
                rules.setdefault(name, set())
                usage.setdefault(name, {})
        elif key.startswith(_ALLOW + _DISALLOW):
            has_rules = True
            for name in group:
                rules[name].update(ranked(value, allows=key.startswith(_ALLOW)))
        elif key == _USAGE:
            has_rules = True
            for rule in _usage_rule(value):
                for name in group:
                    usage[name][rule] = None
        elif key.startswith(_DELAY):
            for name in group:
                delays[name] = max(_seconds(value), delays.get(name, 0.0))
    name = us if us in rules else "*"
    longest_first = sorted(rules.get(name, ()), key=lambda item: (-item[0], not item[1].allows))
    kept = tuple(rule for _, rule in longest_first)
    if sum(len(rule.pattern) for rule in kept if "*" in rule.pattern) > MAX_WILDCARD_BYTES:
        kept = (Rule("/", allows=False),)
    return RobotsRules(kept, delays.get(name, 0.0), _bounded(usage.get(name, {})))


def _bounded(usage: Iterable[UsageRule]) -> tuple[UsageRule, ...]:
    """Return rules as they are; if too many, one that disallows everywhere what any of them disallows."""
    rules = tuple(usage)
    if sum(len(each.rule.pattern) for each in rules if "*" in each.rule.pattern) <= MAX_WILDCARD_BYTES:
        return rules
    return (
        UsageRule(0, Rule("", allows=False), tuple(limited(one for each in rules for one in each.opt_outs))),
    )


def _usage_rule(value: str) -> Iterator[UsageRule]:
    """Yield the rule in a Content-Usage line, `[path] dictionary`; none if it cannot be read.

    A permission is a rule, too: where it is the longest, it lifts what a shorter rule says.
    """
    path, text = "", value
    if value.startswith("/"):
        path, _, text = value.replace("\t", " ").partition(" ")
    members = dictionary(text.strip(_BLANKS))
    if members:
        rank, rule = next(ranked(path, allows=False), (0, Rule("", allows=False)))
        yield UsageRule(rank, rule, tuple(disallowed(members, ROBOTS)))


def _entries(body: bytes) -> Iterator[tuple[str, str]]:
    """Yield the key, in lower case, and the value of each line. One character stands for one byte."""
    for line in re.split(r"[\r\n]+", body.removeprefix(b"\xef\xbb\xbf").decode("latin-1")):
        entry = re.split("[#\0]", line[:MAX_LINE], maxsplit=1)[0].strip(_BLANKS)
        key, colon, value = entry.partition(":")
        if not colon:
            words = re.split(r"[ \t]+", entry, maxsplit=2)
            if len(words) != 2:  # not a forgotten colon, as in `Disallow /x`
                continue
            key, value = words
        yield key.strip(_BLANKS).lower(), value.strip(_BLANKS)


def _token(value: str) -> str:
    """Return the `*` or the product token, in lower case, with which a user-agent line's value begins."""
    found = re.match(r"\*(?!\S)|[a-z0-9_-]*", value.lower(), re.ASCII)
    return found[0] if found else ""


def _seconds(value: str) -> float:
    return float(value) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{0,9})?|\.[0-9]{1,9}", value) else 0.0


def ranked(value: str, *, allows: bool) -> Iterator[tuple[int, Rule]]:
    """Yield the rules of a line, each with its rank, which is its length in percent-encoded octets."""
    if not value:
        return
    parts = re.split(r"\*+", value.removesuffix("$"))
    end = "$" if value.endswith("$") else ""
    rank = len(value) + 2 * sum(char > "\x7f" for char in value)
    yield rank, Rule("*".join(map(_normal, parts)) + end, allows)
    folder, slash, page = value.rpartition("/")
    if allows and slash and page.startswith("index.htm"):  # who allows a folder's index allows the folder
        yield from ranked(f"{folder}/$", allows=True)


_PATH = re.compile(r"[^/?#]*//[^/?#]*([^#]*)")


def path_of(url: str) -> str:
    """Return a URL's path and query, in the spelling in which patterns are compared with it."""
    found = _PATH.match(url)
    path = found[1].removeprefix("/") if found else ""
    return _normal("/" + path.encode("utf-8", "replace").decode("latin-1"))


_SAME = frozenset("-._~ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789:@!'(),;[]")
"""The characters that mean the same whether they are percent-encoded or not."""

_OCTET = re.compile(r"%([0-9A-Fa-f]{2})|[^-.~\w:@!'(),;\[\]/?&=+]", re.ASCII)
"""A percent-encoded octet, or one that must be encoded, which `*` and `$` in a path are, too."""


def _normal(text: str) -> str:
    """Return a part of a path or pattern with its percent-encoding as RFC 9309, 2.2.2 compares it."""

    def spelled(found: re.Match[str]) -> str:
        char = chr(int(found[1], 16)) if found[1] else found[0]
        return char if char in _SAME else f"%{ord(char):02X}"

    return _OCTET.sub(spelled, text)
