import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdl_pipeline.config.galleries import Gallery
from imgdl_pipeline.core import sources
from imgdl_pipeline.core.listing.build import list_gallery, list_warnings, read_links
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.sources import web_page
from imgdl_pipeline.core.sources.client import SourceClient, SourceError
from imgdl_pipeline.core.sources.web_page import WebPageSource, largest
from imgdl_pipeline_tests.support.pictures import jpeg

LOOPBACK = DownloadSettings(allow_addresses=("127.0.0.1/32",))


@pytest.fixture
def listed(server):
    def list_(html, content_type="text/html; charset=utf-8", path="/dir/page", **keys):
        body = html if isinstance(html, bytes) else html.encode()
        url = server.serve(path, body, Content_Type=content_type)
        with SourceClient(LOOPBACK, {}, sleep=lambda _: None) as client:
            return list(sources.list_links(WebPageSource(type="web_page", url=url, **keys), client))

    return list_


@pytest.fixture
def names(listed):
    """The last parts of the links of a page."""

    def names_(html, *args, **keys):
        return [link.url.rpartition("/")[2] for link in listed(html, *args, **keys)]

    return names_


PAGE = """<!DOCTYPE html><html><head><title> The
 hills </title><meta property="og:image" content="/og.jpg?a=1&amp;b=2"></head><body>
<img src="a.jpg" alt=" A  hill " width="640" height="480px"><img src="b.png"><img title="B" src="//h.org/b">
<a href="c.JPG?x=1#top">See <b>it</b></a><a href="page.html">no</a><img src="a.jpg"><img><img src="">
<img src="data:image/png;base64,AA=="></body></html>"""


def test_a_page_gives_its_pictures_each_once_with_all_that_is_said_of_them(listed, server):
    shared = {"page": server.url("/dir/page"), "album": "The hills"}
    assert [(link.url, link.attributes) for link in listed(PAGE)] == [
        (server.url("/og.jpg?a=1&b=2"), shared),
        (server.url("/dir/a.jpg"), {**shared, "title": "A hill", "width": 640}),
        ("http://h.org/b", {**shared, "title": "B"}),
        (server.url("/dir/c.JPG?x=1"), {**shared, "title": "See it"}),
    ]


@pytest.mark.parametrize(
    ("srcset", "url"),
    [
        ("a.jpg 1x, b.jpg 2x", "b.jpg"),
        ("a.jpg, b.jpg 2x", "b.jpg"),
        ("a.jpg 1.5x, b.jpg .5x, c.jpg", "a.jpg"),
        ("a.jpg 100w, b.jpg 2000w, c.jpg 300w", "b.jpg"),
        ("a.jpg 1x,b.jpg 2x", "b.jpg"),
        ("\n  a.jpg\n 1x  ,\n\tb.jpg 2x ,", "b.jpg"),
        ("/w_100,h_50/a.jpg 100w, /w_900,h_50/b.jpg 900w", "/w_900,h_50/b.jpg"),
        ("https://h.org/a.jpg?x=1,2 2x, https://h.org/b.jpg 1x", "https://h.org/a.jpg?x=1,2"),
        ("data:image/png;base64,AA== 1x, a.jpg 2x", "a.jpg"),
        ("a.jpg", "a.jpg"),
        ("a.jpg,b.jpg", "a.jpg,b.jpg"),
        ("", None),
        (" , ", None),
    ],
)
def test_the_largest_of_a_srcset_is_taken(srcset, url):
    assert largest(srcset) == url


@pytest.mark.parametrize("srcset", ["a.jpg 100w 50h", "a.jpg 50h 100w", "b.jpg 90w 45h, a.jpg 100w 50h"])
def test_a_height_in_a_srcset_is_no_url(srcset):
    """The specification reads `h` descriptors, and passes over them."""
    assert largest(srcset) == "a.jpg"


