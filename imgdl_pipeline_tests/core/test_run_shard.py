from datetime import datetime, timezone

import pytest

from imgdl_pipeline.core.listing.places import Places
from imgdl_pipeline.core.listing.reshard import reshard
from imgdl_pipeline.core.listing.split import split
from imgdl_pipeline.core.model.links import Link
from imgdl_pipeline.core.model.schemas import CATALOG
from imgdl_pipeline.core.run_shard import run_shard
from imgdl_pipeline.core.storage.layout import catalog_path, resharding_path, shard_name
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.parts import ReshardError
from imgdl_pipeline_tests.support.pictures import jpeg

MONDAY = datetime(2026, 11, 16, 6, tzinfo=timezone.utc)


@pytest.fixture
def listed(store, server):
    """Twelve images of one host, spread over all three shards."""
    links = [Link(server.serve(f"/{number}.jpg", jpeg(number))) for number in range(12)]
    split("g", store, links, 3, MONDAY)
    return links


def run_all(store, loopback, jpegs, shards):
    return [run_shard(store, "g", number, loopback, jpegs=jpegs) for number in range(shards)]


def test_the_shards_together_have_every_image_in_folders_of_their_own(store, listed, loopback, jpegs):
    runs = run_all(store, loopback, jpegs, 3)
    rows = [row for run in runs for row in run.catalog.catalog.to_pylist()]
    assert {row["url"] for row in rows} == {link.url for link in listed}
    assert {row["status"] for row in rows} == {"ok"}
    for number, run in enumerate(runs):
        assert run.catalog.catalog.num_rows == run.images.fetched.num_rows > 0
        assert all(
            row["path"].startswith(f"images/g/000{number}/") for row in run.catalog.catalog.to_pylist()
        )


def test_a_second_run_asks_for_nothing(store, listed, loopback, jpegs):
    run_all(store, loopback, jpegs, 3)
    for run in run_all(store, loopback, jpegs, 3):
        assert (run.images.tried.num_rows, run.catalog.checked) == (0, 0)


@pytest.mark.parametrize("shards", [2, 5])
def test_after_resharding_no_image_is_fetched_again_or_lost(store, listed, loopback, jpegs, shards):
    run_all(store, loopback, jpegs, 3)
    images = sorted(file.path for file in store.list("images"))
    reshard(store, "g", shards)
    runs = run_all(store, loopback, jpegs, shards)
    assert sum(run.images.tried.num_rows for run in runs) == 0
    assert sorted(file.path for file in store.list("images")) == images
    known = [store.read_table(catalog_path(shard_name("g", number)), CATALOG) for number in range(shards)]
    assert sorted(path for table in known for path in table["path"].to_pylist()) == images


def test_an_image_that_changes_after_resharding_stays_where_it_is(store, listed, server, loopback, jpegs):
    run_all(store, loopback, jpegs, 3)
    images = sorted(file.path for file in store.list("images"))
    reshard(store, "g", 5)
    for number in range(12):
        server.serve(f"/{number}.jpg", jpeg(100 + number))
    runs = [run_shard(store, "g", number, loopback, force=True, jpegs=jpegs) for number in range(5)]
    assert sum(run.images.fetched.num_rows for run in runs) == 12
    assert sorted(file.path for file in store.list("images")) == images


def test_a_shard_that_does_not_exist_and_a_gallery_without_shards_are_named(store, listed, loopback):
    with pytest.raises(StoreError, match="g has the shards 0 to 2, and not 3"):
        run_shard(store, "g", "0003", loopback)
    with pytest.raises(StoreError, match="other has no shards"):
        run_shard(store, "other", 0, loopback)


def test_no_shard_runs_while_the_gallery_is_given_other_shards(store, listed, loopback):
    store.put(resharding_path("g"), b"6")
    with pytest.raises(ReshardError, match="run `imgdl reshard g 6` again"):
        run_shard(store, "g", 0, loopback)


def test_a_spread_hosts_slots_are_divided(store, listed):
    places = Places.read(store, "g")
    assert list(places.spread_hosts().values()) == [3]
