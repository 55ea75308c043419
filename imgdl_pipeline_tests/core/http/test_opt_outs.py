"""Vectors of every specification that `opt_outs` reads, hostile input, and properties.

Each vector quotes its source: the specification, its section and its date.
"""

import json
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from imgdl_pipeline.core.http import opt_outs as in_headers
from imgdl_pipeline.core.http.robots_rules import read_rules
from imgdl_pipeline.core.http.tdmrep import MAX_CHARS, TdmRules, tdmrep_rules
from imgdl_pipeline.core.model import opt_outs as model

UA = "imgdl_pipeline/0.4.0 (+https://example.org)"


def said(*headers: tuple[str, str], ua: str = UA) -> list[tuple[str, str]]:
    return [(each.signal, each.value) for each in in_headers.from_headers(list(headers), ua)]


def x_robots(*lines: str, ua: str = UA) -> list[str]:
    return [value for _, value in said(*(("X-Robots-Tag", line) for line in lines), ua=ua)]


def usage(*lines: str) -> list[str]:
    return [value for _, value in said(*(("Content-Usage", line) for line in lines))]


# X-Robots-Tag


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        # MDN, X-Robots-Tag, "Examples" (mdn/content 029ce7d, 2024-12)
        (["noindex"], ["noindex"]),
        (["noimageindex", "unavailable_after: Wed, 03 Dec 2025 13:09:53 GMT"], ["noimageindex"]),
        (["BadBot: noindex, nofollow", "googlebot: nofollow"], []),
        (["BadBot: noindex, nofollow, googlebot: nofollow"], []),
        (["nofollow", "googlebot: noindex"], []),
        # Google, "Robots meta tag and X-Robots-Tag specifications", "Using the X-Robots-Tag HTTP header"
        (["noarchive", "unavailable_after: 25 Jun 2010 15:00:00 PST"], []),
        (["googlebot: nofollow", "otherbot: noindex, nofollow"], []),
        (["noimageindex", "unavailable_after: 25 Jun 2010 15:00:00 PST"], ["noimageindex"]),
        (["none"], ["none"]),
        (["max-image-preview: none"], []),
        (["max-snippet:-1, max-image-preview:none, max-video-preview:0"], []),
        # DeviantArt, "UPDATE: All Deviations Are Opted Out of AI Datasets", 2022-11  # noqa: ERA001
        (["noimageai", "noai"], ["noimageai", "noai"]),
        (["noai, noimageai"], ["noai", "noimageai"]),
        # img2dataset#365
        (["noml"], ["noml"]),
    ],
)
def test_x_robots_examples(lines: list[str], expected: list[str]) -> None:
    assert x_robots(*lines) == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["imgdl_pipeline: noai"], ["noai"]),
        (["IMGDL_Pipeline : NoAI"], ["noai"]),
        (["*: noindex"], ["noindex"]),
        (["googlebot: noindex, imgdl_pipeline: noai"], ["noai"]),
        (["imgdl_pipeline: nofollow, googlebot: noai"], []),
        (["googlebot: nofollow, noai"], []),  # what follows an agent's name is for that agent (MDN, "Syntax")
        (["googlebot: nofollow", "noai"], ["noai"]),  # but not in the next line
        (["noai, googlebot: noindex"], ["noai"]),
        (["unavailable_after: Friday, 25-Jun-10 15:00:00 UTC, noai"], ["noai"]),  # RFC 850's comma
        (["googlebot: unavailable_after: 25 Jun 2010 15:00:00 PST, noai"], []),
        (["imgdl_pipeline: unavailable_after: 2010-06-25T15:00:00Z, noai"], ["noai"]),
        (["noai:"], ["noai"]),
        (["noindex;noai"], ["noindex", "noai"]),
        ([" \tnoai\t "], ["noai"]),
        ([""], []),
        ([",,,:,:,"], []),
        (["noaix, xnoai, no ai, index, all"], []),
        (["noai", "noai"], ["noai"]),
    ],
)
def test_x_robots_scopes_dates_and_spellings(lines: list[str], expected: list[str]) -> None:
    assert x_robots(*lines) == expected


