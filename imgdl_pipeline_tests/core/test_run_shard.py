import pickle
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from functools import partial

import pytest

from imgdl_pipeline.core.listing.places import Places
from imgdl_pipeline.core.listing.reshard import reshard
from imgdl_pipeline.core.listing.split import split
from imgdl_pipeline.core.model.dataset_settings import DatasetSettings
from imgdl_pipeline.core.model.links import Link
from imgdl_pipeline.core.model.schemas import CATALOG
from imgdl_pipeline.core.run_shard import run_shard
from imgdl_pipeline.core.storage.host_leases import HostLeases
from imgdl_pipeline.core.storage.layout import catalog_path, resharding_path, shard_name
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.parts import ReshardError
from imgdl_pipeline_tests.support.in_flight import InFlight
from imgdl_pipeline_tests.support.pictures import jpeg

MONDAY = datetime(2026, 11, 16, 6, tzinfo=timezone.utc)


@pytest.fixture
def listed(store, server):
    """Images of one host, so many that they are spread over all three shards."""
    links = [Link(server.serve(f"/{number}.jpg", jpeg(number))) for number in range(40)]
    split("g", store, links, 3, MONDAY)
    return links


def run_all(store, loopback, jpegs, shards):
    return [run_shard(store, "g", number, loopback, jpegs=jpegs) for number in range(shards)]


def test_the_shards_together_have_every_image_in_folders_of_their_own(store, listed, loopback, jpegs):
    runs = run_all(store, loopback, jpegs, 3)
    catalogs = [store.read_table(catalog_path(shard_name("g", number)), CATALOG) for number in range(3)]
    rows = [row for catalog in catalogs for row in catalog.to_pylist()]
    assert {row["url"] for row in rows} == {link.url for link in listed}
    assert {row["status"] for row in rows} == {"ok"}
    for number, (run, catalog) in enumerate(zip(runs, catalogs, strict=True)):
        assert run.shard == f"g/000{number}"
        assert run.links == run.ok == run.fetched == catalog.num_rows > 0
        assert all(row["path"].startswith(f"images/g/000{number}/") for row in catalog.to_pylist())


def test_a_second_run_asks_for_nothing(store, listed, server, loopback, jpegs):
    run_all(store, loopback, jpegs, 3)
    asked = server.paths()
    assert [run.fetched for run in run_all(store, loopback, jpegs, 3)] == [0, 0, 0]
    assert server.paths() == asked


def test_the_result_counts_what_there_is_and_what_was_done(store, server, loopback, jpegs):
    picture = jpeg()
    good, text = server.serve("/good.jpg", picture), server.serve("/text.jpg", b"no picture")
    links = [good, text, server.url("/gone.jpg"), "ftp://example.org/a.jpg"]
    split("g", store, map(Link, links), 1, MONDAY)
    run = run_shard(store, "g", 0, loopback, jpegs=jpegs)
    assert (run.links, run.ok, run.invalid, run.failed, run.refused) == (4, 1, 1, 1, 1)
    assert (run.fetched, run.bytes, run.waiting, run.in_dataset) == (1, len(picture), 0, None)
    assert run.seconds > 0
    waiting = [Link(server.serve(f"/{number}.jpg", picture)) for number in range(3)]
    split("g", store, waiting, 1, MONDAY)
    assert run_shard(store, "g", 0, loopback, limit=2, jpegs=jpegs).waiting == 1


def test_a_shards_dataset_is_written_after_its_catalog(store, listed, loopback, jpegs):
    dataset = DatasetSettings(format="imagefolder")
    runs = [run_shard(store, "g", number, loopback, dataset=dataset, jpegs=jpegs) for number in range(3)]
    assert [run.in_dataset for run in runs] == [run.ok for run in runs]
    there = [file.path for file in store.list("datasets/g") if file.path.endswith(".jpg")]
    assert len(there) == len(listed)


def test_arguments_and_result_are_pickled_to_other_processes(store, listed, loopback, jpegs):
    call = partial(run_shard, store, "g", 0, loopback, dataset=DatasetSettings(format="parquet"))
    run = pickle.loads(pickle.dumps(call))(jpegs=jpegs)
    assert pickle.loads(pickle.dumps(run)) == run
    assert len(pickle.dumps(run)) < 1000


@pytest.mark.parametrize("shards", [2, 5])
def test_after_resharding_no_image_is_fetched_again_or_lost(store, listed, loopback, jpegs, shards):
    run_all(store, loopback, jpegs, 3)
    images = sorted(file.path for file in store.list("images"))
    reshard(store, "g", shards)
    runs = run_all(store, loopback, jpegs, shards)
    assert sum(run.fetched for run in runs) == 0
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
    assert sum(run.fetched for run in runs) == 12
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


def test_shards_at_work_together_keep_to_the_slots_of_a_host(store, listed, server, loopback, monkeypatch):
    """Also where a host has fewer slots than shards, each of which has few links of it."""
    monkeypatch.setitem(HostLeases.__init__.__kwdefaults__, "renew_s", 0.05)
    picture, counting = jpeg(), InFlight()
    for number in range(len(listed)):
        server.routes[f"/{number}.jpg"] = counting.route(picture)
    settings = loopback.overridden_by({"per_host": 2})
    with ThreadPoolExecutor(3) as pool:
        runs = list(pool.map(lambda number: run_shard(store, "g", number, settings), range(3)))
    assert sum(run.ok for run in runs) == len(listed)
    assert counting.most == 2


def test_a_spread_hosts_slots_are_divided(store, listed):
    places = Places.read(store, "g")
    assert list(places.spread_hosts().values()) == [3]
