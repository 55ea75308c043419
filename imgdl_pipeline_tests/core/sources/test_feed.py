import json
import sys
from contextlib import contextmanager
from datetime import datetime, timezone

import pytest

from imgdl_pipeline.config.galleries import Gallery
from imgdl_pipeline.core import sources
from imgdl_pipeline.core.listing.build import list_gallery, list_warnings, read_links
from imgdl_pipeline.core.model.links import Link, links_table
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.sources import feed
from imgdl_pipeline.core.sources.client import BARREN_PAGES, SourceClient, SourceError
from imgdl_pipeline.core.sources.feed import FeedSource
from imgdl_pipeline_tests.support.server import WebServer

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


# Flaws that users have reported


def rss(*items):
    return f"<rss><channel>{''.join(items)}</channel></rss>"


def enclosed(url, title="t"):
    return f'<item><title>{title}</title><enclosure url="{url}" type="image/jpeg"/></item>'


def test_a_raw_ampersand_stays_in_the_url_and_the_title(list_feed):
    [link] = list_feed(rss(enclosed("https://h.org/p.jpg?ct=image/jpeg&id=1&size=large", "AT&T opens a lab")))
    assert link.url == "https://h.org/p.jpg?ct=image/jpeg&id=1&size=large"
    assert link.attributes["title"] == "AT&T opens a lab"


@pytest.mark.parametrize("prefix", ["media", "itunes"])
def test_a_prefix_that_is_not_declared_is_known_all_the_same(list_feed, prefix):
    element = {"media": '<media:content url="{}" medium="image"/>', "itunes": '<itunes:image href="{}"/>'}
    item = f"<item><title>one</title>{element[prefix].format('https://h.org/a.jpg')}</item>"
    [link] = list_feed(rss(item), images=["enclosures", "thumbnails"])
    assert (link.url, link.attributes["title"]) == ("https://h.org/a.jpg", "one")


def test_media_that_is_not_declared_still_tells_of_its_picture(list_feed):
    item = """<item><media:group><media:content url="https://h.org/s.jpg" width="10"/>
      <media:content url="https://h.org/l.jpg" width="900"/>
      <media:title>L</media:title></media:group></item>"""
    [link] = list_feed(rss(item))
    assert (link.url, link.attributes["width"], link.attributes["title"]) == ("https://h.org/l.jpg", 900, "L")


@pytest.mark.parametrize(
    ("encoding", "content_type"),
    [
        ("iso-8859-1", "application/xml; charset=iso-8859-1"),
        ("iso-8859-1", "application/rss+xml"),
        ("utf-8", 'text/xml; charset="UTF-8"'),
        ("utf-16", "text/xml"),
    ],
)
def test_a_feed_is_read_in_its_encoding_wherever_that_is_named(list_feed, encoding, content_type):
    body = '<?xml version="1.0"?>' + rss(enclosed("https://h.org/é.jpg", "café 1"))
    [link] = list_feed(body.encode(encoding), content_type)
    assert (link.url, link.attributes["title"]) == ("https://h.org/é.jpg", "café 1")


def test_a_bad_byte_costs_one_character_of_one_title(list_feed):
    body = rss(enclosed("https://h.org/1.jpg", "cut ?"), enclosed("https://h.org/2.jpg", "whole é"))
    data = ('<?xml version="1.0" encoding="UTF-8"?>' + body).encode().replace(b"cut ?", b"cut \xc3")
    assert [(link.url[-5:], link.attributes["title"]) for link in list_feed(data)] == [
        ("1.jpg", "cut \ufffd"),
        ("2.jpg", "whole é"),
    ]


@pytest.mark.parametrize(
    ("title", "meant"),
    [
        ("a<br>b", "a b"),
        ("a<br/>b", "a b"),
        ("<![CDATA[AT&T <b>now</b> &amp; then]]>", "AT&T now & then"),
        ("&lt;b&gt;R&amp;amp;D&lt;/b&gt;", "R&D"),
        ("caf&eacute; &mdash; bar", "café — bar"),
    ],
)
def test_a_title_is_read_as_a_person_sees_it(list_feed, title, meant):
    [link] = list_feed(rss(enclosed("https://h.org/a.jpg", title)))
    assert link.attributes["title"] == meant


def test_xhtml_in_atom_keeps_its_words_apart(list_feed):
    div = '<div xmlns="http://www.w3.org/1999/xhtml">{}</div>'
    body = f"""<feed xmlns="http://www.w3.org/2005/Atom"><entry>
      <title type="xhtml">{div.format("One<br/>two")}</title>
      <content type="xhtml">{div.format("<p>A hill.</p><p>A sea.</p>")}</content>
      <link rel="enclosure" href="https://h.org/a.jpg"/></entry></feed>"""
    [link] = list_feed(body)
    assert (link.attributes["title"], link.attributes["caption"]) == ("One two", "A hill. A sea.")


