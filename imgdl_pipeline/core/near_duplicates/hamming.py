"""Find which 64-bit hashes are connected by steps of at most some bits, exactly, also for millions of them.

All near pairs are found, but pairs are never collected: each joins two sets at once, or is forgotten because
both are in one set already. So the memory depends on the number of hashes alone, and many hashes that are all
near each other take a few comparisons each.

Near pairs are looked for in tables, see `hamming_plan`. In a table sorted by key, each hash is compared with
the next one, then the next but one, and so on, as far as the keys are the same. What is left are keys that
very many hashes share. If these are connected already, nothing is left to do. Otherwise they are compared in
blocks of all pairs, or in tables of their own, planned anew for the bits in which they differ.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from imgdl_pipeline.core.near_duplicates.disjoint_sets import DisjointSets, Places
from imgdl_pipeline.core.near_duplicates.hamming_plan import (
    COMPARE_NS,
    Chunk,
    Hashes,
    make_plan,
    varying_bits,
)
from imgdl_pipeline.core.near_duplicates.hamming_table import Candidates, Mask, Table

BLOCK = 1 << 18
"""Pairs in a block: what fits the processor's cache."""

RECHECK = 8
"""Blocks after which it is looked at again what is connected by now."""

DEEPEST = 3
"""How many tables within tables there are at most. Then, blocks of all pairs finish the work."""

CHEAP_NS = 2e7
"""The time to compare all pairs below which nothing is planned: a plan itself takes some milliseconds."""

FEW = 20_000
"""Hashes below which one thread is fast enough."""


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
        rows: The hashes whose neighbours are wanted; None for all. All other pairs that are near must be
            connected already.
        places: The number of each hash in `sets`; None if the first hash is 0, and so on.
        threads: How many threads share the work.
    """
    if len(hashes) < 2 or distance < 1:
        return
    there = np.arange(len(hashes)) if places is None else places
    wanted = np.ones(len(hashes), np.bool_) if rows is None else rows
    _search(Candidates(distance, sets, hashes, there, wanted), threads=threads)


def _search(candidates: Candidates, depth: int = 0, threads: int = 1) -> None:
    """Join the sets of all near candidates, in the way that is expected to take the least time."""
    candidates = candidates.with_fewer_rows()
    count, rows = len(candidates.hashes), int(candidates.rows.sum())
    blocks_ns = COMPARE_NS * count * rows
    if blocks_ns < CHEAP_NS or depth == DEEPEST:
        _compare_blocks(candidates)
    elif len(varying_bits(candidates.hashes)) <= candidates.distance:
        candidates.sets.join_all(candidates.places)
    else:
        plan = make_plan(candidates.hashes, candidates.distance, rows)
        if blocks_ns < plan.nanoseconds:
            _compare_blocks(candidates)
        else:
            arranged = replace(candidates, hashes=plan.arranged(candidates.hashes))
            _compare_tables(arranged, iter(plan.tables), depth, threads if count > FEW else 1)


def _compare_tables(
    candidates: Candidates, tables: Iterator[tuple[Chunk, ...]], depth: int, threads: int
) -> None:
    """Compare candidates in tables. Threads take the next table from the iterator, under a lock."""
    lock = threading.Lock()

    def work() -> None:
        left = candidates
        while True:
            with lock:
                chunks = next(tables, None)
            left = left.with_fewer_rows()
            if chunks is None or not left.rows.any():
                return
            for part in Table.of(left, chunks).compare():
                _search(part, depth + 1)

    if threads == 1:
        work()
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="hamming") as executor:
        for each in [executor.submit(work) for _ in range(threads)]:
            each.result()


def _compare_blocks(candidates: Candidates) -> None:
    """Compare each row with all candidates, first one row at a time and then more."""
    is_done = np.zeros(len(candidates.hashes), np.bool_)
    left, number, has_joined = np.flatnonzero(candidates.rows), 0, False
    while len(left):
        size = max(1, min(1 << number, BLOCK // len(candidates.hashes)))
        batch, left = left[:size], left[size:]
        is_done[batch] = True
        has_joined |= _compare_block(candidates, batch)
        number += 1
        if has_joined and (number < RECHECK or number % RECHECK == 0):
            left, has_joined = np.flatnonzero(candidates.with_fewer_rows().rows & ~is_done), False


def _compare_block(candidates: Candidates, batch: Places) -> bool:
    """Compare some rows with all candidates, and return whether that joined any sets."""
    bits = np.bitwise_count(candidates.hashes[batch, None] ^ candidates.hashes)
    row, column = np.divmod(np.flatnonzero(bits <= candidates.distance), len(candidates.hashes))
    return candidates.join(batch[row], column)