def test_x_robots_of_a_user_agent_of_ones_own() -> None:
    assert x_robots("my-gallery: noai", ua="my-gallery/1.0 (me@example.org)") == ["noai"]
    assert x_robots("imgdl_pipeline: noai", ua="my-gallery/1.0") == []


# TDMRep: W3C Community Group Final Report, 2024-05-10


def test_tdm_header_examples() -> None:
    """Section "TDM Header Field in HTTP Responses", both examples."""
    date = ("Date", "Wed, 14 Jul 2021 12:07:48 GMT")
    assert said(date, ("Content-type", "image/jpg"), ("tdm-reservation", "1")) == [("tdm-reservation", "1")]
    policy = "https://provider.com/policies/policy.json"
    assert said(date, ("tdm-reservation", "1"), ("tdm-policy", policy)) == [
        ("tdm-reservation", "1"),
        ("tdm-policy", policy),
    ]


@pytest.mark.parametrize("value", ["0", "2", "", "-1", "01", "true", "yes", "one", "1.0"])
def test_tdm_other_values_are_unset(value: str) -> None:
    """Section "tdm-reservation": "Other values are considered protocol errors"."""
    assert said(("tdm-reservation", value), ("tdm-policy", "https://provider.com/p")) == []


def test_tdm_contradictory_lines_count_as_reserved() -> None:
    assert said(("TDM-Reservation", "0"), ("TDM-Reservation", " 1 ")) == [("tdm-reservation", "1")]
    assert said(("TDM-Reservation", "0, 1")) == [("tdm-reservation", "1")]


SITE = "https://provider.com"


def reserved(rules: TdmRules, path: str) -> list[str]:
    return [each.value for each in rules.opt_outs(SITE + path)]


def test_tdm_file_example_everything() -> None:
    """Section "TDM File on the Origin Server", "Examples", first."""
    rules = tdmrep_rules('[ { "location": "/", "tdm-reservation": 1 } ]')
    assert reserved(rules, "/any/image.jpg?x=1") == ["1"]
    assert {each.where for each in rules.opt_outs(SITE + "/a")} == {"tdmrep.json"}


def test_tdm_file_example_three_groups() -> None:
    """Section "TDM File on the Origin Server", "Examples", second."""
    rules = tdmrep_rules(
        """[
        {"location": "/directory-a/", "tdm-reservation": 1},
        {"location": "/directory-b/html/", "tdm-reservation": 1,
         "tdm-policy":"https://provider.com/policies/policy.json"},
        {"location": "/directory-b/images/*.jpg", "tdm-reservation": 0}
        ]"""
    )
    assert reserved(rules, "/directory-a/x.pdf") == ["1"]
    assert reserved(rules, "/directory-b/html/x.html") == ["1", "https://provider.com/policies/policy.json"]
    assert reserved(rules, "/directory-b/images/x.jpg") == []
    assert reserved(rules, "/elsewhere/x.jpg") == []  # "If no match is found, … unset"


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        # Section "Use of regular expressions"
        ("/this/path/exactly$", "/this/path/exactly", True),
        ("/this/path/exactly$", "/this/path/exactly/not", False),
        ("/this/*/then", "/this/and/that/then", True),
        ("/this/*/then", "/this/then", False),
        ("/path/foo-%24", "/path/foo-$", True),
        # the same section's reference, Google's "URL matching based on path values"
        ("/", "/any", True),
        ("/*", "/any", True),
        ("/fish", "/fish.html", True),
        ("/fish", "/fishheads/yummy.html", True),
        ("/fish", "/fish.php?id=anything", True),
        ("/fish", "/Fish.asp", False),
        ("/fish", "/catfish", False),
        ("/fish*", "/fish/salmon.html", True),
        ("/fish/", "/fish/?id=anything", True),
        ("/fish/", "/fish", False),
        ("/*.php", "/folder/any.php.file.html", True),
        ("/*.php", "/windows.PHP", False),
        ("/*.php$", "/folder/filename.php", True),
        ("/*.php$", "/filename.php?parameters", False),
        ("/*.php$", "/filename.php5", False),
        ("/fish*.php", "/fishheads/catfish.php?parameters", True),
        ("/fish*.php", "/Fish.PHP", False),
        # percent-encoding, section "TDM File on the Origin Server"
        ("/a%62c", "/abc", True),
        ("/abc", "/%61bc", True),
        ("/ä", "/%C3%A4", True),
    ],
)
def test_tdm_file_patterns(pattern: str, path: str, matches: bool) -> None:
    rules = tdmrep_rules(json.dumps([{"location": pattern, "tdm-reservation": 1}]))
    assert bool(reserved(rules, path)) is matches


