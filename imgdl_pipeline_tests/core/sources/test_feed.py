import json
from datetime import datetime, timezone

import pytest

from imgdl_pipeline.config.galleries import Gallery
from imgdl_pipeline.core import sources
from imgdl_pipeline.core.listing.build import list_gallery, read_links
from imgdl_pipeline.core.model.links import Link, links_table
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.sources.client import SourceClient, SourceError
from imgdl_pipeline.core.sources.feed import FeedSource

RSS = """<?xml version="1.0" encoding="utf-8"?>
<rss version="2.0" xmlns:media="http://search.yahoo.com/mrss/" xmlns:dc="http://purl.org/dc/elements/1.1/"
     xmlns:cc="http://backend.userland.com/creativeCommonsRssModule">
<channel><title>Pictures</title><link>https://h.org/</link>
<item>
  <title>One &amp; all</title><link>https://h.org/one</link><guid>one</guid>
  <description>&lt;p&gt;A &lt;b&gt;hill&lt;/b&gt;.&lt;/p&gt;</description>
  <dc:creator>Ann</dc:creator><pubDate>Sun, 22 Nov 2026 06:00:00 GMT</pubDate><category>hills</category>
  <cc:license>https://creativecommons.org/licenses/by/4.0/</cc:license>
  <enclosure url="/one.jpg" length="1234" type="image/jpeg"/>
  <enclosure url="/one.mp3" length="9" type="audio/mpeg"/>
</item>
<item>
  <title>Two</title>
  <media:group>
    <media:content url="https://h.org/two-small.jpg" width="100" height="50" type="image/jpeg"/>
    <media:content url="https://h.org/two.jpg" width="1000" height="500" fileSize="777" medium="image">
      <media:hash algo="sha-1">ABC</media:hash><media:title>Two, large</media:title>
    </media:content>
    <media:content url="https://h.org/two.mp4" width="4000" type="video/mp4"/>
    <media:credit role="photographer">Bob</media:credit>
  </media:group>
  <media:license href="https://l.org/">Free</media:license>
  <media:thumbnail url="https://h.org/thumb.jpg"/>
  <media:keywords>a, b</media:keywords>
</item>
<item><title>Three</title><enclosure url="https://h.org/three"/></item>
<item><title>Nothing</title></item>
</channel></rss>"""

ATOM = """<feed xmlns="http://www.w3.org/2005/Atom" xml:base="https://h.org/album/">
<title>Album</title>
<entry xml:base="deep/"><id>urn:1</id><title type="html">&lt;i&gt;A&lt;/i&gt;</title>
  <link href="page.html"/><link rel="enclosure" type="image/jpeg" href="a.jpg" length="5"/>
  <link rel="license" href="https://l.org/"/><author><name>Ann</name></author>
  <updated>2026-11-22T06:00:00Z</updated><category term="sea"/><rights>(c) Ann</rights></entry>
<entry><id>urn:2</id><title>B</title><content type="image/jpeg" src="b.jpg"/></entry>
<entry><id>urn:3</id><link rel="enclosure" type="image/png" href="c.png"/></entry>
</feed>"""

RDF = """<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns="http://purl.org/rss/1.0/"
 xmlns:media="http://search.yahoo.com/mrss"><item><title>R</title>
<media:content url="https://h.org/r.jpg"/></item></rdf:RDF>"""

JSON_FEED = {
    "version": "https://jsonfeed.org/version/1.1",
    "authors": [{"name": "Ann"}],
    "items": [
        {
            "id": "1",
            "url": "https://h.org/1",
            "title": "One",
            "content_html": "<p>Hill</p>",
            "image": "/main.jpg",
            "date_published": "2026-11-22T06:00:00Z",
            "tags": ["hills"],
            "attachments": [
                {"url": "/a.jpg", "mime_type": "image/jpeg", "size_in_bytes": 5, "title": "A"},
                {"url": "/a.mp3", "mime_type": "audio/mpeg"},
            ],
        },
        "no item",
        {"id": "2"},
    ],
}


@pytest.fixture
def list_feed(server):
    def list_(body, content_type="application/xml", **keys):
        text = body if isinstance(body, bytes) else body.encode()
        url = server.serve("/feed", text, Content_Type=content_type)
        with SourceClient(DownloadSettings(), {}, sleep=lambda _: None) as client:
            return list(sources.list_links(FeedSource(type="feed", url=url, **keys), client))

    return list_


