"""Opt-outs by purpose, and removal for good, over real sockets and through all three steps."""

import json
from contextlib import suppress

import pytest

from imgdl_pipeline.core.catalog.build import build_catalog
from imgdl_pipeline.core.catalog.left_over import left_over
from imgdl_pipeline.core.catalog.removal import removals, remove, would_remove
from imgdl_pipeline.core.download.retry import Retry
from imgdl_pipeline.core.download.run import download_gallery
from imgdl_pipeline.core.model.links import Link, links_table
from imgdl_pipeline.core.storage.layout import ROBOTS_DAYS, images_path, links_path
from imgdl_pipeline.core.storage.lease import GalleryBusyError, Lease
from imgdl_pipeline_tests.support.pictures import jpeg
from imgdl_pipeline_tests.support.rows import NOW

AT_ONCE = Retry(attempts=2, first_s=0.0)


class Gallery:
    """A gallery on the tests' server, which is run with settings of a test's own."""

    def __init__(self, store, settings, name="g"):
        self.store, self.settings, self.name = store, settings, name

    def list(self, *urls, **attributes):
        links = [Link(url, attributes) for url in urls]
        self.store.write_table(links_path(self.name), links_table(links, NOW))

    def run(self, *, force=False, **changes):
        """Download and catalog; the catalog's rows by link."""
        settings = self.settings.overridden_by(changes)
        download_gallery(self.name, self.store, settings, retry=AT_ONCE, force=force)
        rows = build_catalog(self.name, self.store, settings).catalog.to_pylist()
        return {row["url"]: row for row in rows}

    def images(self):
        return [file.path for file in self.store.list(images_path(self.name))]


@pytest.fixture
def gallery(store, loopback):
    return Gallery(store, loopback)


def said(row):
    return {(each["signal"], each["value"], each["where"]) for each in json.loads(row["opt_outs"])}


def outcome(row):
    return row["status"], row["reason"]


OPTED_OUT, OK = ("refused", "opt_out"), ("ok", None)

HEADERS = [
    ("X_Robots_Tag", "noai", "x-robots-tag", {"ai_training"}),
    ("X_Robots_Tag", "noml", "x-robots-tag", {"ai_training"}),
    ("X_Robots_Tag", "noindex", "x-robots-tag", {"ai_training", "search"}),
    ("Tdm_Reservation", "1", "tdm-reservation", {"ai_training"}),
    ("Content_Usage", "train-ai=n", "content-usage", {"ai_training"}),
    ("Content_Usage", "search=n", "content-usage", {"search"}),
    ("X_Robots_Tag", "otherbot: noai", None, set()),
    ("Content_Usage", "train-ai=y", None, set()),
    ("Tdm_Reservation", "0", None, set()),
]


@pytest.mark.parametrize("purpose", ["ai_training", "search", "preservation"])
@pytest.mark.parametrize(("header", "value", "signal", "forbids"), HEADERS)
def test_a_header_refuses_the_purposes_that_it_forbids_and_is_always_recorded(
    gallery, server, header, value, signal, forbids, purpose
):
    url = server.serve("/a.jpg", jpeg(1), **{header.replace("_", "-"): value})
    gallery.list(url)
    row = gallery.run(purpose=purpose)[url]
    assert outcome(row) == (OPTED_OUT if purpose in forbids else OK)
    assert said(row) == ({(signal, value, "header")} if signal else set())
    assert bool(gallery.images()) is (purpose not in forbids)


def test_an_opt_out_that_is_not_heeded_is_recorded(gallery, server):
    url = server.serve("/a.jpg", jpeg(1), **{"X-Robots-Tag": "noai"})
    gallery.list(url)
    row = gallery.run(opt_out_headers=False)[url]
    assert outcome(row) == OK
    assert said(row) == {("x-robots-tag", "noai", "header")}


def test_robots_txt_can_refuse_a_use_before_any_request(gallery, server):
    rules = b"User-agent: *\nContent-Usage: train-ai=n\nContent-Usage: /free/ train-ai=y\nAllow: /\n"
    server.serve("/robots.txt", rules, Content_Type="text/plain")
    taken, free = server.serve("/a.jpg", jpeg(1)), server.serve("/free/b.jpg", jpeg(2))
    gallery.list(taken, free)
    rows = gallery.run(robots_txt=True)
    assert (outcome(rows[taken]), outcome(rows[free])) == (OPTED_OUT, OK)
    assert said(rows[taken]) == {("content-usage", "train-ai=n", "robots.txt")}
    assert "/a.jpg" not in server.paths()