def test_tdm_file_first_match_counts() -> None:
    """Same section: "The most specific match is the first in sequence"."""
    entries = [
        {"location": "/a/", "tdm-reservation": 0},
        {"location": "/a/b/", "tdm-reservation": 1},
        {"location": "/", "tdm-reservation": 1},
    ]
    assert reserved(tdmrep_rules(json.dumps(entries)), "/a/b/c") == []
    assert reserved(tdmrep_rules(json.dumps(entries[::-1])), "/a/b/c") == ["1"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<!doctype html><title>Not found</title>",
        '{"location": "/", "tdm-reservation": 1}',  # "brackets … are mandatory even if you express only one rule"  # noqa: E501
        '[{"location": "/"}]',
        '[{"tdm-reservation": 1}]',
        '[{"location": "/", "tdm-reservation": 2}]',
        '[{"location": "/", "tdm-reservation": true}]',
        '[{"location": 7, "tdm-reservation": 1}]',
        '[{"location": "", "tdm-reservation": 1}]',
        "[null, 1, [], {}]",
        "[" * 200_000,
        "[" + "9" * 10_000 + "]",
        "[" + " " * MAX_CHARS + "]",
    ],
)
def test_tdm_file_that_is_none(text: str) -> None:
    assert reserved(tdmrep_rules(text), "/a") == []


def test_tdm_file_with_a_broken_rule_and_a_bom() -> None:
    text = '\ufeff[{"location": "/a", "tdm-reservation": 5}, {"location": "/", "tdm-reservation": 1}]'
    assert reserved(tdmrep_rules(text), "/a") == ["1"]


# Content-Usage: draft-ietf-aipref-vocab-08 (2026-09-14), draft-ietf-aipref-attach-05 (2026-08-19)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["train-ai=n"], ["train-ai=n"]),  # attach, 1.2, first example
        (["train-ai=y, search=n"], ["search=n"]),  # vocab, 6, the example
        (['train-ai=y, train-ai, search=n, search="n"'], []),  # vocab, 6.5.1: "all preferences being unknown"
        (["train-ai;allow=n, train-ai=y"], []),  # vocab, 6.5.2: "a preference to allow the usage"
        (
            ['train-ai;has;parameters="?";'],
            [],
        ),  # vocab, 6.5.2: unknown (and not a dictionary, for its last ;)
        (['train-ai;has;parameters="?"'], []),
        # vocab, 6.2 and 6.5: only the tokens y and n
        (["train-ai=n;reason=none"], ["train-ai=n"]),
        (['train-ai="n"'], []),
        (["train-ai=?0"], []),
        (["train-ai=0"], []),
        (["train-ai"], []),
        (["train-ai=N"], []),
        (["train-ai=no"], []),
        (["train-ai=(n)"], []),
        (["train-ai=:bg==:"], []),
        (['train-ai=%"n"'], []),
        (["train-ai=y, train-ai=n"], ["train-ai=n"]),  # 6.5.1: the last value applies
        (["train-ai=n, train-ai=y"], []),
        # vocab, 6.1 and 6.4: labels are case-sensitive; unknown ones are ignored; ai-use is a category
        (["Train-AI=n"], []),
        (["train-ai=n, Search=n"], []),  # "If the parsing of the Dictionary fails, preferences are unknown"
        (["foo=n, train-ai=n, bar=(1 2);x"], ["train-ai=n"]),
        (["ai-use=n"], ["ai-use=n"]),
        (["search=n, ai-use=n, train-ai=n"], ["train-ai=n", "ai-use=n", "search=n"]),
        (["bots=n, train-genai=n, all=n, tdm=n, ai=n, genai=n, ai-output=n"], []),  # labels of older drafts
        (["ai-train=no, search=no"], []),  # Cloudflare's Content-Signal
        # RFC 9651, 4.2: several lines are one field
        (["train-ai=n", "search=n"], ["train-ai=n", "search=n"]),
        (["train-ai=n", "train-ai=y"], []),
        (["train-ai=n", "%%%"], []),
        # RFC 9651, 4.2.2
        (["train-ai=n,"], []),
        (["train-ai=n,,search=n"], []),
        (["train-ai =n"], []),
        (["train-ai= n"], []),
        (["  train-ai=n \t,\t search=n  "], ["train-ai=n", "search=n"]),
        (["train-ai=n # no"], []),
        (["train-ai=ñ"], []),
        (["train-ai=n\u2028"], []),
        ([""], []),
    ],
)
def test_content_usage(lines: list[str], expected: list[str]) -> None:
    assert usage(*lines) == expected


