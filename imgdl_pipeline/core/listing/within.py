"""Run a source's code for a limited time, also if it only computes.

Sockets and waits of the `SourceClient` end by themselves. Other Python code, such as another package's
source, is interrupted by an exception in its thread. A call of a C library cannot be interrupted; it is left
to itself, and the listing fails all the same. If such a call lets no other Python code run, the process ends,
and standard error shows where it was.
"""

import ctypes
import faulthandler
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

logger = logging.getLogger(__name__)

WAIT_S = 0.25
"""Longest wait of the calling thread in seconds, so that an interrupt reaches it soon."""

HARD_STOP_S = 30.0
"""Seconds after the time is over at which the process ends, if the call lets no other Python code run."""

STANDARD_ERROR = 2

STOP_S = 2.0
"""Seconds that an interrupted function has to end."""

T = TypeVar("T")


class Interrupted(BaseException):
    """Raised in the function's thread when its time is over; `except Exception` does not catch it."""


def call_within(seconds: float, stop: threading.Event, function: Callable[[], T]) -> T:
    """Call a function in a thread of its own, and wait for it for so many seconds at most.

    Args:
        seconds: How long it may take.
        stop: Event that is set when the time is over, or when the caller is interrupted.
        function: The function; its waits should end when `stop` is set.

    Raises:
        TimeoutError: The time is over. Exceptions of the function are raised, too.
    """
    outcome: list[tuple[bool, Any]] = []

    def run() -> None:
        try:
            outcome.append((True, function()))
        except BaseException as error:  # noqa: BLE001 -- raised again in the calling thread
            outcome.append((False, error))

    thread = threading.Thread(target=run, name="imgdl-listing", daemon=True)
    ends_at = time.monotonic() + seconds
    faulthandler.dump_traceback_later(seconds + HARD_STOP_S, exit=True, file=STANDARD_ERROR)
    thread.start()
    try:
        while thread.is_alive() and time.monotonic() < ends_at:
            thread.join(min(WAIT_S, max(0.0, ends_at - time.monotonic())))
        is_over = thread.is_alive()
    finally:
        if thread.is_alive():
            _interrupt(thread, stop)
        faulthandler.cancel_dump_traceback_later()
    if is_over or not outcome:
        raise TimeoutError(f"not done within {seconds:g} s")
    succeeded, value = outcome[0]
    if not succeeded:
        raise value
    result: T = value
    return result


def _interrupt(thread: threading.Thread, stop: threading.Event) -> None:
    """Make a thread end, repeatedly, because code may catch the exception."""
    stop.set()
    ends_at = time.monotonic() + STOP_S
    while thread.is_alive() and time.monotonic() < ends_at:
        thread.join(WAIT_S)  # it may end by itself, as its sockets do
        if thread.is_alive() and thread.ident is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread.ident), ctypes.py_object(Interrupted)
            )
    if thread.is_alive():
        logger.warning("the source does not end; it is left to itself")
