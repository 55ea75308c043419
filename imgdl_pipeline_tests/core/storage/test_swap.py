import ctypes
import errno
import os
import threading

import pytest

from imgdl_pipeline.core.storage.swap import recover, swap
from imgdl_pipeline_tests.support.mortal import forbid_exchange


@pytest.fixture
def places(tmp_path):
    """A new folder, the one that it replaces, and where that one may be meanwhile."""
    new, folder, aside = tmp_path / "draft", tmp_path / "there" / "g", tmp_path / "aside"
    fill(new, "new")
    return new, folder, aside


def fill(folder, text):
    (folder / "data").mkdir(parents=True)
    (folder / "a").write_text(text)
    (folder / "data" / "b").write_text(text)


def content(folder):
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


NEW, OLD = ({"a": text, "data/b": text} for text in ("new", "old"))

UNSUPPORTED = [None, errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP]
"""How a system refuses to exchange two folders; None where there is no such call."""


@pytest.fixture(params=["exchange", *UNSUPPORTED], ids=str)
def any_system(request, monkeypatch):
    if request.param != "exchange":
        forbid_exchange(lambda name, value: monkeypatch.setattr(ctypes, name, value), request.param)


def test_a_folder_takes_the_place_of_another_one(places, any_system):
    new, folder, aside = places
    fill(folder, "old")
    (folder / "only in the old one").write_text("old")
    swap(*places)
    assert content(folder) == NEW
    assert not new.exists()
    assert not aside.exists()


def test_a_folder_that_does_not_exist_is_made_with_its_parents(places, any_system):
    new, folder, aside = places
    swap(*places)
    assert content(folder) == NEW
    assert (new.exists(), aside.exists()) == (False, False)


def test_what_an_interrupted_swap_left_aside_is_gone_after_the_next_one(places, any_system):
    new, folder, aside = places
    fill(folder, "old")
    fill(aside, "older")
    swap(*places)
    assert content(folder) == NEW
    assert (new.exists(), aside.exists()) == (False, False)


def test_a_folder_that_is_aside_only_is_replaced_too(places, any_system):
    new, folder, aside = places
    fill(aside, "old")
    swap(*places)
    assert content(folder) == NEW
    assert (new.exists(), aside.exists()) == (False, False)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EXDEV, errno.ENOSPC])
def test_another_failure_is_an_error_and_changes_nothing(places, monkeypatch, number):
    new, folder, aside = places
    fill(folder, "old")
    forbid_exchange(lambda name, value: monkeypatch.setattr(ctypes, name, value), number)
    with pytest.raises(OSError, match=os.strerror(number)):
        swap(*places)
    assert (content(folder), content(new), aside.exists()) == (OLD, NEW, False)


def test_a_folder_that_was_moved_aside_comes_back(places):
    _, folder, aside = places
    fill(aside, "old")
    recover(folder, aside)
    assert content(folder) == OLD
    assert not aside.exists()


def test_a_folder_aside_is_deleted_once_the_new_one_is_there(places):
    _, folder, aside = places
    fill(aside, "old")
    fill(folder, "new")
    recover(folder, aside)
    assert content(folder) == NEW
    assert not aside.exists()


def test_where_nothing_was_interrupted_nothing_is_recovered(places):
    _, folder, aside = places
    recover(folder, aside)
    fill(folder, "old")
    recover(folder, aside)
    assert (content(folder), aside.exists()) == (OLD, False)


def test_names_of_any_bytes_are_exchanged(tmp_path):
    new, folder, aside = (tmp_path / os.fsdecode(name) for name in (b"n\xff", "g 😀".encode(), b"a\n"))
    fill(new, "new")
    fill(folder, "old")
    swap(new, folder, aside)
    assert content(folder) == NEW


def test_a_reader_always_finds_a_folder_that_is_whole(places, tmp_path):
    new, folder, aside = places
    fill(folder, "0")
    swaps, seen, done = 300, set(), threading.Event()

    def look_on():
        while not done.is_set():
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                seen.add((folder / "a").read_text())
            finally:
                os.close(descriptor)

    reader = threading.Thread(target=look_on)
    failures = []
    threading.excepthook, hook = (lambda args: failures.append(args.exc_value)), threading.excepthook
    try:
        reader.start()
        for number in range(swaps):
            (new / "a").write_text(str(number))
            swap(new, folder, aside)
            fill(new, "next")
    finally:
        done.set()
        reader.join()
        threading.excepthook = hook
    assert failures == []
    assert seen <= {*map(str, range(swaps))}