ROBOTS_EXAMPLE = b"""User-Agent: *
Allow: /
Disallow: /never/
Content-Usage: train-ai=n
Content-Usage: /ai-ok/ train-ai=y

User-Agent: ExampleBot
Allow: /
Content-Usage: train-ai=y
"""


def in_robots(body: bytes, path: str, agent: str = "imgdl_pipeline") -> list[str]:
    return [each.value for each in read_rules(body, agent).opt_outs(SITE + path)]


@pytest.mark.parametrize("first_rule", [b"train-ai=n", b"/ train-ai=n"])
def test_robots_example(first_rule: bytes) -> None:
    """attach, 3.4, figure 2 and table 1; and the same as older drafts wrote it, with a path."""
    body = ROBOTS_EXAMPLE.replace(b"train-ai=n", first_rule)
    assert in_robots(body, "/test") == ["train-ai=n"]
    assert in_robots(body, "/ai-ok/test") == []
    assert in_robots(body, "/test", "ExampleBot") == []
    assert {each.where for each in read_rules(body, "x").opt_outs(SITE)} == {"robots.txt"}


def test_robots_first_example() -> None:
    """attach, 1.2, second example."""
    assert in_robots(b"User-Agent: *\nAllow: /\nContent-Usage: train-ai=n\n", "/a") == ["train-ai=n"]


@pytest.mark.parametrize(
    ("line", "path", "expected"),
    [
        (b" \tcontent-USAGE\t :\t /a/ \t train-ai=n # why", "/a/b", ["train-ai=n"]),  # attach, 3.2
        (b"Content-Usage: /a/\ttrain-ai=n", "/a/b", ["train-ai=n"]),
        (b"Content-Usage: /a/ train-ai=n", "/b", []),
        (b"Content-Usage: /a%20b/ train-ai=n", "/a%20b/c", ["train-ai=n"]),  # attach, 3.1
        (b"Content-Usage: /*.jpg$ search=n, train-ai=n", "/x/y.jpg", ["train-ai=n", "search=n"]),
        (b"Content-Usage: /*.jpg$ search=n", "/x/y.jpg?z", []),
        (
            b"Content-Usage: /a/ train-ai=n\nContent-Usage: /a/ train-ai=y, search=n",
            "/a/",
            ["train-ai=n", "search=n"],
        ),
        (
            b"Content-Usage: / train-ai=n\nContent-Usage: /a/ search=n",
            "/a/b",
            ["search=n"],
        ),  # the longest alone
        (b"Content-Usage: / train-ai=n\nContent-Usage: /a/ nonsense nonsense", "/a/b", ["train-ai=n"]),
        (b"Content-Usage: /\nContent-Usage:\nContent-Usage: train-ai=N", "/a", []),
        (
            b"Content-Usage: train-ai=n\nAllow: /\nContent-Usage: / train-ai=y",
            "/a",
            [],
        ),  # / is longer than none
        (b"Content-Usage: /a train-ai=n", "/b/..%2f%2e%2e/a", []),
        (b"Content-Signal: ai-train=no", "/a", []),
    ],
)
def test_robots_rules(line: bytes, path: str, expected: list[str]) -> None:
    assert in_robots(b"User-agent: *\n" + line + b"\n", path) == expected


