"""Compare the hashes that share a key, by array operations over all keys at a time."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from imgdl_pipeline.core.near_duplicates.disjoint_sets import DisjointSets, Places
from imgdl_pipeline.core.near_duplicates.hamming_plan import Chunk, Hashes, keys

Mask = npt.NDArray[np.bool_]

LARGE = 128
"""Hashes of a key above which it is left to the caller: then, a loop over keys costs less than gathering."""

DENSE = 0.15
"""The share of hashes to compare at some offset above which comparing all costs less than gathering."""

PREFILTER_BITS = 22
"""Bits of a key by which hashes are left out that cannot have the same key as any row."""

SAMPLE = 64
"""Hashes that are looked at to find a large set."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """Hashes to be compared with each other.

    Args:
        distance: The most bits by which near hashes differ.
        sets: What is connected so far.
        hashes: The hashes, each once; their bits may be in another order, the same for all.
        places: The number of each hash in `sets`.
        rows: The hashes whose neighbours are wanted. Other pairs are known to be far, or connected.
    """

    distance: int
    sets: DisjointSets
    hashes: Hashes
    places: Places
    rows: Mask

    def part(self, chosen: Places) -> "Candidates":
        """Return some of the candidates."""
        return replace(self, hashes=self.hashes[chosen], places=self.places[chosen], rows=self.rows[chosen])

    def with_fewer_rows(self) -> "Candidates":
        """Return candidates with fewer rows, if many are connected already.

        Any pair that would join two sets has a hash outside any given set, such as the largest.
        """
        roots = self.sets.roots_of(self.places)
        numbers, sizes = np.unique(roots[:: max(1, len(roots) // SAMPLE)], return_counts=True)
        outside = roots != numbers[sizes.argmax()]
        return replace(self, rows=outside) if outside.sum() < self.rows.sum() else self

    def join(self, left: Places, right: Places) -> bool:
        """Join pairs of candidates, and return whether any pair was of two sets."""
        left, right = self.places[left], self.places[right]
        differ = self.sets.roots_of(left) != self.sets.roots_of(right)
        self.sets.join(left[differ], right[differ])
        return bool(differ.any())


@dataclass(frozen=True, slots=True)
class Table:
    """Candidates sorted by a key; of those with the same key, the rows come first.

    Args:
        candidates: The candidates, in their own order.
        order: The place of each hash of the table among the candidates.
        hashes: The hashes in the table's order.
        rows: Which of them are rows; None if all are.
        starts: Where each key starts.
        sizes: How many hashes have each key.
    """

    candidates: Candidates
    order: Places
    hashes: Hashes
    rows: Mask | None
    starts: Places
    sizes: Places

    @staticmethod
    def of(candidates: Candidates, chunks: tuple[Chunk, ...]) -> "Table":
        """Sort candidates by their keys, without those whose key no row has if these are many.

        The key, whether it is a row, and the place are sorted as one number: the fastest way to sort.
        """
        key, chosen, rows = keys(candidates.hashes, chunks), None, candidates.rows
        if 2 * rows.sum() < len(key):
            chosen = np.flatnonzero(_may_meet(key, rows))
            key, rows = key[chosen], rows[chosen]
        bits = len(key).bit_length()
        key <<= np.uint64(1)
        key |= ~rows
        key <<= np.uint64(bits)
        key |= np.arange(len(key), dtype=np.uint64)
        key.sort()
        order = (key & np.uint64((1 << bits) - 1)).view(np.int64)
        key >>= np.uint64(bits + 1)
        starts = np.concatenate([[0], np.flatnonzero(key[1:] != key[:-1]) + 1])
        sizes = np.diff(starts, append=len(key))
        sorted_rows = None if rows.all() else rows[order]
        order = order if chosen is None else chosen[order]
        return Table(candidates, order, candidates.hashes[order], sorted_rows, starts, sizes)

    def compare(self) -> Iterator[Candidates]:
        """Join the sets of near hashes with the same key, and yield what is left: keys of many hashes."""
        is_dense = self.rows is None or self.rows.mean() > DENSE
        offset = self._compare_all() if is_dense else 1
        self._compare_gathered(offset)
        yield from self._large_keys()

    def _compare_all(self) -> int:
        """Compare each hash with its next ones, as long as many have the same key; return the next offset.

        It does no harm to compare hashes with different keys: a near pair is a near pair.
        """
        count, offset = len(self.hashes), 1
        bits, differing = np.empty(count, np.uint8), np.empty(count, np.uint64)
        with_size = np.bincount(np.minimum(self.sizes, LARGE))
        pairs = np.cumsum(np.cumsum(with_size[::-1]))[::-1]  # at each offset, which counts from 1 here
        while offset < len(pairs) - 1 and pairs[offset + 1] > DENSE * count:
            size = count - offset
            np.bitwise_xor(self.hashes[:size], self.hashes[offset:], out=differing[:size])
            np.bitwise_count(differing[:size], out=bits[:size])
            self._join(np.flatnonzero(bits[:size] <= self.candidates.distance), offset)
            offset += 1
        return offset

    def _compare_gathered(self, offset: int) -> None:
        """Compare each row with the further hashes of its key, as far as there are any."""
        has_more = (self.sizes > offset) & (self.sizes <= LARGE)
        starts, sizes = self.starts[has_more], self.sizes[has_more]
        left, ends = _ranges(starts, sizes), np.repeat(starts + sizes, sizes)
        if self.rows is not None:
            is_row = self.rows[left]
            left, ends = left[is_row], ends[is_row]
        while True:
            goes_on = left + offset < ends
            left, ends = left[goes_on], ends[goes_on]
            if not len(left):
                return
            bits = np.bitwise_count(self.hashes[left] ^ self.hashes[left + offset])
            self._join(left[bits <= self.candidates.distance], offset)
            offset += 1

    def _join(self, near: Places, offset: int) -> None:
        self.candidates.join(self.order[near], self.order[near + offset])

    def _large_keys(self) -> Iterator[Candidates]:
        """Yield the candidates of each key that very many share, unless all are in one set by now."""
        is_large = self.sizes > LARGE
        starts, sizes = self.starts[is_large], self.sizes[is_large]
        if not len(starts):
            return
        places = self.order[_ranges(starts, sizes)]
        roots = self.candidates.sets.roots_of(self.candidates.places[places])
        firsts = np.cumsum(sizes) - sizes
        is_open = np.minimum.reduceat(roots, firsts) != np.maximum.reduceat(roots, firsts)
        is_open &= np.logical_or.reduceat(self.candidates.rows[places], firsts)
        for start, size in zip(starts[is_open].tolist(), sizes[is_open].tolist(), strict=True):
            yield self.candidates.part(self.order[start : start + size])


def _ranges(starts: Places, sizes: Places) -> Places:
    """Return the numbers from each start on, as many as its size says."""
    return np.repeat(starts - np.cumsum(sizes) + sizes, sizes) + np.arange(sizes.sum())


def _may_meet(key: Hashes, rows: Mask) -> Mask:
    """Return for each key whether a row may have the same."""
    low = (key & np.uint64((1 << PREFILTER_BITS) - 1)).view(np.int64)
    met = np.zeros(1 << PREFILTER_BITS, np.bool_)
    met[low[rows]] = True
    may_meet: Mask = met[low]
    return may_meet
