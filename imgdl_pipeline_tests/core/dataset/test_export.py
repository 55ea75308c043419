import errno
import json
import os
import shutil

import pyarrow.parquet as pq
import pytest

from imgdl_pipeline.core.dataset.export import DatasetRun
from imgdl_pipeline.core.dataset.manifest import TEXTS, Manifest
from imgdl_pipeline.core.dataset.where import WhereError
from imgdl_pipeline.core.model.counted import Counted
from imgdl_pipeline.core.storage.layout import dataset_draft_path, dataset_leases_path, dataset_path
from imgdl_pipeline.core.storage.lease import RELEASED, GalleryBusyError, Lease
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline_tests.support import mortal
from imgdl_pipeline_tests.support.datasets import (
    FORMATS,
    Gallery,
    assert_whole,
    copy_of,
    files_of,
    folder_of,
    inodes,
    numbers_in,
    parts_of,
    samples_in,
    strays,
    url_of,
    urls_in,
    wrong_files,
)


@pytest.fixture(params=FORMATS)
def format_(request):
    return request.param


def test_a_run_says_what_it_made(gallery):
    run = gallery.put(1, 2, 3).export()
    assert (run.manifest.images, run.written, run.missing, run.is_new) == (3, 2, (), True)
    assert (run.images, run.licenses) == (3, {None: 3})
    assert urls_in(gallery.store) == [url_of(number) for number in (1, 2, 3)]
    assert run.bytes == sum(
        len(data) for name, data in files_of(gallery.store).items() if name != "manifest.json"
    )
    assert run.seconds >= 0
    assert run.warnings == []


def test_every_picture_counts_whether_written_or_taken_over(any_gallery, format_):
    seen: list[Counted] = []
    any_gallery.put(1, 2, 3, 4, 5).export(seen.append, format=format_)
    assert [(each.done, each.total) for each in seen] == [(number, 5) for number in range(1, 6)]
    assert str(seen[-1]) == "5 of 5 images are in the dataset"
    seen.clear()
    any_gallery.put(6).export(seen.append, format=format_)
    assert (seen[-1].done, seen[-1].total) == (6, 6)


def test_two_exports_into_two_stores_give_the_same_bytes(any_gallery, format_, tmp_path):
    any_gallery.put(*range(7))
    other = Gallery(copy_of(any_gallery.store, tmp_path / "other"))
    runs = [each.export(format=format_, caption="attributes.title") for each in (any_gallery, other)]
    assert files_of(any_gallery.store) == files_of(other.store)
    assert runs[0].manifest.digest == runs[1].manifest.digest


def test_the_same_history_gives_the_same_bytes(any_gallery, format_, tmp_path):
    other = Gallery(Store(str(tmp_path / "other")))
    for each in (any_gallery, other):
        each.put(*range(7)).export(format=format_)
        each.drop(2).put(8, 9).put(4, license_id="CC0-1.0").export(format=format_)
    assert_whole(any_gallery.store)
    here, there = parts_of(files_of(any_gallery.store)), parts_of(files_of(other.store))
    here.pop("train/metadata.jsonl", None)  # names files, which have other names in an object store
    there.pop("train/metadata.jsonl", None)
    assert here == there


def test_when_nothing_changed_nothing_is_written(gallery, format_):
    gallery.put(1, 2, 3).export(format=format_)
    before, folder = inodes(folder_of(gallery.store)), folder_of(gallery.store).stat()
    run = gallery.export(format=format_)
    assert (run.written, run.is_new) == (0, False)
    assert inodes(folder_of(gallery.store)) == before
    after = folder_of(gallery.store).stat()
    assert (after.st_ino, after.st_mtime_ns) == (folder.st_ino, folder.st_mtime_ns)


def test_when_nothing_changed_nothing_is_stored_in_an_object_store(s3_gallery, format_, monkeypatch):
    s3_gallery.put(1, 2, 3).export(format=format_)
    before = files_of(s3_gallery.store)
    puts, put = [], s3_gallery.store.put
    monkeypatch.setattr(s3_gallery.store, "put", lambda path, data: puts.append(path) or put(path, data))
    assert not s3_gallery.export(format=format_).is_new
    assert [path for path in puts if not path.startswith(dataset_leases_path("g"))] == []
    assert files_of(s3_gallery.store) == before


