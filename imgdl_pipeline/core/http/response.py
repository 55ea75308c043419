"""The head of an answer, read strictly: what http.client lets pass, and a server can misuse, is an error.

http.client leaves the headers to the email package, whose parser makes the best of whatever a mail may hold.
This one takes what RFC 9112 has and very little more, in a tenth of a download's time less. Where the body
ends is settled by the same document: two readers of one connection, of which a proxy may be one, must never
disagree about it.
"""

import http.client
import re
from email.message import Message
from typing import IO

MAX_HEAD_BYTES = 64 * 1024
"""Of all headers of an answer; every worker may be reading such a head."""

MAX_HEADERS = 100

_FIELD = r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*:([^\r\n\0]*)\r?\n"
"""A blank before the colon is wrong, and common; a proxy takes it away (RFC 9112, 5.1), and so does this."""

_EACH_FIELD = re.compile(_FIELD)
_FIELDS = re.compile(f"(?:{_FIELD})*")
_FOLD = re.compile(r"\r?\n[ \t]+")
"""A line that goes on with the value of the one before; to be read as a space (RFC 9112, 5.2)."""


def read_headers(file: IO[bytes]) -> http.client.HTTPMessage:
    """Read headers and the empty line after them.

    Raises:
        http.client.HTTPException: There are too many, or they are too long, one is no header, which would
            hide all that come after it, or the connection ends before they do.
    """
    lines: list[bytes] = []
    room = MAX_HEAD_BYTES
    while (line := file.readline(room)) not in (b"\r\n", b"\n"):
        lines.append(line)
        room -= len(line)
        if room <= 0 or len(lines) > MAX_HEADERS:
            raise http.client.HTTPException("there are too many headers, or they are too long")
        if not line.endswith(b"\n"):
            raise http.client.HTTPException("the headers end early")
    text = _FOLD.sub(" ", b"".join(lines).decode("latin-1"))
    if not _FIELDS.fullmatch(text):
        raise http.client.HTTPException("a header is malformed")
    headers = http.client.HTTPMessage()
    for name, value in _EACH_FIELD.findall(text):
        headers.set_raw(name, value.strip(" \t"))
    return headers


def _members(headers: Message, name: str) -> set[str]:
    """The members of a header that is a list, from all lines that give it (RFC 9110, 5.6.1)."""
    values = ",".join(headers.get_all(name, []))
    return {each.strip(" \t").lower() for each in values.split(",")} - {""}


def content_length(headers: Message) -> int | None:
    """How many bytes the body has; None where that is not stated, or in no number.

    Raises:
        http.client.HTTPException: It is stated twice, and differently.
    """
    stated = {each.lstrip("0") or "0" for each in _members(headers, "Content-Length")}
    if len(stated) > 1:
        raise http.client.HTTPException("the body has two lengths")
    text = "".join(stated)
    return int(text[:20]) if text.isascii() and text.isdigit() else None


def is_chunked(headers: Message) -> bool:
    """Whether the body comes in chunks.

    Raises:
        http.client.HTTPException: It comes in another coding; none was asked for.
    """
    codings = _members(headers, "Transfer-Encoding") - {"identity"}
    if codings - {"chunked"}:
        raise http.client.HTTPException("the body has a transfer coding that was not asked for")
    return bool(codings)


class StrictResponse(http.client.HTTPResponse):
    """An answer whose head is read by the functions above; its body is read by http.client."""

    def begin(self) -> None:
        """Read the head, and settle where the body ends.

        Raises:
            http.client.HTTPException: As the functions above; or this is no HTTP/1.
        """
        version, self.status, reason = self._read_status()  # type: ignore[attr-defined]
        while self.status < 200 and self.status != http.client.SWITCHING_PROTOCOLS:
            read_headers(self.fp)  # what is told before the answer itself (RFC 9110, 15.2)
            version, self.status, reason = self._read_status()  # type: ignore[attr-defined]
        if not version.startswith(("HTTP/1.", "HTTP/0.9")):
            raise http.client.UnknownProtocol(version)
        self.version = 10 if version in ("HTTP/1.0", "HTTP/0.9") else 11
        self.reason = reason.strip()
        self.headers = self.msg = read_headers(self.fp)
        self._settle_end()

    def _settle_end(self) -> None:
        """Settle where the body ends, and whether the connection is of use after it (RFC 9112, 6.3)."""
        self.chunked, self.chunk_left = is_chunked(self.headers), None
        self.length = content_length(self.headers)
        # Chunks of HTTP/1.0, or beside a length: whoever is in between may have seen another end.
        is_doubtful = self.chunked and (self.length is not None or self.version == 10)
        if self.status in (101, 204, 304) or self._method == "HEAD":  # type: ignore[attr-defined]
            self.chunked, self.length = False, 0
        elif self.chunked:
            self.length = None
        has_no_end = not self.chunked and self.length is None
        self.will_close = has_no_end or is_doubtful or self._check_close()  # type: ignore[attr-defined]

    def _read_next_chunk_size(self) -> int:
        """A chunk's size; one of -1 would be read to the end of the connection, at once and in memory."""
        size: int = super()._read_next_chunk_size()  # type: ignore[misc]
        if size < 0:
            raise ValueError("a chunk of negative size")
        return size
