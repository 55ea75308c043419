import json
import os

import pytest

from imgdl_pipeline.config.galleries import Gallery
from imgdl_pipeline.core.catalog.build import build_catalog
from imgdl_pipeline.core.download.run import download_gallery
from imgdl_pipeline.core.listing.build import Lengths, lengths, list_gallery, read_links, unseen_links
from imgdl_pipeline.core.sources import SourceError
from imgdl_pipeline.core.storage.layout import links_path
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