URL = st.from_regex(r"[a-z/.][a-z0-9/.,?=_-]{0,12}[a-z0-9]", fullmatch=True)
UNIT = st.sampled_from(["w", "x"])
COMMA = st.sampled_from([", ", " , ", ",\n\t", " ,"])


@given(
    st.dictionaries(st.integers(1, 9999), URL, min_size=1, max_size=6),
    UNIT,
    COMMA,
    st.sampled_from([" ", "\n "]),
)
def test_the_largest_of_any_srcset_is_taken(sized, unit, comma, space):
    srcset = comma.join(f"{url}{space}{size}{unit}" for size, url in sized.items())
    assert largest(srcset) == sized[max(sized)]


@given(st.text(" ,.0123456789wxh/a(\n"))
def test_any_srcset_gives_one_of_its_words_or_nothing(srcset):
    assert (largest(srcset) or "") in srcset


def test_a_long_srcset_takes_linear_time():
    assert largest("a.jpg 1x, " * 100_000 + "b.jpg 2x") == "b.jpg"
    assert largest("," * 500_000) is None
    assert largest("a " * 200_000) == "a"


def test_of_an_img_the_largest_of_its_srcset_is_taken(names):
    assert names('<img src="s.jpg" srcset="s.jpg 1x, l.jpg 2x">') == ["l.jpg"]
    assert names('<img src="s.jpg" srcset="m.jpg 800w, l.jpg 1600w, s.jpg 200w">') == ["l.jpg"]


SOURCES = {
    "not closed": "<source {}>",
    "closed": "<source {}></source>",
    "closed as in XML": "<source {} />",
}


@pytest.mark.parametrize("form", SOURCES.values(), ids=SOURCES)
def test_the_sources_of_a_picture_are_offers_of_its_img(names, form):
    offers = ['srcset="l.jpg 1600w" type="image/jpeg"', 'srcset="w.webp 3200w" type="image/webp"']
    for order in (offers, offers[::-1]):
        html = "".join(form.format(offer) for offer in order)
        assert names(f'<picture>{html}<img src="s.jpg" srcset="m.jpg 800w"></picture>') == ["l.jpg"]


@pytest.mark.parametrize("form", SOURCES.values(), ids=SOURCES)
def test_where_all_sources_of_a_picture_are_of_other_types_its_img_remains(names, form):
    offers = form.format('type="image/avif" srcset="a.avif"') + form.format('srcset="b.webp 2x"')
    assert names(f'<picture>{offers}<img src="s.jpg"></picture>') == ["s.jpg"]


def test_an_img_whose_srcset_is_of_another_type_has_its_src(names):
    assert names('<img src="s.jpg" srcset="l.webp 2x">') == ["s.jpg"]


PLACEHOLDER = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="


@pytest.mark.parametrize(
    "img",
    [
        '<img src="spinner.gif" data-src="a.jpg">',
        f'<img src="{PLACEHOLDER}" data-original="a.jpg">',
        '<img data-lazy-src="a.jpg" src="grey.png">',
        '<img src="grey.png" data-srcset="s.jpg 100w, a.jpg 900w">',
        f'<img src="s.jpg" srcset="{PLACEHOLDER}" data-srcset="a.jpg 900w">',
        f'<img src="s.jpg" srcset="{PLACEHOLDER} 1w" data-src="a.jpg">',
        '<img class="lazy"><noscript><img src="a.jpg"></noscript>',
    ],
)
def test_a_picture_that_is_loaded_late_is_listed_and_its_placeholder_is_not(names, img):
    assert names(img) == ["a.jpg"]


@pytest.mark.parametrize("name", ["og:image", "og:image:url", "OG:IMAGE"])
@pytest.mark.parametrize("key", ["property", "name"])
def test_the_picture_of_the_page_itself_is_listed(names, key, name):
    assert names(f'<meta {key}="{name}" content=" og.jpg ">') == ["og.jpg"]


