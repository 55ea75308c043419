"""Find which 64-bit hashes are connected by steps of at most some bits, exactly, also for millions of them.

All near pairs are found, but pairs are never collected: each joins two sets at once, or is forgotten because
both are in one set already. So the memory depends on the number of hashes alone, and very many hashes that
are all near each other are a few comparisons each.

Near pairs are looked for in tables, see `hamming_plan`. In a table sorted by key, each hash is compared with
the next one, then the next but one, and so on, as far as the keys are the same: long array operations without
a loop over keys. What is left are keys that very many hashes share. If these are connected already, nothing
is left to do. Otherwise they are compared in blocks, or in tables of their own, planned anew for the bits in
which they differ.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from imgdl_pipeline.core.dataset.disjoint_sets import DisjointSets, Places
from imgdl_pipeline.core.dataset.hamming_plan import (
    COMPARE_NS,
    Chunk,
    Hashes,
    Plan,
    keys,
    make_plan,
    varying_bits,
)

Mask = npt.NDArray[np.bool_]

LARGE = 128
"""Hashes with one key that are handled on their own: above this, a loop over keys costs less than gathering."""

BLOCK = 1 << 18
"""Pairs in a block: what fits the processor's cache."""

DEEPEST = 3
"""How many tables within tables there are at most. Then, blocks of all pairs finish the work."""

DENSE = 0.15
"""The share of hashes with company at some offset above which comparing all costs less than gathering."""

CHEAP_NS = 2e7
"""The time to compare all pairs below which nothing is planned: a plan itself takes some milliseconds."""

FEW = 20_000
"""Hashes below which one thread is fast enough."""

PREFILTER_BITS = 22
"""Bits of a key by which hashes are left out that have no key of a row."""

SAMPLE = 64
"""Hashes that are looked at to find a large set."""

RECHECK = 8
"""Blocks after which it is looked at again what is connected by now."""


def components(hashes: Hashes, distance: int, *, threads: int = 1) -> Places:
    """Return for each hash the place of the first hash that it is connected with, its own included.

    Args:
        hashes: Hashes, each once.
        distance: The most bits by which two hashes differ that are connected directly.
        threads: How many threads share the work.
    """
    sets = DisjointSets(len(hashes))
    connect(hashes, distance, sets, threads=threads)
    return sets.roots()


def connect(
    hashes: Hashes,
    distance: int,
    sets: DisjointSets,
    *,
    rows: Mask | None = None,
    places: Places | None = None,
    threads: int = 1,
) -> None:
    """Join the sets of all hashes that are near each other.

    Args:
        hashes: Hashes, each once.
        distance: The most bits by which near hashes differ.
        sets: What is connected already, to be added to.
        rows: The hashes whose neighbours are wanted: pairs without any of them are known. None for all.
        places: The number of each hash in `sets`; None if the first hash is 0, and so on.
        threads: How many threads share the work.
    """
    if len(hashes) < 2 or distance < 1:
        return
    there = np.arange(len(hashes)) if places is None else places
    wanted = np.ones(len(hashes), np.bool_) if rows is None else rows
    _Search(distance, sets, hashes, there, wanted).run(threads)