def test_shards_that_did_not_change_stay_the_same_files(gallery):
    gallery.put(1, 2, 3, 4).export()
    before = inodes(folder_of(gallery.store))
    gallery.put(5).export()
    after = inodes(folder_of(gallery.store))
    assert [after[name] for name in ("00000.tar", "00001.tar")] == [
        before[name] for name in ("00000.tar", "00001.tar")
    ]


def test_one_percent_of_new_links_writes_two_percent_of_the_shards_at_most(gallery):
    gallery.put(*range(500)).export(shard_images=5)
    run = gallery.put(*range(500, 505)).export(shard_images=5)
    assert len([part for part in run.manifest.files if part.endswith(".tar")]) == 101
    assert run.written <= 2


@pytest.mark.parametrize("change", [{"caption": "attributes.author"}, {"shard_images": 3}])
def test_other_settings_write_all_anew(any_gallery, change):
    any_gallery.put(*range(6)).export(caption="attributes.title")
    run = any_gallery.export(**{"caption": "attributes.title", **change})
    assert run.written == len([part for part in run.manifest.files if part.endswith(".tar")])
    assert numbers_in(assert_whole(any_gallery.store), "webdataset") == list(range(6))


def test_another_format_replaces_all_files(any_gallery):
    any_gallery.put(1, 2, 3)
    for each in (*FORMATS, *reversed(FORMATS)):
        any_gallery.export(format=each)
        assert numbers_in(assert_whole(any_gallery.store), each) == [1, 2, 3]


def test_another_condition_writes_only_shards_that_it_changes(any_gallery):
    any_gallery.put(*range(8)).export()
    run = any_gallery.export(where="width <> 103")
    assert (run.written, run.is_new) == (1, True)
    assert numbers_in(assert_whole(any_gallery.store), "webdataset") == [0, 1, 2, 4, 5, 6, 7]
    assert any_gallery.export(where="width <> 103 and true").written == 0
    assert Manifest.read(any_gallery.store, "g").settings.where == "width <> 103 and true"


def test_a_condition_that_fails_leaves_the_old_dataset(any_gallery):
    any_gallery.put(1, 2).export()
    before = files_of(any_gallery.store)
    with pytest.raises(WhereError):
        any_gallery.export(where="cast(url as int) = 1")
    assert files_of(any_gallery.store) == before


def test_without_a_catalog_there_is_no_dataset(store):
    with pytest.raises(StoreError, match="run the gallery first"):
        Gallery(store).export()
    assert files_of(store) == {}


def test_two_do_not_write_the_same_dataset(gallery):
    gallery.put(1)
    with Lease(gallery.store, "it", folder=dataset_leases_path("g")):
        with pytest.raises(GalleryBusyError, match="the dataset of g"):
            gallery.export()
    gallery.export()


def test_two_galleries_datasets_are_written_at_the_same_time(store):
    one, other = Gallery(store).put(1, 2), Gallery(store, "g2").put(3)
    one.export(lambda progress: progress.done == 1 and other.export())
    assert numbers_in(assert_whole(store, "g"), "webdataset") == [1, 2]
    assert numbers_in(assert_whole(store, "g2"), "webdataset") == [3]


# What is gone from the store.


def test_a_file_that_is_gone_is_left_out_named_and_tried_again(any_gallery, format_):
    any_gallery.put(0, 1, 2, 3, 4)
    any_gallery.lose(1)
    any_gallery.store.put(any_gallery.rows[3]["path"], b"altered")
    run = any_gallery.export(format=format_)
    assert run.missing == (url_of(1), url_of(3))
    assert run.warnings == [f"left out 2 images whose file is gone or was altered: {url_of(1)}, {url_of(3)}"]
    assert urls_in(any_gallery.store) == [url_of(number) for number in (0, 2, 4)]
    assert run.manifest.images == 3
    files = assert_whole(any_gallery.store)
    assert numbers_in(files, format_) == [0, 2, 4]
    assert (
        url_of(1)
        not in b"".join(parts_of(files)[name] for name in ("CREDITS.csv", "ATTRIBUTION.md")).decode()
    )
    assert "3 images of the gallery" in parts_of(files)["README.md"].decode()

    assert any_gallery.export(format=format_).missing == (url_of(1), url_of(3))
    assert_whole(any_gallery.store)
    run = any_gallery.put(1, 3).export(format=format_)
    assert (run.missing, run.warnings) == ((), [])
    assert sorted(numbers_in(assert_whole(any_gallery.store), format_)) == [0, 1, 2, 3, 4]