def test_a_base_counts_for_every_link(listed):
    html = '<head><base target="_blank"><base href="https://h.org/x/"><base href="https://no.org/"></head>'
    pictures = '<img src="a.jpg"><img srcset="b.jpg 2x"><a href="../c.jpg">c</a>'
    pictures += '<meta name="og:image" content="d.jpg">'
    assert [link.url for link in listed(html + pictures)] == [
        "https://h.org/x/d.jpg",
        "https://h.org/x/a.jpg",
        "https://h.org/x/b.jpg",
        "https://h.org/c.jpg",
    ]


def test_a_relative_base_is_relative_to_the_page(listed, server):
    assert [link.url for link in listed('<base href="/x/"><img src="a.jpg">')] == [server.url("/x/a.jpg")]


@pytest.mark.parametrize("kind", ["png", "gif", "svg", "webp", "avif", "ico", "bmp", "PNG"])
def test_what_its_name_says_is_no_jpeg_is_dropped(names, kind):
    html = (
        f'<img src="a.{kind}"><img src="b.{kind}?v=1"><meta name="og:image" content="c.{kind}"><img src="d">'
    )
    assert names(html) == ["d"]


CYRILLIC = '<title>Кот</title><img src="a.jpg" alt="Кот">'


@pytest.mark.parametrize(
    ("content_type", "head"),
    [
        ("text/html; charset=windows-1251", ""),
        ("text/html; charset=windows-1251", '<meta charset="utf-8">'),
        ("text/html", '<meta charset="windows-1251">'),
        ("text/html", "<meta charset=windows-1251 />"),
        ("text/html", '<meta http-equiv="Content-Type" content="text/html; charset=windows-1251">'),
        ("text/html", f"<!-- {'x' * 300} --><meta charset='windows-1251'>"),
        ("text/html", f"<!DOCTYPE html>{'<meta name=k content=v>' * 40}<meta charset='windows-1251'>"),
    ],
    ids=["by HTTP", "by HTTP before all", "meta", "bare", "http-equiv", "after a comment", "byte 1000"],
)
def test_a_page_is_read_in_its_encoding_wherever_that_is_named(listed, content_type, head):
    """HTML looks for a meta element in the first 1024 bytes."""
    [link] = listed((head + CYRILLIC).encode("windows-1251"), content_type)
    assert (link.attributes["album"], link.attributes["title"]) == ("Кот", "Кот")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_page_that_names_no_encoding_is_read_in_unicode(listed, encoding):
    [link] = listed(CYRILLIC.encode(encoding), "text/html")
    assert link.attributes["title"] == "Кот"


def test_a_byte_order_mark_goes_before_a_meta_element(listed):
    [link] = listed(('<meta charset="iso-8859-1">' + CYRILLIC).encode("utf-8-sig"), "text/html")
    assert link.attributes["title"] == "Кот"


def test_a_page_that_robots_txt_disallows_is_an_error_and_is_not_asked_for(listed, server):
    server.serve("/robots.txt", b"User-agent: *\nDisallow: /dir/", Content_Type="text/plain")
    with pytest.raises(SourceError, match=r"/dir/page: the host's robots.txt disallows this link"):
        listed(PAGE)
    assert server.paths() == ["/robots.txt"]
    assert len(listed(PAGE, path="/free")) == 4


def test_a_redirect_to_what_robots_txt_disallows_is_an_error_too(listed, server):
    server.serve("/robots.txt", b"User-agent: *\nDisallow: /dir/", Content_Type="text/plain")
    server.serve("/dir/page", PAGE.encode())
    with SourceClient(LOOPBACK, {}) as client:
        source = WebPageSource(type="web_page", url=server.redirect("/in", "/dir/page"))
        with pytest.raises(SourceError, match=r"robots\.txt disallows"):
            list(sources.list_links(source, client))
    assert "/dir/page" not in server.paths()


