import threading

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from imgdl_pipeline.core.near_duplicates.disjoint_sets import DisjointSets


def pairs_of(count):
    number = st.integers(0, count - 1)
    return st.lists(st.lists(st.tuples(number, number), max_size=20), max_size=5)


def join(sets, pairs):
    left, right = np.array(pairs, dtype=np.intp).reshape(-1, 2).T
    sets.join(left, right)


@given(pairs_of(30))
def test_sets_are_those_of_joining_one_pair_after_the_other(batches):
    sets, expected = DisjointSets(30), list(range(30))
    for batch in batches:
        join(sets, batch)
        for left, right in batch:
            low, high = sorted((expected[left], expected[right]))
            expected = [low if each == high else each for each in expected]
    places = np.arange(30)
    assert sets.roots_of(places).tolist() == expected
    assert sets.roots().tolist() == expected
    assert sets.roots_of(places).tolist() == expected


def test_joining_all_makes_one_set():
    sets = DisjointSets(6)
    sets.join_all(np.array([5, 1, 3]))
    assert sets.roots().tolist() == [0, 1, 2, 1, 4, 1]
    sets.join_all(np.array([], dtype=np.intp))
    sets.join_all(np.array([2]))
    assert len(np.unique(sets.roots())) == 4


def test_a_chain_of_a_million_is_one_set():
    sets = DisjointSets(1_000_000)
    places = np.arange(1_000_000)
    sets.join(places[1:], places[:-1])
    assert not sets.roots().any()


def test_threads_that_join_at_the_same_time_lose_nothing():
    sets = DisjointSets(100_000)
    places = np.arange(100_000)
    order = np.random.default_rng(1).permutation(99_999)
    parts = [np.sort(part) for part in np.array_split(order, 40)]

    def work(number):
        for part in parts[number::4]:
            sets.join(places[part], places[part + 1])
            sets.roots()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not sets.roots().any()
