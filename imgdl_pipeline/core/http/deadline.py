"""Deadlines that no server can outlast, and sockets that keep to them.

A socket's own timeout starts anew with every byte, so a server that drips one byte a second holds a
thread for as long as it likes. Here a thread works under one `Deadline`, and every wait of our sockets
is cut into slices: after each slice they look at the time left and at whether the work was given up.
That holds for connecting, for the TLS handshake, for headers and for bodies alike, and it is why
abandoning a download takes less than a slice, with nothing but the thread's own calls.
"""

import errno
import functools
import os
import selectors
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

SLICE_S = 0.25
"""Longest wait in seconds before the time left and the stop event are looked at again."""

T = TypeVar("T")


class Cancelled(Exception):
    """The work was given up while it waited: the run is ending."""


class Deadline:
    """A point in time that a piece of work must not pass, and an event that ends it sooner.

    Args:
        seconds: How long the work may take from now.
        stop: Set by whoever gives the work up.
    """

    def __init__(self, seconds: float, stop: threading.Event) -> None:
        self.seconds = seconds
        self._ends_at = time.monotonic() + seconds
        self._stop = stop

    def left(self) -> float:
        """Seconds left.

        Raises:
            Cancelled: The work was given up.
            TimeoutError: No time is left.
        """
        if self._stop.is_set():
            raise Cancelled
        left = self._ends_at - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"not done within {self.seconds:g} s")
        return left

    def part(self, seconds: float) -> "Deadline":
        """A deadline for a part of the work, which is not later than this one; raises as `left` does."""
        return Deadline(min(seconds, self.left()), self._stop)

    def slice(self) -> float:
        """Seconds that one wait may last; raises as `left` does."""
        return min(SLICE_S, self.left())


_current: ContextVar[Deadline | None] = ContextVar("imgdl_pipeline_deadline", default=None)


def current() -> Deadline:
    """The deadline this thread works under.

    Raises:
        LookupError: There is none: `deadline_scope` was forgotten.
    """
    deadline = _current.get()
    if deadline is None:
        raise LookupError("this must run inside `with deadline_scope(deadline)`")
    return deadline


@contextmanager
def deadline_scope(deadline: Deadline) -> Iterator[Deadline]:
    """Put this thread's sockets under a deadline for the length of a block."""
    token = _current.set(deadline)
    try:
        yield deadline
    finally:
        _current.reset(token)


LOOKUPS = 64
"""Calls without a timeout that may run at a time, those that were left to end by themselves included."""

_lookups = threading.BoundedSemaphore(LOOKUPS)


def call_with_deadline(function: Callable[[], T]) -> T:
    """Run a call that knows no timeout, such as a DNS look-up, for no longer than the deadline.

    The call runs in a daemon thread, which is left to end by itself when the time is up: nothing else can end
    it. While 64 such calls hang, others wait for their turn, within their deadline.

    Raises:
        Cancelled, TimeoutError: As `Deadline.left`; and whatever the call raises.
    """
    deadline = current()
    outcome: list[tuple[bool, Any]] = []
    done = threading.Event()

    def run() -> None:
        try:
            outcome.append((True, function()))
        except Exception as error:  # noqa: BLE001 -- carried over to the thread that asked
            outcome.append((False, error))
        finally:
            done.set()
            _lookups.release()

    while not _lookups.acquire(timeout=deadline.slice()):
        pass
    threading.Thread(target=run, name="imgdl-lookup", daemon=True).start()
    while not done.wait(deadline.slice()):
        pass
    succeeded, value = outcome[0]
    if not succeeded:
        raise value
    result: T = value
    return result


class DeadlineSocket(socket.socket):
    """A TCP socket whose waits keep to the deadline of the thread that uses it.

    It is a blocking one, whose waits the system itself cuts into slices. Python's own timeouts make two more
    calls into the system for each read, and each call gives the interpreter's lock away: with eight threads,
    that took a sixth of the time of a download from a server near by.
    """

    _slice_s = 0.0

    def settimeout(self, value: float | None) -> None:
        """Nothing: http.client and urllib3 know of no deadline."""

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """As `socket.recv_into`, but within the deadline."""
        receive = super().recv_into
        return self._sliced(lambda: receive(buffer, nbytes, flags))

    def sendall(self, data: Any, flags: int = 0) -> None:
        """As `socket.sendall`, but within the deadline."""
        send, rest = super().send, memoryview(data)
        while rest:
            sent = self._sliced(functools.partial(send, rest, flags))
            rest = rest[sent:]

    def keep_to(self, deadline: Deadline) -> None:
        """Let no wait of the system last for more than a slice."""
        slice_s = deadline.slice()
        if slice_s != self._slice_s:
            self._slice_s = slice_s
            wait = struct.pack("@ll", 0, max(1, int(slice_s * 1e6)))  # a timeval: seconds, microseconds
            try:
                self.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, wait)
                self.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, wait)
            except OSError as error:  # macOS, once the other side has closed; the next call will tell
                if error.errno != errno.EINVAL:
                    raise

    def _sliced(self, operation: Callable[[], T]) -> T:
        """Repeat an operation, a slice at a time, until it is done or the deadline is."""
        while True:
            self.keep_to(current())
            try:
                return operation()
            except BlockingIOError:  # one slice passed with nothing to show: look at the deadline again
                continue


class DeadlineSSLSocket(ssl.SSLSocket):
    """A TLS socket whose handshake and reads keep to the deadline of the thread that uses it."""

    def settimeout(self, value: float | None) -> None:
        """Nothing: http.client and urllib3 know of no deadline."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: ARG002
        """As `SSLSocket.do_handshake`, but within the deadline."""
        self._sliced(super().do_handshake)

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        """As `SSLSocket.recv_into`, but within the deadline."""
        receive = super().recv_into
        return self._sliced(lambda: receive(buffer, nbytes, flags))

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """As `SSLSocket.recv`, but within the deadline; TLS within TLS, to and through a proxy, calls it."""
        receive = super().recv
        return self._sliced(lambda: receive(buflen, flags))

    def send(self, data: Any, flags: int = 0) -> int:
        """As `SSLSocket.send`, but within the deadline; `sendall` calls it until all is sent."""
        send = super().send
        return self._sliced(lambda: send(data, flags))

    def _sliced(self, operation: Callable[[], T]) -> T:
        """Repeat an operation, a slice at a time, until it is done or the deadline is."""
        while True:
            slice_s = current().slice()
            if slice_s != self.gettimeout():
                super().settimeout(slice_s)
            try:
                return operation()
            except TimeoutError:
                continue


def connect(family: socket.AddressFamily, address: tuple[Any, ...]) -> DeadlineSocket:
    """Open a TCP connection within the deadline of this thread.

    Args:
        family: IPv4 or IPv6.
        address: What `getaddrinfo` gave for the socket: host and port, and for IPv6 two more.

    Raises:
        Cancelled, TimeoutError: As `Deadline.left`.
        OSError: The connection failed.
    """
    sock = DeadlineSocket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        error = sock.connect_ex(address)
        if error in (errno.EINPROGRESS, errno.EWOULDBLOCK):
            with selectors.DefaultSelector() as selector:
                selector.register(sock, selectors.EVENT_WRITE)
                while not selector.select(current().slice()):
                    pass
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
        sock.setblocking(True)
        sock.keep_to(current())
    except BaseException:
        sock.close()
        raise
    return sock
