from collections import Counter

import pytest

from imgdl_pipeline.core.listing.split import split
from imgdl_pipeline.core.model.links import Link
from imgdl_pipeline.core.model.schemas import LINKS
from imgdl_pipeline.core.storage.layout import links_path, shard_name
from imgdl_pipeline.core.storage.ledger import Ledger
from imgdl_pipeline.core.storage.parts import ReshardError
from imgdl_pipeline_tests.support.rows import row
from imgdl_pipeline_tests.support.shards import MANY, MONDAY, hosts_of, shard_of, split_urls, urls


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
    monkeypatch.setattr("imgdl_pipeline.core.listing.divide.GATHERED_BYTES", 1_000)
    split_urls(store, [*MANY, *MANY])
    assert set(shard_of(store)) == set(MANY)


def test_another_number_of_shards_is_refused_with_the_command_that_reshards(store):
    split_urls(store, MANY)
    with pytest.raises(ReshardError, match="run `imgdl reshard g 8` first, which moves no image"):
        split_urls(store, MANY, shards=8)


def test_an_empty_list_has_empty_shards(store):
    assert split_urls(store, []).links == (0, 0, 0, 0)
    assert shard_of(store) == {}
