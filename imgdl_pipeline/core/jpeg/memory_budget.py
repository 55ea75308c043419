"""Lets large things take turns, so that memory stays flat however many threads there are."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

LARGE_BYTES = 4_000_000
"""Files of more, and images that take more memory than that to decode, are in memory one at a time."""


class MemoryBudget:
    """One large thing at a time; whoever has reserved for a file may go on to reserve for its decoding."""

    def __init__(self) -> None:
        self._large = threading.RLock()

    @contextmanager
    def reserve(self, size: int) -> Iterator[None]:
        """Wait until something of so many bytes may be in memory; what is small never waits."""
        if size <= LARGE_BYTES:
            yield
            return
        with self._large:
            yield
