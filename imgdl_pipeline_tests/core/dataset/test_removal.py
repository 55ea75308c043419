import json
from contextlib import suppress
from datetime import datetime, timezone

import pyarrow as pa
import pytest

from imgdl_pipeline.core.catalog.removal import removals, remove
from imgdl_pipeline.core.dataset.manifest import INDEX, Manifest
from imgdl_pipeline.core.dataset.parts import read_index
from imgdl_pipeline.core.dataset.removal import left_in_datasets, remove_from_datasets
from imgdl_pipeline.core.listing.reshard import reshard
from imgdl_pipeline.core.model.schemas import NEAR_DUPLICATES, REMOVED
from imgdl_pipeline.core.storage.layout import (
    NEAR_DUPLICATES_PATH,
    REMOVED_PATH,
    catalog_path,
    dataset_draft_path,
    dataset_leases_path,
    dataset_path,
    replaced_dataset_path,
)
from imgdl_pipeline.core.storage.lease import GalleryBusyError, Lease
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline_tests.support.datasets import (
    FORMATS,
    Gallery,
    assert_whole,
    files_of,
    folder_of,
    numbers_in,
    parts_of,
    picture_of,
    url_of,
    urls_in,
)
from imgdl_pipeline_tests.support.shards import sharded

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
        {
            "gallery": gallery,
            "url": url_of(number),
            "phash": f"{number:016x}",
            "group": 1,
            "distance": 0,
            "representative": number == 1,
        }
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
    assert run.images == len(urls_in(any_gallery.store)) == 5
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


def test_a_busy_dataset_does_not_keep_the_others_from_being_brought_up_to_date(store):
    """Once: the first one that is busy ends the removal, as it does not in `remove`."""
    for name in ("a", "b", "c"):
        Gallery(store, name).put(1, 2).export()
    remove(store, asked(1))
    with Lease(store, "the dataset of a", folder=dataset_leases_path("a")):
        with pytest.raises(GalleryBusyError):
            remove_from_datasets(store)
    assert [each.gallery for each in left_in_datasets(store)] == ["a"]


def test_a_dataset_whose_catalog_is_gone_does_not_keep_what_was_removed(store):
    """Once: an export needs a catalog, and its error keeps the other datasets as they are, too."""
    for name in ("a", "b"):
        Gallery(store, name).put(1, 2).export()
    remove(store, asked(1))
    store.delete([catalog_path("a")])
    with suppress(StoreError):
        remove_from_datasets(store)
    assert [each.gallery for each in left_in_datasets(store)] == []


def left_of(store, number):
    return [file.path for file in store.list("") if picture_of(number)[:60] in store.get(file.path)]


@pytest.mark.parametrize(
    "place", [dataset_draft_path, replaced_dataset_path], ids=["a draft", "a folder aside"]
)
@pytest.mark.parametrize("is_first", [True, False], ids=["the first export", "an update"])
def test_what_a_killed_export_left_behind_is_removed(gallery, place, is_first):
    """Once: nobody looks there, and the check says that nothing is left."""
    gallery.put(1, 2)
    if not is_first:
        gallery.export(where="width = 102")
    gallery.store.put(f"{place('g')}/00000.tar", picture_of(1))
    remove(gallery.store, asked(1))
    remove_from_datasets(gallery.store)
    assert left_of(gallery.store, 1) == []


def test_what_a_killed_export_left_behind_in_an_object_store_is_removed(s3_gallery):
    """Once: a folder without a manifest is passed over, and so are files that a manifest does not name."""
    s3_gallery.put(1, 2)
    s3_gallery.store.put(f"{dataset_path('g')}/00000.tar", picture_of(1))
    remove(s3_gallery.store, asked(1))
    remove_from_datasets(s3_gallery.store)
    assert left_of(s3_gallery.store, 1) == []


def test_a_dataset_that_an_interrupted_swap_moved_aside_is_looked_at(gallery):
    """Once: without a folder, there seems to be no dataset; the next export brings it back."""
    gallery.put(1, 2).export()
    folder_of(gallery.store).rename(gallery.store.local_path(replaced_dataset_path("g")))
    list_by_hand(gallery.store, url=url_of(1))
    assert [each.gallery for each in left_in_datasets(gallery.store)] == ["g"]


