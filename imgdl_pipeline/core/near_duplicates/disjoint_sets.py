"""Keep track of what is connected with what, for millions of things at a time."""

import threading

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.intp]


class DisjointSets:
    """Sets of the numbers from 0 to a count, which pairs join. Threads may share it.

    Its state is an array in which each number points to another one of its set, or to itself if it is the
    set's root. A root is always the smallest number of its set. One lock guards the array.

    Args:
        count: How many numbers there are, each in a set of its own at first.
    """

    def __init__(self, count: int) -> None:
        self._parents: Places = np.arange(count, dtype=np.intp)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._parents)

    def roots(self) -> Places:
        """Return the smallest number of each number's set."""
        with self._lock:
            parents = self._parents
            while True:
                further = parents[parents]
                if np.array_equal(further, parents):
                    break
                parents = further
            self._parents = parents
            roots: Places = parents.copy()
            return roots

    def roots_of(self, places: Places) -> Places:
        """Return the smallest number of each of these numbers' sets."""
        with self._lock:
            return self._roots_of(places)

    def _roots_of(self, places: Places) -> Places:
        roots: Places = self._parents[places]
        first = roots
        while True:
            further = self._parents[roots]
            if np.array_equal(further, roots):
                break
            roots = further
        if roots is not first:
            self._parents[places] = roots  # the next one who asks has a shorter way
        return roots

    def join(self, left: Places, right: Places) -> None:
        """Join the sets of pairs of numbers.

        Each round lets roots that are not the smallest of their pair point to the smaller one, so no circle
        can arise; the number of roots that are left falls by half or more in most rounds.
        """
        with self._lock:
            while len(left):
                left, right = self._roots_of(left), self._roots_of(right)
                differ = left != right
                left, right = left[differ], right[differ]
                larger, smaller = np.maximum(left, right), np.minimum(left, right)
                np.minimum.at(self._parents, larger, smaller)
                self._shorten(larger)

    def _shorten(self, places: Places) -> None:
        """Let roots that were joined point to their new root; a chain of them halves with each step."""
        parents = self._parents[places]
        while True:
            further = self._parents[parents]
            if np.array_equal(further, parents):
                return
            self._parents[places] = parents = further

    def join_all(self, places: Places) -> None:
        """Join the sets of all of these numbers."""
        self.join(places[:1].repeat(len(places) - 1), places[1:])
