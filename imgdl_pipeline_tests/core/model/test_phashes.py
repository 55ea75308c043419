import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from imgdl_pipeline.core.model.phashes import is_phash, phash_numbers, phash_texts


@given(st.lists(st.integers(0, 2**64 - 1), max_size=20))
def test_numbers_and_texts_are_each_other_s_inverse(values):
    texts = phash_texts(np.array(values, dtype=np.uint64))
    assert texts.to_pylist() == [f"{value:016x}" for value in values]
    assert phash_numbers(pa.chunked_array([texts, texts])).tolist() == values * 2


def test_slices_and_filtered_columns_are_read_from_their_own_place():
    texts = pa.chunked_array([phash_texts(np.arange(10, dtype=np.uint64))])
    assert phash_numbers(texts.slice(3, 4)).tolist() == [3, 4, 5, 6]
    assert phash_numbers(texts.filter(pa.array([False, True] * 5))).tolist() == [1, 3, 5, 7, 9]
    assert phash_numbers(pa.chunked_array([], pa.string())).tolist() == []


def test_only_16_hex_digits_are_a_hash():
    column = pa.chunked_array([["0123456789abcdef", None, "", "0123456789ABCDEF", "0" * 17, "x" * 16]])
    assert is_phash(column).to_pylist() == [True, False, False, False, False, False]
