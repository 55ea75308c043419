import threading

import pytest

from imgdl_pipeline.core.dataset.rows import key_of
from imgdl_pipeline.core.dataset.samples import AHEAD, READERS, Samples
from imgdl_pipeline.core.model.outcome import Status
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline_tests.support.datasets import picture_of, settings_of, url_of


@pytest.fixture
def ok_rows(gallery):
    def rows_of(*numbers, **facts):
        catalog = gallery.put(*numbers, **facts).catalog()
        return catalog.filter([status == Status.OK.value for status in catalog["status"].to_pylist()])

    return rows_of


@pytest.fixture
def samples(gallery, jpegs):
    counted = []
    made = Samples(
        gallery.store, settings_of(caption="attributes.title"), jpegs, lambda: counted.append(len(counted))
    )
    made.counted = counted
    return made


def test_samples_are_the_rows_pictures_in_their_order(samples, ok_rows):
    rows = ok_rows(*range(100))
    given = list(samples.of([rows]))
    assert [each.jpeg for each in given] == [picture_of(number) for number in range(100)]
    assert [each.key for each in given] == [key_of(url_of(number)) for number in range(100)]
    assert [each.row for each in given] == rows.to_pylist()
    assert given[3].caption == "Title 3"
    assert (samples.missing, len(samples.counted)) == ([], 100)


def test_a_file_that_is_gone_or_altered_is_left_out_and_named(samples, ok_rows, gallery, caplog):
    rows = ok_rows(*range(5))
    gallery.lose(1)
    gallery.store.put(gallery.rows[3]["path"], b"another picture")
    assert [each.jpeg for each in samples.of([rows])] == [picture_of(number) for number in (0, 2, 4)]
    assert samples.missing == [url_of(1), url_of(3)]
    assert len(samples.counted) == 5
    assert [record.message for record in caplog.records] == [
        f"{gallery.rows[1]['path']} is not in the dataset: incomplete: its file is gone from the store",
        f"{gallery.rows[3]['path']} is not in the dataset: hash_mismatch: the stored file was altered",
    ]


def test_a_truncated_file_is_left_out(samples, ok_rows, gallery):
    rows = ok_rows(1)
    gallery.store.put(gallery.rows[1]["path"], picture_of(1)[:-1])
    assert list(samples.of([rows])) == []


def test_no_rows_give_no_samples(samples, ok_rows):
    assert list(samples.of([ok_rows(1)[:0]])) == []


def test_images_are_read_ahead_by_a_bounded_number(samples, ok_rows, gallery, monkeypatch):
    rows = ok_rows(*range(3 * READERS * AHEAD))
    asked, get = [], gallery.store.get
    enough = threading.Semaphore(0)

    def counting(path):
        asked.append(path)
        enough.release()
        return get(path)

    monkeypatch.setattr(gallery.store, "get", counting)
    given = samples.of([rows])
    for taken in range(1, 40):
        next(given)
        while len(asked) < READERS * AHEAD + taken - 1:
            assert enough.acquire(timeout=10)
        assert len(asked) <= READERS * AHEAD + taken
    given.close()
    assert len(asked) <= READERS * AHEAD + 40
    assert not [each for each in threading.enumerate() if each.name.startswith("dataset")]


def test_images_are_read_by_several_threads_at_a_time(samples, ok_rows, gallery, monkeypatch):
    rows = ok_rows(*range(READERS))
    together, get = threading.Barrier(READERS), gallery.store.get
    monkeypatch.setattr(gallery.store, "get", lambda path: together.wait(10) is not None and get(path))
    assert len(list(samples.of([rows]))) == READERS


def test_a_store_that_fails_ends_it_and_its_threads(samples, ok_rows, gallery, monkeypatch):
    rows = ok_rows(*range(200))
    asked = []

    def failing(path):
        asked.append(path)
        raise StoreError("the store is on fire")

    monkeypatch.setattr(gallery.store, "get", failing)
    with pytest.raises(StoreError, match="on fire"):
        list(samples.of([rows]))
    assert len(asked) <= READERS * AHEAD + READERS
    assert not [each for each in threading.enumerate() if each.name.startswith("dataset")]
    assert samples.missing == []