def test_robots_groups() -> None:
    """A Content-Usage rule is a rule of a group (attach, 3), so it ends the group's list of agents."""
    body = b"User-agent: a\nContent-Usage: train-ai=n\nUser-agent: b\nContent-Usage: search=n\n"
    assert in_robots(body, "/", "a") == ["train-ai=n"]
    assert in_robots(body, "/", "b") == ["search=n"]
    assert in_robots(body, "/", "c") == []
    both = b"User-agent: a\nUser-agent: b\nContent-Usage: train-ai=n\n\nUser-agent: a\nContent-Usage: /x search=n"  # noqa: E501
    assert in_robots(both, "/x", "a") == ["search=n"]
    assert in_robots(both, "/x", "b") == ["train-ai=n"]
    assert in_robots(b"Content-Usage: train-ai=n\nUser-agent: *\nAllow: /", "/") == []


# In the file

DMI = "http://ns.useplus.org/ldf/vocab/"


@pytest.mark.parametrize(
    ("term", "forbids"),
    [
        # IPTC Photo Metadata Standard 2023.1 (2023-10), Data Mining, all values of the PLUS vocabulary
        ("DMI-UNSPECIFIED", None),
        ("DMI-ALLOWED", None),
        ("DMI-PROHIBITED-AIMLTRAINING", {"ai_training"}),
        ("DMI-PROHIBITED-GENAIMLTRAINING", {"ai_training"}),
        ("DMI-PROHIBITED-EXCEPTSEARCHENGINEINDEXING", {"ai_training"}),
        ("DMI-PROHIBITED", {"ai_training", "search"}),
        ("DMI-PROHIBITED-SEECONSTRAINT", {"ai_training"}),
        ("DMI-PROHIBITED-SEEEMBEDDEDRIGHTSEXPR", {"ai_training"}),
        ("DMI-PROHIBITED-SEELINKEDRIGHTSEXPR", {"ai_training"}),
        # misspelled by programs on GitHub, 2026
        ("DMI-PROHIBITED-AITRAINING", {"ai_training"}),
        ("DMI-PROHIBITED-AIGENAI", {"ai_training"}),
        ("DMI-PROHIBITED-EXCEPTSEARCHINDEXING", {"ai_training"}),
    ],
)
def test_plus_data_mining(term: str, forbids: set[str] | None) -> None:
    for value in (DMI + term, term, f" {DMI}{term}/ ", f"plus:{term}", [term], term.lower()):
        found = model.from_embedded({"data_mining": value})
        assert [(each.value, set(each.forbids)) for each in found] == ([(term, forbids)] if forbids else [])


def test_plus_data_mining_as_a_label_and_hostile() -> None:
    (found,) = model.from_embedded({"data_mining": "Prohibited for AI/ML training"})
    assert found == model.OptOut.of("data-mining", "DMI-PROHIBITED-AIMLTRAINING", "file")
    hostile: tuple[object, ...] = (None, 7, {}, [None, 3], "", "x" * 10**6, "\0", "/////")
    for value in hostile:
        assert model.from_embedded({"data_mining": value}) == []
    (found,) = model.from_embedded({"data_mining": "DMI-PROHIBITED-" + "\n" + "A" * 10_000})
    assert len(found.value) == model.MAX_VALUE_CHARS and found.value.isprintable()  # noqa: PT018


