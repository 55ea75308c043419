"""Deadlines for whole downloads, and sockets that respect them.

A socket's own timeout restarts with every byte, so a server that sends one byte per second can block a
thread indefinitely. Here each thread works under one `Deadline`, and the sockets divide every wait into
slices. After each slice they check the time left and whether the work was cancelled. This applies to
connecting, the TLS handshake, headers and bodies. Cancelling a download therefore takes less than one
slice and needs no call from another thread to the socket.
"""

import errno
import functools
import os
import select
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

SLICE_S = 0.25
"""Longest wait in seconds between two checks of the time left and the stop event."""

BUFFER_BYTES = 32 * 1024
"""What is read from a socket at a time, so that a small image comes with its head."""

T = TypeVar("T")


class Cancelled(Exception):
    """Raised in waiting work when it is cancelled because the run is ending."""


class Deadline:
    """The time by which a piece of work must be done, and an event that cancels it earlier.

    Args:
        seconds: How long the work may take from now.
        stop: Event that cancels the work when it is set.
    """

    def __init__(self, seconds: float, stop: threading.Event) -> None:
        self.seconds = seconds
        self._ends_at = time.monotonic() + seconds
        self._stop = stop

    def left(self) -> float:
        """Return the seconds left.

        Raises:
            Cancelled: The work was cancelled.
            TimeoutError: No time is left.
        """
        if self._stop.is_set():
            raise Cancelled
        left = self._ends_at - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"not done within {self.seconds:g} s")
        return left

    def part(self, seconds: float) -> "Deadline":
        """Return a deadline for part of the work, no later than this one; raise the same errors as `left`."""
        return Deadline(min(seconds, self.left()), self._stop)

    def slice(self) -> float:
        """Return the maximum seconds for one wait; raise the same errors as `left`."""
        return min(SLICE_S, self.left())


_current: ContextVar[Deadline | None] = ContextVar("imgdl_pipeline_deadline", default=None)


def current() -> Deadline:
    """Return the deadline of the current thread.

    Raises:
        LookupError: The thread is not inside a `deadline_scope` block.
    """
    deadline = _current.get()
    if deadline is None:
        raise LookupError("this must run inside `with deadline_scope(deadline)`")
    return deadline


@contextmanager
def deadline_scope(deadline: Deadline) -> Iterator[Deadline]:
    """Apply a deadline to this thread's sockets for the duration of a `with` block."""
    token = _current.set(deadline)
    try:
        yield deadline
    finally:
        _current.reset(token)


class DeadlineSocket(socket.socket):
    """A TCP socket whose waits respect the deadline of the thread that uses it.

    The socket is blocking, and the operating system limits each wait to one slice. Python's own timeouts need
    two more system calls per read, and each call releases the GIL. With eight threads, that took a sixth of
    the time of a download from a nearby server.
    """

    _slice_s = 0.0

    def makefile(self, *args: Any, **kwargs: Any) -> Any:
        """Return a file with the project's own buffer size, as http.client asks for one without a size."""
        return super().makefile(*args, **{"buffering": BUFFER_BYTES, **kwargs})

    def settimeout(self, value: float | None) -> None:
        """Ignore the timeouts of http.client and urllib3, which do not know the deadline."""

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """Receive as `socket.recv_into` does, but within the deadline."""
        receive = super().recv_into
        return self._sliced(lambda: receive(buffer, nbytes, flags))

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send as `socket.sendall` does, but within the deadline."""
        send, rest = super().send, memoryview(data)
        while rest:
            sent = self._sliced(functools.partial(send, rest, flags))
            rest = rest[sent:]

    def keep_to(self, deadline: Deadline) -> None:
        """Set the operating system's timeouts so that no wait is longer than one slice."""
        slice_s = deadline.slice()
        if slice_s != self._slice_s:
            self._slice_s = slice_s
            wait = struct.pack("@ll", 0, max(1, int(slice_s * 1e6)))  # a timeval: seconds, microseconds
            try:
                self.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, wait)
                self.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, wait)
            except OSError as error:  # macOS, after the peer has closed; the next call will fail
                if error.errno != errno.EINVAL:
                    raise

    def _sliced(self, operation: Callable[[], T]) -> T:
        """Repeat an operation, one slice at a time, until it succeeds or the deadline has passed."""
        while True:
            self.keep_to(current())
            try:
                return operation()
            except BlockingIOError:  # no data within one slice: check the deadline again
                continue


class DeadlineSSLSocket(ssl.SSLSocket):
    """A TLS socket whose handshake, reads and writes respect the deadline of the thread that uses it."""

    def makefile(self, *args: Any, **kwargs: Any) -> Any:
        """Return a file with the project's own buffer size, as http.client asks for one without a size."""
        return super().makefile(*args, **{"buffering": BUFFER_BYTES, **kwargs})

    def settimeout(self, value: float | None) -> None:
        """Ignore the timeouts of http.client and urllib3, which do not know the deadline."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: ARG002
        """Perform the handshake as `SSLSocket.do_handshake` does, but within the deadline."""
        self._sliced(super().do_handshake)

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        """Receive as `SSLSocket.recv_into` does, but within the deadline."""
        receive = super().recv_into
        return self._sliced(lambda: receive(buffer, nbytes, flags))

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """Receive as `SSLSocket.recv` does, but within the deadline; used for TLS in TLS through a proxy."""
        receive = super().recv
        return self._sliced(lambda: receive(buflen, flags))

    def send(self, data: Any, flags: int = 0) -> int:
        """Send as `SSLSocket.send` does, but within the deadline; `sendall` calls this method repeatedly."""
        send = super().send
        return self._sliced(lambda: send(data, flags))

    def _sliced(self, operation: Callable[[], T]) -> T:
        """Repeat an operation, one slice at a time, until it succeeds or the deadline has passed."""
        while True:
            slice_s = current().slice()
            if slice_s != self.gettimeout():
                super().settimeout(slice_s)
            try:
                return operation()
            except TimeoutError:
                continue


_CONNECTS_IN_SLICES = sys.platform == "linux"
"""Whether a blocking connect keeps to the socket's timeouts, too. It saves four system calls."""


def connect(family: socket.AddressFamily, address: tuple[Any, ...]) -> DeadlineSocket:
    """Open a TCP connection within the deadline of the current thread.

    Args:
        family: IPv4 or IPv6.
        address: Socket address from `getaddrinfo`: host and port, and two more values for IPv6.

    Raises:
        Cancelled, TimeoutError: As for `Deadline.left`.
        OSError: The connection failed.
    """
    sock = DeadlineSocket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.keep_to(current())
        sock.setblocking(_CONNECTS_IN_SLICES)
        error = sock.connect_ex(address)
        if error in (errno.EINPROGRESS, errno.EWOULDBLOCK):
            writable = select.poll()
            writable.register(sock, select.POLLOUT)
            while not writable.poll(max(1, current().slice() * 1000)):
                pass
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
        sock.setblocking(True)
    except BaseException:
        sock.close()
        raise
    return sock
