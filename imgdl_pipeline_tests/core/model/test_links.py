import base64
import json
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdl_pipeline.core.model import links as module
from imgdl_pipeline.core.model.links import (
    ATTRIBUTES_CHARS,
    BATCH_CHARS,
    BATCH_ROWS,
    CUT_CHARS,
    DistinctLinks,
    Link,
    TooLargeError,
    attributes_json,
    links_table,
)
from imgdl_pipeline.core.model.schemas import LINKS

NOW = datetime(2026, 11, 22, 6, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("  https://h.org/a.jpg \r\n", "https://h.org/a.jpg"),
        ("https://h.org/a.jpg#top", "https://h.org/a.jpg"),
        ("https://h.org/a.jpg?x=1#a#b", "https://h.org/a.jpg?x=1"),
        ("http://[broken", "http://[broken"),
        ("", ""),
    ],
)
def test_white_space_and_the_fragment_are_cut(text, url):
    assert Link.from_text(text).url == url


@given(st.text(st.characters()))
def test_any_text_makes_a_link_that_parquet_can_hold(text):
    table = links_table([Link.from_text(text, {text: text})], NOW)
    assert "#" not in table["url"][0].as_py()
    assert isinstance(json.loads(table["attributes"][0].as_py()), dict)


def test_the_first_of_equal_links_wins_and_order_stays():
    links = [Link("b", {"n": 1}), Link("a", {"n": 2}), Link("b", {"n": 3})]
    table = links_table(links, NOW)
    assert table["url"].to_pylist() == ["b", "a"]
    assert [json.loads(text)["n"] for text in table["attributes"].to_pylist()] == [1, 2]


def test_an_empty_list_is_a_table_without_rows():
    assert links_table([], NOW).schema == LINKS


def test_what_json_has_no_form_for_is_written_as_text_or_null():
    text = attributes_json({"day": NOW.date(), "nan": float("nan"), "deep": [float("inf"), "é"]})
    assert json.loads(text) == {"day": "2026-11-22", "nan": None, "deep": [None, "é"]}


@pytest.mark.parametrize(
    ("text", "url", "secret"),
    [
        ("http://me:pass@h.org/a.jpg", "http://h.org/a.jpg", b"me:pass"),
        ("https://m%C3%A9:p%40ss@h.org", "https://h.org", "mé:p@ss".encode()),
        ("ftp://me@h.org/@b", "ftp://h.org/@b", b"me:"),
        ("http://a@b@h.org/", "http://h.org/", b"a@b:"),
        ("http:///me:pw@h.org/a.jpg", "http:///h.org/a.jpg", b"me:pw"),
        ("http:\\\\me:pw@h.org/a.jpg", "http:\\\\h.org/a.jpg", b"me:pw"),
        ("http:me:pw@h.org/a.jpg", "http:h.org/a.jpg", b"me:pw"),
        ("http:/\t/me:pw@h.org/a.jpg", "http:/\t/h.org/a.jpg", b"me:pw"),
    ],
)
def test_a_name_and_password_are_no_part_of_a_link_but_a_header_for_its_host(text, url, secret):
    link = Link.from_text(text, {}, {"Referer": "https://h.org/"})
    assert link.url == url
    assert base64.b64decode(link.request_headers["Authorization"].removeprefix("Basic ")) == secret
    table = links_table([link, Link("x")], NOW)
    assert json.loads(table["request_headers"][0].as_py()) == link.request_headers
    assert table["request_headers"][1].as_py() is None


@pytest.mark.parametrize("text", ["http://h.org/me@there.jpg", "http://h.org?to=me@h.org", "me@h.org"])
def test_an_at_sign_elsewhere_is_no_password(text):
    assert Link.from_text(text) == Link(text)


N = 200_000

LONG = {
    "blanks": (" " * N, "", None),
    "blanks around": (" " * N + "x" + "\n" * N, "x", None),
    "blanks before the fragment": ("x" + " " * N + "#a", "x", None),
    "blanks inside": ("x" + " " * N + "y", "x" + " " * N + "y", None),
    "blanks behind the scheme": ("http:" + " " * N + "me@h.org", "http:" + " " * N + "h.org", b"me:"),
    "at signs": ("@" * N, "@" * N, None),
    "at signs in the authority": ("http://" + "@" * N + "h.org/", "http://h.org/", b"@" * (N - 1) + b":"),
    "at signs in the path": ("http://h.org/" + "@" * N, "http://h.org/" + "@" * N, None),
    "names and at signs": ("http://" + "a@" * N + "h.org", "http://h.org", b"a@" * (N - 1) + b"a:"),
    "backslashes": ("\\" * N, "\\" * N, None),
    "backslashes behind the scheme": ("http:" + "\\" * N + "me@h.org", "http:" + "\\" * N + "h.org", b"me:"),
    "slashes": ("/" * N + "me@h.org", "/" * N + "h.org", b"me:"),
    "backslashes and blanks": ("http:" + "\\ " * N + "x", "http:" + "\\ " * N + "x", None),
    "colons": (":" * N, ":" * N, None),
    "letters": ("a" * N, "a" * N, None),
    "letters and colons": ("a:" * N, "a:" * N, None),
    "hash marks": ("x" + "#" * N, "x", None),
}


