import hashlib
from datetime import datetime, timedelta, timezone

import pyarrow as pa
import pytest

from imgdl_pipeline.core.columns import CATALOG
from imgdl_pipeline.core.inspection import Listing, Trouble, altered_files, is_stale, listing, unknown_files

MONDAY = datetime(2026, 11, 16, 6, tzinfo=timezone.utc)
TUESDAY, WEDNESDAY = MONDAY + timedelta(days=1), MONDAY + timedelta(days=2)


def catalog_of(*rows):
    """A catalog of ok rows, each with what is said of it."""
    return pa.Table.from_pylist([{"status": "ok", **row} for row in rows], schema=CATALOG)


@pytest.fixture
def catalog(store):
    rows = []
    for number in range(20):
        data = b"picture %d" % number
        path = f"images/g/{number}.jpg"
        store.put(path, data)
        sha256 = hashlib.sha256(data).hexdigest()
        rows.append({"url": f"u{number}", "path": path, "bytes": len(data), "sha256": sha256})
    return catalog_of(*rows, {"url": "dead", "status": "failed"})


def test_missing_and_altered_files_are_found_when_all_are_read(catalog, store):
    store.delete(["images/g/3.jpg"])
    store.put("images/g/7.jpg", b"altered")
    read, found = altered_files(catalog, store, None, seed=0)
    assert read == 20
    assert found == [Trouble("u3", "images/g/3.jpg", "missing"), Trouble("u7", "images/g/7.jpg", "altered")]


def test_a_sample_is_another_one_for_each_seed_and_finds_everything_in_time(catalog, store):
    store.delete(["images/g/3.jpg"])
    looks = [altered_files(catalog, store, 5, seed) for seed in range(30)]
    assert {read for read, _ in looks} == {5}
    assert 0 < sum(bool(found) for _, found in looks) < 30


def test_a_file_that_no_whole_image_has_is_unknown(catalog, store):
    assert unknown_files("g", catalog, store) == []
    store.put("images/g/stray.jpg", b"x")
    assert unknown_files("g", catalog, store) == ["images/g/stray.jpg"]


def seen(first, last, count=1):
    return [
        {"url": f"{first}{last}{number}", "first_seen": first, "last_seen": last} for number in range(count)
    ]


@pytest.mark.parametrize(
    ("rows", "lists"),
    [
        ([], Listing(0, 0)),
        (seen(MONDAY, MONDAY, 5), Listing(5, 5)),
        (seen(MONDAY, TUESDAY, 5) + seen(TUESDAY, TUESDAY, 3), Listing(8, 8)),
        (seen(MONDAY, TUESDAY, 2) + seen(MONDAY, MONDAY, 8), Listing(2, 10)),
        (seen(MONDAY, WEDNESDAY, 2) + seen(MONDAY, MONDAY, 4) + seen(MONDAY, TUESDAY, 6), Listing(2, 8)),
        (seen(MONDAY, TUESDAY, 2) + seen(MONDAY, MONDAY, 3) + seen(TUESDAY, TUESDAY, 9), Listing(11, 5)),
    ],
)
def test_the_lengths_of_the_last_two_lists_stand_in_the_catalog(rows, lists):
    assert listing(catalog_of(*rows)) == lists


@pytest.mark.parametrize(("lists", "lost"), [((5, 10), 0.5), ((10, 5), 0.0), ((0, 0), 0.0), ((0, 4), 1.0)])
def test_a_list_loses_what_it_is_shorter_by(lists, lost):
    assert Listing(*lists).lost == lost


@pytest.mark.parametrize(
    ("listed", "schedule", "stale"),
    [
        (TUESDAY, "0 6 * * *", False),
        (TUESDAY - timedelta(minutes=1), "0 6 * * *", True),
        (MONDAY, "0 6 * * *", True),
        (MONDAY, "@daily", True),
        (MONDAY, "0 6 * * 1", False),
        (MONDAY, None, False),
        (MONDAY, "no cron", False),
    ],
)
def test_a_gallery_is_stale_when_its_schedules_last_time_but_one_has_passed_it_by(listed, schedule, stale):
    assert is_stale(listed, schedule, WEDNESDAY + timedelta(minutes=5)) is stale
