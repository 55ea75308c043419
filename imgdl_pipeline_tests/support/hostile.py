"""A web of strangers, on loopback: what a hostile server can send, and what must become of it.

`python -m imgdl_pipeline_tests.support.hostile` runs one gallery of all cases through the real downloader and
the real catalog, and prints the table of outcomes. The tests run the same cases.
"""

import gzip
import io
import re
import socket
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from PIL import Image

from imgdl_pipeline.core.catalog.build import build_catalog
from imgdl_pipeline.core.download.retry import Retry
from imgdl_pipeline.core.download.run import download_gallery
from imgdl_pipeline.core.model.links import Link, links_table
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.storage.layout import links_path
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline_tests.support.pictures import jpeg
from imgdl_pipeline_tests.support.server import Route, WebHandler, WebServer

SETTINGS = DownloadSettings(
    allow_addresses=("127.0.0.1/32",),
    workers=16,
    per_host=16,
    timeout=1.5,
    attempts=1,
    max_bytes=2_000_000,
    max_pixels=4_000_000,
)

PICTURE = jpeg(1)


@dataclass(frozen=True)
class Case:
    """A link, what answers it, and what must become of it.

    Args:
        name: What is tried.
        expected: `ok`, or `status/reason`.
        url: Of the link; a path is on the server.
        route: What the server does for the path.
        attributes: What the source says of the link.
    """

    name: str
    expected: str
    url: str
    route: Route | None = None
    attributes: dict[str, Any] = field(default_factory=dict)


def raw(*parts: bytes) -> Route:
    """Send these bytes and close."""
    return lambda handler: handler.send_raw(b"".join(parts))


def forever(start: bytes, again: bytes, pause_s: float = 0.0) -> Route:
    """Send some bytes, then others without end."""

    def answer(handler: WebHandler) -> None:
        handler.wfile.write(start)
        while not handler.server.release.wait(pause_s) if pause_s else not handler.server.release.is_set():
            handler.wfile.write(again)
            handler.wfile.flush()

    return answer


def answer(body: bytes = PICTURE, status: int = 200, **headers: str) -> Route:
    return lambda handler: handler.answer(status, body, **headers)


def silence(handler: WebHandler) -> None:
    handler.server.release.wait(60)


OK_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n"


def bomb(width: int, height: int) -> bytes:
    """A small file of very many pixels."""
    file = io.BytesIO()
    Image.new("L", (64, 64)).save(file, "JPEG")
    data = bytearray(file.getvalue())
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(data)


LOSSLESS = (
    b"\xff\xd8"
    b"\xff\xc3\0\x0b\x08\2\0\2\0\1\1\x11\0"  # 512 × 512 pixels of one component
    b"\xff\xc4\0\x14\0\1" + bytes(16) + b"\xff\xda\0\x08\1\1\0\1\0\0"
    b"\xff\xd9"
)
"""49 bytes, at which libjpeg-turbo 3.1.2 writes past its buffer."""


def many_scans(count: int) -> bytes:
    """A progressive file that asks for the same scan again and again."""
    data = jpeg(2, (640, 480), progressive=True)
    start = data.rindex(b"\xff\xda")
    return data[:-2] + data[start:-2] * count + data[-2:]


def resized(data: bytes, width: int, height: int) -> bytes:
    """A JPEG that says it is larger than it is."""
    frame = re.search(rb"\xff[\xc0\xc2]", data).start()
    return data[: frame + 5] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + data[frame + 9 :]


def segment(marker: int, payload: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(payload) + 2).to_bytes(2, "big") + payload


def with_segments(*segments: bytes) -> bytes:
    return PICTURE[:2] + b"".join(segments) + PICTURE[2:]


