import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdl_pipeline.core.near_duplicates import hamming, hamming_table
from imgdl_pipeline.core.near_duplicates.disjoint_sets import DisjointSets
from imgdl_pipeline.core.near_duplicates.hamming import components, connect
from imgdl_pipeline_tests.support.hashes import (
    as_hashes,
    components_by_brute_force,
    flipped,
    uniform,
)

U64 = np.uint64


@pytest.fixture
def tables_always(monkeypatch):
    """Let even a few hashes be looked for in tables, and in tables within tables."""
    monkeypatch.setattr(hamming, "CHEAP_NS", 1e6 * 300**2)
    monkeypatch.setattr(hamming, "COMPARE_NS", 1e6)
    monkeypatch.setattr(hamming, "FEW", 0)
    monkeypatch.setattr(hamming_table, "LARGE", 4)


def test_no_hash_and_one_hash_are_no_trouble():
    assert components(uniform(0), 8).tolist() == []
    assert components(uniform(1), 8).tolist() == [0]


def test_distance_0_connects_nothing():
    assert components(as_hashes([0, 1, 3]), 0).tolist() == [0, 1, 2]


def test_a_chain_of_steps_is_one_component():
    assert components(as_hashes((1 << n) - 1 for n in range(0, 64, 8)), 8).tolist() == [0] * 8
    assert components(as_hashes((1 << n) - 1 for n in range(0, 64, 9)), 8).tolist() == list(range(8))


@given(st.lists(st.integers(0, 2**64 - 1), max_size=30), st.integers(0, 40))
def test_any_hashes_are_grouped_as_by_brute_force(values, distance):
    hashes = as_hashes(values)
    assert components(hashes, distance).tolist() == components_by_brute_force(hashes, distance)


SETS = {
    "uniform": lambda: uniform(1500),
    "clusters": lambda: flipped(np.repeat(uniform(50), 30), 9),
    "few bits set": lambda: flipped(np.zeros(1500, U64), 9),
    "a dense cluster in a crowd": lambda: np.append(flipped(np.zeros(500, U64), 4), uniform(1000)),
    "half of the bits are constant": lambda: uniform(1500, bits=32),
    "the halves are the same": lambda: uniform(1500, bits=32) * U64((1 << 32) + 1),
    "neighbouring numbers": lambda: np.arange(1500, dtype=U64),
    "chains": lambda: np.bitwise_xor.accumulate(flipped(np.zeros(1500, U64), 8)),
}


@pytest.mark.parametrize("distance", [1, 4, 8, 13])
@pytest.mark.parametrize("name", SETS)
def test_tables_find_what_brute_force_finds(name, distance, tables_always):
    hashes = np.unique(SETS[name]())
    expected = components_by_brute_force(hashes, distance)
    assert components(hashes, distance).tolist() == expected
    assert components(hashes, distance, threads=2).tolist() == expected


@pytest.mark.parametrize("name", SETS)
def test_blocks_find_what_brute_force_finds(name, monkeypatch):
    monkeypatch.setattr(hamming, "CHEAP_NS", 1e12)
    hashes = np.unique(SETS[name]())
    assert components(hashes, 8).tolist() == components_by_brute_force(hashes, 8)


@pytest.mark.parametrize("share", [0.005, 0.1, 0.6])
@pytest.mark.parametrize("name", SETS)
def test_a_few_rows_are_compared_with_all(name, share, tables_always):
    hashes = np.unique(SETS[name]())
    rows = np.random.default_rng(3).random(len(hashes)) < share
    sets = DisjointSets(len(hashes))
    [known] = np.nonzero(~rows)
    connect(hashes[known], 8, sets, places=known)
    connect(hashes, 8, sets, rows=rows)
    assert sets.roots().tolist() == components_by_brute_force(hashes, 8)


def test_pairs_without_a_row_are_not_looked_for():
    sets = DisjointSets(4)
    connect(as_hashes([0, 1, 2**40, 2**40 + 2**50 - 1]), 1, sets, rows=np.array([False, False, True, False]))
    assert sets.roots().tolist() == [0, 1, 0, 3]


def test_planted_pairs_among_very_many_hashes_are_all_found():
    crowd = uniform(200_000, 1)
    planted = crowd[:2000]
    partner = flipped(planted, 8, 2)
    hashes = np.unique(np.append(crowd, partner))
    found = components(hashes, 8, threads=2)
    left, right = np.searchsorted(hashes, planted), np.searchsorted(hashes, partner)
    assert (found[left] == found[right]).all()
    assert len(np.unique(found)) > 190_000


def test_a_hundred_thousand_hashes_that_are_all_near_cost_neither_time_nor_memory():
    hashes = np.unique(flipped(np.zeros(120_000, U64), 4))
    assert len(hashes) > 90_000
    tracemalloc.start()
    started = time.process_time()
    assert not components(hashes, 8).any()
    assert time.process_time() - started < 10
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def test_hostile_hashes_that_share_most_bits_but_are_not_near_cost_little():
    shared = uniform(100_000, bits=50)
    tracemalloc.start()
    components(shared, 8)
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def test_the_result_does_not_depend_on_the_threads():
    hashes = np.unique(flipped(np.repeat(uniform(500), 100), 8))
    one, two = components(hashes, 8), components(hashes, 8, threads=4)
    assert (one == two).all()


def test_an_error_in_a_thread_is_raised(monkeypatch):
    def broken(*_):
        raise MemoryError("no room")

    monkeypatch.setattr(hamming.Table, "of", broken)
    with pytest.raises(MemoryError, match="no room"):
        components(uniform(50_000), 8, threads=2)
