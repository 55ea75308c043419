"""Return memory that is free inside of this process to the system, before a step takes more elsewhere."""

import ctypes
import os
from contextlib import suppress

import pyarrow as pa

MALLOC = {-1: 8 << 20, -3: 1 << 20, -8: 2}
"""Options of the C library, by their number: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD and M_ARENA_MAX."""


def release_memory() -> None:
    """Release what Arrow and the C library hold in reserve: the listing of a million links leaves 200 MB."""
    pa.default_memory_pool().release_unused()
    with suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)


def keep_little_memory() -> None:
    """Have the C library return large pieces to the system as soon as they are free, in any thread.

    Otherwise it keeps more and more of them, one reserve for each thread: 100 MB with half a million links.
    Do nothing if one of the C library's own environment variables is set.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    with suppress(OSError, AttributeError):  # only glibc has it
        for option, value in MALLOC.items():
            ctypes.CDLL(None).mallopt(option, value)