def test_a_header_of_tdmrep_goes_before_the_hosts_file(gallery, server):
    rules = [{"location": "/", "tdm-reservation": 1}]
    server.serve("/.well-known/tdmrep.json", json.dumps(rules).encode(), Content_Type="application/json")
    reserved = server.serve("/a.jpg", jpeg(1))
    lifted = server.serve("/b.jpg", jpeg(2), **{"tdm-reservation": "0"})
    gallery.list(reserved, lifted)
    rows = gallery.run(robots_txt=True)
    assert (outcome(rows[reserved]), outcome(rows[lifted])) == (OPTED_OUT, OK)
    assert said(rows[reserved]) == {("tdm-reservation", "1", "tdmrep.json")}


def test_a_tdmrep_file_in_trouble_counts_as_none(gallery, server):
    server.serve("/.well-known/tdmrep.json", b"broken", 500)
    url = server.serve("/a.jpg", jpeg(1))
    gallery.list(url)
    assert outcome(gallery.run(robots_txt=True)[url]) == OK


XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:plus="http://ns.useplus.org/ldf/xmp/1.0/"><plus:DataMining><rdf:Bag>'
    "<rdf:li>http://ns.useplus.org/ldf/vocab/DMI-ALLOWED</rdf:li>"
    "<rdf:li>http://ns.useplus.org/ldf/vocab/{term}</rdf:li></rdf:Bag></plus:DataMining>"
    "</rdf:Description></rdf:RDF></x:xmpmeta>"
)


@pytest.mark.parametrize(
    ("term", "purpose", "result"),
    [
        ("DMI-PROHIBITED-AIMLTRAINING", "ai_training", OPTED_OUT),
        ("DMI-PROHIBITED-AIMLTRAINING", "search", OK),
        ("DMI-PROHIBITED", "search", OPTED_OUT),
        ("DMI-PROHIBITED", "preservation", OK),
        ("DMI-ALLOWED", "ai_training", OK),
    ],
)
def test_what_a_file_says_of_data_mining_is_heeded_once_it_is_read(gallery, server, term, purpose, result):
    url = server.serve("/a.jpg", jpeg(1, xmp=XMP.format(term=term).encode()))
    gallery.list(url)
    row = gallery.run(purpose=purpose)[url]
    assert outcome(row) == result
    assert said(row) == ({("data-mining", term, "file")} if term != "DMI-ALLOWED" else set())
    assert bool(gallery.images()) is (result == OK)


def test_another_purpose_judges_stored_images_again_without_a_request(gallery, server):
    url = server.serve("/a.jpg", jpeg(1), **{"X-Robots-Tag": "noai"})
    gallery.list(url)
    assert outcome(gallery.run(purpose="search")[url]) == OK
    server.requests.clear()
    row = gallery.run(purpose="ai_training")[url]
    assert outcome(row) == OPTED_OUT
    assert "noai" in row["detail"]
    assert server.paths() == []
    assert gallery.images() == []
    assert outcome(gallery.run(purpose="search")[url]) == OK, "what is free again is asked for again"


def test_an_owner_who_opts_out_later_is_heard_by_a_recheck_and_may_withdraw(gallery, server):
    url = server.serve("/a.jpg", jpeg(1))
    gallery.list(url)
    assert outcome(gallery.run()[url]) == OK
    server.serve("/a.jpg", jpeg(1), **{"X-Robots-Tag": "noai"})
    assert outcome(gallery.run(force=True)[url]) == OPTED_OUT
    assert gallery.images() == []
    server.serve("/a.jpg", jpeg(1))
    row = gallery.run(force=True)[url]
    assert (outcome(row), said(row)) == (OK, set())


