import ctypes
import errno
import hashlib
import io
import json
import os
import threading

import pytest

from imgdl_pipeline.core.dataset.draft import DigestingFile, Written
from imgdl_pipeline.core.dataset.manifest import Manifest
from imgdl_pipeline.core.storage.layout import dataset_draft_path, dataset_path, replaced_dataset_path
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline_tests.support.datasets import (
    assert_whole,
    drafted,
    files_of,
    folder_of,
    inodes,
    settings_of,
    strays,
    wrong_files,
)
from imgdl_pipeline_tests.support.mortal import forbid_exchange

SETTINGS = settings_of()


def publish(store, parts, keep=(), settings=SETTINGS):
    """Write a version of a dataset; return whether it differs."""
    with drafted(store) as draft:
        for part in keep:
            draft.keep(draft.current.files[part])
        for part, data in parts.items():
            draft.write(part, lambda file, data=data: Written(1, "rows") if file.write(data) else None)
        return draft.publish(Manifest(settings, "us", len(draft.files)))


def contents(store):
    files = assert_whole(store)
    return {each.part: files[each.name] for each in Manifest.read(store, "g").files.values()}


def test_a_version_is_there_once_it_is_published(any_store):
    with drafted(any_store) as draft:
        assert draft.current is None
        draft.write("data/a", lambda file: Written(file.write(b"abc"), "rows"))
        assert Manifest.read(any_store, "g") is None
        assert draft.publish(Manifest(SETTINGS, "us", 3))
    files = assert_whole(any_store)
    assert set(files) == {"data/a", "manifest.json"}
    [file] = Manifest.read(any_store, "g").files.values()
    assert (file.name, file.part, file.bytes, file.images, file.rows) == ("data/a", "data/a", 3, 3, "rows")
    assert file.sha256 == hashlib.sha256(b"abc").hexdigest()


def test_without_publish_nothing_changes(any_store):
    publish(any_store, {"a": b"1", "b": b"1"})
    before = files_of(any_store)
    with drafted(any_store) as draft:
        draft.keep(draft.current.files["a"])
        draft.write("b", lambda file: file.write(b"2") and None)
    assert files_of(any_store) == before


def test_an_error_while_a_part_is_written_changes_nothing(any_store):
    publish(any_store, {"a": b"1", "b": b"1"})
    before = files_of(any_store)

    def fail(file):
        file.write(b"half of it")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), drafted(any_store) as draft:
        draft.write("a", lambda file: file.write(b"2") and None)
        draft.write("b", fail)
    assert files_of(any_store) == before
    assert list(any_store.list(dataset_draft_path("g"))) == []


def test_what_is_neither_kept_nor_written_is_gone(any_store):
    publish(any_store, {"a": b"1", "b": b"1", "data/c": b"1"})
    assert publish(any_store, {"d": b"2"}, keep=["b"])
    assert contents(any_store) == {"b": b"1", "d": b"2"}


def test_the_same_content_is_no_new_version(any_store):
    publish(any_store, {"a": b"1", "b": b"1"})
    before = files_of(any_store)
    assert not publish(any_store, {"b": b"1"}, keep=["a"])
    assert not publish(any_store, {"b": b"1", "a": b"1"})
    assert files_of(any_store) == before


@pytest.mark.parametrize(
    "change",
    [
        {"parts": {"a": b"2"}},
        {"parts": {"a": b"1", "b": b""}},
        {"parts": {}},
        {"settings": settings_of(where="x")},
    ],
)
def test_other_files_or_settings_are_a_new_version(any_store, change):
    publish(any_store, {"a": b"1"})
    assert publish(any_store, **{"parts": {"a": b"1"}, **change})
    assert_whole(any_store)


