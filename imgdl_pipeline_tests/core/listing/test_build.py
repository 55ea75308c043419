import json
import os

import pytest

from imgdl_pipeline.config.galleries import Gallery
from imgdl_pipeline.core.catalog.build import build_catalog
from imgdl_pipeline.core.download.run import download_gallery
from imgdl_pipeline.core.listing.build import (
    Lengths,
    lengths,
    list_gallery,
    list_warnings,
    read_links,
    unseen_links,
)
from imgdl_pipeline.core.model import links as links_module
from imgdl_pipeline.core.sources import SourceError
from imgdl_pipeline.core.storage.layout import links_path, validators_path
from imgdl_pipeline.core.storage.object_store import StoreError


@pytest.fixture
def list_file(tmp_path, store, loopback):
    """Writes a link list and lists the gallery of it."""

    def list_(*urls, **gallery):
        (tmp_path / "links.txt").write_text("\n".join(urls))
        return list_source(
            {"type": "url_list", "path": str(tmp_path / "links.txt")}, store, loopback, **gallery
        )

    return list_


def list_source(source, store, settings, **gallery):
    parsed = Gallery.model_validate({"name": "g", "source": source})
    return list_gallery("g", parsed.source, store, settings, **gallery)


def urls(store):
    return read_links(store, "g")["url"].to_pylist()


def test_a_new_list_takes_the_place_of_the_old_one(list_file, store):
    list_file("a", "b")
    assert list_file("b", "c", "b")["url"].to_pylist() == ["b", "c"]
    assert urls(store) == ["b", "c"]


def test_a_source_that_suddenly_lists_nothing_fails_and_the_old_list_stays(list_file, store):
    list_file("a", "b")
    words = r"lists nothing, and listed 2 links on 20\d\d-.*; the old list stays, unless .* allow_empty"
    with pytest.raises(SourceError, match=words):
        list_file()
    assert urls(store) == ["a", "b"]


def test_a_gallery_that_allows_it_may_become_empty_which_is_said_aloud(list_file, store, caplog):
    list_file("a")
    list_file(allow_empty=True)
    assert urls(store) == []
    assert "the list is empty now, as allow_empty lets it be" in caplog.text


def test_a_first_list_may_be_empty_which_is_said_aloud(list_file, store, caplog):
    assert list_file().num_rows == 0
    assert "g: the source lists nothing" in caplog.text


def test_a_source_that_fails_at_its_second_page_leaves_the_old_list(list_file, store, server, loopback):
    list_file("a", "b")
    page = {
        "continue": {"gcmcontinue": "2"},
        "query": {"pages": [{"pageid": 1, "title": "File:A.jpg", "imageinfo": [
            {"url": "https://h.org/A.jpg", "mime": "image/jpeg"}]}]},
        "batchcomplete": True,
    }  # fmt: skip

    def answer(handler):
        fails = "gcmcontinue=2" in handler.path
        handler.answer(400 if fails else 200, b"<html>oh" if fails else json.dumps(page).encode())

    server.routes["/api"] = answer
    source = {"type": "wikimedia_commons", "category": "X", "api_url": server.url("/api")}
    with pytest.raises(SourceError, match=r"GET .*gcmcontinue=2.*\(status 400\): <html>oh"):
        list_source(source, store, loopback)
    assert urls(store) == ["a", "b"]


def test_without_a_list_it_says_what_to_do(store):
    with pytest.raises(StoreError, match="materialize gallery_links first"):
        read_links(store, "g")


def test_what_a_killed_writer_left_is_swept(list_file, store, tmp_path):
    half = tmp_path / "store" / (links_path("g") + "#1")
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    list_file("a")
    assert half.exists()  # its writer may be at work
    os.utime(half, (0, 0))
    list_file("a")
    assert not half.exists()


def test_what_left_the_list_before_a_catalog_had_it_is_not_forgotten(list_file, store, loopback, server):
    """Monday's catalog is there; Tuesday's run was killed before its own; on Wednesday a link is gone."""
    old, short, stays = (server.url(f"/{name}.jpg") for name in ("old", "short", "stays"))

    def listed_at():
        return read_links(store, "g")["listed_at"][0].as_py()

    list_file(old, stays)
    download_gallery("g", store, loopback)
    build_catalog("g", store, loopback)
    list_file(old, short, stays)
    tuesday = listed_at()
    download_gallery("g", store, loopback)
    list_file(stays)
    wednesday = listed_at()
    assert len(unseen_links(store, "g")) == 1
    download_gallery("g", store, loopback)
    rows = {row["url"]: row for row in build_catalog("g", store, loopback).catalog.to_pylist()}
    assert (rows[short]["first_seen"], rows[short]["last_seen"]) == (tuesday, tuesday)
    assert rows[old]["last_seen"] == tuesday
    assert rows[stays]["last_seen"] == wednesday
    assert len(unseen_links(store, "g")) == 0
    list_file(stays)
    assert len(unseen_links(store, "g")) == 0


