import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdl_pipeline.core.model.links import Link
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.sources.attributes import (
    HTML_CHARS,
    distinct,
    drop_empty,
    first_href,
    iso_date,
    iso_of_epoch,
    joined,
    may_be_jpeg,
    number,
    parsed_html,
    plain_text,
)
from imgdl_pipeline.core.sources.client import SourceClient


def test_what_says_nothing_is_left_out():
    assert drop_empty({"a": "", "b": None, "c": [], "d": {}, "e": 0, "f": "x"}) == {"e": 0, "f": "x"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("640", 640),
        (640, 640),
        (" 7 ", 7),
        ("0", None),
        ("-1", None),
        ("6.5", None),
        (None, None),
        (True, None),
    ],
)
def test_a_count_is_a_number_above_nothing(text, value):
    assert number(text) == value


@given(st.text())
def test_no_text_breaks_a_count_or_a_date(text):
    assert number(text) is None or number(text) > 0
    assert iso_date(text) is None or isinstance(iso_date(text), str)


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("Sun, 22 Nov 2026 06:00:00 GMT", "2026-11-22T06:00:00+00:00"),
        ("2026-11-22T06:00:00Z", "2026-11-22T06:00:00Z"),
        ("", None),
        (None, None),
    ],
)
def test_a_date_of_a_mail_becomes_iso_and_others_stay(text, iso):
    assert iso_date(text) == iso


@pytest.mark.parametrize(("seconds", "iso"), [(0, "1970-01-01T00:00:00+00:00"), ("x", None), (10**20, None)])
def test_seconds_since_1970_become_iso(seconds, iso):
    assert iso_of_epoch(seconds) == iso


@given(st.text())
def test_any_html_becomes_text(html):
    assert plain_text(html) == " ".join(plain_text(html).split())


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("Ann<br>Bob", "Ann Bob"),
        ("<p>a</p><p>b</p>", "a b"),
        ("<ul><li>a</li><li>b</li></ul>", "a b"),
        ("<style>.x{color:red}</style>Ann", "Ann"),
        ('1912<div style="display:none">date QS:P571,+1912<br>x</div>', "1912"),
        ('<span style="display: none;"><b>x</b></span>Ann', "Ann"),
        ("<b>A</b>nn &amp; Bob", "Ann & Bob"),
        ("</div></div>Ann<img src=x>", "Ann"),
    ],
)
def test_html_is_read_as_a_person_sees_it(html, text):
    assert plain_text(html) == text


def test_the_first_link_of_html_is_found_and_made_whole():
    html = '<b class="x">by</b> <a class="y" href="//h.org/wiki?a=1&amp;b=2">Ann</a><a href="/c">C</a>'
    assert first_href(html, "https://base.org/x") == "https://h.org/wiki?a=1&b=2"
    assert first_href("Ann", "https://base.org/x") is None


def test_each_link_comes_once_and_no_more_than_were_asked_for():
    links = [Link(url) for url in "aabacd"]
    with SourceClient(DownloadSettings(), {}) as client:
        assert [link.url for link in distinct(links, 3, client)] == ["a", "b", "c"]
        assert client.warnings == ["the list ends at 3 links, because max_images says so"]
        assert len(list(distinct(links, None, client))) == 4


@pytest.mark.parametrize(
    "kind", ["image/jpeg", "IMAGE/JPG; q=1", "image/pjpeg", "", None, "image", "image/*"]
)
def test_what_may_be_a_jpeg_is_let_through(kind):
    assert may_be_jpeg(kind)


@pytest.mark.parametrize("kind", ["image/png", "video/mp4", "text/html", "audio/mpeg"])
def test_what_is_said_to_be_something_else_is_not(kind):
    assert not may_be_jpeg(kind)


@pytest.mark.parametrize("text", ["1_000", "١٢", "1" * 16, "1e3", "0x10", "+1", "", [], 6.0])
def test_what_is_written_unlike_a_count_is_none(text):
    assert number(text) is None


@given(st.one_of(st.none(), st.integers(), st.floats(), st.text(), st.booleans()))
def test_any_value_is_a_time_or_none(value):
    assert iso_of_epoch(value) is None or "T" in iso_of_epoch(value)


URL = st.text(string.ascii_letters + "/:?#[]@.\\ %\n\0é", max_size=20)


@given(URL, URL)
def test_any_url_can_be_joined_to_any_base(base, url):
    assert isinstance(joined(base, url), str)
    assert isinstance(first_href(f'<a href="{url}">', base), str | None)


@pytest.mark.parametrize(
    ("url", "whole"),
    [
        ("b.jpg", "https://h.org/x/b.jpg"),
        ("/b.jpg", "https://h.org/b.jpg"),
        ("//i.org/b.jpg", "https://i.org/b.jpg"),
        ("\n b.jpg ", "https://h.org/x/b.jpg"),
        ("b.jpg?x=1&y=2,3", "https://h.org/x/b.jpg?x=1&y=2,3"),
        ("http://[bad", "http://[bad"),
    ],
)
def test_a_link_is_made_whole_and_one_that_is_none_stays(url, whole):
    assert joined("https://h.org/x/a", url) == whole


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("AT&T", "AT&T"),
        ("AT&amp;T", "AT&T"),
        ("R&D &eacute; &#233; &nosuch;", "R&D é é &nosuch;"),
        ("5 < 6", "5 < 6"),
        ("a<!-- no -->b", "ab"),
        ("a<script>no()</script>b", "ab"),
        ('<div style="display:none">a<div style="display:none">b</div>c</div>d', "d"),
        ('<span style="DISPLAY : NONE">a</span>b', "b"),
        ("<table><tr><td>a</td><td>b</td></tr></table>", "a b"),
        ("a<br>b<hr>c", "a b c"),
        ("<", "<"),
        ("&", "&"),
        (None, ""),
        (7, ""),
    ],
)
def test_a_text_of_html_is_what_is_seen_of_it(html, text):
    assert plain_text(html) == text


@pytest.mark.parametrize(
    "piece", ["<b>", "</b>", "<div style='display:none'>", "<!--", "&amp;", "<a href=x>", "<"]
)
def test_any_amount_of_html_is_read_in_linear_time(piece):
    assert isinstance(plain_text(piece * 50_000 + "x"), str)


def test_html_that_is_too_long_is_read_to_the_bound():
    assert len(plain_text("<b>" + "x" * 2 * HTML_CHARS)) == HTML_CHARS - len("<b>")


@given(st.text())
def test_any_html_has_a_root_or_none_and_nothing_is_loaded(html):
    root = parsed_html(html)
    assert root is None or root.tag == "html"


def test_a_list_that_ends_by_itself_has_no_warning():
    with SourceClient(DownloadSettings(), {}) as client:
        assert len(list(distinct([Link("a"), Link("b")], 3, client))) == 2
        assert client.warnings == []
