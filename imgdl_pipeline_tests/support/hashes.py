"""Perceptual hashes as tests want them, and their groups found by comparing every pair."""

from collections.abc import Iterable

import numpy as np

U64 = np.uint64


def uniform(count: int, seed: int = 0, bits: int = 64) -> np.ndarray:
    """Hashes whose lower bits are random and whose other bits are 0, each once, in ascending order."""
    return np.unique(np.random.default_rng(seed).integers(0, 1 << bits, count, dtype=U64))


def flipped(hashes: np.ndarray, bits: int, seed: int = 0) -> np.ndarray:
    """Hashes with up to so many random bits turned over."""
    random = np.random.default_rng(seed)
    for _ in range(bits):
        hashes = hashes ^ (U64(1) << random.integers(0, 64, len(hashes), dtype=U64))
    return hashes


def as_hashes(values: Iterable[int]) -> np.ndarray:
    return np.unique(np.array(list(values), dtype=U64))


def components_by_brute_force(hashes: np.ndarray, distance: int) -> list[int]:
    """The place of the first hash that each is connected with: a walk over all pairs."""
    found = [-1] * len(hashes)
    for first in range(len(hashes)):
        to_visit = [first] if found[first] < 0 else []
        while to_visit:
            place = to_visit.pop()
            if found[place] < 0:
                found[place] = first
                to_visit += np.flatnonzero(np.bitwise_count(hashes ^ hashes[place]) <= distance).tolist()
    return found
