import json
from datetime import datetime, timezone

import pyarrow as pa
import pytest

from imgdl_pipeline.core.catalog.removal import removals, remove
from imgdl_pipeline.core.dataset.manifest import INDEX, Manifest
from imgdl_pipeline.core.dataset.parts import read_index
from imgdl_pipeline.core.dataset.removal import left_in_datasets, remove_from_datasets
from imgdl_pipeline.core.model.schemas import NEAR_DUPLICATES, REMOVED
from imgdl_pipeline.core.storage.layout import NEAR_DUPLICATES_PATH, REMOVED_PATH, dataset_path
from imgdl_pipeline_tests.support.datasets import (
    FORMATS,
    Gallery,
    assert_whole,
    files_of,
    numbers_in,
    parts_of,
    picture_of,
    url_of,
)

NOW = datetime(2026, 11, 22, tzinfo=timezone.utc)


@pytest.fixture(params=FORMATS)
def format_(request):
    return request.param


def asked(*numbers):
    return removals(urls=[url_of(number) for number in numbers], reason="asked for")


def list_by_hand(store, **entry):
    """Put an entry on the list without removing anything, as a copy of another store's list does."""
    rows = [{"reason": "by hand", "removed_at": NOW, **entry}]
    store.write_table(REMOVED_PATH, pa.Table.from_pylist(rows, schema=REMOVED))


def write_near_duplicates(store, *numbers, gallery="g"):
    rows = [
        {"gallery": gallery, "url": url_of(number), "group": 1, "distance": 0, "representative": number == 1}
        for number in numbers
    ]
    store.write_table(NEAR_DUPLICATES_PATH, pa.Table.from_pylist(rows, schema=NEAR_DUPLICATES))


def assert_nothing_of(store, *numbers):
    """Check that no file of the store but the catalog's and the list's names a picture or holds its bytes."""
    for file in store.list("datasets"):
        data = store.get(file.path)
        for number in numbers:
            assert picture_of(number)[:60] not in data, file.path
            assert url_of(number).encode() not in data, file.path
    for gallery in {file.path.split("/")[1] for file in store.list("datasets")}:
        index = read_index(store, dataset_path(gallery), Manifest.read(store, gallery))
        assert not {url_of(number) for number in numbers} & set(index["url"].to_pylist())


def test_what_was_removed_leaves_the_dataset_and_all_that_is_beside_it(any_gallery, format_):
    any_gallery.put(*range(1, 7)).export(format=format_)
    write_near_duplicates(any_gallery.store, 1, 3, 5)
    remove(any_gallery.store, asked(3))
    assert remove_from_datasets(any_gallery.store) == ["g"]
    files = assert_whole(any_gallery.store)
    assert numbers_in(files, format_) == [1, 2, 4, 5, 6]
    assert "5 images of the gallery" in parts_of(files)["README.md"].decode()
    near = any_gallery.store.read_table(NEAR_DUPLICATES_PATH, NEAR_DUPLICATES)
    assert near["url"].to_pylist() == [url_of(1), url_of(5)]
    if format_ != "parquet":  # whose texts are compressed
        assert_nothing_of(any_gallery.store, 3)
    assert list(left_in_datasets(any_gallery.store)) == []
    assert remove_from_datasets(any_gallery.store) == []


def test_the_other_shards_keep_their_bytes(any_gallery):
    any_gallery.put(*range(1, 7)).export()
    before = parts_of(files_of(any_gallery.store))
    remove(any_gallery.store, asked(3))
    remove_from_datasets(any_gallery.store)
    after = parts_of(assert_whole(any_gallery.store))
    assert {part for part in before if after.get(part) != before[part]} == {
        *("00001.tar", "README.md", "CREDITS.csv", "ATTRIBUTION.md", INDEX)
    }


@pytest.mark.parametrize("name", ["url", "sha256", "phash"])
def test_what_is_left_in_a_dataset_is_found(any_gallery, name):
    any_gallery.put(1, 2, 3).export()
    row = any_gallery.rows[2]
    list_by_hand(any_gallery.store, **{name: row[name]}, **({"distance": 0} if name == "phash" else {}))
    [found] = left_in_datasets(any_gallery.store)
    assert (found.gallery, found.urls, found.paths) == ("g", (url_of(2),), ())
    assert remove_from_datasets(any_gallery.store) == ["g"]
    assert numbers_in(assert_whole(any_gallery.store), "webdataset") == [1, 3]
    assert list(left_in_datasets(any_gallery.store)) == []