# Purposes and the column


def test_forbidden_for() -> None:
    table = {
        ("x-robots-tag", "noai"): {"ai_training"},
        ("x-robots-tag", "noimageai"): {"ai_training"},
        ("x-robots-tag", "noml"): {"ai_training"},
        ("x-robots-tag", "noindex"): {"ai_training", "search"},
        ("x-robots-tag", "noimageindex"): {"ai_training", "search"},
        ("x-robots-tag", "none"): {"ai_training", "search"},
        ("tdm-reservation", "1"): {"ai_training"},
        ("content-usage", "train-ai=n"): {"ai_training"},
        ("content-usage", "search=n"): {"search"},
        ("content-usage", "ai-use=n"): set(),
        ("tdm-policy", "https://provider.com/p"): set(),
        ("data-mining", "DMI-PROHIBITED"): {"ai_training", "search"},
        ("data-mining", "DMI-PROHIBITED-SEECONSTRAINT"): {"ai_training"},
    }
    for (signal, value), purposes in table.items():
        opt_out = model.OptOut.of(signal, value, "header")
        for purpose in ("ai_training", "search", "preservation"):
            expected = opt_out if purpose in purposes else None
            assert model.forbidden_for(purpose, [opt_out]) == expected
    assert model.forbidden_for("ai_training", []) is None


def test_json() -> None:
    found = in_headers.from_headers({"X-Robots-Tag": ["noai"], "tdm-reservation": "1"}, UA)
    text = model.to_json(found)
    assert json.loads(text) == [
        {"signal": "x-robots-tag", "value": "noai", "where": "header"},
        {"signal": "tdm-reservation", "value": "1", "where": "header"},
    ]
    assert model.from_json(text) == found
    assert model.to_json([]) == "[]"
    assert model.from_json("[]") == model.from_json(None) == []
    for bad in ("3", "[3]", "{", '[{"signal": "x"}]'):
        with pytest.raises(ValueError):  # noqa: PT011
            model.from_json(bad)


def test_renewed() -> None:
    header, file = (
        model.OptOut.of("x-robots-tag", "noai", "header"),
        model.OptOut.of("data-mining", "DMI-PROHIBITED", "file"),
    )
    assert model.renewed([header, file], [], {"header", "robots.txt"}) == [file]
    assert model.renewed([file], [header], {"header"}) == [file, header]
    assert model.renewed([header], [], {"robots.txt"}) == [header]  # a 304 that says nothing


def test_headers_as_pairs_and_as_mappings() -> None:
    assert in_headers.from_headers({"x-robots-tag": "noai"}, UA) == in_headers.from_headers(
        [("X-ROBOTS-TAG", "noai")], UA
    )
    assert in_headers.from_headers({}, UA) == in_headers.from_headers([], UA) == []


# Hostile input


@pytest.mark.parametrize(
    "value",
    [
        "noai," * 20_000,
        "a:" * 50_000,
        ":" * 100_000,
        "," * 100_000,
        " " * 100_000,
        "x" * 100_000,
        "a," * 30_000 + "a",
        "train-ai=(" + "n " * 40_000,
        'train-ai="' + "\\\\" * 40_000,
        "train-ai=n" + ";a" * 32_000,
        "a=" + "(" * 60_000,
        "train-ai=:" + "A" * 60_000,
        "\ud800\0\x7f" * 20_000,
    ],
)
def test_hostile_headers_take_linear_time_and_little_room(value: str) -> None:
    headers = [
        (name, value) for name in ("X-Robots-Tag", "tdm-reservation", "tdm-policy", "Content-Usage")
    ] * 25
    started = time.perf_counter()
    found = in_headers.from_headers(headers, UA)
    assert time.perf_counter() - started < 1
    assert len(found) <= model.MAX_OPT_OUTS
    assert all(len(each.value) <= model.MAX_VALUE_CHARS for each in found)


