"""Open guarded connections, and keep them open for the next request to the same host.

All threads of a run share what is kept, so a host's next request uses the connection of the last one,
whichever thread sends it. A new connection costs more than a request: a look-up, a round trip, and for TLS
a handshake.
"""

import http.client
import ssl
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from imgdl_pipeline.core.http.address_guard import AddressGuard
from imgdl_pipeline.core.http.deadline import SLICE_S, current, deadline_scope
from imgdl_pipeline.core.http.pace import TooSoon, Turn
from imgdl_pipeline.core.http.response import StrictResponse
from imgdl_pipeline.core.http.spelling import DEFAULT_PORTS
from imgdl_pipeline.core.http.tls import tls_context

KEPT_CONNECTIONS = 16
"""Connections that are kept open unless another number is given. Each takes a file descriptor."""

UNREAD_BYTES = 16 * 1024
"""What is read of an answer that nobody wants, such as the page of a 404, so that its connection can be kept.
That of a longer one is closed."""


class Origin(NamedTuple):
    """Where a request goes: the scheme, the host without brackets, and the port."""

    scheme: str
    host: str
    port: int

    @staticmethod
    def of(url: str) -> "Origin":
        """Return the origin of a spelled URL."""
        parts = urlsplit(url)
        return Origin(parts.scheme, parts.hostname or "", parts.port or int(DEFAULT_PORTS[parts.scheme]))