@dataclass(frozen=True, slots=True)
class _Search:
    """A search among some hashes: `places` are their numbers in `sets`, `rows` says whose pairs count."""

    distance: int
    sets: DisjointSets
    hashes: Hashes
    places: Places
    rows: Mask
    depth: int = 0

    def run(self, threads: int = 1) -> None:
        search = self._fewer_rows()
        count, rows = len(search.hashes), int(search.rows.sum())
        if not rows:
            return
        blocks_ns = COMPARE_NS * count * rows
        if blocks_ns < CHEAP_NS or self.depth == DEEPEST:
            search._compare_blocks()
            return
        if len(varying_bits(search.hashes)) <= self.distance:
            self.sets.join_all(search.places)
            return
        plan = make_plan(search.hashes, self.distance, rows)
        if blocks_ns < plan.nanoseconds:
            search._compare_blocks()
        else:
            arranged = replace(search, hashes=plan.arranged(search.hashes))
            arranged._run_tables(plan, threads if count > FEW else 1)

    def _fewer_rows(self) -> "_Search":
        """Return a search with fewer rows, if many hashes are connected already.

        Any pair that would join two sets has a hash outside the largest set, or outside any other set.
        """
        roots = self.sets.roots_of(self.places)
        numbers, sizes = np.unique(roots[:: max(1, len(roots) // SAMPLE)], return_counts=True)
        outside = roots != numbers[sizes.argmax()]
        return replace(self, rows=outside) if outside.sum() < self.rows.sum() else self

    def _run_tables(self, plan: Plan, threads: int) -> None:
        tables, lock = iter(plan.tables), threading.Lock()

        def work() -> None:
            search = self
            while True:
                with lock:
                    table = next(tables, None)
                if table is None:
                    return
                search = search._fewer_rows()
                if not search.rows.any():
                    return
                _Table.of(search, table).compare()

        if threads == 1:
            work()
            return
        with ThreadPoolExecutor(threads, thread_name_prefix="hamming") as executor:
            for each in [executor.submit(work) for _ in range(threads)]:
                each.result()

    def _compare_blocks(self) -> None:
        """Compare each row with all hashes, first one row at a time and then more."""
        is_done = np.zeros(len(self.hashes), np.bool_)
        left, number, has_joined = np.flatnonzero(self.rows), 0, False
        while len(left):
            size = max(1, min(1 << number, BLOCK // len(self.hashes)))
            batch, left = left[:size], left[size:]
            is_done[batch] = True
            has_joined |= self._compare_block(batch)
            number += 1
            if has_joined and (number < RECHECK or number % RECHECK == 0):
                left, has_joined = np.flatnonzero(self._fewer_rows().rows & ~is_done), False

    def _compare_block(self, batch: Places) -> bool:
        """Compare some rows with all hashes, and return whether that joined any sets."""
        bits = np.bitwise_count(self.hashes[batch, None] ^ self.hashes)
        row, column = np.divmod(np.flatnonzero(bits <= self.distance), len(self.hashes))
        return _join(self.sets, self.places[batch[row]], self.places[column])


def _join(sets: DisjointSets, left: Places, right: Places) -> bool:
    """Join pairs, and return whether any pair was of two sets."""
    differ = sets.roots_of(left) != sets.roots_of(right)
    sets.join(left[differ], right[differ])
    return bool(differ.any())


@dataclass(frozen=True, slots=True)
class _Table:
    """The hashes of a search, sorted by a key; of those with the same key, the rows come first.

    Args:
        search: The search, with its hashes in their own order.
        order: The place of each hash of the table in the search.
        hashes: The hashes in the table's order.
        rows: Which of them are rows; None if all are.
        starts: Where each key starts.
        sizes: How many hashes have each key.
    """

    search: _Search
    order: Places
    hashes: Hashes
    rows: Mask | None
    starts: Places
    sizes: Places

    @staticmethod
    def of(search: _Search, table: tuple[Chunk, ...]) -> "_Table":
        """Sort the hashes of a search by their keys in a table."""
        key, chosen, rows = keys(search.hashes, table), None, search.rows
        if 2 * rows.sum() < len(key):
            chosen = np.flatnonzero(_may_meet(key, rows))
            key, rows = key[chosen], rows[chosen]
        bits = len(key).bit_length()
        key <<= np.uint64(1)
        key |= ~rows
        key <<= np.uint64(bits)
        key |= np.arange(len(key), dtype=np.uint64)
        key.sort()
        order = (key & np.uint64((1 << bits) - 1)).view(np.intp)
        key >>= np.uint64(bits + 1)
        starts = np.concatenate([[0], np.flatnonzero(key[1:] != key[:-1]) + 1])
        sizes = np.diff(starts, append=len(key))
        sorted_rows = None if rows.all() else rows[order]
        order = order if chosen is None else chosen[order]
        return _Table(search, order, search.hashes[order], sorted_rows, starts, sizes)

    def compare(self) -> None:
        """Join the sets of all near hashes with the same key, of which at least one is a row."""
        offset = self._compare_densely() if self.rows is None or self.rows.mean() > DENSE else 1
        self._compare_gathered(offset)
        for start, size in self._large_keys():
            part, search = self.order[start : start + size], self.search
            replace(
                search,
                hashes=search.hashes[part],
                places=search.places[part],
                rows=search.rows[part],
                depth=search.depth + 1,
            ).run()

    def _join(self, near: Places, offset: int) -> None:
        places = self.search.places
        _join(self.search.sets, places[self.order[near]], places[self.order[near + offset]])

    def _compare_densely(self) -> int:
        """Compare each hash with its next ones, as long as many have the same key; return the next offset.

        It does no harm to compare hashes with different keys: a near pair is a near pair.
        """
        count, offset = len(self.hashes), 1
        bits, differing = np.empty(count, np.uint8), np.empty(count, np.uint64)
        histogram = np.bincount(np.minimum(self.sizes, LARGE))
        pairs = np.cumsum(np.cumsum(histogram[::-1]))[::-1]  # by offset, counted from 1
        while offset < len(pairs) - 1 and pairs[offset + 1] > DENSE * count:
            size = count - offset
            np.bitwise_xor(self.hashes[:size], self.hashes[offset:], out=differing[:size])
            np.bitwise_count(differing[:size], out=bits[:size])
            self._join(np.flatnonzero(bits[:size] <= self.search.distance), offset)
            offset += 1
        return offset

    def _compare_gathered(self, offset: int) -> None:
        """Compare each row with the further hashes of its key, as far as there are any."""
        has_more = (self.sizes > offset) & (self.sizes <= LARGE)
        starts, sizes = self.starts[has_more], self.sizes[has_more]
        left = _ranges(starts, sizes)
        ends = np.repeat(starts + sizes, sizes)
        if self.rows is not None:
            is_row = self.rows[left]
            left, ends = left[is_row], ends[is_row]
        while True:
            goes_on = left + offset < ends
            left, ends = left[goes_on], ends[goes_on]
            if not len(left):
                return
            bits = np.bitwise_count(self.hashes[left] ^ self.hashes[left + offset])
            self._join(left[bits <= self.search.distance], offset)
            offset += 1

    def _large_keys(self) -> Iterator[tuple[int, int]]:
        """Yield start and size of the keys of very many hashes that are not all in one set yet."""
        is_large = self.sizes > LARGE
        starts, sizes = self.starts[is_large], self.sizes[is_large]
        if not len(starts):
            return
        places = self.order[_ranges(starts, sizes)]
        roots = self.search.sets.roots_of(self.search.places[places])
        firsts = np.cumsum(sizes) - sizes
        is_mixed = np.minimum.reduceat(roots, firsts) != np.maximum.reduceat(roots, firsts)
        is_mixed &= np.logical_or.reduceat(self.search.rows[places], firsts)
        yield from zip(starts[is_mixed].tolist(), sizes[is_mixed].tolist(), strict=True)


def _ranges(starts: Places, sizes: Places) -> Places:
    """Return the numbers from each start on, as many as its size says."""
    return np.repeat(starts - np.cumsum(sizes) + sizes, sizes) + np.arange(sizes.sum())


def _may_meet(key: Hashes, rows: Mask) -> Mask:
    """Return for each key whether a row may have the same."""
    low = (key & np.uint64((1 << PREFILTER_BITS) - 1)).astype(np.intp)
    met = np.zeros(1 << PREFILTER_BITS, np.bool_)
    met[low[rows]] = True
    return met[low]