def test_a_dataset_without_its_index_is_not_called_clean(gallery):
    """Once: an index that is gone is read as one without rows."""
    gallery.put(1, 2).export()
    (folder_of(gallery.store) / INDEX).unlink()
    list_by_hand(gallery.store, url=url_of(1))
    with suppress(StoreError):  # an error would do as well
        assert [each.gallery for each in left_in_datasets(gallery.store)] == ["g"]


def test_a_group_whose_representative_was_removed_has_another_one(gallery):
    """Once: only the row is deleted, so that `where: representative` loses the whole group."""
    gallery.put(1, 2, 3, 4)
    write_near_duplicates(gallery.store, 1, 2, 3)
    gallery.export(where="representative")
    assert numbers_in(assert_whole(gallery.store), "webdataset") == [1, 4]
    remove(gallery.store, asked(1))
    remove_from_datasets(gallery.store)
    assert len(numbers_in(assert_whole(gallery.store), "webdataset")) == 2


def test_a_picture_that_has_lost_its_company_is_in_no_group(gallery):
    """Once: only images that have company have a row, says the contract."""
    gallery.put(1, 2)
    write_near_duplicates(gallery.store, 1, 2)
    remove(gallery.store, asked(1))
    remove_from_datasets(gallery.store)
    assert gallery.store.read_table(NEAR_DUPLICATES_PATH, NEAR_DUPLICATES).num_rows == 0


def test_what_was_removed_leaves_the_dataset_of_its_shard_only(any_store, format_):
    shards = sharded(any_store)
    for shard in shards.values():
        shard.export(format=format_)
    before = {name: files_of(any_store, name) for name in shards}
    number = next(iter(shards["g/0001"].rows))
    remove(any_store, asked(number))
    assert [each.gallery for each in left_in_datasets(any_store)] == ["g/0001"]
    assert remove_from_datasets(any_store) == ["g/0001"]
    left = [each for each in shards["g/0001"].rows if each != number]
    assert numbers_in(assert_whole(any_store, "g/0001"), format_) == left
    for name in ("g/0000", "g/0002"):
        assert files_of(any_store, name) == before[name]
    assert list(left_in_datasets(any_store)) == []


def test_a_stale_dataset_after_resharding_does_not_keep_what_was_removed(any_store):
    """Its rows are those of the shard as it was: other shards' catalogs have them now."""
    shards = sharded(any_store)
    for shard in shards.values():
        shard.export()
    reshard(any_store, "g", 2)
    kept = [next(iter(shards[name].rows)) for name in ("g/0000", "g/0001")]
    remove(any_store, asked(*kept))
    remove_from_datasets(any_store)
    assert list(left_in_datasets(any_store)) == []
    for name in ("g/0000", "g/0001"):
        assert not set(kept) & set(numbers_in(assert_whole(any_store, name), "webdataset"))


def test_the_dataset_and_drafts_of_a_shard_without_a_catalog_do_not_keep_what_was_removed(store):
    shards = sharded(store)
    shards["g/0001"].export()
    number = next(iter(shards["g/0001"].rows))
    store.put(f"{dataset_draft_path('g/0002')}/00000.tar", picture_of(number))
    list_by_hand(store, url=url_of(number))
    store.delete([catalog_path("g/0001")])
    remove_from_datasets(store)
    assert left_of(store, number) == [shards["g/0001"].rows[number]["path"]]
    assert list(left_in_datasets(store)) == []


def test_near_duplicates_lose_rows_of_a_gallery_with_shards(store):
    shards = sharded(store)
    number = next(iter(shards["g/0001"].rows))
    write_near_duplicates(store, *range(12))
    remove(store, asked(number))
    assert [each.gallery for each in left_in_datasets(store)] == ["g"]
    remove_from_datasets(store)
    assert list(left_in_datasets(store)) == []
