"""Read `/.well-known/tdmrep.json`, with which a host reserves text and data mining of its files.

Specification: TDMRep, W3C Community Group Final Report of 2024-05-10.
"""

import json
from collections.abc import Iterator
from typing import NamedTuple

from imgdl_pipeline.core.http.opt_outs import reservation
from imgdl_pipeline.core.http.robots_rules import MAX_WILDCARD_BYTES, Rule, path_of, ranked
from imgdl_pipeline.core.model.opt_outs import TDMREP, OptOut

MAX_CHARS = 512 * 1024
"""A longer file is not read. The specification has no limit; this is robots.txt's."""


class _TdmRule(NamedTuple):
    rule: Rule
    opt_outs: tuple[OptOut, ...]


class TdmRules(NamedTuple):
    """A tdmrep.json's rules, in their order."""

    rules: tuple[_TdmRule, ...]

    def opt_outs(self, url: str) -> list[OptOut]:
        """Return the opt-outs of the first rule that matches a URL."""
        path = path_of(url)
        found = next((each.opt_outs for each in self.rules if each.rule.matches(path)), ())
        return list(found)


def tdmrep_rules(text: str) -> TdmRules:
    """Return the rules of a `/.well-known/tdmrep.json`; none if it is no such file.

    A rule that breaks the specification is ignored, so a later one can match. If the patterns with a `*`
    exceed `MAX_WILDCARD_BYTES`, everything is reserved.

    Args:
        text: The file, of which at most `MAX_CHARS` count.
    """
    if len(text) > MAX_CHARS:
        return TdmRules(())
    try:
        objects = json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        return TdmRules(())
    rules = [rule for each in (objects if isinstance(objects, list) else ()) for rule in _tdm_rule(each)]
    if sum(len(each.rule.pattern) for each in rules if "*" in each.rule.pattern) > MAX_WILDCARD_BYTES:
        rules = [_TdmRule(Rule("/", allows=False), (OptOut.of("tdm-reservation", "1", TDMREP),))]
    return TdmRules(tuple(rules))


def _tdm_rule(entry: object) -> Iterator[_TdmRule]:
    if not isinstance(entry, dict):
        return
    location, value = entry.get("location"), entry.get("tdm-reservation")
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not isinstance(location, str) or not is_number or value not in (0, 1):
        return
    for _, rule in ranked(location.encode("utf-8", "replace").decode("latin-1"), allows=False):
        opt_outs = tuple(reservation(entry.get("tdm-policy"), TDMREP)) if value == 1 else ()
        yield _TdmRule(rule, opt_outs)
