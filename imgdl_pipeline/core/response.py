"""The head of an answer, read strictly: what http.client lets pass, and a server can misuse, is an error.

http.client leaves the headers to the email package, whose parser makes the best of whatever a mail may hold.
This one takes what RFC 9112 allows and nothing else, and a tenth of a download's time less.
"""

import http.client
import re
from email.message import Message
from typing import IO

MAX_LINE_BYTES = 65536
MAX_HEADERS = 100

_FIELD = r"([!-9;-~]+):([^\r\n\0]*)\r?\n"
_EACH_FIELD = re.compile(_FIELD)
_FIELDS = re.compile(f"(?:{_FIELD})*")
_FOLD = re.compile(r"\r?\n[ \t]+")
"""A line that goes on with the value of the one before; to be read as a space (RFC 9112, 5.2)."""


def read_headers(file: IO[bytes]) -> http.client.HTTPMessage:
    """Read headers and the empty line after them.

    Raises:
        http.client.HTTPException: A line is too long, there are too many, one is no header, which would
            hide all that come after it, or the connection ends before they do.
    """
    lines: list[bytes] = []
    while (line := file.readline(MAX_LINE_BYTES + 1)) not in (b"\r\n", b"\n"):
        lines.append(line)
        if len(line) > MAX_LINE_BYTES or len(lines) > MAX_HEADERS:
            raise http.client.HTTPException("there are too many headers, or one is too long")
        if not line.endswith(b"\n"):
            raise http.client.HTTPException("the headers end early")
    text = _FOLD.sub(" ", b"".join(lines).decode("latin-1"))
    if not _FIELDS.fullmatch(text):
        raise http.client.HTTPException("a header is malformed")
    headers = http.client.HTTPMessage()
    for name, value in _EACH_FIELD.findall(text):
        headers.set_raw(name, value.strip(" \t"))
    return headers


def content_length(headers: Message) -> int | None:
    """How many bytes the body has; None where that is not stated, or in no number.

    Raises:
        http.client.HTTPException: It is stated twice, and differently.
    """
    values = ",".join(headers.get_all("Content-Length", []))
    stated = {each.strip() for each in values.split(",")}
    if len(stated) > 1:
        raise http.client.HTTPException("the body has two lengths")
    [text] = stated
    return int(text[:20]) if text.isascii() and text.isdigit() else None


class StrictResponse(http.client.HTTPResponse):
    """An answer whose head is read by the functions above; its body is read by http.client."""

    def begin(self) -> None:
        """Read the head, and settle where the body ends (RFC 9112, 6.3).

        Raises:
            http.client.HTTPException: As the functions above; or this is no HTTP/1.
        """
        version, self.status, reason = self._read_status()  # type: ignore[attr-defined]
        while self.status < 200:  # what is told before the answer itself (RFC 9110, 15.2)
            read_headers(self.fp)
            version, self.status, reason = self._read_status()  # type: ignore[attr-defined]
        if not version.startswith(("HTTP/1.", "HTTP/0.9")):
            raise http.client.UnknownProtocol(version)
        self.version = 10 if version in ("HTTP/1.0", "HTTP/0.9") else 11
        self.reason = reason.strip()
        self.headers = self.msg = read_headers(self.fp)
        self.chunked = self.headers.get("Transfer-Encoding", "").lower() == "chunked"
        self.chunk_left = None
        length = content_length(self.headers)
        is_empty = self.status in (204, 304) or self._method == "HEAD"  # type: ignore[attr-defined]
        self.length = 0 if is_empty else None if self.chunked else length
        has_no_end = not self.chunked and self.length is None
        self.will_close = has_no_end or self._check_close()  # type: ignore[attr-defined]

    def _read_next_chunk_size(self) -> int:
        """A chunk's size; one of -1 would be read to the end of the connection, at once and in memory."""
        size: int = super()._read_next_chunk_size()  # type: ignore[misc]
        if size < 0:
            raise ValueError("a chunk of negative size")
        return size