def test_a_file_that_is_gone_later_stays_in_shards_that_are_taken_over(gallery):
    gallery.put(1, 2).export()
    gallery.lose(1)
    assert gallery.export().missing == ()


def test_a_picture_that_was_replaced_in_store_and_catalog_is_replaced_in_the_dataset(any_gallery, format_):
    any_gallery.put(1, 2, 3).export(format=format_)
    any_gallery.put(2, version=5).export(format=format_)
    samples = samples_in(assert_whole(any_gallery.store), format_)
    jpegs = [jpeg for jpeg, _, _ in samples.values()]
    assert b"as of 5" in jpegs[1]
    assert len(jpegs) == 3


def test_many_missing_files_are_named_up_to_ten(gallery):
    gallery.put(*range(12))
    for number in range(12):
        gallery.lose(number)
    run = gallery.export(format="imagefolder")
    assert run.warnings[0].startswith("left out 12 images whose file")
    assert run.warnings[0].count("https://") == 10
    assert run.warnings[0].endswith(" …")
    assert run.why_empty == "all of their files are gone, or were altered"


def test_why_there_are_no_images_is_said_in_words(gallery):
    assert gallery.write().export().why_empty == "its catalog has none"
    assert gallery.put(1).export(where="false").why_empty == "none is ok, or for none this holds: false"
    assert isinstance(gallery.export(), DatasetRun)


# Kills and full disks.


@pytest.fixture
def updated(gallery, tmp_path):
    """A store with a dataset whose catalog has changed, and how to have it as it was."""
    gallery.put(1, 2, 3, 4, 5).export()
    old = files_of(gallery.store)
    gallery.drop(3).put(6, 7).put(1, license_id="CC0-1.0")
    template = tmp_path / "template"
    shutil.copytree(gallery.store.root, template)

    def reset():
        shutil.rmtree(gallery.store.root)
        shutil.copytree(template, gallery.store.root)
        return Gallery(Store(gallery.store.root))

    whole = reset()
    whole.export()
    return reset, old, files_of(whole.store)


@pytest.mark.long
@pytest.mark.parametrize("can_exchange", [True, False], ids=["exchange", "two renames"])
def test_a_kill_before_any_change_leaves_the_old_dataset_or_the_new_one(updated, can_exchange):
    """Each change that Python makes to the file system, from the lease to the last file that is deleted."""
    reset, old, new = updated
    left, number = [], 0
    while True:
        number += 1
        gallery = reset()
        ended = mortal.export_until(gallery.store.root, number, can_exchange=can_exchange)
        there = files_of(gallery.store)
        if ended == 0:
            break
        assert ended == mortal.KILLED
        left.append("old" if there == old else "new" if there == new else "none" if there == {} else "mixed")
        assert gallery_after(gallery) == new
    assert there == new
    assert "mixed" not in left
    assert left == sorted(left, key=["old", "none", "new"].index)
    assert left.count("none") == (0 if can_exchange else 1)
    assert left.count("old") > 12
    assert left.count("new") > 6


def gallery_after(gallery):
    """A dataset after the next export, which has to leave nothing else behind."""
    gallery.export()
    assert [file.path for file in gallery.store.list("catalog") if "_dataset_d" in file.path] == []
    assert [file.path for file in gallery.store.list("catalog") if "_dataset_r" in file.path] == []
    return assert_whole(gallery.store)


LIMITS = (1, 700, 5_000, 9_000, 10_239)
"""Bytes, of which the last is one less than a shard has."""


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("is_killed", [True, False], ids=["killed in the middle of a write", "full"])
def test_a_full_disk_leaves_the_old_dataset(updated, is_killed, limit):
    reset, old, new = updated
    gallery = reset()
    ended = mortal.export_within(gallery.store.root, limit, is_killed=is_killed)
    assert ended == (mortal.TOO_LARGE if is_killed else 1)
    assert files_of(gallery.store) == old
    assert gallery_after(gallery) == new


def test_a_full_disk_is_named(gallery, monkeypatch):
    gallery.put(1).export()
    gallery.put(2)
    before = files_of(gallery.store)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"cannot write the dataset .*datasets/g: No space left on device"):
        gallery.export()
    assert files_of(gallery.store) == before
    assert list(gallery.store.list(dataset_draft_path("g"))) == []