def address_cases() -> Iterator[Case]:
    refused = "refused/private_address"
    for host in (
        *("127.0.0.2", "127.1.2.3", "2130706434", "0x7f000002", "0177.0.0.2", "127.2", "0.0.0.0", "0"),
        *("10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "224.0.0.1"),
        *("255.255.255.255", "[::1]", "[::]", "[::ffff:127.0.0.2]", "[::ffff:a9fe:a9fe]", "[fe80::1]"),
        *("[fd00::1]", "[ff02::1]", "[64:ff9b::7f00:2]", "[2002:7f00:2::]", "me:pw@127.0.0.3", "127.0.0.2."),
    ):
        yield Case(f"address {host}", refused, f"http://{host}:{{port}}/secret.jpg")
    yield Case("redirect to the metadata address", refused, "/to-metadata.jpg", to("http://169.254.169.254/"))
    yield Case("redirect to another loopback host", refused, "/to-inside.jpg", to("http://127.0.0.2:{port}/"))


def to(location: str) -> Route:
    def redirect(handler: WebHandler) -> None:
        port = handler.server.server_port
        handler.answer(302, b"", Location=location.replace("{port}", str(port)))

    return redirect


def link_cases() -> Iterator[Case]:
    for url in (
        *("file:///etc/passwd", "ftp://h.org/a.jpg", "data:image/jpeg;base64,/9j/", "javascript:alert(1)"),
        *(
            "gopher://h.org/",
            "//h.org/a.jpg",
            "no link at all",
            "http://",
            "http://[::1",
            "http://h.org:99999/",
        ),
    ):
        yield Case(f"link {url}", "refused/scheme", url)
    yield Case("a name that nobody has", "failed/dns", "http://nobody.invalid/a.jpg")
    yield Case("a name of 300 characters", "failed/dns", f"http://{'x' * 300}.invalid/a.jpg")
    yield Case("a port that nobody listens on", "failed/connection", "http://127.0.0.1:9/a.jpg")
    for name, path in {
        "a name with dots": "/..%2F..%2F..%2Fescape.jpg",
        "a name with NULs": "/%00%00.jpg",
        "a name of 300 characters in the path": f"/{'y' * 300}.jpg",
        "a name of a Windows device": "/CON.jpg",
        "a name in Chinese": "/%E5%BC%A0.jpg",
        "no name": "/?x=1",
        "a name in capitals": "/SAME.jpg",
        "the same name in small letters": "/same.jpg",
    }.items():
        yield Case(name, "ok", path, answer())


def status_cases() -> Iterator[Case]:
    for status in (201, 204, 206, 304, 400, 401, 403, 404, 408, 410, 418, 429, 451, 500, 502, 503, 504, 599):
        body = b"" if status in (204, 304) else b"no"
        yield Case(f"status {status}", f"failed/http_{status}", f"/status{status}.jpg", answer(body, status))
    yield Case("a redirect to itself", "failed/redirects", "/loop.jpg", to("/loop.jpg"))
    yield Case(
        "a redirect to a host that is spelled to look like another",
        "refused/private_address",
        "/backslash.jpg",
        to("http://127.0.0.2:{port}\\\\@127.0.0.1:{port}/image.jpg"),
    )
    yield Case("a redirect to a file", "refused/scheme", "/to-file.jpg", to("file:///etc/passwd"))
    yield Case("a redirect to no URL", "refused/scheme", "/to-nothing.jpg", to("http://["))
    yield Case(
        "a redirect to Imgur's removed.png",
        "failed/placeholder",
        "/deleted.jpg",
        to("https://i.imgur.com/removed.png"),
    )
    yield Case("an opt-out header", "refused/opt_out", "/noai.jpg", answer(X_Robots_Tag="noai"))
    yield Case("disallowed by robots.txt", "refused/robots", "/disallowed/a.jpg", answer())


def http_cases() -> Iterator[Case]:
    timeout, connection = "failed/timeout", "failed/connection"
    yield Case("never answers", timeout, "/silent.jpg", silence)
    yield Case("drips its status line", timeout, "/drip1.jpg", forever(b"HTTP/1.1 2", b"0", 0.1))
    yield Case("drips its headers", timeout, "/drip2.jpg", forever(OK_HEAD + b"X: ", b"x", 0.1))
    yield Case("drips its body", timeout, "/drip3.jpg", forever(OK_HEAD + b"\r\n\xff\xd8\xff", b"x", 0.1))
    yield Case(
        "continues for ever", connection, "/100.jpg", forever(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.01)
    )
    yield Case(
        "stalls within its body", timeout, "/stall.jpg", forever(OK_HEAD + b"\r\n\xff\xd8\xff", b"", 0.1)
    )
    yield Case("hangs up", connection, "/hangup.jpg", lambda handler: handler.hang_up())
    yield Case("closes without a word", connection, "/closed.jpg", raw())
    yield Case("speaks SSH", connection, "/ssh.jpg", raw(b"SSH-2.0-OpenSSH_9.2\r\n"))
    yield Case("a status that is no number", connection, "/status.jpg", raw(b"HTTP/1.1 OK OK\r\n\r\n"))
    yield Case("1000 headers", "ok", "/headers.jpg", raw(OK_HEAD, b"X: y\r\n" * 1000, b"\r\n", PICTURE))
    yield Case(
        "a header of 100 kB", connection, "/header.jpg", raw(OK_HEAD, b"X: ", b"y" * 100_000, b"\r\n\r\n")
    )
    yield Case("headers without end", connection, "/endless.jpg", forever(OK_HEAD, b"X-Y: z\r\n" * 100))
    short = OK_HEAD + b"Content-Length: 999999\r\n\r\n"
    yield Case("a body shorter than announced", "failed/incomplete", "/short.jpg", raw(short, PICTURE))
    chunk = b"%x\r\n" % len(PICTURE)
    chunked = OK_HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    yield Case("chunks that break off", "failed/incomplete", "/chunks.jpg", raw(chunked, chunk, PICTURE[:50]))
    yield Case("a chunk of no length", "failed/incomplete", "/chunk.jpg", raw(chunked, b"zz\r\n", PICTURE))
    endless_chunks = forever(chunked + b"3\r\n\xff\xd8\xff\r\n", b"ffff\r\n" + b"x" * 0xFFFF + b"\r\n")
    yield Case("chunks without end", "refused/too_large", "/chunks2.jpg", endless_chunks)
    yield Case(
        "a body without end",
        "refused/too_large",
        "/flood.jpg",
        forever(OK_HEAD + b"\r\n\xff\xd8\xff", b"x" * 65536),
    )
    yield Case(
        "announces 1 TB",
        "refused/too_large",
        "/1tb.jpg",
        raw(OK_HEAD, b"Content-Length: 1000000000000\r\n\r\n"),
    )
    yield Case(
        "a length that is no number",
        "failed/connection",
        "/length.jpg",
        raw(OK_HEAD, b"Content-Length: many\r\n\r\n", PICTURE),
    )
    yield Case(
        "a negative length",
        "failed/connection",
        "/minus.jpg",
        raw(OK_HEAD, b"Content-Length: -5\r\n\r\n", PICTURE),
    )
    yield Case(
        "gzip that nobody asked for",
        "ok",
        "/gz.jpg",
        answer(gzip.compress(PICTURE), Content_Encoding="gzip"),
    )
    yield Case(
        "a compressed bomb that begins like a JPEG",
        "refused/too_large",
        "/bomb.jpg.gz",
        answer(gzip.compress(PICTURE + bytes(100_000_000)), Content_Encoding="gzip"),
    )
    for size in (b"0x4c", b"+4c", b"4_c"):
        head = OK_HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + size + b"\r\n"
        yield Case(
            f"a chunk of {size.decode()} bytes",
            "failed/incomplete",
            f"/chunk{size.decode()}.jpg",
            raw(head, PICTURE[:0x4C], b"\r\n0\r\n\r\n"),
        )
    yield Case(
        "a chunk whose data goes on",
        "failed/incomplete",
        "/goes-on.jpg",
        raw(OK_HEAD, b"Transfer-Encoding: chunked\r\n\r\n3\r\n\xff\xd8\xffxx0\r\n\r\n"),
    )
    yield Case("a link of 20,000 characters", "refused/scheme", "/" + "a" * 20_000 + ".jpg", answer())
    yield Case("a size of 5000 digits", "invalid/hash_mismatch", "/size.jpg", answer(), {"bytes": "9" * 5000})
    yield Case("a link of blanks", "refused/scheme", "a:" + " " * 200_000 + "x")
    zeros = zlib.compress(bytes(100_000_000))
    yield Case(
        "a compressed bomb", "invalid/not_jpeg", "/bomb.gz.jpg", answer(zeros, Content_Encoding="deflate")
    )
    chunked = b"Transfer-Encoding: chunked\r\n\r\n3\r\n\xff\xd8\xff\r\n"
    for size in (b"-1", b"-5"):
        path = f"/chunk{size.decode()}.jpg"
        body = raw(OK_HEAD, chunked + size + b"\r\n" + bytes(5_000_000))
        yield Case(f"a chunk of {size.decode()} bytes", "failed/incomplete", path, body)
    yield Case(
        "a header without a colon, and what it would hide",
        "failed/connection",
        "/colon.jpg",
        raw(OK_HEAD, b"no colon\r\nX-Robots-Tag: noai\r\n\r\n", PICTURE),
    )
    yield Case(
        "two lengths in one header",
        "failed/connection",
        "/lengths.jpg",
        raw(OK_HEAD, b"Content-Length: 5, 6\r\n\r\n", PICTURE),
    )
    yield Case("a cookie", "ok", "/cookie.jpg", answer(Set_Cookie="id=1"))


def body_cases() -> Iterator[Case]:
    not_jpeg, corrupt, truncated = "invalid/not_jpeg", "invalid/corrupt", "invalid/truncated"
    large = "invalid/too_many_pixels"
    for name, body in {
        "nothing": b"",
        "HTML": b"<html>log in</html>",
        "JSON": b'{"error": 1}',
        "a PNG": b"\x89PNG\r\n\x1a\n" + bytes(99),
        "a GIF": b"GIF89a" + bytes(99),
        "a ZIP": b"PK\x03\x04" + bytes(99),
        "two bytes of a JPEG": b"\xff\xd8",
        "zeros": bytes(5000),
        "PHP before a JPEG": b"<?php ?>" + PICTURE,
    }.items():
        yield Case(f"a body of {name}", not_jpeg, f"/body-{name.replace(' ', '-')}.jpg", answer(body))
    exif_loop = b"Exif\0\0II*\0\x08\0\0\0\1\0\x69\x87\4\0\1\0\0\0\x08\0\0\0\x08\0\0\0"
    for name, expected, body in (
        ("half a JPEG", truncated, PICTURE[: len(PICTURE) // 2]),
        ("a JPEG without its last two bytes", truncated, PICTURE[:-2]),
        ("three bytes of a JPEG", truncated, PICTURE[:3]),
        ("a JPEG of which the middle is zeros", corrupt, PICTURE[:2000] + bytes(2000) + PICTURE[4000:]),
        ("a JPEG with a tail of zeros", truncated, PICTURE[:3000] + bytes(3000)),
        ("a bomb of 16,000 × 16,000 pixels", large, bomb(16_000, 16_000)),
        ("a bomb of 65,535 × 65,535 pixels", large, bomb(65_535, 65_535)),
        ("a JPEG of no height", "invalid/unsupported", bomb(64, 0)),
        ("a lossless JPEG that crashes decoders", "invalid/unsupported", LOSSLESS),
        ("a JPEG that says it is larger than it is", corrupt, bomb(1000, 1000)),
        ("a JPEG of 300 scans", corrupt, many_scans(300)),
        ("a JPEG and then a script", "ok", PICTURE + b"<script>alert(1)</script>"),
        ("a JPEG and then a ZIP", "ok", PICTURE + b"PK\x03\x04" + bytes(999)),
        ("a JPEG and then 1 MB of nothing", "ok", PICTURE + bytes(1_000_000)),
        ("EXIF of rubbish", "ok", with_segments(segment(0xE1, b"Exif\0\0" + b"\xfe" * 60_000))),
        ("EXIF that points at itself", "ok", with_segments(segment(0xE1, exif_loop))),
        ("EXIF that is cut", "ok", with_segments(segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"))),
        (
            "40 segments of 64 kB that are no ICC profile",
            "too",
            with_segments(*[segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(65_000))] * 40),
        ),
        (
            "an ICC profile that lies about its parts",
            "ok",
            with_segments(segment(0xE2, b"ICC_PROFILE\0\xff\0" + bytes(999))),
        ),
        ("20 kB of comments", "ok", with_segments(*[segment(0xFE, b"x" * 1000)] * 20)),
    ):
        path = f"/image-{zlib.crc32(name.encode()):08x}.jpg"
        expected = "refused/too_large" if expected == "too" else expected
        yield Case(name, expected, path, answer(body))
    for name, attributes in {
        "another sha1": {"sha1": "0" * 40},
        "another sha256": {"sha256": "0" * 64},
        "another md5": {"md5": "0" * 32},
        "another size": {"bytes": 5},
    }.items():
        path = f"/{name.replace(' ', '-')}.jpg"
        yield Case(f"{name} than the source gave", "invalid/hash_mismatch", path, answer(), attributes)


def cases() -> list[Case]:
    """All of them."""
    return [*address_cases(), *link_cases(), *status_cases(), *http_cases(), *body_cases()]


@contextmanager
def silent_neighbour(port: int) -> Iterator[socket.socket]:
    """Listens on the same port of another loopback address, where nobody may ever knock."""
    with socket.create_server(("127.0.0.2", port)) as listening:
        listening.setblocking(False)
        yield listening


def was_visited(listening: socket.socket) -> bool:
    try:
        listening.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def run(
    store: Store, on_progress: Callable[[Any], None] = lambda _: None
) -> tuple[list[tuple[Case, str, dict[str, Any]]], bool]:
    """Put all cases through one gallery.

    Returns:
        Each case, what became of it, and its row; and whether a private address saw a packet.
    """
    with WebServer() as server, silent_neighbour(server.server_port) as neighbour:
        server.serve("/robots.txt", b"User-agent: *\nDisallow: /disallowed/\n", Content_Type="text/plain")
        links = {}
        for case in cases():
            url = case.url.replace("{port}", str(server.server_port))
            if case.route is not None:
                server.routes[url.partition("?")[0]] = case.route
                url = server.url(url)
            links[Link.from_text(url, case.attributes).url] = case
        listed = [Link(url, case.attributes) for url, case in links.items()]
        store.write_table(links_path("hostile"), links_table(listed, datetime.now(timezone.utc)))
        download_gallery("hostile", store, SETTINGS, retry=Retry(attempts=1), on_progress=on_progress)
        rows = build_catalog("hostile", store, SETTINGS).catalog.to_pylist()
        visited = was_visited(neighbour)
    outcomes = [
        (links[row["url"]], "/".join(filter(None, (row["status"], row["reason"]))), row) for row in rows
    ]
    return outcomes, visited


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        outcomes, visited = run(Store(folder))
    for case, outcome, row in outcomes:
        mark = "  " if outcome == case.expected else "! "
        print(f"{mark}{case.name[:48]:48} {outcome:26} {(row['detail'] or '')[:90]}")
    wrong = sum(outcome != case.expected for case, outcome, _ in outcomes)
    print(f"{len(outcomes)} cases, {wrong} of them not as expected; private addresses visited: {visited}")
    return 1 if wrong or visited else 0


if __name__ == "__main__":
    sys.exit(main())
