import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdl_pipeline.core.model.links import Link
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.sources.attributes import (
    distinct,
    drop_empty,
    first_href,
    iso_date,
    iso_of_epoch,
    may_be_jpeg,
    number,
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
