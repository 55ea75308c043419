"""What Protego 0.7.0 reads otherwise than RFC 9309 and google/robotstxt (its robots.cc at c8ac4b1d) do.

Each case fails with Protego 0.7.0, and passes with google/robotstxt in its place.
"""

# ruff: noqa: D103, S101 -- tests: their names are sentences, and asserts are what they are made of

import tracemalloc

import pytest
from protego import Protego

BOT = "foobot"


def allowed(text, path="/a", agent=BOT):
    return Protego.parse(text).can_fetch(f"https://example.com{path}", agent)


@pytest.mark.parametrize("line", ["Crawl-delay: 3", "Request-rate: 1/5", "Noindex: /x", "Foo: x"])
def test_other_records_do_not_end_a_group(line):
    """RFC 9309, 2.2.4: other records must not interfere with groups. Sitemap and Host do not."""
    assert not allowed(f"User-agent: foobot\n{line}\nUser-agent: barbot\nDisallow: /")


@pytest.mark.parametrize("char", ["\v", "\f", "\x1c", "\x85", "\u2028"])
def test_lines_end_with_cr_lf_or_both_only(char):
    """RFC 9309, 2.2: EOL = CR / LF / CRLF. str.splitlines() knows eight more."""
    assert allowed(f"User-agent: *\nDisallow: /b{char}Disallow: /a")


@pytest.mark.parametrize("value", ["foobot/1.0", "foobot foo", "foobot, barbot", "foobot;"])
def test_a_product_token_ends_where_another_character_begins(value):
    """RFC 9309, 2.2.1: a product token has letters, `_` and `-` only."""
    assert not allowed(f"User-agent: {value}\nDisallow: /")


def test_a_product_token_is_not_a_part_of_another():
    """RFC 9309, 2.2.1: crawlers match the whole token. `foo` is not `foo_bar` (nor `foo-bar`)."""
    assert allowed("User-agent: foo\nDisallow: /", agent="foo_bar")


def test_an_asterisk_followed_by_a_blank_names_all():
    assert not allowed("User-agent: * (all)\nDisallow: /")


@pytest.mark.parametrize(
    ("rules", "path"),
    [("Disallow: /*?id=\nAllow: /*.jpg", "/x?id=a.jpg"), ("Disallow: /*&xx\nAllow: /*.jpg", "/a&xx.jpg")],
)
def test_a_rule_is_as_long_as_it_is_written(rules, path):
    """`?` and `&` rank as three characters, since rules are compared with all of them percent-encoded."""
    assert allowed(f"User-agent: *\n{rules}", path)


def test_a_dollar_at_the_end_is_the_end():
    """RFC 9309, 2.2.3. `/a$` also matches `/a$b` now; `/a%24` is how to write that."""
    assert allowed("User-agent: *\nDisallow: /a$", "/a$b")


@pytest.mark.parametrize(
    ("pattern", "path"), [("/x?q=", "/x%3Fq="), ("/x%3Fq=", "/x?q="), ("/x?q%3D", "/x?q=1")]
)
def test_delimiters_differ_from_their_escapes(pattern, path):
    """RFC 3986, 2.2: URIs that differ in an escaped reserved character are not equivalent."""
    assert allowed(f"User-agent: *\nDisallow: {pattern}", path)


def test_a_rule_that_is_a_url_matches_nothing():
    assert allowed("User-agent: *\nDisallow: https://example.com/a", "/https://example.com/a")


def test_a_blank_of_another_script_is_part_of_the_value():
    """RFC 9309, 2.2: WS = SP / HTAB. str.strip() also strips U+00A0 (audible.com) and U+2002 (noip.com)."""
    assert allowed("User-agent: *\nDisallow: /lib\u00a0", "/library")


@pytest.mark.parametrize("page", ["index.htm", "index.html?x"])
def test_a_folder_whose_index_is_allowed_is_allowed(page):
    """As google/robotstxt, whose rule begins with `index.htm`; not part of RFC 9309."""
    assert allowed(f"User-agent: *\nDisallow: /\nAllow: /d/{page}", "/d/")


def test_a_rule_is_not_kept_once_for_each_agent():
    """500 agents of one group with 5,000 rules, 92 kB, take 180 MB; with 1,000 and 10,000, 730 MB."""
    agents = "".join(f"User-agent: b{number}\n" for number in range(500))
    rules = "".join(f"Disallow: /{number}/\n" for number in range(5_000))
    tracemalloc.start()
    Protego.parse(agents + rules)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000