class Answer(urllib3.HTTPResponse):
    """An answer whose head has arrived, and whose connection is given back when the body has been read.

    Args:
        head: The response, positioned before the body.
        connection: The connection on which it arrives.
        give_back: Called with the connection once it can be used again.
    """

    def __init__(
        self, head: StrictResponse, connection: HTTPConnection, give_back: Callable[[HTTPConnection], None]
    ) -> None:
        super().__init__(
            body=head,
            headers=urllib3.HTTPHeaderDict(head.headers.items()),
            status=head.status,
            version=head.version,
            reason=head.reason,
            preload_content=False,
            decode_content=False,
            original_response=head,
            connection=connection,
            enforce_content_length=True,
            request_method="GET",
        )
        self._give_back = give_back
        self._can_be_kept = not head.will_close

    def release_conn(self) -> None:
        """Give the connection back. urllib3 calls this when the body has been read."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._give_back(connection)

    def close(self) -> None:
        """Close the connection, unless the rest of an error's or redirect's page is there in a moment."""
        if self.status >= 300 and self._can_be_kept and self._connection is not None and not self.closed:
            self._read_rest()
        super().close()

    def _read_rest(self) -> None:
        if (self.length_remaining or 0) > UNREAD_BYTES:
            return
        try:
            with deadline_scope(current().part(SLICE_S)):
                self.read(UNREAD_BYTES, decode_content=False)
                if not self.closed:
                    self.read(1, decode_content=False)
        except Exception:  # noqa: BLE001, S110 -- whatever it is, the connection is closed, and nothing is lost
            pass


class GuardedHTTPConnection(HTTPConnection):
    """A connection that a guard opens, and whose answers are read strictly."""

    response_class = StrictResponse
    guard: AddressGuard

    def _new_conn(self) -> Any:
        return self.guard.connect(self.host, self.port or 80)


class GuardedHTTPSConnection(HTTPSConnection):
    """The same with TLS."""

    response_class = StrictResponse
    guard: AddressGuard

    def _new_conn(self) -> Any:
        return self.guard.connect(self.host, self.port or 443)


class Connections:
    """The connections of a run, for any number of threads.

    Args:
        guard: Checks every address that is connected to.
        context: The TLS context; None uses the shared one.
        most: How many connections are kept open while nobody uses them.
    """

    # Shared mutable state: the kept connections by origin, with the origin that was used last at the end, and
    # their number, all under `_lock`.

    def __init__(
        self, guard: AddressGuard, context: ssl.SSLContext | None = None, most: int = KEPT_CONNECTIONS
    ) -> None:
        self._guard = guard
        self._context = context
        self._most = most
        self._lock = threading.Lock()
        self._kept: OrderedDict[Origin, list[HTTPConnection]] = OrderedDict()
        self._count = 0
        weakref.finalize(self, _close_all, self._kept)

    def __repr__(self) -> str:
        with self._lock:
            return f"<Connections {self._count} kept, {len(self._kept)} hosts>"

    def get(
        self, origin: Origin, target: str, headers: Iterable[tuple[str, str]], turn: Turn | None = None
    ) -> Answer:
        """Send a GET request, and return the answer when its head has arrived.

        If the server has closed a kept connection in the meantime, the request is sent again on another one
        (RFC 9112, 9.3.1).

        Args:
            origin: Where the request goes.
            target: What the request line names.
            headers: All headers but Host.
            turn: The request's turn in its host's pace, which is taken when the connection is open.

        Raises:
            FetchError: The guard refused the address or could not connect.
            TooSoon: The host's pace does not allow the request yet.
            http.client.HTTPException, OSError: The request failed otherwise.
        """
        kept = self._taken(origin)
        if kept is not None:
            with suppress(ConnectionError):  # RemoteDisconnected is one, too
                return self._ask(kept, origin, target, headers, turn)
        connection = self.connection(origin)
        connection.connect()
        return self._ask(connection, origin, target, headers, turn)

    def connection(self, origin: Origin) -> HTTPConnection:
        """Return a new connection, which is not open yet."""
        connection: GuardedHTTPConnection | GuardedHTTPSConnection
        if origin.scheme == "https":
            context = self._context or tls_context()
            connection = GuardedHTTPSConnection(origin.host, origin.port, ssl_context=context)
        else:
            connection = GuardedHTTPConnection(origin.host, origin.port)
        connection.guard = self._guard
        return connection

    def close(self) -> None:
        """Close the connections that nobody uses, and keep none from now on."""
        with self._lock:
            self._most = 0
            _close_all(self._kept)
            self._count = 0

    def _ask(
        self,
        connection: HTTPConnection,
        origin: Origin,
        target: str,
        headers: Iterable[tuple[str, str]],
        turn: Turn | None,
    ) -> Answer:
        def give_back(connection: HTTPConnection) -> None:
            self._keep(origin, connection)

        try:
            if turn is not None:
                _take(turn)
            send_head(connection, target, headers)
            return Answer(_head(connection), connection, give_back)
        except TooSoon:
            give_back(connection)
            raise
        except BaseException:
            connection.close()
            raise

    def _taken(self, origin: Origin) -> HTTPConnection | None:
        """Take a kept connection that the server has not closed and on which nothing has arrived."""
        while True:
            with self._lock:
                connections = self._kept.get(origin)
                if not connections:
                    return None
                connection = connections.pop()
                self._count -= 1
                if not connections:
                    del self._kept[origin]
            if connection.is_connected:
                return connection
            connection.close()

    def _keep(self, origin: Origin, connection: HTTPConnection) -> None:
        """Keep a connection, and close the one that was used longest ago if they are too many."""
        if connection.sock is None:  # as the answer said, it was closed
            return
        with self._lock:
            self._kept.setdefault(origin, []).append(connection)
            self._kept.move_to_end(origin)
            self._count += 1
            if self._count <= self._most:
                return
            oldest, connections = next(iter(self._kept.items()))
            connection = connections.pop(0)
            self._count -= 1
            if not connections:
                del self._kept[oldest]
        connection.close()


def _close_all(kept: OrderedDict[Origin, list[HTTPConnection]]) -> None:
    while kept:
        for connection in kept.popitem()[1]:
            connection.close()


def send_head(connection: HTTPConnection, target: str, headers: Iterable[tuple[str, str]]) -> None:
    """Send the head of a GET request.

    A server may answer and close before it has read the request. So if it cannot be sent, there may still be
    an answer.
    """
    connection.putrequest("GET", target, skip_accept_encoding=True)
    for name, value in headers:
        connection.putheader(name, value)
    with suppress(BrokenPipeError, ConnectionResetError):
        connection.endheaders()


def _head(connection: HTTPConnection) -> StrictResponse:
    """Read an answer's head as http.client does; urllib3 would make a response of its own."""
    head: Any = http.client.HTTPConnection.getresponse(connection)
    answer: StrictResponse = head
    return answer


def _take(turn: Turn) -> None:
    wait = turn.take()
    if wait > 0:
        time.sleep(wait)
