"""Let Python's threads take turns less often while there are many of them.

A thread that waits for the interpreter's lock wakes up at every switch interval, 5 ms by default, to ask for
it. With 128 threads, that takes a quarter of the processor's time. Download threads give the lock up by
themselves whenever they wait for the network or the disk, so none keeps the others from it for long.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SWITCH_INTERVAL_S = 0.02
"""The switch interval in seconds while a pool is at work."""

_lock = threading.Lock()
_before: list[float] = []
"""The interval before each pool that is at work; the first is the process's own."""


@contextmanager
def fewer_switches() -> Iterator[None]:
    """Use the longer switch interval during a `with` block, of which several may overlap."""
    with _lock:
        _before.append(sys.getswitchinterval())
        sys.setswitchinterval(max(SWITCH_INTERVAL_S, _before[-1]))
    try:
        yield
    finally:
        with _lock:
            own = _before[0]
            _before.pop()
            if not _before:
                sys.setswitchinterval(own)