def test_a_version_after_the_other_has_what_it_should(any_store):
    for number in range(12):
        publish(
            any_store, {"a": b"%d" % number, "data/x.parquet": b"%d" % (number // 2), ".i": b"%d" % number}
        )
        assert contents(any_store) == {
            "a": b"%d" % number,
            "data/x.parquet": b"%d" % (number // 2),
            ".i": b"%d" % number,
        }


# On a disk.


def test_on_a_disk_files_that_are_kept_are_the_same_files(store):
    publish(store, {"a": b"1", "b": b"1"})
    before = inodes(folder_of(store))
    publish(store, {"b": b"2"}, keep=["a"])
    after = inodes(folder_of(store))
    assert after["a"] == before["a"]
    assert after["b"] != before["b"]


def test_on_a_disk_without_hard_links_files_that_are_kept_are_copied(store, monkeypatch):
    publish(store, {"a": b"1", "b": b"1"})
    before = inodes(folder_of(store))

    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    publish(store, {"b": b"2"}, keep=["a"])
    assert contents(store) == {"a": b"1", "b": b"2"}
    assert inodes(folder_of(store))["a"] != before["a"]


def test_on_a_disk_the_draft_is_where_no_reader_looks(store):
    with drafted(store) as draft:
        draft.write("a", lambda file: file.write(b"1") and None)
        assert files_of(store) == {}
        [file] = store.list("datasets")
        assert file.path == f"{dataset_draft_path('g')}/a"
        assert "/_" in file.path


def test_on_a_disk_what_was_left_behind_is_deleted(store):
    publish(store, {"a": b"1"})
    store.put(f"{dataset_draft_path('g')}/a", b"half")
    store.put(f"{replaced_dataset_path('g')}/a", b"older")
    with drafted(store):
        assert {file.path for file in store.list("datasets")} == {
            f"datasets/g/{name}" for name in ("a", "manifest.json")
        }
    assert contents(store) == {"a": b"1"}


def test_on_a_disk_a_dataset_that_was_moved_aside_comes_back(store):
    publish(store, {"a": b"1"})
    folder_of(store).rename(store.local_path(replaced_dataset_path("g")))
    assert files_of(store) == {}
    with drafted(store) as draft:
        assert draft.current is not None
    assert contents(store) == {"a": b"1"}


def test_on_a_disk_a_failure_names_the_dataset(store):
    publish(store, {"a": b"1"})
    place = store.local_path(dataset_draft_path("g"))
    place.parent.mkdir(parents=True, exist_ok=True)
    place.parent.chmod(0o755)
    place.write_text("a file in the way")
    with pytest.raises(
        StoreError, match=r"cannot write the dataset .*datasets/g: (Not a directory|File exists)"
    ):
        publish(store, {"a": b"2"})
    assert contents(store) == {"a": b"1"}


def test_on_a_disk_that_cannot_exchange_folders_a_version_takes_its_place(store, monkeypatch):
    forbid_exchange(lambda name, value: monkeypatch.setattr(ctypes, name, value), errno.EINVAL)
    for number in range(3):
        publish(store, {"a": b"%d" % number})
        assert contents(store) == {"a": b"%d" % number}


def read_once(folder):
    """Read a dataset in the time between two updates; None if one came in between."""
    try:
        before = (folder / "manifest.json").read_bytes()
        names = [str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()]
        files = {name: (folder / name).read_bytes() for name in names}
        after = (folder / "manifest.json").read_bytes()
    except FileNotFoundError:  # a file of a version that is gone by now
        return None
    return files if before == after else None


def test_a_reader_finds_whole_versions_only(store):
    """Whatever a reader lists and reads while no other version takes its place is exactly one version."""
    folder = folder_of(store)
    publish(store, {f"data/{place}": b"0" for place in range(5)})
    done, wrong, read, gone = threading.Event(), [], set(), []

    def look_on():
        while not done.is_set():
            if not (folder / "manifest.json").exists():
                gone.append(True)
            if (files := read_once(folder)) is not None:
                wrong.extend([*wrong_files(files), *strays(files)])
                read.add(files["manifest.json"])

    reader = threading.Thread(target=look_on)
    reader.start()
    try:
        for number in range(1, 400):
            # every version has another number of files, and all but one of them anew
            publish(
                store,
                {f"data/{place}": b"%d" % number for place in range(1, 3 + number % 5)},
                keep=["data/0"],
            )
            if number > 40 and len(read) >= 10:
                break
    finally:
        done.set()
        reader.join()
    assert (wrong, gone) == ([], [])
    assert len(read) >= 10


# In an object store.


@pytest.fixture
def bucket(s3_gallery):
    return s3_gallery.store


def stored_names(store):
    return set(files_of(store)) - {"manifest.json"}


def test_in_an_object_store_a_changed_part_gets_a_new_name_and_the_old_file_goes(bucket):
    publish(bucket, {"data/a.tar": b"1", "b": b"1", ".index.parquet": b"1"})
    assert stored_names(bucket) == {"data/a.tar", "b", ".index.parquet"}
    publish(bucket, {"data/a.tar": b"2", ".index.parquet": b"2"}, keep=["b"])
    assert stored_names(bucket) == {"data/a~2.tar", "b", ".index~2.parquet"}
    publish(bucket, {"data/a.tar": b"3", "b": b"3", ".index.parquet": b"2"})
    assert stored_names(bucket) == {"data/a~3.tar", "b~2", ".index~2.parquet"}
    assert contents(bucket) == {"data/a.tar": b"3", "b": b"3", ".index.parquet": b"2"}


def test_in_an_object_store_a_part_with_the_same_bytes_is_not_stored_again(bucket, monkeypatch):
    publish(bucket, {"a": b"1", "b": b"1"})
    puts, put = [], bucket.put
    monkeypatch.setattr(bucket, "put", lambda path, data: puts.append(path) or put(path, data))
    assert publish(bucket, {"a": b"1", "b": b"2"})
    written = [path for path in puts if path.startswith(dataset_path("g"))]
    assert written == [f"{dataset_path('g')}/b~2", f"{dataset_path('g')}/manifest.json"]


def test_in_an_object_store_leftovers_are_deleted_by_the_next_draft(bucket):
    publish(bucket, {"a": b"1"})
    for name in ("a~2", "data/x.tar", "never heard of"):
        bucket.put(f"{dataset_path('g')}/{name}", b"left")
    bucket.put(f"{dataset_path('g2')}/a", b"another gallery's")
    with drafted(bucket):
        assert stored_names(bucket) == {"a"}
    assert bucket.get(f"{dataset_path('g2')}/a") == b"another gallery's"


class Step(Exception):
    """The store is gone from here on."""


def changing(store, monkeypatch, on_change):
    """Call a function before each change of a store, with its number and what it is."""
    changes = []

    def watched(name):
        do = getattr(store, name)

        def change(what, *data):
            if any(each.startswith(dataset_path("g")) for each in ([what] if data else what)):
                changes.append(name)
                on_change(len(changes), name)
            return do(what, *data)

        monkeypatch.setattr(store, name, change)

    for name in ("put", "delete"):
        watched(name)
    return changes


FIRST = {"a": b"1", "data/b": b"1", "data/c": b"1"}
SECOND = {"a": b"2", "data/b": b"2", "d": b"2"}


def named(store):
    """What a reader finds who goes by the manifest."""
    files, manifest = files_of(store), Manifest.read(store, "g")
    assert wrong_files(files) == []
    return {part: files[each.name] for part, each in manifest.files.items()}


def test_in_an_object_store_the_manifest_always_names_one_whole_version(bucket, monkeypatch):
    publish(bucket, FIRST)
    seen = []
    with monkeypatch.context() as patch:
        changes = changing(bucket, patch, lambda *_: seen.append(named(bucket)))
        publish(bucket, SECOND)
    assert len(changes) >= 5
    assert [each for each in seen if each not in (FIRST, SECOND)] == []
    assert named(bucket) == SECOND
    last_put = len(changes) - 1 - changes[::-1].index("put")
    assert all(each == FIRST for each in seen[: last_put + 1])


@pytest.mark.parametrize("is_gone", [False, True], ids=["one request fails", "the writer is killed"])
def test_in_an_object_store_a_fault_at_any_change_leaves_a_whole_version(bucket, monkeypatch, is_gone):
    publish(bucket, FIRST)
    for number in range(1, 30):

        def fail(now, _, number=number):
            if now == number or (is_gone and now > number):
                raise StoreError("it failed")

        with monkeypatch.context() as patch:
            changes = changing(bucket, patch, fail)
            try:
                publish(bucket, SECOND)
            except StoreError:
                pass
        if len(changes) < number:
            break
        assert named(bucket) in (FIRST, SECOND)
        publish(bucket, SECOND)
        assert contents(bucket) == SECOND
        publish(bucket, FIRST)
        assert contents(bucket) == FIRST
    assert number > 5


def test_a_digesting_file_counts_and_digests_whatever_is_written():
    file = io.BytesIO()
    digesting = DigestingFile(file)
    assert digesting.writable()
    for data in (b"abc", bytearray(b"de"), memoryview(b"xfx")[1:2]):
        assert digesting.write(data) == len(data)
    assert (file.getvalue(), digesting.tell()) == (b"abcdef", 6)
    assert digesting.digest.hexdigest() == hashlib.sha256(b"abcdef").hexdigest()


def test_the_manifest_of_a_draft_names_the_drafts_files(any_store):
    publish(any_store, {"a": b"1"})
    fields = json.loads(any_store.get(f"{dataset_path('g')}/manifest.json"))
    assert [each["part"] for each in fields["files"]] == ["a"]
    assert fields["made_by"] == "us"
