"""Keep groups of near hashes up to date from run to run, exactly as if they were found from the beginning."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imgdl_pipeline.core.near_duplicates.disjoint_sets import DisjointSets, Places
from imgdl_pipeline.core.near_duplicates.hamming import components, connect
from imgdl_pipeline.core.near_duplicates.hamming_plan import Hashes

AFRESH = 0.25
"""The share of new hashes above which looking for all groups anew takes less time."""

LARGE_GROUP = 1000
"""Hashes of a group that is searched on its own once it may have fallen apart: it seldom has."""


@dataclass(frozen=True, slots=True)
class HashGroups:
    """Hashes and their groups.

    Args:
        hashes: Each hash once, in ascending order.
        groups: The smallest hash of each hash's group.
        searched: How many hashes were compared with others in this run.
    """

    hashes: Hashes
    groups: Hashes
    searched: int = 0


def group_hashes(
    hashes: Hashes, distance: int, known: HashGroups | None = None, *, threads: int = 1
) -> HashGroups:
    """Return the groups of hashes, which are connected by steps of at most `distance` bits.

    Only new hashes are compared with all others, and the groups that have lost a hash within themselves:
    what was not near before is not near now.

    Args:
        hashes: Each hash once, in ascending order.
        distance: The most bits of a step.
        known: The groups of an earlier run with the same distance.
        threads: How many threads share the work.
    """
    if known is not None:
        is_new = ~_are_in(hashes, known.hashes)
        if is_new.sum() <= AFRESH * len(hashes):
            return _updated(hashes, distance, known, is_new, threads)
    places = components(hashes, distance, threads=threads)
    return HashGroups(hashes, hashes[places], len(hashes))


def _updated(
    hashes: Hashes, distance: int, known: HashGroups, is_new: npt.NDArray[np.bool_], threads: int
) -> HashGroups:
    sets = DisjointSets(len(hashes))
    [old] = np.nonzero(~is_new)
    groups = known.groups[np.searchsorted(known.hashes, hashes[old])]
    lost = np.unique(known.groups[~_are_in(known.hashes, hashes)])
    is_broken = _are_in(groups, lost)
    _join_groups(sets, old[~is_broken], groups[~is_broken])
    for part in _parts(old[is_broken], groups[is_broken]):
        connect(hashes[part], distance, sets, places=part, threads=threads)
    if is_new.any():
        connect(hashes, distance, sets, rows=is_new, threads=threads)
    searched = int(is_broken.sum()) + int(is_new.sum())
    return HashGroups(hashes, hashes[sets.roots()], searched)


def _are_in(values: Hashes, ascending: Hashes) -> npt.NDArray[np.bool_]:
    """Return for each value whether it is among values in ascending order."""
    if not len(ascending):
        return np.zeros(len(values), np.bool_)
    places = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    found: npt.NDArray[np.bool_] = ascending[places] == values
    return found


def _join_groups(sets: DisjointSets, places: Places, groups: Hashes) -> None:
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    sets.join(places[first[group]], places)


def _parts(places: Places, groups: Hashes) -> list[Places]:
    """Return the places of each large group, and those of all others together."""
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    large = np.flatnonzero(sizes > LARGE_GROUP)
    return [places[sizes[group] <= LARGE_GROUP], *(places[group == number] for number in large)]
