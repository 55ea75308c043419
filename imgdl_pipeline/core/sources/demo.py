"""Provide the embedded demo gallery: pictures that are drawn on request and served over real HTTP.

Its links lead to one fixed loopback port, so that they are the same in every run. A server listens there
while they are downloaded. Several runs may serve at once; each handles a share of the connections.
"""

import colorsys
import functools
import io
import math
import random
import re
import socket
import threading
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Literal

from PIL import Image, ImageDraw, ImageOps
from pydantic import Field

from imgdl_pipeline.core.model.links import Link
from imgdl_pipeline.core.model.settings import SourceSettings
from imgdl_pipeline.core.sources.client import SourceClient, SourceError


class DemoSource(SourceSettings):
    """The embedded demo gallery: real HTTP on a loopback port, no network needed."""

    own_addresses: ClassVar[tuple[str, ...]] = ("127.0.0.1/32",)

    type: Literal["demo"]
    images: int = Field(40, ge=1, le=1_000_000, description="how many links it lists")


HOST = "127.0.0.1"
PORT = 18975

TROUBLE_EVERY = 10
"""Every tenth link shows a typical problem of the open web; TROUBLES gives their order."""

TROUBLES = ("gone", "cut", "copy", "page")

SIZE = (480, 320)
_LINK_PATH = re.compile(r"/demo/(\d{1,7})-(\w+)\.jpg")


def list_links(source: DemoSource, client: SourceClient) -> Iterator[Link]:  # noqa: ARG001 -- same signature as every source
    """Yield the demo gallery's links, as many as the settings ask for."""
    for number in range(1, source.images + 1):
        yield Link(
            f"http://{HOST}:{PORT}/demo/{number:04d}-{kind_of(number)}.jpg",
            {
                "title": f"Hills, number {number}",
                "author": "imgdl_pipeline",
                "license": "CC0-1.0",
                "license_url": "https://creativecommons.org/publicdomain/zero/1.0/",
            },
        )


def kind_of(number: int) -> str:
    """Return what the link with that number leads to: `hills`, or one of TROUBLES."""
    turn, rest = divmod(number, TROUBLE_EVERY)
    return "hills" if rest else TROUBLES[(turn - 1) % len(TROUBLES)]


@functools.lru_cache(maxsize=256)
def picture(seed: int) -> bytes:
    """Draw a JPEG of hills under a sky; the same seed gives the same picture."""
    draw_from = random.Random(seed)  # noqa: S311 -- for a picture, not for a secret
    width, height = SIZE
    hue = draw_from.randrange(256)
    heights = Image.linear_gradient("L").resize(SIZE)
    image = ImageOps.colorize(heights, _rgb(hue, 0, 235), _rgb(hue, 255, 235))
    draw = ImageDraw.Draw(image)
    x, y, radius = draw_from.randrange(width), draw_from.randrange(30, 120), draw_from.randrange(15, 45)
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_rgb(hue, 20, 255))
    for layer in range(5):
        base, swing = 120 + layer * 42, draw_from.uniform(12, 50)
        period, phase = draw_from.uniform(60, 200), draw_from.uniform(0, 6)
        ridge = [
            (step, base + swing * math.sin(step / period + phase) + 6 * math.sin(step / 17 + seed))
            for step in range(0, width + 8, 8)
        ]
        shade = _rgb((hue + 90 + 9 * layer) % 256, 110 + 20 * layer, 190 - 34 * layer)
        draw.polygon([*ridge, (width, height), (0, height)], fill=shade)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return file.getvalue()


def _rgb(hue: int, saturation: int, value: int) -> tuple[int, int, int]:
    """Convert a colour to RGB; all numbers go up to 255."""
    red, green, blue = colorsys.hsv_to_rgb(hue / 255, saturation / 255, value / 255)
    return round(red * 255), round(green * 255), round(blue * 255)


class DemoHandler(BaseHTTPRequestHandler):
    """The HTTP request handler of the demo gallery."""

    protocol_version = "HTTP/1.1"
    server_version = "imgdl_demo"
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body are sent in one write

    def do_GET(self) -> None:
        """Send a picture, or the problem that the link represents."""
        match = _LINK_PATH.fullmatch(self.path)
        if not match:
            self.answer(HTTPStatus.NOT_FOUND, b"there is no such picture\n", "text/plain")
            return
        number, kind = int(match[1]), match[2]
        if kind == "gone":
            self.answer(HTTPStatus.GONE, b"this picture was removed\n", "text/plain")
        elif kind == "page":
            self.answer(HTTPStatus.OK, b"<!DOCTYPE html><title>Please log in</title>\n", "text/html")
        elif kind == "cut":
            self.answer(HTTPStatus.OK, picture(number)[:-4000])
        else:
            self.answer(HTTPStatus.OK, picture(1 if kind == "copy" else number))

    def answer(self, status: int, body: bytes, content_type: str = "image/jpeg", **headers: str) -> None:
        """Send a complete response."""
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the base class's name
        """Log nothing: the run's own log is about the downloads."""


class DemoServer(ThreadingHTTPServer):
    """A server of the demo gallery, which runs for the length of a `with` block.

    Args:
        port: The port to listen on; the demo gallery's links use the default.
        handler: The class that handles requests.

    Raises:
        SourceError: Another program uses the port.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, port: int = PORT, handler: type[DemoHandler] = DemoHandler) -> None:
        try:
            super().__init__((HOST, port), handler)
        except OSError as error:
            raise SourceError(
                f"the demo gallery is served on {HOST}:{port}, which another program has: {error}"
            ) from error

    def server_bind(self) -> None:
        """Let several runs of the demo gallery share the port, if the system supports it."""
        if hasattr(socket, "SO_REUSEPORT"):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        super().server_bind()

    def __enter__(self) -> "DemoServer":
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.shutdown()
        self.server_close()
