"""Read the head of a response strictly, and reject lenient cases of http.client that a server can misuse.

http.client parses headers with the email package, which accepts almost any input. This parser accepts what
RFC 9112 defines and very little more, and saves a tenth of the time of a download. The end of the body is
determined by RFC 9112 as well: two readers of one connection, such as this client and a proxy, must always
agree on it.
"""

import http.client
import re
from email.message import Message
from typing import IO

MAX_INTERIM = 20
"""The most interim responses before the response itself."""

MAX_HEAD_BYTES = 64 * 1024
"""Maximum size of a response's headers. Every worker may hold that much in memory at the same time."""

_FIELD = r"((?![ \t])[^\x00-\x08\x0a-\x1f\x7f:]+):([^\r\n\0]*)\r?\n"
"""A header line. A blank before the colon is invalid but common; like a proxy (RFC 9112, 5.1), remove it.
Names that are no tokens are passed over, as browsers do."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

_EACH_FIELD = re.compile(_FIELD)
_FIELDS = re.compile(f"(?:{_FIELD})*")
_FOLD = re.compile(r"\r?\n[ \t]+")
"""A line break within a header's value, which is to be read as a space (RFC 9112, 5.2)."""


def read_headers(file: IO[bytes]) -> http.client.HTTPMessage:
    """Read the headers and the empty line after them.

    Raises:
        http.client.HTTPException: The headers are too many or too long, a header is malformed (it would hide
            all headers after it), or the connection ends before the headers do.
    """
    lines: list[bytes] = []
    room = MAX_HEAD_BYTES
    while (line := file.readline(room)) not in (b"\r\n", b"\n"):
        lines.append(line)
        room -= len(line)
        if room <= 0:
            raise http.client.HTTPException("there are too many headers, or they are too long")
        if not line.endswith(b"\n"):
            raise http.client.HTTPException("the headers end early")
    text = _FOLD.sub(" ", b"".join(lines).decode("latin-1"))
    if not _FIELDS.fullmatch(text):
        raise http.client.HTTPException("a header is malformed")
    headers = http.client.HTTPMessage()
    for name, value in _EACH_FIELD.findall(text):
        if _TOKEN.fullmatch(name.rstrip(" \t")):
            headers.set_raw(name.rstrip(" \t"), value.strip(" \t"))
    return headers


def _members(headers: Message, name: str) -> set[str]:
    """Return the members of a list header, combined from all of its lines (RFC 9110, 5.6.1)."""
    values = ",".join(headers.get_all(name, []))
    return {each.strip(" \t").lower() for each in values.split(",")} - {""}


def content_length(headers: Message) -> int | None:
    """Return the body's length in bytes, or None if it is not stated (RFC 9110, 8.6).

    Raises:
        http.client.HTTPException: What is stated is not a number, or two different numbers.
    """
    stated = {each.lstrip("0") or "0" for each in _members(headers, "Content-Length")}
    if len(stated) > 1:
        raise http.client.HTTPException("the body has two lengths")
    if not stated:
        return None
    [text] = stated
    if not (text.isascii() and text.isdigit()):
        raise http.client.HTTPException("the body's length is not a number")
    return int(text[:20])


def is_chunked(headers: Message) -> bool:
    """Return whether the body is sent in chunks.

    Raises:
        http.client.HTTPException: The body has another transfer coding; none was requested.
    """
    codings = _members(headers, "Transfer-Encoding") - {"identity"}
    if codings - {"chunked"}:
        raise http.client.HTTPException("the body has a transfer coding that was not asked for")
    return bool(codings)


MAX_CHUNK_LINE_BYTES = 4096
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r?\n")


class StrictResponse(http.client.HTTPResponse):
    """A response whose head is read by the functions above, and whose body is read by http.client."""

    def begin(self) -> None:
        """Read the head, and determine where the body ends.

        Raises:
            http.client.HTTPException: As for the functions above, or the protocol is not HTTP/1.
        """
        version, self.status, reason = self._read_status()  # type: ignore[attr-defined]
        interim = 0
        while self.status < 200 and self.status != http.client.SWITCHING_PROTOCOLS:
            read_headers(self.fp)  # an interim response (RFC 9110, 15.2)
            version, self.status, reason = self._read_status()  # type: ignore[attr-defined]
            interim += 1
            if interim > MAX_INTERIM:
                raise http.client.HTTPException("there are too many interim responses")
        if not version.startswith(("HTTP/1.", "HTTP/0.9")):
            raise http.client.UnknownProtocol(version)
        self.version = 10 if version in ("HTTP/1.0", "HTTP/0.9") else 11
        self.reason = reason.strip()
        self.headers = self.msg = read_headers(self.fp)
        self._settle_end()

    def _settle_end(self) -> None:
        """Determine where the body ends, and whether the connection can be reused (RFC 9112, 6.3)."""
        self.chunked, self.chunk_left = is_chunked(self.headers), None
        self.length = content_length(self.headers)
        # Chunks with HTTP/1.0 or with a length: an intermediary may have seen a different end of the body.
        is_doubtful = self.chunked and (self.length is not None or self.version == 10)
        if self.status in (101, 204, 304) or self._method == "HEAD":  # type: ignore[attr-defined]
            self.chunked, self.length = False, 0
        elif self.chunked:
            self.length = None
        has_no_end = not self.chunked and self.length is None
        self.will_close = has_no_end or is_doubtful or self._check_close()  # type: ignore[attr-defined]

    def _read_next_chunk_size(self) -> int:
        """Return the next chunk's size. http.client would accept `-1`, `+4c`, `0x4c` and `4_c`.

        Raises:
            ValueError: The line is not a chunk's (RFC 9112, 7.1).
        """
        match = _CHUNK_LINE.fullmatch(self.fp.readline(MAX_CHUNK_LINE_BYTES))
        if match is None:
            raise ValueError("not a chunk's size")
        return int(match[1], 16)

    def _safe_read(self, amt: int) -> bytes:
        """Read exactly so many bytes; between two chunks, they must be the line break that ends the first."""
        data: bytes = super()._safe_read(amt)  # type: ignore[misc]
        if self.chunked and self.chunk_left == 0 and amt == 2 and data != b"\r\n":
            raise http.client.IncompleteRead(data)
        return data
