"""A web server for measuring how well waiting overlaps.

It answers each request after some milliseconds, and takes some more for each new connection, as a
server far away does. It serves the same picture under every path.
"""

import argparse
import asyncio
import io
import random

from PIL import Image


def picture(side: int) -> bytes:
    """A JPEG with the detail of a photograph: some 15 kB at a side of 200."""
    draw_from = random.Random(1)
    small = Image.frombytes("RGB", (side // 4, side // 4), draw_from.randbytes((side // 4) ** 2 * 3))
    file = io.BytesIO()
    small.resize((side, side), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


class Answers(asyncio.Protocol):
    """One connection."""

    def __init__(self, body: bytes, request_s: float, connection_s: float) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n"
        self.answer = head.encode() + body
        self.not_found = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        self.request_s = request_s
        self.waits = connection_s
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while b"\r\n\r\n" in self.buffer:
            request, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
            found = not request.startswith((b"GET /robots.txt ", b"GET /.well-known/"))
            asyncio.get_running_loop().call_later(self.waits + self.request_s, self.send, found)
            self.waits = 0.0

    def send(self, found: bool) -> None:
        if not self.transport.is_closing():
            self.transport.write(self.answer if found else self.not_found)  # type: ignore[attr-defined]


async def serve(host: str, port: int, side: int, request_ms: float, connection_ms: float) -> None:
    body = picture(side)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Answers(body, request_ms / 1000, connection_ms / 1000), host, port, backlog=4096
    )
    print(f"serving {len(body)} bytes on port {server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 is every address of loopback, too")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--side", type=int, default=200, help="of the picture, in pixels")
    parser.add_argument("--request-ms", type=float, default=50)
    parser.add_argument("--connection-ms", type=float, default=100)
    options = parser.parse_args()
    asyncio.run(serve(options.host, options.port, options.side, options.request_ms, options.connection_ms))
