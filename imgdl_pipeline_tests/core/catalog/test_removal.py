"""Removal from galleries with shards; `test_rights.py` has the rest."""

import shutil

import pytest

from imgdl_pipeline.core.catalog.left_over import left_over
from imgdl_pipeline.core.catalog.removal import removals, remove, would_remove
from imgdl_pipeline.core.listing.reshard import reshard
from imgdl_pipeline.core.model.schemas import CATALOG, DOWNLOADS
from imgdl_pipeline.core.storage.checkpoints import Checkpoints
from imgdl_pipeline.core.storage.layout import (
    catalog_path,
    checkpoints_path,
    downloads_path,
    image_path,
    resharding_path,
)
from imgdl_pipeline.core.storage.lease import GalleryBusyError, Lease
from imgdl_pipeline.core.storage.ledger import download_table
from imgdl_pipeline.core.storage.parts import parts_of
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline_tests.support.datasets import Gallery, url_of
from imgdl_pipeline_tests.support.mortal_store import Killed, MortalStore
from imgdl_pipeline_tests.support.rows import row
from imgdl_pipeline_tests.support.shards import sharded


@pytest.fixture
def shards(any_store):
    return sharded(any_store)


def asked(**kinds):
    return removals(**kinds, reason="asked for")


def one_of(shards, name="g/0001"):
    """The number and the row of an image of a shard."""
    return next(iter(shards[name].rows.items()))


def rows_of(store, url, gallery="g"):
    """The rows that all tables of all shards have of a link."""
    tables = [
        store.read_table(path_of(part), schema)
        for part in parts_of(store, gallery)
        for path_of, schema in ((downloads_path, DOWNLOADS), (catalog_path, CATALOG))
    ]
    return [each for table in tables for each in table.to_pylist() if each["url"] == url]


@pytest.mark.parametrize("kind", ["urls", "sha256s", "phashes"])
def test_an_image_is_found_and_removed_in_its_shard(any_store, shards, kind):
    _, row_ = one_of(shards)
    entries = asked(**{kind: [row_[{"urls": "url", "sha256s": "sha256", "phashes": "phash"}[kind]]]})
    [found] = would_remove(any_store, entries)
    assert (found.gallery, found.urls, found.paths) == ("g/0001", (row_["url"],), (row_["path"],))
    assert any_store.get(row_["path"])
    assert remove(any_store, entries) == [found]
    assert any_store.get(row_["path"]) is None
    assert {each["reason"] for each in rows_of(any_store, row_["url"])} == {"removed"}
    assert len(rows_of(any_store, row_["url"])) == 2
    assert len(list(any_store.list("images"))) == 11
    assert list(left_over(any_store)) == []
    assert remove(any_store, entries) == []


def test_a_copy_of_the_bytes_in_another_shard_or_gallery_goes_too(any_store, shards):
    number, row_ = one_of(shards)
    Gallery(any_store, "other").put(number)
    other = shards["g/0002"]
    copied, its = next(iter(other.rows.items()))
    other.rows[copied] = {**its, "sha256": row_["sha256"]}
    other.write()
    found = remove(any_store, asked(urls=[row_["url"]]))
    assert [each.gallery for each in found] == ["g/0001", "g/0002", "other"]
    assert found[1].urls == (url_of(copied),)
    assert any_store.get(its["path"]) is None


@pytest.mark.parametrize("count", [1, 2, 5])
def test_after_another_number_of_shards_an_image_is_removed_from_the_folder_that_it_was_in(
    any_store, shards, count
):
    reshard(any_store, "g", count)
    _, row_ = one_of(shards)
    [found] = remove(any_store, asked(urls=[row_["url"]]))
    assert found.paths == (row_["path"],)
    assert row_["path"].startswith("images/g/0001/")
    assert any_store.get(row_["path"]) is None
    assert list(left_over(any_store)) == []


def test_rows_that_a_killed_run_of_a_shard_has_left_are_found(any_store, shards):
    path = image_path("g/0002", "https://late.org/1.jpg")
    any_store.put(path, b"late")
    late = row("https://late.org/1.jpg", path=path, sha256="1" * 64)
    Checkpoints(any_store, checkpoints_path("g/0002"), DOWNLOADS).add(download_table([late]))
    [found] = remove(any_store, asked(sha256s=["1" * 64]))
    assert (found.gallery, found.paths) == ("g/0002", (path,))
    assert any_store.get(path) is None
    assert list(left_over(any_store)) == []


@pytest.mark.parametrize("count", [None, 2])
def test_a_file_without_a_row_is_found_wherever_it_is(any_store, shards, count):
    """The folder may be that of a shard that is gone."""
    if count:
        reshard(any_store, "g", count)
    _, row_ = one_of(shards, "g/0002")
    data = any_store.get(row_["path"])
    remove(any_store, asked(urls=[row_["url"]]))
    stray = image_path("g/0002", "https://stray.org/1.jpg")
    any_store.put(stray, data)
    [found] = left_over(any_store)
    assert (found.gallery, found.urls, found.paths) == ("g", (), (stray,))


def test_a_busy_shard_is_named_and_the_others_are_done(any_store, shards):
    rows = [one_of(shards, name)[1] for name in sorted(shards)]
    with Lease(any_store, "g/0001"), pytest.raises(GalleryBusyError, match="at work on g/0001"):
        remove(any_store, asked(urls=[each["url"] for each in rows]))
    assert [any_store.get(each["path"]) is None for each in rows] == [True, False, True]
    assert [each.gallery for each in left_over(any_store)] == ["g/0001"]


def interrupted(tmp_path, count=5):
    """Yield the store after `reshard` was killed before each third of its writes."""
    shards = sharded(Store(str(tmp_path / "whole")))
    for writes in range(0, 1000, 3):
        root = str(tmp_path / str(writes))
        shutil.copytree(tmp_path / "whole", root)
        try:
            reshard(MortalStore(root, writes), "g", count)
        except Killed:
            yield Store(root), shards
        else:
            return


def test_whenever_reshard_was_interrupted_what_is_removed_is_gone_in_the_end(tmp_path):
    """Once: the new tables, which were written before the removal, brought the rows back."""
    refused = 0
    for store, shards in interrupted(tmp_path):
        _, row_ = one_of(shards)
        is_under_way = store.get(resharding_path("g")) is not None
        if is_under_way:
            refused += 1
            with pytest.raises(GalleryBusyError, match="run `imgdl reshard g 5` again"):
                remove(store, asked(urls=[row_["url"]]))
            assert list(left_over(store))
            reshard(store, "g", 5)
        remove(store, asked(urls=[row_["url"]]))
        assert list(left_over(store)) == []
        reshard(store, "g", 4)
        assert list(left_over(store)) == []
        assert {each["reason"] for each in rows_of(store, row_["url"])} == {"removed"}
        assert store.get(row_["path"]) is None
    assert refused > 3


def test_while_a_gallery_is_being_given_other_shards_its_new_tables_are_looked_at(any_store, shards):
    _, row_ = one_of(shards)
    table = any_store.read_table(catalog_path("g/0001"), CATALOG)
    unfinished = "catalog/gallery=g/_resharded/catalog.0004.parquet"
    any_store.write_table(unfinished, table)
    with Lease(any_store, "g"), pytest.raises(GalleryBusyError, match="at work on g:"):
        remove(any_store, asked(urls=[row_["url"]]))
    [found] = left_over(any_store)
    assert (found.gallery, found.urls, found.paths) == ("g", (row_["url"],), (unfinished,))
    remove(any_store, asked(urls=[row_["url"]]))
    assert list(left_over(any_store)) == []
    assert any_store.get(unfinished) is None
