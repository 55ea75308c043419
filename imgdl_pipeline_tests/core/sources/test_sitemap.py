import gzip

import pytest

from imgdl_pipeline.config.galleries import Gallery
from imgdl_pipeline.core import sources
from imgdl_pipeline.core.listing.build import list_gallery, list_warnings, read_links
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.sources import sitemap, xml
from imgdl_pipeline.core.sources.client import SourceClient, SourceError
from imgdl_pipeline.core.sources.sitemap import SitemapSource
from imgdl_pipeline_tests.support.server import WebServer

LOOPBACK = DownloadSettings(allow_addresses=("127.0.0.1/32",))
NAMESPACES = (
    'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9" '
    'xmlns:image="http://www.google.com/schemas/sitemap-image/1.1"'
)


def urlset(*entries):
    return f"<?xml version='1.0' encoding='UTF-8'?><urlset {NAMESPACES}>{''.join(entries)}</urlset>".encode()


def page(location, *images, more=""):
    pictures = "".join(f"<image:image><image:loc>{image}</image:loc></image:image>" for image in images)
    return f"<url><loc>{location}</loc>{more}{pictures}</url>"


def index(*locations):
    entries = "".join(f"<sitemap><loc>{each}</loc></sitemap>" for each in locations)
    return f"<sitemapindex {NAMESPACES}>{entries}</sitemapindex>".encode()


@pytest.fixture
def serve(server):
    def serve_(path, body, **headers):
        return server.serve(path, body, **{"Content_Type": "application/xml", **headers})

    return serve_


@pytest.fixture
def listed():
    def list_(url, settings=LOOPBACK, **keys):
        with SourceClient(settings, {}, sleep=lambda _: None) as client:
            return list(sources.list_links(SitemapSource(type="sitemap", url=url, **keys), client))

    return list_


def urls(links):
    return [link.url for link in links]


def test_a_sitemap_gives_the_images_of_its_pages_with_all_that_is_said_of_them(serve, listed):
    images = """<image:image><image:loc> https://h.org/a.jpg?x=1&amp;y=2 </image:loc>
      <image:title>A &lt;b&gt;hill&lt;/b&gt;</image:title><image:caption><![CDATA[Sea & sky]]></image:caption>
      <image:license>https://l.org/</image:license></image:image>
      <image:image><image:loc><![CDATA[https://h.org/b.jpg?x=1&y=2]]></image:loc></image:image>
      <image:image><image:title>no place</image:title></image:image>"""
    entry = page("https://h.org/page", more=f"<lastmod>2026-11-22</lastmod>{images}")
    first, second = listed(serve("/map.xml", urlset(entry, page("https://h.org/nothing"))))
    assert (first.url, first.attributes) == (
        "https://h.org/a.jpg?x=1&y=2",
        {
            "title": "A hill",
            "caption": "Sea & sky",
            "license_url": "https://l.org/",
            "page": "https://h.org/page",
            "date": "2026-11-22",
        },
    )
    assert (second.url, second.attributes) == (
        "https://h.org/b.jpg?x=1&y=2",
        {"page": "https://h.org/page", "date": "2026-11-22"},
    )


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.jpe", "a.jfif", "a.jpg?v=1.png"])
def test_a_page_that_is_a_jpeg_itself_is_listed(serve, listed, name):
    entry = page(f"https://h.org/{name}", more="<lastmod>2026-11-22</lastmod>")
    [link] = listed(serve("/map.xml", urlset(entry)))
    assert (link.url, link.attributes) == (f"https://h.org/{name}", {"date": "2026-11-22"})


@pytest.mark.parametrize("name", ["a.png", "a.html", "jpg", "a.jpg/", "a.html?x=a.jpg"])
def test_another_page_is_not(serve, listed, name):
    assert listed(serve("/map.xml", urlset(page(f"https://h.org/{name}")))) == []


def test_an_index_gives_its_sitemaps_in_order_also_those_below_other_indexes(serve, listed, server):
    serve("/a.xml", urlset(page("https://h.org/1.jpg")))
    serve("/below.xml", index("/c.xml"))
    serve("/b.xml.gz", gzip.compress(urlset(page("https://h.org/2.jpg"))), Content_Type="application/gzip")
    serve("/c.xml", urlset(page("https://h.org/3.jpg"), page("https://h.org/1.jpg")))
    found = listed(serve("/index.xml", index(server.url("/a.xml"), "below.xml", "/b.xml.gz")))
    assert urls(found) == [f"https://h.org/{number}.jpg" for number in (1, 2, 3)]


