import json

import pytest

from imgdl_pipeline.core.dataset.manifest import INDEX, Manifest
from imgdl_pipeline.core.dataset.parts import INDEXED, read_index
from imgdl_pipeline.core.dataset.rows import key_of
from imgdl_pipeline.core.storage.layout import dataset_path
from imgdl_pipeline_tests.support.datasets import (
    FORMATS,
    assert_whole,
    files_of,
    numbers_in,
    parts_of,
    samples_in,
    url_of,
)


@pytest.fixture(params=FORMATS)
def format_(request):
    return request.param


def test_a_dataset_has_exactly_the_pictures_that_are_ok_in_the_catalogs_order(any_gallery, format_):
    any_gallery.put(5, 3, 9, 1, 0).export(format=format_)
    assert numbers_in(assert_whole(any_gallery.store), format_) == [5, 3, 9, 1, 0]


def test_captions_are_where_there_are_some(gallery, format_):
    gallery.put(1).put(2, attributes="{}").export(format=format_, caption="attributes.title")
    captions = [caption for _, caption, _ in samples_in(files_of(gallery.store), format_).values()]
    assert captions == ["Title 1", None]


@pytest.mark.parametrize(
    "caption", ["😀 \U0010ffff é", "one\ntwo\r\nthree", "a\0b", '"}\n{"x": "', "\u2028\x85"]
)
def test_hostile_captions_stay_one_caption(gallery, format_, caption):
    attributes = json.dumps({"title": f"<{caption}>"}, ensure_ascii=False)
    gallery.put(1, attributes=attributes).put(2).export(format=format_, caption="attributes.title")
    samples = samples_in(files_of(gallery.store), format_)
    assert [text for _, text, _ in samples.values()] == [f"<{caption}>", "Title 2"]


def test_the_parts_have_the_contracts_names(gallery):
    gallery.put(1, 2, 3)
    texts = {"README.md", "CREDITS.csv", "ATTRIBUTION.md", INDEX, "manifest.json"}
    keys = [key_of(url_of(number)) for number in (1, 2, 3)]
    for settings, names in {
        "webdataset": {"00000.tar", "00001.tar"},
        "parquet": {"data/train-00000.parquet", "data/train-00001.parquet"},
        "imagefolder": {"train/metadata.jsonl", *(f"train/{key}.jpg" for key in keys)},
    }.items():
        gallery.export(format=settings)
        assert set(assert_whole(gallery.store)) == names | texts


def test_an_imagefolders_rows_are_the_catalogs_after_file_name_and_caption(gallery):
    gallery.put(1, 2).export(format="imagefolder", caption="attributes.title")
    lines = files_of(gallery.store)["train/metadata.jsonl"].decode().splitlines()
    rows = [json.loads(line) for line in lines]
    assert list(rows[0])[:3] == ["file_name", "caption", "url"]
    assert list(rows[0])[2:] == gallery.catalog().column_names
    assert [row["file_name"] for row in rows] == [f"{key_of(url_of(number))}.jpg" for number in (1, 2)]
    assert [row["caption"] for row in rows] == ["Title 1", "Title 2"]
    assert rows[0]["fetched_at"] == "2026-11-22T01:00:00+00:00"


def test_the_index_names_every_picture_and_its_shard(any_gallery):
    any_gallery.put(1, 2, 3).export()
    manifest = Manifest.read(any_gallery.store, "g")
    index = read_index(any_gallery.store, dataset_path("g"), manifest)
    assert index.schema.equals(INDEXED)
    rows = [any_gallery.rows[number] for number in (1, 2, 3)]
    assert index.to_pylist() == [
        {
            "url": row["url"],
            "sha256": row["sha256"],
            "phash": row["phash"],
            "shard": place // 2,
            "is_there": True,
        }
        for place, row in enumerate(rows)
    ]


def test_the_manifest_counts_the_pictures_of_each_part(gallery):
    manifest = gallery.put(1, 2, 3).export().manifest
    assert {part: file.images for part, file in manifest.files.items() if file.images} == {
        "00000.tar": 2,
        "00001.tar": 1,
    }
    assert manifest.images == 3


CHANGES = {
    "another picture": {"version": 1},
    "another caption": {"attributes": '{"title": "New"}'},
    "another licence": {"license_id": "CC0-1.0"},
    "a copy of another one": {"duplicate_of": url_of(1)},
    "an opt-out": {"opt_outs": '[{"signal": "tdm-reservation", "value": "1", "where": "header"}]'},
}

