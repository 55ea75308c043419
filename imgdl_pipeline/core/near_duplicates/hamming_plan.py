"""Plan which bits of hashes to sort by, so that no pair of near hashes is missed.

Two hashes that differ in at most `distance` bits must agree somewhere. Cut the 64 bits into blocks; if a
block `i` is allowed `t[i]` errors and the sum of all `t[i] + 1` exceeds the distance, then one block at least
has no more errors than it is allowed (the pigeonhole principle). Cut that block into `t + k` chunks: at least
`k` of its chunks have no error. So for each choice of `k` chunks of each block, sort the hashes by these
chunks: each near pair has the same key in one of these tables at least, and only hashes with the same key
need to be compared.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]

BITS = 64
SAMPLE = 1 << 16
"""How many hashes are looked at to learn how evenly a bit is distributed."""

BLOCKS, KEPT = 4, 6
"""The largest number of blocks, and of chunks in a key, that are considered."""

WIDEST_KEY = 36
"""Bits of a key: the number of the hash and one bit more must fit beside it in 64 bits."""

TABLE_NS, SORT_NS, FILTER_NS, COMPARE_NS, GATHER_NS = 2e5, 25.0, 7.0, 0.6, 6.0
"""Measured costs: of a table; of a hash in it, sorted or left out; of a pair, in a row or gathered."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Neighbouring bits of a hash whose bits are in the plan's order: `width` bits from `start` upwards."""

    start: int
    width: int


@dataclass(frozen=True, slots=True)
class Plan:
    """How to find the near pairs of some hashes.

    Args:
        order: The number of the bit, counted from the highest, that comes to each place, the highest first.
            Bits that are the same in all hashes come first.
        tables: The chunks that make the key of each table.
        nanoseconds: What it is expected to take.
    """

    order: tuple[int, ...]
    tables: tuple[tuple[Chunk, ...], ...]
    nanoseconds: float

    def arranged(self, hashes: Hashes) -> Hashes:
        """Return the hashes with their bits in the plan's order. Distances stay the same."""
        arranged = np.empty(len(hashes), np.uint64)
        for start in range(0, len(hashes), SAMPLE):
            part = hashes[start : start + SAMPLE].astype(">u8")
            bits = np.unpackbits(part.view(np.uint8)).reshape(-1, BITS).take(self.order, axis=1)
            arranged[start : start + SAMPLE] = np.packbits(bits, axis=1).view(">u8").ravel()
        return arranged


def key_bits(table: tuple[Chunk, ...]) -> int:
    """Return how many bits the keys of a table have."""
    return sum(chunk.width for chunk in table)


def keys(arranged: Hashes, table: tuple[Chunk, ...]) -> Hashes:
    """Return the key of each hash in a table; the hashes' bits are in the plan's order."""
    found, position = np.zeros(len(arranged), np.uint64), 0
    for chunk in table:
        part = arranged >> np.uint64(chunk.start)
        part &= np.uint64((1 << chunk.width) - 1)
        part <<= np.uint64(position)
        found |= part
        position += chunk.width
    return found


def varying_bits(hashes: Hashes) -> list[int]:
    """Return the numbers of the bits, counted from the highest, that are not the same in all hashes."""
    differing = int(np.bitwise_or.reduce(hashes ^ hashes[0])) if len(hashes) else 0
    return [number for number in range(BITS) if differing >> (BITS - 1 - number) & 1]


def make_plan(hashes: Hashes, distance: int, rows: int) -> Plan:
    """Return the plan that is expected to take the least time.

    Args:
        hashes: Hashes that differ in more than `distance` bits between them.
        distance: The most bits by which near hashes differ.
        rows: How many of the hashes are to be compared with all.
    """
    selectivity, best = _selectivity(hashes), None
    for blocks, kept in itertools.product(range(1, min(BLOCKS, distance + 1) + 1), range(1, KEPT + 1)):
        errors = _errors(distance, blocks)
        tables = sum(math.comb(allowed + kept, kept) for allowed in errors)
        if best is None or tables * (TABLE_NS + FILTER_NS * len(hashes)) < best.nanoseconds:
            plan = _plan(selectivity, len(hashes), rows, errors, kept)
            if plan is not None and (best is None or plan.nanoseconds < best.nanoseconds):
                best = plan
    if best is None:
        raise AssertionError("a key of one chunk is never too wide")
    return best


def _selectivity(hashes: Hashes) -> dict[int, float]:
    """Return by bit how many halvings it is worth: 1.0 if it is set in half of the hashes, 0.0 if in none."""
    varying = varying_bits(hashes)
    sample = hashes[:: max(1, len(hashes) // SAMPLE)]
    shares = {bit: float(np.mean(sample >> np.uint64(BITS - 1 - bit) & np.uint64(1))) for bit in varying}
    return {bit: -math.log2(share**2 + (1 - share) ** 2) for bit, share in shares.items()}


def _errors(distance: int, blocks: int) -> list[int]:
    """Return how many errors each block is allowed."""
    least, more = divmod(distance + 1 - blocks, blocks)
    return [least + (number < more) for number in range(blocks)]


def _plan(selectivity: dict[int, float], count: int, rows: int, errors: list[int], kept: int) -> Plan | None:
    """Return the plan of a shape; None if its keys are too wide."""
    hands = _dealt(selectivity, sum(errors) + kept * len(errors))
    ends = itertools.accumulate((len(hand) for hand in hands), initial=BITS - len(selectivity))
    chunks = [Chunk(BITS - end - len(hand), len(hand)) for end, hand in zip(ends, hands, strict=False)]
    tables = tuple(_tables(chunks, errors, kept))
    if max(map(key_bits, tables)) > WIDEST_KEY:
        return None
    dealt = [bit for hand in hands for bit in hand]
    order = (*(bit for bit in range(BITS) if bit not in selectivity), *dealt)
    worth = {chunk: sum(selectivity[bit] for bit in hand) for chunk, hand in zip(chunks, hands, strict=True)}
    halvings = (sum(worth[chunk] for chunk in table) for table in tables)
    return Plan(order, tables, sum(_table_ns(count, rows, each) for each in halvings))


def _dealt(selectivity: dict[int, float], count: int) -> list[list[int]]:
    """Deal the bits to chunks that select about equally."""
    hands: list[list[int]] = [[] for _ in range(count)]
    worth = [0.0] * count
    for bit in sorted(selectivity, key=lambda bit: (-selectivity[bit], bit)):
        lightest = worth.index(min(worth))
        hands[lightest].append(bit)
        worth[lightest] += selectivity[bit]
    return hands


def _tables(chunks: list[Chunk], errors: list[int], kept: int) -> Iterator[tuple[Chunk, ...]]:
    """Yield the keys; wide and narrow chunks are dealt to all blocks alike."""
    left = list(range(len(chunks)))
    for number, allowed in enumerate(errors):
        block = left[:: len(errors) - number][: allowed + kept]
        left = [place for place in left if place not in block]
        yield from itertools.combinations([chunks[place] for place in block], kept)


def _table_ns(count: int, rows: int, halvings: float) -> float:
    """Return the time that one table is expected to take."""
    share: float = 2.0**-halvings
    company = count * share
    if rows == count:
        return TABLE_NS + count * (SORT_NS + COMPARE_NS * (company + 4 * math.sqrt(company) + 4))
    met = min(1.0, rows * share)
    return TABLE_NS + count * (FILTER_NS + SORT_NS * met) + rows * company * GATHER_NS