@pytest.mark.parametrize("headers", [{}, {"Content_Encoding": "gzip"}, {"Content_Type": "text/plain"}])
def test_a_sitemap_may_be_gzip_whatever_it_is_called(serve, listed, headers):
    body = gzip.compress(urlset(page("https://h.org/a.jpg")))
    assert urls(listed(serve("/map", body, **headers))) == ["https://h.org/a.jpg"]


@pytest.mark.parametrize("cut", [slice(0, 40), slice(0, -8), slice(0, 2)])
def test_a_gzip_that_is_cut_is_an_error(serve, listed, cut):
    body = gzip.compress(urlset(*(page(f"https://h.org/{n}.jpg") for n in range(20))))[cut]
    with pytest.raises(SourceError, match=r"/map.xml.gz: damaged gzip: .* \(status 200\)"):
        listed(serve("/map.xml.gz", body))


def test_a_gzip_bomb_is_an_error_that_names_the_bound(serve, listed, monkeypatch):
    monkeypatch.setattr(sitemap, "XML_BYTES", 100_000)
    url = serve("/map.xml.gz", gzip.compress(urlset() + bytes(5_000_000)))
    with pytest.raises(SourceError, match="the sitemap is longer than 100000 bytes"):
        listed(url)
    with pytest.raises(SourceError, match="the answer is longer than 100000 bytes"):
        listed(serve("/map.xml", urlset() + b" " * 100_001))


def test_a_real_gzip_bomb_is_stopped_at_its_bound(serve, listed):
    bomb = gzip.compress(bytes(500_000_000), compresslevel=1)
    with pytest.raises(SourceError, match=f"the sitemap is longer than {xml.XML_BYTES} bytes"):
        listed(serve("/map.xml.gz", bomb))


def test_sitemaps_that_list_each_other_are_read_once(serve, listed, server):
    serve("/a.xml", index("/b.xml", "/a.xml", "/c.xml"))
    serve("/b.xml", index("/a.xml", "/c.xml"))
    serve("/c.xml", urlset(page("https://h.org/a.jpg")))
    assert urls(listed(server.url("/a.xml"))) == ["https://h.org/a.jpg"]
    assert server.paths() == ["/robots.txt", "/a.xml", "/b.xml", "/c.xml"]


def test_sitemaps_without_end_are_an_error_that_names_the_bound(serve, listed, server, monkeypatch):
    monkeypatch.setattr(sitemap, "SITEMAPS", 5)
    for number in range(10):
        serve(f"/{number}.xml", index(f"/{number + 1}.xml"))
    with pytest.raises(SourceError, match=r"more than 5 sitemaps \(SITEMAPS\)"):
        listed(server.url("/0.xml"))


@pytest.mark.parametrize("body", [b"<urlset/>", urlset(page("/home")), urlset(page("https://h.org/1.jpg"))])
def test_many_sitemaps_that_bring_nothing_new_are_no_circle(serve, listed, server, body):
    """An index has an end, and sites keep a sitemap per day, month or kind, also where it is empty."""
    for number in range(30):
        serve(f"/{number}.xml", body)
    serve("/last.xml", urlset(page("https://h.org/last.jpg")))
    url = serve("/index.xml", index(*(f"/{number}.xml" for number in range(30)), "/last.xml"))
    assert urls(listed(url))[-1] == "https://h.org/last.jpg"


def test_locations_may_be_relative_to_their_sitemap(serve, listed, server):
    serve("/maps/deep/a.xml", urlset(page("/page", "a.jpg", "/b.jpg", "//h.org/c.jpg")))
    links = listed(serve("/maps/index.xml", index("deep/a.xml")))
    assert urls(links) == [server.url("/maps/deep/a.jpg"), server.url("/b.jpg"), "http://h.org/c.jpg"]
    assert {link.attributes["page"] for link in links} == {server.url("/page")}


def test_locations_are_relative_to_where_a_sitemap_was_found_after_redirects(serve, listed, server):
    serve("/maps/a.xml", urlset(page("a.jpg")))
    assert urls(listed(server.redirect("/sitemap.xml", "/maps/a.xml"))) == [server.url("/maps/a.jpg")]


