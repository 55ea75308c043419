"""Look host names up within a deadline, and remember the answers for a minute."""

import os
import queue
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from imgdl_pipeline.core.http import deadline
from imgdl_pipeline.core.model.outcome import FetchError, Reason

LOOKUPS = 64
"""Maximum number of concurrent calls without a timeout, including abandoned calls that still run."""

IDLE_S = 5.0
"""Seconds after which a thread without a call to make ends."""

REMEMBERED_S = 60.0
"""Seconds for which the answer for a host is used again. Its addresses are judged each time."""

REMEMBERED_HOSTS = 10_000
"""The most hosts whose answers are remembered."""

T = TypeVar("T")

Found = list[tuple[socket.AddressFamily, tuple[Any, ...]]]
"""The addresses of a host and port, in the order in which they are to be tried."""


class _Lookups:
    """Threads that make calls without a timeout. One that has nothing to do makes the next call.

    The shared state, under `_lock`: the number of threads that wait for a call which nobody has announced.
    """

    def __init__(self) -> None:
        self.places = threading.BoundedSemaphore(LOOKUPS)
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0

    def start(self, call: Callable[[], None]) -> None:
        with self._lock:
            is_new = not self._idle
            self._idle -= not is_new
        self._calls.put(call)
        if is_new:
            threading.Thread(target=self._work, name="imgdl-lookup", daemon=True).start()

    def _work(self) -> None:
        while True:
            try:
                call = self._calls.get(timeout=IDLE_S)
            except queue.Empty:
                with self._lock:
                    if not self._idle:  # a call was announced just now
                        continue
                    self._idle -= 1
                return
            call()
            with self._lock:
                self._idle += 1
            self.places.release()


_lookups = _Lookups()


def _after_fork() -> None:
    global _lookups
    _lookups = _Lookups()


os.register_at_fork(after_in_child=_after_fork)


def call_with_deadline(function: Callable[[], T]) -> T:
    """Run a call that has no timeout, such as a DNS look-up, and wait for it until the deadline at most.

    The call runs in a daemon thread. When the time is up, the thread is abandoned, because nothing can stop
    it. While 64 such calls are running, further calls wait for a free place, within their own deadline.

    Raises:
        Cancelled, TimeoutError: As for `Deadline.left`. Exceptions of the call are raised too.
    """
    until, lookups = deadline.current(), _lookups
    outcome: list[tuple[bool, Any]] = []
    running = threading.Lock()
    running.acquire()

    def run() -> None:
        try:
            outcome.append((True, function()))
        except Exception as error:  # noqa: BLE001 -- raised again in the calling thread
            outcome.append((False, error))
        finally:
            running.release()

    while not lookups.places.acquire(timeout=until.slice()):
        pass
    lookups.start(run)
    while not running.acquire(timeout=until.slice()):
        pass
    succeeded, value = outcome[0]
    if not succeeded:
        raise value
    result: T = value
    return result


@dataclass(frozen=True, slots=True)
class _Answer:
    """A host's addresses without a port; or why it has none; and the time until which this is remembered."""

    until: float
    found: Found
    missing: str = ""


class Resolver:
    """Looks hosts up for any number of threads.

    Args:
        clock: Returns the time in seconds.
    """

    # Shared mutable state: the answers by host, the oldest first, under `_lock`.

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._answers: OrderedDict[str, _Answer] = OrderedDict()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        with self._lock:
            return f"<Resolver {len(self._answers)} hosts>"

    def find(self, host: str, port: int) -> Found:
        """Return the addresses of a host.

        Raises:
            FetchError: `dns`: it has none.
            Cancelled, TimeoutError: As for `Deadline.left`.
        """
        with self._lock:
            answer = self._answers.get(host)
        if answer is None or answer.until <= self._clock():
            answer = self._asked(host)
            with self._lock:
                self._answers[host] = answer
                self._answers.move_to_end(host)
                while len(self._answers) > REMEMBERED_HOSTS:
                    self._answers.popitem(last=False)
        if answer.missing:
            raise FetchError(Reason.DNS, answer.missing)
        return [(family, (address[0], port, *address[2:])) for family, address in answer.found]

    def forget(self, host: str) -> None:
        """Look a host up again the next time, because none of its addresses can be connected to."""
        with self._lock:
            self._answers.pop(host, None)

    def _asked(self, host: str) -> _Answer:
        try:
            found = _numeric(host) or call_with_deadline(lambda: _resolve(host))
        except FetchError as error:
            if error.retryable:
                raise
            return _Answer(self._clock() + REMEMBERED_S, [], error.detail)
        return _Answer(self._clock() + REMEMBERED_S, found)


def _numeric(host: str) -> Found | None:
    """Return the address that a host is written as, or None for a name. This needs no name server."""
    if ":" not in host and not host.rpartition(".")[2][:1].isdigit():
        return None
    try:
        return _resolve(host, socket.AI_NUMERICHOST)
    except FetchError:
        return None


def _resolve(host: str, flags: int = 0) -> Found:
    try:
        answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=flags)
    except socket.gaierror as error:
        raise FetchError(
            Reason.DNS,
            f"{host} has no address: {error.strerror}",
            retryable=error.errno == socket.EAI_AGAIN,
        ) from error
    except UnicodeError as error:  # a label of over 63 characters, for example
        raise FetchError(Reason.DNS, f"{host!r} cannot be a host's name: {error}") from error
    return [(family, address) for family, _, _, _, address in answers]