def test_hostile_dictionary_that_is_cut_says_nothing() -> None:
    padding = ", ".join(f"k{number}" for number in range(20_000))
    assert usage(padding + ", train-ai=n") == []


def test_hostile_policies() -> None:
    for policy in ("javascript:alert(1)", "https://a/" + "b" * 300, "https://a/\x1b[2J", "ä", " "):
        assert said(("tdm-reservation", "1"), ("tdm-policy", policy)) == [("tdm-reservation", "1")]


def test_hostile_robots() -> None:
    url = "https://provider.com/" + "a" * 8_000
    for line in (b"Content-Usage: /" + b"*a" * 30 + b"b train-ai=n\n", b"Content-Usage: /a train-ai=n\n"):
        body = (b"User-agent: *\n" + line * (512 * 1024 // len(line)))[: 512 * 1024]
        started = time.perf_counter()
        read_rules(body, "imgdl_pipeline").opt_outs(url)
        assert time.perf_counter() - started < 2
    many = b"".join(b"Content-Usage: /%d*x%d search=n\n" % (each, each) for each in range(15_000))
    rules = read_rules(b"User-agent: *\n" + many, "imgdl_pipeline")
    assert [each.value for each in rules.opt_outs(url)] == ["search=n"]  # too many wildcards: for all paths


def test_hostile_tdmrep() -> None:
    entries = [{"location": f"/{each}*x", "tdm-reservation": 1} for each in range(11_000)]
    started = time.perf_counter()
    rules = tdmrep_rules(json.dumps(entries))
    assert reserved(rules, "/anything") == ["1"]  # too many wildcards: everything is reserved
    assert time.perf_counter() - started < 2


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["X-Robots-Tag", "TDM-Reservation", "tdm-policy", "content-usage", "x"]),
            st.text(),
        )
    )
)
@example([("content-usage", "a=@99999999999999999999")])
@example([("content-usage", 'a=%"%ff"')])
def test_any_header_is_read(headers: list[tuple[str, str]]) -> None:
    found = in_headers.from_headers(headers, UA)
    assert model.from_json(model.to_json(found)) == found
    assert len(found) <= model.MAX_OPT_OUTS


words = st.sampled_from(
    ["noai", "NOINDEX", "none", "googlebot:", "imgdl_pipeline:", "*:", "unavailable_after:", "25 Jun"]
)


@given(st.lists(st.lists(words, max_size=6).map(", ".join), max_size=4))
def test_more_lines_never_take_an_opt_out_back(lines: list[str]) -> None:
    assert set(x_robots(*lines[:-1])) <= set(x_robots(*lines))


@given(
    st.dictionaries(
        st.sampled_from(["train-ai", "search", "ai-use", "other"]), st.sampled_from(["y", "n", "1", '"n"'])
    )
)
def test_dictionaries(members: dict[str, str]) -> None:
    expected = {f"{key}=n" for key, value in members.items() if value == "n" and key != "other"}
    assert set(usage(", ".join(f"{key}={value}" for key, value in members.items()))) == expected


@given(st.binary(max_size=2_000))
def test_any_robots_file_is_read(body: bytes) -> None:
    read_rules(b"User-agent: *\nContent-Usage: " + body, "imgdl_pipeline").opt_outs(SITE + "/a/b?c")


# The reader of C2PA manifests


def _box(kind: bytes, content: bytes) -> bytes:
    return (len(content) + 8).to_bytes(4, "big") + kind + content


def _superbox(label: bytes, *content: bytes) -> bytes:
    return _box(b"jumb", _box(b"jumd", b"\0" * 16 + b"\3" + label + b"\0") + b"".join(content))


def _cbor(value: object) -> bytes:
    if isinstance(value, dict):
        return bytes([0xA0 + len(value)]) + b"".join(_cbor(k) + _cbor(v) for k, v in value.items())
    data = str(value).encode()
    return (bytes([0x60 + len(data)]) if len(data) < 24 else bytes([0x78, len(data)])) + data