def test_no_password_of_the_sitemaps_own_url_is_in_what_it_says_of_a_link(serve, listed):
    url = serve("/map.xml", urlset(page("/page", "/a.jpg"))).replace("//", "//ann:hunter2@")
    [link] = listed(url)
    assert "hunter2" not in f"{link.url} {link.attributes}"


def test_a_sitemap_that_robots_txt_disallows_is_an_error(serve, listed, server):
    serve("/robots.txt", b"User-agent: *\nDisallow: /private/", Content_Type="text/plain")
    serve("/private/map.xml", urlset(page("https://h.org/a.jpg")))
    for url in (server.url("/private/map.xml"), serve("/index.xml", index("/private/map.xml"))):
        with pytest.raises(SourceError, match=r"/private/map.xml: the host's robots.txt disallows this link"):
            listed(url)
    assert "/private/map.xml" not in server.paths()


def test_a_sitemap_may_not_lie_inside(serve, listed):
    with WebServer() as inside:
        url = serve("/index.xml", index(inside.url("/map.xml")))
        with pytest.raises(SourceError, match="not a public address"):
            listed(url, DownloadSettings())
        assert inside.requests == []


def test_a_sitemap_at_the_indexs_own_address_is_trusted_and_at_its_name_is_not(serve, listed, server):
    serve("/a.xml", urlset(page("https://h.org/a.jpg")))
    url = serve("/index.xml", index("/a.xml"))
    assert len(listed(url, DownloadSettings())) == 1
    with pytest.raises(SourceError, match="not a public address"):
        listed(url.replace("127.0.0.1", "localhost"), DownloadSettings())


def test_an_image_prefix_that_is_not_declared_is_known_all_the_same(serve, store):
    body = urlset(page("https://h.org/p", "https://h.org/a.jpg?x=1&y=2")).replace(
        b"xmlns:image", b"xmlns:other"
    )
    links = list_to(store, serve("/map.xml", body))
    assert links["url"].to_pylist() == ["https://h.org/a.jpg?x=1&y=2"]
    [warning] = list_warnings(links)
    assert "the sitemap is damaged, but whole: " in warning


@pytest.mark.parametrize(
    "body",
    [b"<html><body>Log in</body></html>", b"<rss/>", b"", b"{}", b"https://h.org/a\n", b"\x1f\x8b"],
)
def test_what_is_no_sitemap_is_an_error_that_shows_it(serve, listed, body):
    with pytest.raises(SourceError, match=r"/map.xml: (this is no sitemap|damaged gzip).* \(status 200\)"):
        listed(serve("/map.xml", body))


def test_a_sitemap_that_declares_entities_is_refused(serve, listed):
    with pytest.raises(SourceError, match="the sitemap declares entities"):
        listed(serve("/map.xml", b'<!DOCTYPE urlset [<!ENTITY a "b">]>' + urlset().partition(b"?>")[2]))


def list_to(store, url, **gallery):
    source = Gallery(name="g", source={"type": "sitemap", "url": url}).source
    return list_gallery("g", source, store, LOOPBACK, **gallery)


def test_a_sitemap_that_is_cut_or_gone_leaves_the_old_list(serve, store, server):
    body = urlset(*(page(f"https://h.org/{n}.jpg") for n in range(9)))
    serve("/a.xml", body)
    url = serve("/index.xml", index("/a.xml"))
    list_to(store, url)
    serve("/a.xml", body[: len(body) // 2])
    with pytest.raises(SourceError, match="the sitemap is damaged in line 1"):
        list_to(store, url)
    serve("/a.xml", b"gone", status=404)
    with pytest.raises(SourceError, match=r"/a.xml: the document could not be fetched \(status 404\): gone"):
        list_to(store, url)
    assert read_links(store, "g").num_rows == 9


def test_a_sitemap_whose_pages_have_no_picture_is_said_aloud_with_both_numbers(serve, store):
    links = list_to(store, serve("/map.xml", urlset(*(page(f"https://h.org/{n}") for n in range(4)))))
    assert list_warnings(links) == ["g: the source has 4 entries, and 0 of them give a link"]


def test_no_more_than_max_images_are_listed_or_asked_for(serve, listed, server):
    serve("/a.xml", urlset(page("https://h.org/p", "https://h.org/1.jpg", "https://h.org/2.jpg")))
    url = serve("/index.xml", index("/a.xml", "/no-such.xml"))
    assert len(listed(url, max_images=2)) == 2
    assert "/no-such.xml" not in server.paths()