def test_a_robots_txt_that_turns_against_a_use_counts_for_images_that_nobody_asks_for_again(gallery, server):
    taken, free = server.serve("/a.jpg", jpeg(1)), server.serve("/free/b.jpg", jpeg(2))
    gallery.list(taken, free)
    assert {outcome(row) for row in gallery.run(robots_txt=True).values()} == {OK}
    rules = b"User-agent: *\nContent-Usage: train-ai=n\nContent-Usage: /free/ train-ai=y\nAllow: /\n"
    server.serve("/robots.txt", rules, Content_Type="text/plain")
    new = server.serve("/free/c.jpg", jpeg(3))
    gallery.list(taken, free, new)
    server.requests.clear()
    gallery.store.delete_folder(ROBOTS_DAYS)  # as if the day were over
    rows = gallery.run(robots_txt=True)
    assert "/a.jpg" not in server.paths()
    assert [outcome(rows[url]) for url in (taken, free, new)] == [OPTED_OUT, OK, OK]
    assert said(rows[taken]) == {("content-usage", "train-ai=n", "robots.txt")}
    assert len(gallery.images()) == 2


def test_a_link_that_its_file_refuses_is_not_downloaded_again_while_the_file_is_the_same(gallery, server):
    prohibited = jpeg(1, xmp=XMP.format(term="DMI-PROHIBITED").encode())
    url, sent = server.url("/a.jpg"), []

    def answer(handler):
        is_known = handler.headers.get("If-None-Match") == '"1"'
        sent.append(304 if is_known else 200)
        handler.answer(sent[-1], b"" if is_known else prohibited, "image/jpeg", ETag='"1"')

    server.routes["/a.jpg"] = answer
    gallery.list(url)
    assert outcome(gallery.run()[url]) == OPTED_OUT
    row = gallery.run(force=True)[url]
    assert sent == [200, 304]
    assert (outcome(row), said(row)) == (OPTED_OUT, {("data-mining", "DMI-PROHIBITED", "file")})
    assert outcome(gallery.run(purpose="preservation")[url]) == OK, "what is not refused any more is fetched"
    assert sent == [200, 304, 200]


def test_what_was_removed_is_gone_everywhere_and_never_asked_for_again(gallery, store, loopback, server):
    other = Gallery(store, loopback, "h")
    urls = [server.serve(f"/{number}.jpg", jpeg(number)) for number in range(5)]
    copy = server.serve("/copy.jpg", jpeg(0))
    gallery.list(*urls, title="A title")
    other.list(copy, urls[3])
    rows = gallery.run()
    other.run()
    asked = removals(
        urls=[urls[0]],
        sha256s=[rows[urls[1]]["sha256"]],
        phashes=[rows[urls[2]]["phash"]],
        distance=0,
        reason="asked for",
    )
    before = gallery.images()
    assert {each.gallery: set(each.urls) for each in would_remove(store, asked)} == {
        "g": set(urls[:3]),
        "h": {copy},
    }
    assert gallery.images() == before
    remove(store, asked)
    assert list(left_over(store)) == []
    server.requests.clear()
    after, others = gallery.run(force=True), other.run(force=True)
    for row in (*(after[url] for url in urls[:3]), others[copy]):
        assert outcome(row) == ("refused", "removed")
        assert {row[name] for name in ("sha256", "phash", "exif", "embedded", "path", "bytes")} == {None}
        assert row["attributes"] == "{}"
    assert outcome(after[urls[3]]) == outcome(others[urls[3]]) == OK
    assert set(server.paths()) == {"/3.jpg", "/4.jpg"}


def test_a_removed_link_is_not_asked_for_by_another_spelling_or_a_redirect(gallery, store, server):
    url = server.serve("/a.jpg", jpeg(1))
    gallery.list(url)
    gallery.run()
    remove(store, removals(urls=[url], reason="asked for"))
    server.serve("/a.jpg", jpeg(2))
    port = server.server_port
    spellings = [
        *(f"HTTP://127.0.0.1:{port}/a.jpg", f"http://127.0.0.1:{port}/x/../a.jpg"),
        *(f"http://127.0.0.1:0{port}/a.jpg", server.redirect("/moved.jpg", "/a.jpg")),
    ]
    gallery.list(url, *spellings)
    server.requests.clear()
    rows = gallery.run()
    assert {outcome(rows[each]) for each in spellings} == {("refused", "removed")}
    assert "/a.jpg" not in server.paths()


