from collections import Counter
from datetime import datetime, timezone

import numpy as np
import pyarrow as pa
import pytest

from imgdl_pipeline.core.listing.reshard import reshard
from imgdl_pipeline.core.listing.split import MOST_PLACES, Places, ReshardError, place_hosts, split
from imgdl_pipeline.core.model.links import Link
from imgdl_pipeline.core.model.schemas import CATALOG, DOWNLOADS, LINKS
from imgdl_pipeline.core.storage.layout import (
    catalog_path,
    downloads_path,
    links_path,
    resharding_path,
    shard_name,
)
from imgdl_pipeline.core.storage.lease import GalleryBusyError
from imgdl_pipeline.core.storage.ledger import Ledger
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline_tests.support.rows import row

MONDAY = datetime(2026, 11, 16, 6, tzinfo=timezone.utc)


def urls(host, count, start=0):
    return [f"https://{host}.org/{number}.jpg" for number in range(start, start + count)]


def split_urls(store, listed, shards=4):
    return split("g", store, map(Link, listed), shards, MONDAY)


def shard_of(store, shards=4):
    """Which shard each link is in; every link is in one only."""
    found = {}
    for number in range(shards):
        for url in store.read_table(links_path(shard_name("g", number)), LINKS)["url"].to_pylist():
            assert url not in found
            found[url] = number
    return found


def hosts_of(found):
    places = {}
    for url, shard in found.items():
        places.setdefault(url.split("/")[2], set()).add(shard)
    return places


MANY = [url for number in range(200) for url in urls(f"h{number}", 10)]


def test_each_link_is_in_one_shard_and_a_hosts_links_are_together(store):
    made = split_urls(store, MANY)
    found = shard_of(store)
    assert set(found) == set(MANY)
    assert all(len(each) == 1 for each in hosts_of(found).values())
    assert (made.given, sum(made.links)) == (2_000, 2_000)
    assert max(made.links) < 2 * min(made.links)


def test_the_first_of_equal_links_counts_and_the_order_stays(store):
    listed = [Link(url, {"title": str(number)}) for number, url in enumerate([*MANY, *MANY[:50]])]
    made = split("g", store, listed, 4, MONDAY)
    assert (made.given, sum(made.links)) == (2_050, 2_000)
    for number in range(4):
        rows = store.read_table(links_path(shard_name("g", number)), LINKS).to_pylist()
        places = [int(each["attributes"].split('"')[3]) for each in rows]
        assert places == sorted(places)
        assert all(listed[place].url == each["url"] for place, each in zip(places, rows, strict=True))


def test_the_same_list_is_split_in_the_same_way(store):
    split_urls(store, MANY)
    before = shard_of(store)
    split_urls(store, MANY[::-1])
    assert shard_of(store) == before


def test_large_hosts_are_placed_where_there_is_room(store):
    split_urls(store, [url for number in range(4) for url in urls(f"big{number}", 500)])
    assert sorted(Counter(shard_of(store).values()).values()) == [500] * 4


def test_a_host_with_very_many_links_is_spread_over_several_shards(store):
    made = split_urls(store, [*urls("giant", 3_000), *MANY])
    assert made.places.spread("giant.org:443") == len(hosts_of(shard_of(store))["giant.org"]) == 3
    assert made.places.spread("h1.org:443") == 1


def test_no_host_is_spread_over_more_than_a_few_shards():
    places = Places(100)
    place_hosts(places, Counter({"giant": 1_000_000, "other": 10}), is_new=True)
    assert places.spread("giant") == MOST_PLACES


def test_a_growing_list_moves_no_link(store):
    split_urls(store, MANY)
    for start in range(0, 6_000, 2_000):
        before = shard_of(store)
        split_urls(store, [*MANY, *urls("h7", start + 2_000)])
        now = shard_of(store)
        assert {url: now[url] for url in before} == before
    assert len(hosts_of(now)["h7.org"]) > 1


def test_a_link_that_was_only_in_the_ledger_stays_in_its_shard(store):
    grown = [*MANY, *urls("h7", 4_000)]
    split_urls(store, MANY)
    [home] = hosts_of(shard_of(store))["h7.org"]
    with Ledger(store, shard_name("g", home)) as ledger:
        ledger.add(row("https://h7.org/3999.jpg"))
    split_urls(store, [url for url in MANY if "h7." not in url])
    split_urls(store, grown)
    found = shard_of(store)
    assert found["https://h7.org/3999.jpg"] == home
    assert {found[url] for url in urls("h7", 4_000)} != {home}


