"""The tests' web server: the demo gallery's, with any answer a test wants to give."""

import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from imgdl_pipeline.core.sources.demo import DemoHandler, DemoServer

Route = Callable[["WebHandler"], None]


class WebHandler(DemoHandler):
    """Answers by the server's routes; what has none is answered as the demo gallery does."""

    server: "WebServer"

    def do_GET(self) -> None:
        self.server.note(self)
        if self.server.forward is not None:
            self.server.forward(self)
            return
        path = self.path.partition("?")[0]
        route = self.server.routes.get(path)
        if route is None:
            super().do_GET()
        else:
            route(self)

    def __getattr__(self, name: str) -> Any:
        """Any other method, and GET too, where the server forwards everything."""
        if name.startswith("do_") and self.server.forward is not None:
            return lambda: self.server.forward(self)
        raise AttributeError(name)

    def do_CONNECT(self) -> None:
        """As a proxy does: carry bytes both ways until one side closes."""
        self.server.note(self)
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port))) as target:
            self.send_response_only(200)
            self.end_headers()
            self.wfile.flush()
            upwards = threading.Thread(target=_carry, args=(self.connection, target), daemon=True)
            upwards.start()
            _carry(target, self.connection)
            upwards.join(10)
        self.close_connection = True

    def send_raw(self, data: bytes) -> None:
        """Send these very bytes and close the connection."""
        self.wfile.write(data)
        self.wfile.flush()
        self.close_connection = True

    def hang_up(self) -> None:
        """Reset the connection."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.connection.close()
        self.close_connection = True

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (OSError, ValueError):  # the client went away, or the test hung up
            self.close_connection = True

    def finish(self) -> None:
        try:
            super().finish()
        except (OSError, ValueError):
            pass


def _carry(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


class WebServer(DemoServer):
    """A server on a free loopback port.

    Its `routes` map paths to functions; `forward`, if set, answers every request of every method instead;
    `requests` are all that came, as path and headers; `release` is set when the test ends, so that no
    route waits for longer than that.
    """

    def __init__(self) -> None:
        self.routes: dict[str, Route] = {}
        self.forward: Route | None = None
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.release = threading.Event()
        self._lock = threading.Lock()
        super().__init__(port=0, handler=WebHandler)

    def server_bind(self) -> None:
        super(DemoServer, self).server_bind()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is what many tests are about."""

    def note(self, handler: WebHandler) -> None:
        with self._lock:
            self.requests.append((handler.path, dict(handler.headers.items())))

    def paths(self) -> list[str]:
        """The paths that were asked for, in order."""
        with self._lock:
            return [path for path, _ in self.requests]

    def url(self, path: str = "/") -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"

    def serve(self, path: str, body: bytes, status: int = 200, **headers: str) -> str:
        """Answer a path with a body; returns the URL."""
        content_type = headers.pop("Content_Type", "image/jpeg")
        self.routes[path] = lambda handler: handler.answer(status, body, content_type, **headers)
        return self.url(path)

    def redirect(self, path: str, location: str, status: int = 302) -> str:
        return self.serve(path, b"", status, Location=location)

    def __exit__(self, *exc: object) -> None:
        self.release.set()
        super().__exit__(*exc)


class HostsServer(WebServer):
    """The same at every address of loopback, each of which is a host of its own.

    Its `most` are the most requests that each host had at a time.
    """

    def __init__(self) -> None:
        self.most: Counter[str] = Counter()
        self._in_flight: Counter[str] = Counter()
        super().__init__()

    def server_bind(self) -> None:
        self.server_address = ("", 0)
        super().server_bind()

    def url(self, path: str = "/", host: int = 1) -> str:
        return f"http://127.0.0.{host}:{self.server_port}{path}"

    @contextmanager
    def counted(self, handler: WebHandler) -> Iterator[None]:
        """Count a request as in flight to its host during a `with` block."""
        host = handler.headers["Host"]
        with self._lock:
            self._in_flight[host] += 1
            self.most[host] = max(self.most[host], self._in_flight[host])
        try:
            yield
        finally:
            with self._lock:
                self._in_flight[host] -= 1


@contextmanager
def deaf_port() -> Iterator[int]:
    """A port on loopback at which connections are neither taken nor refused: its queue is full."""
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        yield full.getsockname()[1]
