from collections import Counter

import numpy as np
import pytest

from imgdl_pipeline.core.listing.places import MOST_PLACES, Places, place_hosts
from imgdl_pipeline.core.storage.object_store import StoreError


def test_no_host_is_spread_over_more_than_a_few_shards():
    places = Places(100)
    place_hosts(places, Counter({"giant": 1_000_000, "other": 10}), is_new=True)
    assert places.spread("giant") == MOST_PLACES


def test_places_that_are_no_places_are_named(store):
    store.put("links/gallery=g/_shards.json", b"[]")
    with pytest.raises(StoreError, match=r"_shards\.json is not a table of shards"):
        Places.read(store, "g")


def test_hosts_without_a_place_of_their_own_are_spread_evenly():
    places = Places(10)
    counts = np.bincount([places.of(f"h{number}:443")[0][0] for number in range(10_000)])
    assert counts.min() > 800
