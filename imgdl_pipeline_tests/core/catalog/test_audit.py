import hashlib
from datetime import datetime, timedelta, timezone

import pytest

from imgdl_pipeline.core.catalog.audit import (
    Trouble,
    altered_files,
    is_stale,
    last_refreshed,
    lost_links,
    refreshed_at,
    unknown_files,
)
from imgdl_pipeline.core.catalog.stored import StoredCatalog
from imgdl_pipeline.core.listing.reshard import reshard
from imgdl_pipeline.core.model.schemas import CATALOG
from imgdl_pipeline.core.storage.layout import catalog_path
from imgdl_pipeline_tests.support.rows import catalog_of
from imgdl_pipeline_tests.support.shards import sharded

MONDAY = datetime(2026, 11, 16, 6, tzinfo=timezone.utc)
TUESDAY, WEDNESDAY = MONDAY + timedelta(days=1), MONDAY + timedelta(days=2)


def stored(store, *rows):
    store.write_table(catalog_path("g"), catalog_of(*rows))
    return StoredCatalog(store, "g")


@pytest.fixture
def catalog(store):
    rows = []
    for number in range(20):
        data = b"picture %d" % number
        path = f"images/g/{number}.jpg"
        store.put(path, data)
        sha256 = hashlib.sha256(data).hexdigest()
        rows.append({"url": f"u{number}", "path": path, "bytes": len(data), "sha256": sha256})
    return stored(store, *rows, {"url": "dead", "status": "failed"})


def test_missing_and_altered_files_are_found_when_all_are_read(catalog, store):
    store.delete(["images/g/3.jpg"])
    store.put("images/g/7.jpg", b"altered")
    read, found = altered_files(catalog, None, seed=0)
    assert read == 20
    assert found == [Trouble("u3", "images/g/3.jpg", "missing"), Trouble("u7", "images/g/7.jpg", "altered")]


def test_a_sample_is_another_one_for_each_seed_and_finds_everything_in_time(catalog, store):
    store.delete(["images/g/3.jpg"])
    looks = [altered_files(catalog, 5, seed) for seed in range(30)]
    assert {read for read, _ in looks} == {5}
    assert 0 < sum(bool(found) for _, found in looks) < 30


def test_a_file_that_no_whole_image_has_is_unknown(catalog, store):
    assert unknown_files(catalog) == []
    store.put("images/g/stray.jpg", b"x")
    assert unknown_files(catalog) == ["images/g/stray.jpg"]


def test_a_file_of_another_shards_row_is_not_called_unknown(store):
    """After another number of shards, images stay in the folders that they were in."""
    sharded(store)
    stray = "images/g/0000/stray.jpg"
    store.put(stray, b"x")
    assert unknown_files(StoredCatalog(store, "g/0000")) == [stray]
    reshard(store, "g", 2)
    assert unknown_files(StoredCatalog(store, "g/0000")) == []


def test_links_that_are_listed_no_more_are_named_the_latest_first(store):
    rows = [
        {"url": url, "last_seen": at}
        for url, at in (("a", WEDNESDAY), ("b", MONDAY), ("c", TUESDAY), ("d", TUESDAY), ("e", WEDNESDAY))
    ]
    assert [row["url"] for row in lost_links(stored(store, *rows), 2)] == ["c", "d"]
    assert lost_links(StoredCatalog(store, "other"), 9) == []


def test_a_gallery_was_refreshed_when_its_catalogs_newest_list_was_made(store):
    catalog = catalog_of({"url": "a", "last_seen": MONDAY}, {"url": "b", "last_seen": TUESDAY})
    assert last_refreshed(store, "g") is None
    store.write_table(catalog_path("g"), catalog)
    assert last_refreshed(store, "g") == TUESDAY
    assert refreshed_at(CATALOG.empty_table()) is None


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