def list_to(store, url, settings=None, **keys):
    source = {"type": "feed", "url": url, **keys}
    parsed = Gallery(name="g", source=source).source
    return list_gallery("g", parsed, store, settings or DownloadSettings())


def urls(store):
    return read_links(store, "g")["url"].to_pylist()


@pytest.mark.parametrize(
    "damaged",
    [
        rss(enclosed("https://h.org/a.jpg")) + "<script>count()</script>",
        rss(enclosed("https://h.org/a.jpg", "Two<br>lines")),
        rss('<item><enclosure url="https://h.org/a.jpg" url="https://h.org/a.jpg"/></item>'),
        rss('<item><media:content url="https://h.org/a.jpg"/></item>'),
    ],
    ids=["markup after its end", "a br", "an attribute twice", "an undeclared prefix"],
)
def test_a_damaged_feed_that_is_whole_is_listed_and_its_damage_is_in_the_lists_warnings(
    server, store, damaged
):
    links = list_to(store, server.serve("/feed", damaged.encode()))
    assert urls(store) == ["https://h.org/a.jpg"]
    [warning] = list_warnings(links)
    assert f"GET {server.url('/feed')}: the feed is damaged, but whole: " in warning


def test_a_feed_that_is_cut_short_leaves_the_old_list(server, store):
    url = server.serve("/feed", WHOLE.encode())
    list_to(store, url)
    before = read_links(store, "g")
    for cut in (WHOLE[:200], WHOLE[: len(WHOLE) // 2], WHOLE[:-8], WHOLE[: WHOLE.index("<item>")]):
        server.serve("/feed", cut.encode())
        with pytest.raises(SourceError, match="the feed is damaged in line"):
            list_to(store, url)
    assert read_links(store, "g").equals(before)


def test_a_feed_that_is_too_long_is_an_error_that_says_how_long_it_may_be(list_feed, monkeypatch):
    monkeypatch.setattr(feed, "XML_BYTES", 2_000)
    assert list_feed(rss(enclosed("https://h.org/a.jpg")))
    with pytest.raises(SourceError, match="the answer is longer than 2000 bytes"):
        list_feed(rss(enclosed("https://h.org/a.jpg", "x" * 2_000)))


# Where pictures are looked for


PLACES = """<rss xmlns:media="http://search.yahoo.com/mrss/" xmlns:itunes="http://www.itunes.com/dtds/podcast-1.0.dtd"
 xmlns:content="http://purl.org/rss/1.0/modules/content/"><channel>
<item><title>t</title><enclosure url="https://h.org/enclosed.jpg"/>
<media:group><media:thumbnail url="https://h.org/thumb.jpg" width="7" height="5"/></media:group>
<itunes:image href="https://h.org/itunes.jpg"/>
<description>&lt;p&gt;&lt;img src="https://h.org/described.jpg?a=1&amp;amp;b=2"&gt;</description>
<content:encoded><![CDATA[<p>Hi <IMG alt="x" SRC='/encoded.jpg?a=1&b=2'>
<img><img src="data:image/png;base64,AA"><img src=" https://h.org/last.jpg "></p>]]></content:encoded>
</item></channel></rss>"""


@pytest.mark.parametrize(
    ("places", "paths"),
    [
        (["enclosures"], ["/enclosed.jpg"]),
        (["thumbnails"], ["/thumb.jpg", "/itunes.jpg"]),
        (["content"], ["/described.jpg?a=1&b=2", "/encoded.jpg?a=1&b=2", "/last.jpg"]),
        (["content", "enclosures"], ["/enclosed.jpg", "/described.jpg?a=1&b=2", "/encoded.jpg?a=1&b=2"]),
    ],
)
def test_pictures_are_found_where_the_settings_say(list_feed, server, places, paths):
    found = [link.url for link in list_feed(PLACES, images=places)]
    expected = [f"https://h.org{path}" for path in paths]
    expected = [server.url("/encoded.jpg?a=1&b=2") if "encoded" in url else url for url in expected]
    assert found[: len(expected)] == expected
    assert found[len(expected) :] in ([], ["https://h.org/last.jpg"])


def test_a_thumbnails_size_is_its_own(list_feed):
    thumb, _ = list_feed(PLACES, images=["thumbnails"])
    assert (thumb.attributes["width"], thumb.attributes["height"]) == (7, 5)


@pytest.mark.parametrize(
    "content",
    [
        '<content type="html">&lt;img src="a.jpg"&gt;</content>',
        '<content type="html"><![CDATA[<img src="a.jpg">]]></content>',
        '<content type="xhtml"><div xmlns="http://www.w3.org/1999/xhtml"><img src="a.jpg"/></div></content>',
        '<content><h:p xmlns:h="http://www.w3.org/1999/xhtml"><h:img src="a.jpg"/></h:p></content>',
        '<summary type="html">&lt;img src="a.jpg"&gt;</summary>',
    ],
    ids=["escaped", "CDATA", "XHTML", "XHTML with a prefix", "a summary"],
)
def test_the_img_elements_of_atom_are_found_against_their_base(list_feed, content):
    entry = f'<entry xml:base="https://h.org/blog/"><id>1</id><title>t</title>{content}</entry>'
    [link] = list_feed(f'<feed xmlns="http://www.w3.org/2005/Atom">{entry}</feed>', images=["content"])
    assert (link.url, link.attributes["title"]) == ("https://h.org/blog/a.jpg", "t")


def test_a_json_feed_has_all_three_places_too(list_feed, server):
    item = {"image": "/i.jpg", "banner_image": "/b.jpg", "content_html": "<img src='/c.jpg?a=1&amp;b=2'>"}
    body = json.dumps({"version": "https://jsonfeed.org/version/1", "items": [item]})
    for place, path in {"enclosures": "/i.jpg", "thumbnails": "/b.jpg", "content": "/c.jpg?a=1&b=2"}.items():
        assert [link.url for link in list_feed(body, images=[place])] == [server.url(path)]


@contextmanager
def counted_calls(name):
    """Count the Python calls in a module."""
    counts = [0]

    def count(frame, event, argument):
        counts[0] += event == "call" and frame.f_code.co_filename == name

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield counts
    finally:
        sys.setprofile(before)


def test_an_item_of_thousands_of_pictures_takes_linear_work(list_feed):
    def work(number):
        many = "".join(
            f'<media:content url="https://h.org/{n}.jpg"><media:title>{n}</media:title></media:content>'
            for n in range(number)
        )
        item = f"<item><title>t</title>{many}<media:credit>Ann</media:credit></item>"
        body = f'<rss xmlns:media="http://search.yahoo.com/mrss/"><channel>{item}</channel></rss>'
        with counted_calls(feed.__file__) as calls:
            links = list_feed(body)
        assert len(links) == number
        assert links[-1].attributes == {"title": str(number - 1), "author": "Ann"}
        return calls[0]

    assert work(2_000) < 2.1 * work(1_000)


# Pages


RSS_ITEM = '<item><guid>{url}</guid><enclosure url="{url}"/></item>'


def serve_pages(server, pages, follow=lambda number: number + 1, kind="rss", item=RSS_ITEM):
    """A feed of several pages, each of two pictures."""

    def answer(handler):
        number = int(handler.path.partition("=")[2] or 1)
        names = [f"https://h.org/{number}-{place}.jpg" for place in "ab"]
        following = f"/feed?page={follow(number)}" if number < pages else None
        if kind == "json":
            items = [{"id": name, "image": name} for name in names]
            data = {"version": "https://jsonfeed.org/version/1.1", "items": items, "next_url": following}
            handler.answer(200, json.dumps(data).encode(), "application/feed+json")
            return
        link = f'<{{}}link xmlns:atom="http://www.w3.org/2005/Atom" rel="next" href="{following}"/>'
        if kind == "rss":
            items = [item.format(url=name) for name in names]
            body = rss(link.format("atom:") if following else "", *items)
        else:
            entries = "".join(
                f'<entry><id>{name}</id><link rel="enclosure" href="{name}"/></entry>' for name in names
            )
            own = link.format("") if following else ""
            body = f'<feed xmlns="http://www.w3.org/2005/Atom">{own}{entries}</feed>'
        handler.answer(200, body.encode(), "application/xml")

    server.routes["/feed"] = answer
    return server.url("/feed")


@pytest.mark.parametrize("kind", ["rss", "atom", "json"])
def test_next_pages_are_read_up_to_max_pages_and_more_is_said_aloud(server, store, kind):
    url = serve_pages(server, 5, kind=kind)
    links = list_to(store, url, max_pages=3)
    assert urls(store) == [f"https://h.org/{page}-{place}.jpg" for page in (1, 2, 3) for place in "ab"]
    assert list_warnings(links) == ["the feed goes on after 3 pages; max_pages allows more"]
    links = list_to(store, url, max_pages=5)
    assert (len(urls(store)), list_warnings(links)) == (10, [])
    assert len(list_to(store, url, max_pages=9)) == 10
    assert list_warnings(list_to(store, url)) == ["the feed goes on after 1 pages; max_pages allows more"]


def test_a_next_link_of_an_entry_is_not_the_feeds(list_feed, server):
    entry = (
        '<entry><link rel="next" href="/other"/><link rel="enclosure" href="https://h.org/a.jpg"/></entry>'
    )
    assert len(list_feed(f'<feed xmlns="http://www.w3.org/2005/Atom">{entry}</feed>', max_pages=9)) == 1
    assert server.paths() == ["/feed"]


@pytest.mark.parametrize("kind", ["rss", "atom", "json"])
def test_pages_that_go_in_circles_are_an_error_and_the_old_list_stays(server, store, kind):
    url = serve_pages(server, 2, kind=kind)
    list_to(store, url, max_pages=100)
    serve_pages(server, 10**9, follow=lambda number: number % 3 + 1, kind=kind)
    with pytest.raises(SourceError, match=r"20 pages in a row bring nothing new \(BARREN_PAGES\)"):
        list_to(store, url, max_pages=100)
    assert len(server.requests) == 2 + 3 + BARREN_PAGES
    assert len(urls(store)) == 4


@pytest.mark.parametrize(
    "item",
    [
        '<item><title>Untitled</title><enclosure url="{url}"/></item>',
        '<item><link>https://h.org/</link><enclosure url="{url}"/></item>',
        '<item><enclosure url="{url}"/></item>',
    ],
    ids=["one title", "one link", "nothing but a picture"],
)
def test_pages_of_items_that_look_alike_are_no_circle_while_their_pictures_are_new(server, store, item):
    list_to(store, serve_pages(server, 25, item=item), max_pages=30)
    assert len(urls(store)) == 50


def test_a_next_page_that_fails_fails_the_list(server, store):
    url = serve_pages(server, 2)
    first = server.routes["/feed"]
    server.routes["/feed"] = lambda handler: (
        handler.answer(404, b"gone") if "page=2" in handler.path else first(handler)
    )
    with pytest.raises(SourceError, match=r"page=2: the document could not be fetched \(status 404\): gone"):
        list_to(store, url, max_pages=2)


def test_a_next_page_may_not_lie_inside(server, store):
    with WebServer() as inside:
        link = f'<link rel="next" href="{inside.url("/feed")}"/>'
        body = f'<feed xmlns="http://www.w3.org/2005/Atom">{link}</feed>'
        with pytest.raises(SourceError, match="not a public address"):
            list_to(store, server.serve("/feed", body.encode()), max_pages=2)
        assert inside.requests == []


def test_a_next_page_at_a_name_is_not_trusted_though_the_feed_has_the_same_name(server, store):
    """A name may lead elsewhere when it is looked up again; an address may not."""
    url = serve_pages(server, 2)
    assert len(list_to(store, url, max_pages=2)) == 4
    with pytest.raises(SourceError, match="not a public address"):
        list_to(store, url.replace("127.0.0.1", "localhost"), max_pages=2)


# Entries without a link


@pytest.mark.parametrize(
    "body",
    [
        rss(
            "<item><title>a</title></item><item><title>b</title></item><item><link>https://h.org/</link></item>"
        ),
        rss(
            *(f'<item><guid>{n}</guid><enclosure url="/{n}.mp3" type="audio/mpeg"/></item>' for n in range(3))
        ),
        json.dumps({"version": "https://jsonfeed.org/version/1.1", "items": [{"id": n} for n in "abc"]}),
    ],
    ids=["no enclosure", "other enclosures", "a JSON feed"],
)
def test_a_feed_whose_entries_have_no_link_is_said_aloud_with_both_numbers(server, store, body):
    links = list_to(store, server.serve("/feed", body.encode()))
    assert list_warnings(links) == ["g: the source has 3 entries, and 0 of them give a link"]


def test_a_feed_of_some_pictures_has_no_warning(server, store):
    body = rss(enclosed("https://h.org/a.jpg"), "<item><title>no picture</title></item>")
    assert list_warnings(list_to(store, server.serve("/feed", body.encode()))) == []


def test_a_feed_whose_entries_lost_their_links_leaves_the_old_list(server, store):
    url = server.serve("/feed", WHOLE.encode())
    list_to(store, url)
    server.serve("/feed", WHOLE.replace("enclosure", "closure").encode())
    with pytest.raises(SourceError, match="lists nothing, and listed 10 links"):
        list_to(store, url)
    assert len(urls(store)) == 10