def test_a_list_knows_how_long_the_one_before_was(list_file, store):
    list_file("a", "b", "c")
    assert lengths(store, "g") == Lengths(3, None)
    list_file("a")
    assert lengths(store, "g") == Lengths(1, 3)
    list_file("a", "b")
    assert lengths(store, "g") == Lengths(2, 1)


@pytest.mark.parametrize(
    ("lists", "lost"), [((5, 10), 0.5), ((10, 5), 0.0), ((0, 0), 0.0), ((0, 4), 1.0), ((4, None), 0.0)]
)
def test_a_list_loses_what_it_is_shorter_by(lists, lost):
    assert Lengths(*lists).lost == lost


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["a", "", "b"], ["1 of 3 rows have no url"]),
        (["", " "], ["2 of 2 rows have no url", "g: the source has 2 entries, and 0 of them give a link"]),
        (["a"], []),
    ],
)
def test_rows_without_a_link_are_in_the_lists_warnings_with_both_numbers(
    tmp_path, store, loopback, rows, words
):
    path = tmp_path / "links.csv"
    path.write_text("\n".join(["url,title", *(f"{row},x" for row in rows)]))
    links = list_source({"type": "url_list", "path": str(path)}, store, loopback)
    assert [each.removeprefix(f"{path}: ") for each in list_warnings(links)] == words


def test_a_list_that_was_empty_from_the_start_has_no_entries_to_warn_of(list_file):
    assert list_warnings(list_file()) == []


def test_long_attributes_are_cut_which_is_in_the_lists_warnings(tmp_path, store, loopback, monkeypatch):
    monkeypatch.setattr("imgdl_pipeline.core.listing.build.ATTRIBUTES_CHARS", 2_000)
    monkeypatch.setattr(links_module, "ATTRIBUTES_CHARS", 2_000)
    path = tmp_path / "links.csv"
    path.write_text(f"url,title,text\na,short,short\nb,kept,{'x' * 3_000}\n")
    links = list_source({"type": "url_list", "path": str(path)}, store, loopback)
    assert list_warnings(links) == [
        "g: 1 links have attributes of more than 2000 characters (ATTRIBUTES_CHARS); "
        "their long texts are cut, or all of them left out"
    ]
    cut = json.loads(read_links(store, "g")["attributes"][1].as_py())
    assert (cut["title"], len(cut["text"])) == ("kept", links_module.CUT_CHARS)


@pytest.mark.parametrize(
    ("bound", "value", "words"),
    [
        ("MAX_LINKS", 2, r"there are more than 2 distinct links \(MAX_LINKS\)"),
        ("MAX_LIST_BYTES", 3, r"take more than 3 bytes \(MAX_LIST_BYTES\)"),
    ],
)
def test_a_list_that_is_too_large_is_an_error_that_names_the_bound_and_the_old_list_stays(
    list_file, store, monkeypatch, bound, value, words
):
    list_file("a")
    monkeypatch.setattr(links_module, bound, value)
    with pytest.raises(SourceError, match=f"the list is too large: .*{words}"):
        list_file("aa", "bb", "cc")
    assert urls(store) == ["a"]


def test_what_has_not_changed_is_listed_again_with_its_new_time_and_its_warnings_are_gone(
    store, server, loopback
):
    def answer(handler):
        is_known = handler.headers.get("If-None-Match") == '"1"'
        body = b"" if is_known else b"<rss><channel><item><enclosure url='/a.jpg'/></item></channel></rss>x"
        handler.answer(304 if is_known else 200, body, "text/xml", ETag='"1"')

    server.routes["/feed"] = answer
    source = {"type": "feed", "url": server.url("/feed?token=s3cr3t")}
    first = list_source(source, store, loopback)
    assert len(list_warnings(first)) == 1
    assert b"s3cr3t" not in store.get(validators_path("g"))
    second = list_source(source, store, loopback)
    assert (second["url"], list_warnings(second)) == (first["url"], [])
    assert second["listed_at"][0].as_py() > first["listed_at"][0].as_py()
    assert lengths(store, "g") == Lengths(1, 1)


def test_validators_that_are_damaged_are_not_used(store, server, loopback):
    server.serve("/feed", b"<rss><channel><item><enclosure url='/a.jpg'/></item></channel></rss>", ETag='"1"')
    source = {"type": "feed", "url": server.url("/feed")}
    list_source(source, store, loopback)
    for damaged in (b"{", b"[]", b"{}", b'{"of": 1}', b"\xff"):
        store.put(validators_path("g"), damaged)
        assert list_source(source, store, loopback).num_rows == 1
        assert "If-None-Match" not in server.requests[-1][1]


def test_a_source_that_takes_too_long_fails_in_words_and_the_old_list_stays(
    list_file, store, server, loopback
):
    list_file("a")
    server.routes["/feed"] = lambda handler: server.release.wait(30)
    words = r"^the source did not list its links within 0\.3 s; list_timeout allows more$"
    with pytest.raises(SourceError, match=words):
        list_source({"type": "feed", "url": server.url("/feed")}, store, loopback, list_timeout=0.3)
    assert urls(store) == ["a"]