def test_a_list_in_many_batches_is_split_like_any_other(store, monkeypatch):
    monkeypatch.setattr("imgdl_pipeline.core.model.links.BATCH_ROWS", 7)
    monkeypatch.setattr("imgdl_pipeline.core.listing.split.GATHERED_BYTES", 1_000)
    split_urls(store, [*MANY, *MANY])
    assert set(shard_of(store)) == set(MANY)


def test_another_number_of_shards_is_refused_with_the_command_that_reshards(store):
    split_urls(store, MANY)
    with pytest.raises(ReshardError, match="run `imgdl reshard g 8` first, which moves no image"):
        split_urls(store, MANY, shards=8)


def test_an_empty_list_has_empty_shards(store):
    assert split_urls(store, []).links == (0, 0, 0, 0)
    assert shard_of(store) == {}


@pytest.fixture
def run_before(store):
    """Four shards with a ledger and a catalog each."""
    split_urls(store, MANY)
    for number in range(4):
        name = shard_name("g", number)
        listed = store.read_table(links_path(name), LINKS)["url"].to_pylist()
        with Ledger(store, name) as ledger:
            for url in listed:
                ledger.add(row(url, path=f"images/{name}/{url[-8:]}", bytes=7))
        known = [{"url": url, "status": "ok", "path": f"images/{name}/{url[-8:]}"} for url in listed]
        columns = {field: [each.get(field) for each in known] for field in CATALOG.names}
        store.write_table(catalog_path(name), pa.table(columns, schema=CATALOG))
    return store


def paths(store, path_of, schema, shards):
    found = {}
    for number in range(shards):
        table = store.read_table(path_of(shard_name("g", number)), schema)
        found |= dict(zip(table["url"].to_pylist(), table["path"].to_pylist(), strict=True))
    return found


@pytest.mark.parametrize("shards", [1, 3, 9])
def test_resharding_moves_rows_and_no_image(run_before, shards):
    before = [paths(run_before, *each, 4) for each in ((downloads_path, DOWNLOADS), (catalog_path, CATALOG))]
    reshard(run_before, "g", shards)
    after = [
        paths(run_before, *each, shards) for each in ((downloads_path, DOWNLOADS), (catalog_path, CATALOG))
    ]
    assert after == before
    found = shard_of(run_before, shards)
    assert set(found) == set(MANY)
    assert all(len(each) == 1 for each in hosts_of(found).values())
    files = [file.path for file in run_before.list("links/gallery=g")]
    assert sum("links." in path for path in files) == shards
    assert not any("resharde" in path or "resharding" in path for path in files)
    split_urls(run_before, MANY, shards)
    assert shard_of(run_before, shards) == found


def test_resharding_that_was_interrupted_is_completed_and_nothing_else_goes_on(run_before, monkeypatch):
    moves = iter([True] * 5)

    def move(path, to):
        if not next(moves, False):
            raise StoreError("the disk is gone")
        return type(run_before).move(run_before, path, to)

    monkeypatch.setattr(run_before, "move", move)
    with pytest.raises(StoreError, match="the disk is gone"):
        reshard(run_before, "g", 6)
    monkeypatch.undo()
    with pytest.raises(ReshardError, match="run `imgdl reshard g 6` again"):
        split_urls(run_before, MANY, 6)
    with pytest.raises(ReshardError, match="finish `imgdl reshard g 6` first"):
        reshard(run_before, "g", 5)
    assert reshard(run_before, "g", 6).is_resharded
    assert set(shard_of(run_before, 6)) == set(paths(run_before, downloads_path, DOWNLOADS, 6)) == set(MANY)
    assert run_before.get(resharding_path("g")) is None


def test_resharding_waits_for_no_run(run_before):
    with Ledger(run_before, "g/0002"), pytest.raises(GalleryBusyError):
        reshard(run_before, "g", 2)
    assert shard_of(run_before).keys() == set(MANY)


@pytest.mark.parametrize("shards", [0, 10_001])
def test_a_number_of_shards_that_cannot_be_is_refused(run_before, shards):
    with pytest.raises(ValueError, match="1 to 10000 shards"):
        reshard(run_before, "g", shards)
    with pytest.raises(StoreError, match="has no shards"):
        reshard(run_before, "other", 4)


def test_places_that_are_no_places_are_named(store):
    store.put("links/gallery=g/_shards.json", b"[]")
    with pytest.raises(StoreError, match=r"_shards\.json is not a table of shards"):
        Places.read(store, "g")


def test_hosts_without_a_place_of_their_own_are_spread_evenly():
    places = Places(10)
    counts = np.bincount([places.of(f"h{number}:443")[0][0] for number in range(10_000)])
    assert counts.min() > 800