@pytest.mark.parametrize("name", LONG)
def test_a_link_of_many_odd_characters_is_read(name):
    text, url, secret = LONG[name]
    link = Link.from_text(text)
    assert link.url == url
    token = link.request_headers.get("Authorization", "").removeprefix("Basic ")
    assert (base64.b64decode(token) or None) == secret


@pytest.mark.parametrize(
    "text",
    ["http://h.org:80/me@b", "http:\\\\h.org\\me@b", "http:h.org?me@b", "//h.org/@", "http://[::1]/@b"],
)
def test_an_at_sign_behind_the_authority_is_no_password(text):
    assert Link.from_text(text) == Link(text)


def test_a_header_is_one_line():
    assert Link.from_text("x", None, {"Referer": " a\r\n b "}).request_headers == {"Referer": "a b"}


def test_copies_are_listed_once_across_batches():
    distinct = DistinctLinks(NOW)
    links = [Link(f"https://h.org/{number % (BATCH_ROWS + 5)}") for number in range(3 * BATCH_ROWS)]
    batches = list(distinct.batches(iter(links)))
    assert [batch.num_rows for batch in batches] == [BATCH_ROWS, 5]
    assert [url.as_py() for batch in batches for url in batch["url"]] == [
        f"https://h.org/{number}" for number in range(BATCH_ROWS + 5)
    ]
    assert (distinct.given, distinct.cut) == (3 * BATCH_ROWS, 0)


def test_copies_are_known_from_one_list_to_the_next():
    distinct = DistinctLinks(NOW)
    assert sum(batch.num_rows for batch in distinct.batches([Link("a"), Link("b")])) == 2
    assert [batch["url"].to_pylist() for batch in distinct.batches([Link("b"), Link("c")])] == [["c"]]


def test_long_rows_make_small_batches():
    links = [Link(f"{number}{'x' * (BATCH_CHARS // 2)}") for number in range(5)]
    assert [batch.num_rows for batch in DistinctLinks(NOW).batches(links)] == [2, 2, 1]


def test_batches_come_before_the_rest_is_listed():
    def links():
        yield from (Link(str(number)) for number in range(BATCH_ROWS))
        raise AssertionError("too early")

    assert next(DistinctLinks(NOW).batches(links())).num_rows == BATCH_ROWS


def test_too_many_links_are_an_error_that_names_the_limit(monkeypatch):
    monkeypatch.setattr(module, "MAX_LINKS", 2)
    assert links_table([Link("a"), Link("b"), Link("a"), Link("b")], NOW).num_rows == 2
    with pytest.raises(TooLargeError, match=r"^there are more than 2 distinct links \(MAX_LINKS\)$"):
        links_table([Link("a"), Link("b"), Link("c")], NOW)


@pytest.mark.parametrize("long", [Link("x" * 101), Link("x", {"a": "x" * 101})])
def test_too_long_a_list_is_an_error_that_names_the_limit(monkeypatch, long):
    monkeypatch.setattr(module, "MAX_LIST_BYTES", 100)
    assert links_table([Link("x" * 98), Link("x" * 98)], NOW).num_rows == 1
    with pytest.raises(TooLargeError, match=r"take more than 100 bytes \(MAX_LIST_BYTES\)$"):
        links_table([long], NOW)


def test_the_length_of_a_list_is_added_up_over_its_batches(monkeypatch):
    monkeypatch.setattr(module, "MAX_LIST_BYTES", 100)
    monkeypatch.setattr(module, "BATCH_ROWS", 1)
    distinct = DistinctLinks(NOW)
    batches = distinct.batches(Link(f"{number:048}") for number in range(3))
    assert [next(batches).num_rows, next(batches).num_rows] == [1, 1]
    with pytest.raises(TooLargeError, match="MAX_LIST_BYTES"):
        next(batches)


def attributes_of(attributes):
    distinct = DistinctLinks(NOW)
    [batch] = distinct.batches([Link("x", attributes)])
    return json.loads(batch["attributes"][0].as_py()), distinct.cut


def test_long_attributes_are_cut_and_counted():
    cut = "x" * (CUT_CHARS - 1) + "…"
    attributes = {"long": "x" * ATTRIBUTES_CHARS, "short": "y", "n": 5, "list": ["x"] * ATTRIBUTES_CHARS}
    found, count = attributes_of(attributes)
    assert (found.pop("list")[:10], count) == ('["x", "x",', 1)
    assert found == {"long": cut, "short": "y", "n": 5}


def test_attributes_of_just_the_limit_are_whole():
    whole = {"a": "é" * (ATTRIBUTES_CHARS - len('{"a": ""}'))}
    assert attributes_of(whole) == (whole, 0)
    assert attributes_of({"a": whole["a"] + "é"})[1] == 1


def test_attributes_that_stay_too_long_are_left_out():
    assert attributes_of({f"name {number}": "x" * 30 for number in range(ATTRIBUTES_CHARS // 30)}) == ({}, 1)
    assert attributes_of({"x" * ATTRIBUTES_CHARS: 1}) == ({}, 1)


@given(st.dictionaries(st.text(st.characters()), st.text(st.characters()) | st.floats() | st.binary()))
def test_attributes_are_json_of_a_limited_length(attributes):
    text = attributes_json(attributes)
    assert json.loads(text, parse_constant=pytest.fail).keys() or not attributes
    found, _ = attributes_of({"long": "x" * ATTRIBUTES_CHARS, **attributes})
    assert len(json.dumps(found, ensure_ascii=False)) <= ATTRIBUTES_CHARS