def test_rss_gives_its_enclosures_and_media_with_all_that_is_said_of_them(list_feed, server):
    one, two, three = list_feed(RSS)
    assert (one.url, one.attributes) == (
        server.url("/one.jpg"),
        {
            "title": "One & all",
            "caption": "A hill.",
            "author": "Ann",
            "license_url": "https://creativecommons.org/licenses/by/4.0/",
            "page": "https://h.org/one",
            "date": "2026-11-22T06:00:00+00:00",
            "id": "one",
            "tags": ["hills"],
            "size": 1234,
        },
    )
    assert (two.url, two.attributes) == (
        "https://h.org/two.jpg",
        {
            "title": "Two, large",
            "author": "Bob",
            "license": "Free",
            "license_url": "https://l.org/",
            "tags": ["a", "b"],
            "width": 1000,
            "height": 500,
            "size": 777,
            "sha1": "ABC",
        },
    )
    assert three.url == "https://h.org/three"


def test_atom_gives_its_enclosures_against_their_base(list_feed):
    first, second = list_feed(ATOM)
    assert (first.url, first.attributes) == (
        "https://h.org/album/deep/a.jpg",
        {
            "title": "A",
            "author": "Ann",
            "credit": "(c) Ann",
            "license_url": "https://l.org/",
            "page": "https://h.org/album/deep/page.html",
            "date": "2026-11-22T06:00:00Z",
            "id": "urn:1",
            "tags": ["sea"],
            "size": 5,
        },
    )
    assert second.url == "https://h.org/album/b.jpg"


def test_rdf_and_a_namespace_without_its_slash_are_read(list_feed):
    assert [link.url for link in list_feed(RDF)] == ["https://h.org/r.jpg"]


def test_a_json_feed_gives_attachments_and_main_images(list_feed, server):
    attached, main = list_feed(json.dumps(JSON_FEED), "application/feed+json")
    assert (attached.url, attached.attributes) == (
        server.url("/a.jpg"),
        {
            "title": "A",
            "caption": "Hill",
            "author": "Ann",
            "page": "https://h.org/1",
            "date": "2026-11-22T06:00:00Z",
            "id": "1",
            "tags": ["hills"],
            "size": 5,
        },
    )
    assert main.url == server.url("/main.jpg")


def test_no_more_than_max_images_are_listed(list_feed):
    assert len(list_feed(RSS, max_images=2)) == 2


def test_an_empty_feed_lists_nothing(list_feed):
    assert list_feed("<rss><channel/></rss>") == []


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.99])
def test_a_feed_that_is_cut_is_an_error_and_no_short_list(list_feed, kept):
    with pytest.raises(SourceError, match="the feed is damaged in line"):
        list_feed(RSS[: int(len(RSS) * kept)])


TEN = "".join(f"<item><title>{n}</title><enclosure url='https://h.org/{n}.jpg'/></item>\n" for n in range(10))
WHOLE = f"<rss><channel>\n{TEN}</channel></rss>"