def test_an_error_in_the_middle_leaves_the_old_dataset(any_gallery, format_):
    any_gallery.put(1, 2, 3, 4).export(format=format_)
    before = files_of(any_gallery.store)
    any_gallery.put(5, 6, 7, 8)

    def interrupt(progress):
        if progress.done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        any_gallery.export(interrupt, format=format_)
    there = files_of(any_gallery.store)
    assert there["manifest.json"] == before["manifest.json"]
    assert wrong_files(there) == []
    assert strays(there) == []
    any_gallery.export(format=format_)
    assert numbers_in(assert_whole(any_gallery.store), format_) == list(range(1, 9))


def test_in_an_object_store_a_fault_at_any_change_leaves_a_whole_dataset(s3_gallery, monkeypatch):
    s3_gallery.put(1, 2, 3).export()
    old = json.loads(s3_gallery.store.get(f"{dataset_path('g')}/manifest.json"))
    s3_gallery.put(4, 5)
    number = 0
    while True:
        number += 1
        with monkeypatch.context() as patch:
            changes = _failing_from(s3_gallery.store, patch, number)
            try:
                s3_gallery.export()
            except StoreError:
                pass
        if len(changes) < number:
            break
        there = files_of(s3_gallery.store)
        assert wrong_files(there, but=TEXTS) == []
        if json.loads(there["manifest.json"]) != old:  # published, and then it failed
            s3_gallery.drop(4, 5).export()
            s3_gallery.put(4, 5)
            old = json.loads(s3_gallery.store.get(f"{dataset_path('g')}/manifest.json"))
    assert number > 6
    assert numbers_in(assert_whole(s3_gallery.store), "webdataset") == [1, 2, 3, 4, 5]


def _failing_from(store, patch, number):
    """Let the dataset's files not be changed any more, from the n-th change on."""
    changes = []

    def failing(name):
        do = getattr(store, name)

        def change(what, *data):
            if any(
                each.startswith(dataset_path("g")) for each in ([what] if isinstance(what, str) else what)
            ):
                changes.append(what)
                if len(changes) >= number:
                    raise StoreError("the store does not answer")
            return do(what, *data)

        patch.setattr(store, name, change)

    failing("put")
    failing("delete")
    return changes


def test_the_index_is_a_file_that_readers_of_folders_skip(gallery):
    gallery.put(1, 2).export(format="parquet")
    table = pq.read_table(folder_of(gallery.store) / "data")
    assert table.num_rows == 2


def test_a_writer_that_lost_its_lease_publishes_nothing(any_gallery, format_):
    """Once: nobody asks the lease. Another writer has taken over from one that was suspended.

    On a disk it has deleted the first one's draft, which then publishes the rest; in an object store, the
    first one writes over files of the other's dataset.
    """
    store = any_gallery.store
    any_gallery.put(1, 2, 3, 4, 5).export(format=format_)
    any_gallery.put(6, 7, 8)

    def take_over(progress):
        if progress.done == 7:
            folder = dataset_leases_path("g")
            number = max(int(each.path.rpartition("/")[2].partition(".")[0]) for each in store.list(folder))
            store.put(f"{folder}/{number + 1:08}.json", RELEASED)
            any_gallery.drop(7).export(format=format_)

    ended = None
    try:
        any_gallery.export(take_over, format=format_)
    except (GalleryBusyError, StoreError) as error:
        ended = error
    assert numbers_in(assert_whole(store), format_) == [1, 2, 3, 4, 5, 6, 8]
    assert isinstance(ended, GalleryBusyError)


def test_a_dataset_that_is_a_link_to_another_folder_can_be_brought_up_to_date(gallery, tmp_path):
    """Once: the link is moved aside, and cannot be deleted there, by this update or any other."""
    (tmp_path / "disk").mkdir()
    folder_of(gallery.store).parent.mkdir()
    folder_of(gallery.store).symlink_to(tmp_path / "disk")
    for number in range(3):
        gallery.put(number).export()
    assert numbers_in(assert_whole(gallery.store), "webdataset") == [0, 1, 2]


def test_a_draft_that_cannot_be_deleted_does_not_damage_the_dataset(gallery, monkeypatch):
    """Once: a file of the draft that is a link to the current one is opened and cut to nothing."""
    gallery.put(1, 2, 3).export()
    before = files_of(gallery.store)
    draft = gallery.store.local_path(dataset_draft_path("g"))
    draft.mkdir(parents=True)
    os.link(folder_of(gallery.store) / "00000.tar", draft / "00000.tar")
    gallery.put(1, license_id="CC0-1.0")
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)  # as with `ignore_errors`

    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, StoreError)):
        gallery.export(interrupt)
    assert files_of(gallery.store) == before