def test_a_near_picture_is_found_within_its_distance(gallery):
    gallery.put(1, phash="00000000000000ff").put(2, phash="0000000000000fff").export()
    list_by_hand(gallery.store, phash="000000000000003f", distance=2)
    [found] = left_in_datasets(gallery.store)
    assert found.urls == (url_of(1),)


def test_without_a_list_nothing_is_read_and_nothing_is_left(any_gallery):
    any_gallery.put(1).export()
    write_near_duplicates(any_gallery.store, 1)
    before = files_of(any_gallery.store)
    assert list(left_in_datasets(any_gallery.store)) == []
    assert remove_from_datasets(any_gallery.store) == []
    assert files_of(any_gallery.store) == before
    assert any_gallery.store.read_table(NEAR_DUPLICATES_PATH, NEAR_DUPLICATES).num_rows == 1


def test_all_datasets_are_brought_up_to_date_whatever_galleries_are_configured(any_store):
    """The settings are the manifest's: nobody needs to have the gallery in a file any more."""
    for name, format_ in zip(("a", "b", "c"), FORMATS, strict=True):
        gallery = Gallery(any_store, name).put(1, 2)
        gallery.export(format=format_, caption="attributes.title", where="width > 1")
    Gallery(any_store, "d").put(2).export()
    remove(any_store, asked(1))
    assert sorted(remove_from_datasets(any_store)) == ["a", "b", "c"]
    for name, format_ in zip(("a", "b", "c"), FORMATS, strict=True):
        assert numbers_in(assert_whole(any_store, name), format_) == [2]
        settings = Manifest.read(any_store, name).settings
        assert (settings.where, settings.caption) == ("width > 1", "attributes.title")


def test_a_copy_of_removed_bytes_under_another_link_is_gone_too(gallery):
    gallery.put(1, 2)
    gallery.rows[3] = {**gallery.rows[1], "url": url_of(3), "duplicate_of": url_of(1)}
    gallery.write().export()
    sha256 = gallery.rows[1]["sha256"]
    remove(gallery.store, removals(sha256s=[sha256], reason="asked for"))
    remove_from_datasets(gallery.store)
    assert numbers_in(assert_whole(gallery.store), "webdataset") == [2]


def test_a_dataset_of_which_all_was_removed_is_empty_and_whole(any_gallery, format_):
    any_gallery.put(1, 2).export(format=format_)
    remove(any_gallery.store, asked(1, 2))
    remove_from_datasets(any_gallery.store)
    assert numbers_in(assert_whole(any_gallery.store), format_) == []


@pytest.mark.parametrize("moment", [1, 4, 6], ids=lambda moment: f"at image {moment}")
def test_what_is_removed_during_an_export_is_not_in_what_it_leaves(any_gallery, format_, moment):
    any_gallery.put(*range(1, 7))
    removed = []

    def remove_meanwhile(progress):
        if progress.done == moment and not removed:
            removed.append(remove(any_gallery.store, asked(2)))

    run = any_gallery.export(remove_meanwhile, format=format_)
    assert numbers_in(assert_whole(any_gallery.store), format_) == [1, 3, 4, 5, 6]
    assert run.manifest.images == run.rows.num_rows == 5
    assert list(left_in_datasets(any_gallery.store)) == []


def test_an_export_of_a_catalog_that_still_has_what_was_removed_leaves_it_out(any_gallery, format_):
    any_gallery.put(1, 2, 3)
    list_by_hand(any_gallery.store, url=url_of(2))
    run = any_gallery.export(format=format_)
    assert numbers_in(assert_whole(any_gallery.store), format_) == [1, 3]
    assert run.missing == ()


def test_a_folder_that_is_no_dataset_is_left_alone(gallery):
    gallery.put(1, 2).export()
    gallery.store.put("datasets/other/notes.txt", b"somebody's")
    list_by_hand(gallery.store, url=url_of(1))
    assert remove_from_datasets(gallery.store) == ["g"]
    assert gallery.store.get("datasets/other/notes.txt") == b"somebody's"


def test_the_manifest_after_a_removal_counts_what_is_left(gallery):
    gallery.put(1, 2, 3).export()
    remove(gallery.store, asked(1))
    remove_from_datasets(gallery.store)
    fields = json.loads(files_of(gallery.store)["manifest.json"])
    assert fields["images"] == 2
    assert sum(each["images"] for each in fields["files"]) == 2