@pytest.mark.parametrize(
    "damaged",
    [
        WHOLE[: WHOLE.index("/>", 300) + 2],
        WHOLE[: len(WHOLE) // 2].encode("utf-16"),
        (WHOLE[: len(WHOLE) // 2] + "\0").encode(),
        WHOLE.replace("<title>4", "<title><![CDATA["),
        WHOLE.replace("<title>4", "<title><!--"),
        WHOLE.replace("<title>4", "<title>" + "<b>" * 300),
        WHOLE.replace("<title>4", "</channel></rss>"),
        WHOLE.replace("url='https://h.org/4.jpg'", "url=https://h.org/4.jpg'"),
        "</rss>" + "<!---->" * 280 + "x",
    ],
    ids=[
        *(
            "cut after an element",
            "cut UTF-16",
            "cut and a NUL",
            "a CDATA without end",
            "a comment without end",
        ),
        *("elements within elements", "an end too early", "a broken attribute", "comments without end"),
    ],
)
def test_a_feed_that_lost_items_is_an_error_and_no_short_list(list_feed, damaged):
    text = damaged.decode("latin-1") if isinstance(damaged, bytes) else damaged
    with pytest.raises(SourceError, match=r"the feed is damaged in line|this is no feed"):
        list_feed(text.encode("latin-1") if isinstance(damaged, bytes) else damaged)


@pytest.mark.parametrize(
    "flaw",
    ["Th & ree", "&nbsp;", "&auml", "<br/>", "<no:prefix/>", "a\x01b", "a\0b", "x&y=z"],
)
def test_a_flaw_that_costs_nothing_is_repaired(list_feed, flaw):
    assert len(list_feed(WHOLE.replace("<title>4", f"<title>{flaw}"))) == 10


def test_what_comes_after_a_whole_feed_is_no_damage(list_feed):
    assert len(list_feed(WHOLE + "<!-- " + "x" * 3000 + " --><?done?>\n")) == 10


def test_no_password_of_the_feeds_own_url_is_in_what_it_lists(server):
    server.serve(
        "/feed", b"<rss><channel><item><link>/page</link><enclosure url='/a.jpg'/></item></channel></rss>"
    )
    url = server.url("/feed").replace("//", "//ann:hunter2@")
    with SourceClient(DownloadSettings(), {}) as client:
        [link] = sources.list_links(FeedSource(type="feed", url=url), client)
    assert "hunter2" not in str(link)
    assert link.url == server.url("/a.jpg")


@pytest.mark.parametrize(
    "item",
    [
        "<description>&lt;![foo bar</description><enclosure url='https://h.org/a.jpg'/>",
        "<x:y:z/><nobody:knows/><enclosure url='https://h.org/a.jpg'/>",
        "<link>http://[bad</link><enclosure url='http://[bad'/>",
    ],
)
def test_an_odd_item_is_listed_all_the_same(list_feed, item):
    assert len(list_feed(f"<rss><channel><item>{item}</item></channel></rss>")) == 1


@pytest.mark.parametrize(
    "changes", [{"authors": 7}, {"content_html": {}}, {"tags": 7}, {"image": "http://[bad"}]
)
def test_an_odd_item_of_a_json_feed_is_listed_all_the_same(list_feed, changes):
    feed = {**JSON_FEED, "items": [{"image": "https://h.org/a.jpg", **changes}]}
    assert len(list_feed(json.dumps(feed))) == 1


@pytest.mark.parametrize(
    "body",
    ["<html><body>Log in</body></html>", "{}", '{"version": 7}', "", "no feed", "{broken", "<", "\x00"],
)
def test_what_is_no_feed_is_an_error_that_shows_it(list_feed, body):
    with pytest.raises(SourceError, match=r"GET http://127.0.0.1:\d+/feed: this is no feed.* \(status 200\)"):
        list_feed(body)


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))


@pytest.mark.parametrize(
    "declaration",
    [
        f'<!ENTITY l0 "ha">{LAUGHS}',
        '<!ENTITY x SYSTEM "file:///etc/hostname">',
        '<!ENTITY % p SYSTEM "http://h/">',
    ],
    ids=["a billion laughs", "a file", "a parameter"],
)
def test_a_feed_that_declares_entities_is_refused(list_feed, declaration):
    body = f"<!DOCTYPE rss [{declaration}]><rss><channel><item><title>&l9;&x;</title></item></channel></rss>"
    with pytest.raises(SourceError, match="declares entities"):
        list_feed(body)


def test_the_old_doctype_of_rss_is_no_entity_and_is_not_asked_for(list_feed, server):
    doctype = f'<!DOCTYPE rss PUBLIC "-//N//DTD RSS 0.91//EN" "{server.url("/rss.dtd")}">'
    body = f'{doctype}<rss><channel><item><enclosure url="https://h.org/a.jpg"/></item></channel></rss>'
    assert len(list_feed(body)) == 1
    assert server.paths() == ["/feed"]


def test_a_feed_that_has_not_changed_is_not_sent_again_and_its_list_stays(server, store):
    def answer(handler):
        if handler.headers.get("If-None-Match") == '"v1"':
            handler.answer(304, b"")
        else:
            handler.answer(200, RSS.encode(), "application/rss+xml", ETag='"v1"')

    server.routes["/feed"] = answer

    def list_again(**keys):
        source = {"type": "feed", "url": server.url("/feed"), **keys}
        return list_gallery("g", Gallery(name="g", source=source).source, store, DownloadSettings())

    first, second = list_again(), list_again()
    assert [headers.get("If-None-Match") for _, headers in server.requests] == [None, '"v1"']
    assert second["url"].equals(first["url"])
    assert second["listed_at"][0].as_py() > first["listed_at"][0].as_py()
    assert read_links(store, "g").select(["url", "listed_at"]).equals(second)
    assert list_again(max_images=1).num_rows == 1  # other keys list other links: asked for anew
    store.write_table(
        "links/gallery=g/links.parquet", links_table([Link("other")], datetime.now(timezone.utc))
    )
    assert list_again(max_images=1)["url"].to_pylist() != ["other"]  # nor does an ETag speak of another list
    assert b"h.org" not in store.get("links/gallery=g/_validators.json")
    store.delete(["links/gallery=g/links.parquet"])
    assert list_again(max_images=1).num_rows == 1