NO_CHANGES = {
    "another day": {"last_seen": None},
    "another answer": {"etag": '"2"', "attempts": 3, "elapsed_s": 1.5},
    "another attribute": {"attributes": '{"title": "Title 3", "likes": 9}'},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_only_shards_whose_pictures_changed_are_written(any_gallery, change):
    any_gallery.put(1, 2, 3, 4, 5, 6).export(caption="attributes.title")
    before = parts_of(files_of(any_gallery.store))
    run = any_gallery.put(3, **change).export(caption="attributes.title")
    after = parts_of(assert_whole(any_gallery.store))
    assert {part for part in after if part.endswith(".tar") and after[part] != before[part]} == {"00001.tar"}
    assert (run.written, run.is_new) == (1, True)


@pytest.mark.parametrize("change", NO_CHANGES.values(), ids=NO_CHANGES)
def test_what_changes_with_every_run_writes_no_shard(gallery, change):
    gallery.put(1, 2, 3, 4).export(caption="attributes.title")
    assert gallery.put(3, **change).export(caption="attributes.title").written == 0


def test_new_pictures_fill_the_last_shard_then_new_ones(any_gallery, format_):
    any_gallery.put(1, 2, 3).export(format=format_)
    run = any_gallery.put(4, 5).export(format=format_)
    assert numbers_in(assert_whole(any_gallery.store), format_) == [1, 2, 3, 4, 5]
    assert run.written == 2


def test_pictures_that_leave_are_gone_from_their_shard_only(any_gallery, format_):
    any_gallery.put(1, 2, 3, 4, 5).export(format=format_)
    run = any_gallery.drop(4).export(format=format_)
    assert numbers_in(assert_whole(any_gallery.store), format_) == [1, 2, 3, 5]
    assert run.written == (0 if format_ == "imagefolder" else 1)


def test_a_shard_that_nothing_is_left_of_is_gone(any_gallery):
    any_gallery.put(1, 2, 3, 4, 5).export()
    run = any_gallery.drop(3, 4).export()
    assert [part for part in run.manifest.files if part.endswith(".tar")] == ["00000.tar", "00002.tar"]
    assert run.written == 0
    assert numbers_in(assert_whole(any_gallery.store), "webdataset") == [1, 2, 5]


def test_another_order_in_the_catalog_moves_no_picture_to_another_shard(gallery):
    gallery.put(1, 2, 3, 4).export()
    gallery.rows = dict(reversed(gallery.rows.items()))
    gallery.write().export()
    assert numbers_in(assert_whole(gallery.store), "webdataset") == [2, 1, 4, 3]


def test_a_dataset_of_nothing_is_whole(any_gallery, format_):
    run = any_gallery.put(1).export(format=format_, where="false")
    assert (run.images, run.written) == (0, 0)
    assert samples_in(assert_whole(any_gallery.store), format_) == {}


def test_without_its_index_a_dataset_is_packed_from_the_start(gallery):
    gallery.put(1, 2, 3, 4, 5).export()
    gallery.drop(1).export()
    (gallery.store.local_path(dataset_path("g")) / INDEX).unlink()
    gallery.export()
    assert numbers_in(assert_whole(gallery.store), "webdataset") == [2, 3, 4, 5]


@pytest.mark.parametrize("format_", ["webdataset", "parquet"])
def test_no_shard_is_empty(any_gallery, format_):
    """Once: a missing image is new in every run, and gets a shard of its own when all are full."""
    any_gallery.put(1, 2, 3, 4)
    any_gallery.lose(1)
    any_gallery.export(format=format_)
    files = any_gallery.export(format=format_).manifest.files
    shards = [
        each for part, each in files.items() if part.endswith((".tar", "0.parquet", "1.parquet", "2.parquet"))
    ]
    assert [each.part for each in shards if not each.images] == []


def test_a_missing_image_does_not_move_to_another_shard(gallery):
    """Once: the second run publishes another version though nothing has changed."""
    gallery.put(1, 2, 3, 4, 5)
    gallery.lose(1)
    gallery.export()
    assert not gallery.export().is_new


def test_a_file_that_somebody_deleted_is_written_anew(any_gallery, format_):
    """Once: on a disk, every export fails; in an object store, the manifest names what is gone."""
    any_gallery.put(1, 2, 3).export(format=format_)
    suffixes = ("00000.tar", "00000.parquet", ".jpg")
    name = next(name for name in sorted(files_of(any_gallery.store)) if name.endswith(suffixes))
    any_gallery.store.delete([f"{dataset_path('g')}/{name}"])
    any_gallery.export(format=format_)
    assert numbers_in(assert_whole(any_gallery.store), format_) == [1, 2, 3]


def test_the_card_loads_the_shards_whatever_their_names_are(any_gallery):
    any_gallery.put(1, 2, 3, 4, 5).export()
    any_gallery.drop(3, 4).export()
    assert 'glob.glob("datasets/g/*.tar")' in parts_of(assert_whole(any_gallery.store))["README.md"].decode()


def test_the_files_that_readers_look_for_keep_their_names(any_gallery):
    """Fails in an object store: the contract has `train/metadata.jsonl`, and the hub `README.md`."""
    any_gallery.put(1, 2).export(format="imagefolder")
    any_gallery.put(3).export(format="imagefolder")
    assert {"train/metadata.jsonl", "README.md", "CREDITS.csv"} <= set(files_of(any_gallery.store))
