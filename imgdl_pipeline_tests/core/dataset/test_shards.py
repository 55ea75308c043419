from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdl_pipeline.core.dataset.parts import INDEXED
from imgdl_pipeline.core.dataset.shards import LOOSE, assigned

EARLIER = pa.schema([INDEXED.field("url"), INDEXED.field("shard")])


def first(urls, size):
    return assigned(pa.array(urls, pa.string()), EARLIER.empty_table(), size).tolist()


def index(shards):
    """An index from each link's shard."""
    return pa.table([list(shards), pa.array(list(shards.values()), pa.int32())], schema=EARLIER)


def after(urls, shards, size):
    return dict(zip(urls, assigned(pa.array(urls, pa.string()), index(shards), size).tolist(), strict=True))


links = st.lists(st.integers(0, 60).map(str), unique=True, max_size=60)
sizes = st.integers(1, 7)
days = st.lists(links, min_size=1, max_size=6)
"""What is in the catalog, day by day."""


def updates(days, size):
    """Each day's links, the shards before, and the shards after."""
    before: dict[str, int] = {}
    for urls in days:
        now = after(urls, before, size)
        yield urls, before, now
        before = now


def is_packed_anew(urls, before, size):
    kept = {before[url] for url in urls if url in before}
    return len(kept) > LOOSE * max(1, -(-len(urls) // size))


@given(links, sizes)
def test_a_new_dataset_has_full_shards_in_the_catalogs_order(urls, size):
    assert first(urls, size) == [place // size for place in range(len(urls))]


@given(days, sizes)
def test_the_same_days_give_the_same_shards(days, size):
    assert list(updates(days, size)) == list(updates(days, size))


@given(days, sizes)
def test_an_image_stays_in_its_shard_unless_all_are_packed_anew(days, size):
    for urls, before, now in updates(days, size):
        if not is_packed_anew(urls, before, size):
            assert {url: now[url] for url in urls if url in before} == {
                url: before[url] for url in urls if url in before
            }


@given(days, sizes)
def test_no_shard_is_larger_than_its_size(days, size):
    for _, _, now in updates(days, size):
        assert all(images <= size for images in Counter(now.values()).values())


@given(days, sizes)
def test_new_images_come_into_the_last_shard_and_new_ones_only(days, size):
    for urls, before, now in updates(days, size):
        kept = {before[url] for url in urls if url in before}
        if not is_packed_anew(urls, before, size):
            assert all(now[url] >= max(kept, default=0) for url in urls if url not in before)


@given(days, sizes)
def test_there_are_never_more_than_twice_the_shards_that_are_needed_and_new_ones(days, size):
    for urls, before, now in updates(days, size):
        kept = {now[url] for url in urls if url in before}
        assert len(kept) <= LOOSE * max(1, -(-len(urls) // size))
        new = {shard for shard in now.values() if shard > max(kept, default=-1)}
        assert len(new) <= -(-len(set(urls) - set(before)) // size) + (not kept)


@given(links, sizes, links)
def test_a_loose_dataset_is_packed_as_a_new_one(urls, size, left):
    before = {url: place for place, url in enumerate(urls)}  # one image in each shard
    remaining = [url for url in urls if url in left]
    if is_packed_anew(remaining, before, size):
        assert list(after(remaining, before, size).values()) == first(remaining, size)


def test_one_percent_of_new_links_changes_two_percent_of_the_shards_and_the_new_ones_at_most():
    before = dict(zip(map(str, range(10_050)), first(map(str, range(10_050)), 100), strict=True))
    urls = [*before, *(f"new {number}" for number in range(100))]
    now = after(urls, before, 100)
    changed = {now[url] for url in urls if url not in before}
    assert len(set(before.values())) == 101
    assert len(changed & set(before.values())) <= 0.02 * 101
    assert len(changed) == 2


def test_a_shard_whose_images_are_all_gone_leaves_a_gap():
    before = {"a": 0, "b": 0, "c": 1, "d": 1, "e": 2}
    assert after(["a", "b", "e", "new", "newer"], before, 2) == {"a": 0, "b": 0, "e": 2, "new": 2, "newer": 3}


def test_new_images_fill_the_last_shard_that_is_left():
    assert after(["a", "x"], {"a": 0, "b": 1}, 2) == {"a": 0, "x": 0}


@pytest.mark.parametrize(
    ("images", "size", "shards"),
    [(4, 3, [0, 1, 2, 3]), (5, 4, [0, 0, 0, 0, 1]), (2, 9, [0, 1]), (3, 9, [0, 0, 0])],
)
def test_a_dataset_is_packed_anew_once_less_than_half_of_its_shards_would_do(images, size, shards):
    before = {str(number): number for number in range(images)}
    assert list(after(list(before), before, size).values()) == shards


def test_a_dataset_without_images_has_no_shards():
    assert first([], 5) == []
    assert after([], {"a": 3}, 5) == {}
