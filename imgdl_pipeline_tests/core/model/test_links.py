import base64
import json
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdl_pipeline.core.model.links import Link, attributes_json, links_table
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
