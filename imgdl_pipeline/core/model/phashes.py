"""Convert perceptual hashes between 16 hex digits and 64-bit numbers, by whole columns."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Hashes = npt.NDArray[np.uint64]

DIGITS = 16


def is_phash(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return for each value whether it is a perceptual hash; null is none."""
    return pc.fill_null(pc.match_substring_regex(column, f"^[0-9a-f]{{{DIGITS}}}$"), fill_value=False)


def phash_numbers(column: pa.ChunkedArray) -> Hashes:
    """Return perceptual hashes as numbers; all values of the column must be hashes."""
    numbers = [np.empty(0, np.uint64)]
    for chunk in column.chunks:
        if len(chunk):
            _, offsets, data = chunk.buffers()
            start, end = np.frombuffer(offsets, np.int32)[[chunk.offset, chunk.offset + len(chunk)]]
            digits = memoryview(data)[start:end].tobytes().decode("ascii")
            numbers.append(np.frombuffer(bytes.fromhex(digits), ">u8").astype(np.uint64))
    return np.concatenate(numbers)


def phash_texts(numbers: Hashes) -> pa.Array:
    """Return numbers as perceptual hashes: the inverse of `phash_numbers`."""
    digits = pa.py_buffer(numbers.astype(">u8").tobytes().hex().encode("ascii"))
    offsets = pa.py_buffer(np.arange(0, DIGITS * len(numbers) + 1, DIGITS, dtype=np.int32))
    return pa.Array.from_buffers(pa.string(), len(numbers), [None, offsets, digits])