def test_links_are_relative_to_where_the_page_was_found_after_redirects(server):
    server.serve("/deep/page", b'<img src="a.jpg">')
    with SourceClient(LOOPBACK, {}) as client:
        source = WebPageSource(type="web_page", url=server.redirect("/in", "/deep/page"))
        [link] = sources.list_links(source, client)
    assert (link.url, link.attributes["page"]) == (server.url("/deep/a.jpg"), server.url("/deep/page"))


def test_no_password_of_the_pages_own_url_is_in_what_it_lists(server):
    url = server.serve("/page", b'<img src="/a.jpg"><a href="b.jpg">').replace("//", "//ann:hunter2@")
    with SourceClient(LOOPBACK, {}) as client:
        links = list(sources.list_links(WebPageSource(type="web_page", url=url), client))
    assert len(links) == 2
    assert "hunter2" not in str(links)


def test_a_page_that_is_too_long_is_an_error_that_says_how_long_it_may_be(listed, monkeypatch):
    monkeypatch.setattr(web_page, "PAGE_BYTES", 1_000)
    with pytest.raises(SourceError, match="the answer is longer than 1000 bytes"):
        listed("x" * 1_001)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [(jpeg(), "image/jpeg"), (b"%PDF-1.7\n%\xe2\xe3", "application/pdf"), (b'{"a": 1}', "application/json")],
    ids=["a picture", "a PDF", "JSON"],
)
def test_what_is_no_page_is_an_error_that_says_so(listed, body, content_type):
    with pytest.raises(SourceError, match="this is no HTML page"):
        listed(body, content_type)


def test_a_picture_is_found_however_deep_it_lies_or_the_list_fails(names):
    deep = "<div>" * 400 + '<img src="a.jpg">' + "</div>" * 400 + '<img src="b.jpg">'
    try:
        assert names(deep) == ["a.jpg", "b.jpg"]
    except SourceError:
        pass


@given(st.text())
def test_any_text_is_a_page(text):
    assert web_page.parsed_html(text, 100) is None or web_page.parsed_html(text, 100).tag == "html"


@pytest.mark.parametrize(
    "html",
    [
        '<img src="http://[bad">',
        '<a href="http://[bad/a.jpg">x</a>',
        '<base href="http://[bad"><img src="a.jpg">',
    ],
)
def test_an_odd_url_costs_no_other(names, html):
    assert "b.jpg" in names(f'{html}<img src="b.jpg">')


def list_to(store, url):
    source = Gallery(name="g", source={"type": "web_page", "url": url}).source
    return list_gallery("g", source, store, LOOPBACK)


def test_a_page_whose_pictures_are_of_other_types_is_said_aloud_with_both_numbers(server, store):
    links = list_to(store, server.serve("/page", b'<img src="a.png"><img src="b.gif"><img src="data:,">'))
    assert list_warnings(links) == ["g: the source has 3 entries, and 0 of them give a link"]


def test_a_page_that_fails_leaves_the_old_list(server, store):
    url = server.serve("/page", PAGE.encode())
    list_to(store, url)
    server.serve("/page", b"<h1>Gone</h1>", 410)
    with pytest.raises(SourceError, match=r"the document could not be fetched \(status 410\): <h1>Gone"):
        list_to(store, url)
    server.serve("/page", b"<h1>Log in</h1>")
    with pytest.raises(SourceError, match="lists nothing, and listed 4 links"):
        list_to(store, url)
    assert read_links(store, "g").num_rows == 4


def test_max_images_ends_the_list_which_is_said_aloud(server, store):
    source = Gallery(
        name="g",
        source={"type": "web_page", "url": server.serve("/page", PAGE.encode()), "max_images": 2},
    ).source
    links = list_gallery("g", source, store, LOOPBACK)
    assert (links.num_rows, list_warnings(links)) == (
        2,
        ["the list ends at 2 links, because max_images says so"],
    )
