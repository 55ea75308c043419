import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdl_pipeline.core.near_duplicates.hamming_plan import (
    BLOCKS,
    KEPT,
    WIDEST_KEY,
    _errors,
    _plan,
    _selectivity,
    key_bits,
    keys,
    make_plan,
    varying_bits,
)
from imgdl_pipeline_tests.support.hashes import flipped, uniform

U64 = np.uint64


def is_found(plan, left, right):
    """Return for each pair whether both have the same key in a table."""
    left, right = plan.arranged(left), plan.arranged(right)
    return np.logical_or.reduce([keys(left, table) == keys(right, table) for table in plan.tables])


@pytest.mark.parametrize("distance", range(1, 17))
def test_hashes_as_far_apart_as_allowed_share_a_key(distance):
    hashes = uniform(2000, distance)
    plan = make_plan(hashes, distance, len(hashes))
    assert is_found(plan, hashes, flipped(hashes, distance)).all()


@pytest.mark.parametrize("kept", range(1, KEPT + 1))
@pytest.mark.parametrize("blocks", range(1, BLOCKS + 1))
@pytest.mark.parametrize("bits", [5, 21, 64])
def test_every_shape_finds_every_pair(blocks, kept, bits):
    hashes, distance = uniform(300, bits=bits), 6
    plan = _plan(_selectivity(hashes), len(hashes), len(hashes), _errors(distance, blocks), kept)
    if plan is not None:
        near = flipped(hashes, distance) & U64((1 << bits) - 1)
        assert is_found(plan, hashes, near).all()


@given(st.integers(0, 16), st.integers(1, BLOCKS))
def test_more_errors_than_allowed_in_all_blocks_are_more_than_the_distance(distance, blocks):
    if blocks <= distance + 1:
        assert sum(allowed + 1 for allowed in _errors(distance, blocks)) == distance + 1
        assert min(_errors(distance, blocks)) >= 0


def test_arranging_bits_changes_no_distance():
    left, right = uniform(100_000, 1)[:70_000], uniform(100_000, 2)[:70_000]
    plan = make_plan(left, 8, len(left))
    assert sorted(plan.order) == list(range(64))
    before = np.bitwise_count(left ^ right)
    assert (np.bitwise_count(plan.arranged(left) ^ plan.arranged(right)) == before).all()


def test_bits_that_are_the_same_everywhere_are_in_no_key():
    hashes = uniform(5000, bits=40) | U64(0xABC << 52)
    plan = make_plan(hashes, 3, len(hashes))
    assert varying_bits(hashes) == list(range(24, 64))
    arranged = plan.arranged(hashes)
    assert varying_bits(arranged) == list(range(24, 64))
    assert max(chunk.start + chunk.width for table in plan.tables for chunk in table) <= 40


def test_a_key_has_each_chunk_once_and_leaves_room_for_the_place():
    for distance in range(1, 17):
        for table in make_plan(uniform(1000), distance, 1000).tables:
            bits = [bit for chunk in table for bit in range(chunk.start, chunk.start + chunk.width)]
            assert len(set(bits)) == len(bits) == key_bits(table) <= WIDEST_KEY


def test_many_hashes_get_wider_keys_than_few():
    few, many = (make_plan(uniform(count), 8, count) for count in (3000, 300_000))
    assert np.mean([key_bits(each) for each in few.tables]) < np.mean(
        [key_bits(each) for each in many.tables]
    )


def test_a_few_rows_get_a_cheaper_plan():
    hashes = uniform(200_000)
    assert make_plan(hashes, 8, 2000).nanoseconds < make_plan(hashes, 8, len(hashes)).nanoseconds / 2