def test_a_run_that_is_at_work_heeds_what_is_removed_meanwhile(gallery, store, server, monkeypatch):
    monkeypatch.setattr("imgdl_pipeline.core.storage.removed.REREAD_S", 0.0)
    asked = []
    urls = [server.url(f"/{number}.jpg") for number in range(4)]

    def answer(handler):
        asked.append(handler.path)
        if len(asked) == 2:  # one image is stored, one is on its way, and two have not been asked for
            with suppress(GalleryBusyError):
                remove(store, removals(urls=[urls[0], urls[3]], reason="asked for"))
        handler.answer(200, jpeg(int(handler.path[1])), "image/jpeg")

    for number in range(4):
        server.routes[f"/{number}.jpg"] = answer
    gallery.list(*urls)
    rows = gallery.run(workers=1)
    assert asked == ["/0.jpg", "/1.jpg", "/2.jpg"]
    assert [outcome(rows[url]) for url in urls] == [("refused", "removed"), OK, OK, ("refused", "removed")]
    assert len(gallery.images()) == 2
    assert rows[urls[0]]["sha256"] is None
    assert list(left_over(store)) == []


def test_an_opt_out_of_a_redirect_counts_for_the_link(gallery, server):
    server.serve("/real.jpg", jpeg(1))
    url = server.serve("/moved.jpg", b"", 302, Location="/real.jpg", **{"X-Robots-Tag": "noai"})
    gallery.list(url)
    row = gallery.run()[url]
    assert (outcome(row), said(row)) == (OPTED_OUT, {("x-robots-tag", "noai", "header")})
    assert "/real.jpg" not in server.paths()


def test_new_bytes_that_were_removed_are_not_kept(gallery, store, server):
    url, near = server.serve("/a.jpg", jpeg(1)), server.serve("/near.jpg", jpeg(1, quality=60))
    gallery.list(url)
    phash = gallery.run()[url]["phash"]
    remove(store, removals(phashes=[phash], distance=10, reason="asked for"))
    gallery.list(url, near)
    row = gallery.run()[near]
    assert outcome(row) == ("refused", "removed")
    assert gallery.images() == []


@pytest.mark.parametrize("name", ["urls", "sha256s", "phashes"])
def test_a_gallery_that_was_at_work_while_something_was_removed_is_done_by_its_next_run(
    gallery, store, server, name
):
    url = server.serve("/a.jpg", jpeg(1))
    gallery.list(url)
    row = gallery.run()[url]
    asked = removals(
        **{name: [{"urls": url, "sha256s": row["sha256"], "phashes": row["phash"]}[name]]}, reason="r"
    )
    with Lease(store, "g"), pytest.raises(GalleryBusyError, match="another run is at work on g"):
        remove(store, asked)
    server.requests.clear()
    assert outcome(gallery.run()[url]) == ("refused", "removed")
    assert (gallery.images(), server.paths(), list(left_over(store))) == ([], [], [])


def test_what_is_left_of_something_removed_is_found(gallery, store, server):
    url = server.serve("/a.jpg", jpeg(1))
    gallery.list(url)
    gallery.run()
    [path] = gallery.images()
    remove(store, removals(urls=[url], reason="asked for"))
    store.put(path, jpeg(1))
    assert [each.paths for each in left_over(store)] == [(path,)]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "name what to remove"),
        ({"urls": ["http://h.org/a.jpg"]}, "give the reason"),
        ({"sha256s": ["12"], "reason": "r"}, "is no sha256: give 64 hex digits"),
        ({"phashes": ["xyz"], "reason": "r"}, "is no phash: give 16 hex digits"),
        ({"urls": ["zzz"], "reason": "r"}, "is no link"),
    ],
)
def test_a_removal_that_means_nothing_is_refused_in_a_sentence(given, words):
    with pytest.raises(ValueError, match=words):
        removals(**given)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("list.csv", b"link,hash\nhttp://e/1,\n", "has no column url, sha256 or phash, but link, hash"),
        ("list.txt", b"\xff\xfe\x00", "is no text in UTF-8"),
    ],
)
def test_a_file_that_names_nothing_is_refused_with_its_name(tmp_path, name, data, words):
    file = tmp_path / name
    file.write_bytes(data)
    with pytest.raises(ValueError, match=f"{name} {words}"):
        removals(files=[file], reason="asked for")
