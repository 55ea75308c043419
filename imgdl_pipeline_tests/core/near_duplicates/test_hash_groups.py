import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdl_pipeline.core.near_duplicates import hash_groups
from imgdl_pipeline.core.near_duplicates.hash_groups import group_hashes
from imgdl_pipeline_tests.support.hashes import as_hashes, flipped, uniform

U64 = np.uint64


def crowd():
    """Clusters of several sizes, chains that can fall apart, and hashes that are alone."""
    clusters = flipped(np.repeat(uniform(60, 1), 50), 6, 2)
    dense = flipped(np.full(3000, 12345, U64), 7, 3)
    return np.unique(np.concatenate([clusters, dense, uniform(2000, 4)]))


def same(left, right):
    return (left.hashes == right.hashes).all() and (left.groups == right.groups).all()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("gone", [0.0, 0.01, 0.4])
def test_a_later_run_finds_what_a_first_run_finds(seed, gone, monkeypatch):
    monkeypatch.setattr(hash_groups, "LARGE_GROUP", 100)
    hashes, random = crowd(), np.random.default_rng(seed)
    before = group_hashes(hashes[random.random(len(hashes)) < 0.9], 8)
    now = hashes[random.random(len(hashes)) >= gone]
    after = group_hashes(now, 8, before)
    assert same(after, group_hashes(now, 8))
    assert same(group_hashes(now, 8, after), after)


@given(st.sets(st.integers(0, 4095)), st.sets(st.integers(0, 4095)), st.integers(0, 4))
def test_any_change_gives_the_groups_of_a_first_run(before, now, distance):
    known = group_hashes(as_hashes(before), distance)
    assert same(group_hashes(as_hashes(now), distance, known), group_hashes(as_hashes(now), distance))


def test_a_group_falls_apart_without_the_hash_that_held_it_together():
    chain = as_hashes([0, 0xFF, 0xFFFF])
    before = group_hashes(chain, 8)
    assert before.groups.tolist() == [0, 0, 0]
    after = group_hashes(as_hashes([0, 0xFFFF]), 8, before)
    assert after.groups.tolist() == [0, 0xFFFF]
    again = group_hashes(chain, 8, after)
    assert again.groups.tolist() == [0, 0, 0]


def test_a_run_without_changes_compares_nothing():
    before = group_hashes(crowd(), 8)
    assert before.searched == len(crowd())
    assert group_hashes(crowd(), 8, before).searched == 0


def test_only_new_hashes_and_broken_groups_are_compared():
    hashes = as_hashes([0, 1, 0xFF << 10, 0xFE << 10, *(0xFFFFF << n for n in range(30, 44))])
    before = group_hashes(hashes, 2)
    after = group_hashes(hashes[1:], 2, before)  # the first group loses one of two
    assert after.searched == 1
    known = group_hashes(hashes[:-1], 2)
    assert group_hashes(hashes, 2, known).searched == 1


def test_everything_may_go_and_come_back():
    before = group_hashes(crowd(), 8)
    empty = group_hashes(as_hashes([]), 8, before)
    assert not len(empty.hashes)
    assert same(group_hashes(crowd(), 8, empty), before)
