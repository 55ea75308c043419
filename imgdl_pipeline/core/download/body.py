"""Read the body of a response: check its first bytes, count and hash it on the way, and hold it."""

import hashlib
import io
import itertools
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any

import urllib3

from imgdl_pipeline.core.http.transport import header_text
from imgdl_pipeline.core.jpeg.header import JPEG_START
from imgdl_pipeline.core.model.outcome import FetchError, Reason
from imgdl_pipeline.core.model.temporary import discard, needing_room, temporary_file

CHUNK_BYTES = 256 * 1024
IN_MEMORY_BYTES = 4 * 1024 * 1024
"""Larger bodies go to a temporary file, so bodies take at most workers × this much memory."""

PLACEHOLDER_MD5 = "d835884373f4d6c8f24742ceabe74946"
"""MD5 of the picture that Imgur serves in place of a removed image."""


@dataclass(frozen=True, slots=True)
class Body:
    """A body that was read completely.

    Args:
        file: The bytes, positioned at the start; a temporary file is deleted when it is closed.
        bytes: The number of bytes.
        digests: Hex digests by name.
    """

    file: IO[bytes]
    bytes: int
    digests: dict[str, str]


def read_body(
    raw: urllib3.HTTPResponse, digest_names: Iterable[str], max_bytes: int, *, codings: int = 0
) -> Body:
    """Read a body to its end; stop after the first chunk if it does not start like a JPEG.

    Args:
        raw: A response whose headers have been read.
        digest_names: Digests to compute in addition to sha256.
        max_bytes: Maximum size of the body, after decompression.
        codings: How often the body is compressed by gzip or deflate; a JPEG is taken as it is all the same.

    Raises:
        FetchError: `not_jpeg`, `placeholder`, `too_large` or `incomplete`.
        ResourceError: A temporary file could not be written.
    """
    hashes = {name: hashlib.new(name, usedforsecurity=False) for name in {"sha256", *digest_names}}
    kept = _Kept()
    try:
        for chunk in _chunks(raw, codings):
            if kept.bytes == 0:
                _check_start(chunk, raw)
            kept.add(chunk)
            if kept.bytes > max_bytes:
                raise FetchError(Reason.TOO_LARGE, f"the body goes on, and max_bytes is {max_bytes}")
            for digest in hashes.values():
                digest.update(chunk)
        if kept.bytes == 0:
            raise FetchError(Reason.NOT_JPEG, "the body is empty")
        return Body(kept.file(), kept.bytes, {name: digest.hexdigest() for name, digest in hashes.items()})
    except BaseException:
        kept.close()
        raise


def _chunks(raw: urllib3.HTTPResponse, codings: int) -> Iterator[bytes]:
    """Yield the body piece by piece, decompressed if it is compressed."""
    pieces = iter(lambda: raw.read(CHUNK_BYTES, decode_content=False), b"")
    first = next(pieces, b"")
    pieces = itertools.chain([first] if first else [], pieces)
    for _ in range(0 if first.startswith(JPEG_START) else codings):
        pieces = _decompressed(pieces)
    return pieces


def _decompressed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Decompress gzip or deflate (zlib's form, or without a header), a piece at a time."""
    decompressor: Any = None
    for piece in pieces:
        if decompressor is None:
            has_header = piece[:2] == b"\x1f\x8b" or piece[:1] == b"x"
            decompressor = zlib.decompressobj(47 if has_header else -15)
        rest = piece
        while rest and not decompressor.eof:
            try:
                data = decompressor.decompress(rest, CHUNK_BYTES)
            except zlib.error as error:
                raise FetchError(Reason.NOT_JPEG, f"a body that is not compressed well: {error}") from None
            rest = decompressor.unconsumed_tail
            if data:
                yield data
    if decompressor is not None and not decompressor.eof:
        raise FetchError(Reason.INCOMPLETE, "the compressed body ended early", retryable=True)


class _Kept:
    """The chunks of a body: a small body stays in memory uncopied, a larger one goes to a temporary file."""

    def __init__(self) -> None:
        self.bytes = 0
        self._chunks: list[bytes] = []
        self._file: IO[bytes] | None = None

    def add(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self.bytes += len(chunk)
        if self.bytes > IN_MEMORY_BYTES:
            self._write()

    def _write(self) -> None:
        with needing_room():
            if self._file is None:
                self._file = temporary_file()
            self._file.writelines(self._chunks)
        self._chunks.clear()

    def file(self) -> IO[bytes]:
        if self._file is None:
            return io.BytesIO(b"".join(self._chunks))
        with needing_room():
            self._file.seek(0)  # flushes the buffer
        return self._file

    def close(self) -> None:
        if self._file is not None:
            discard(self._file)


def _check_start(start: bytes, raw: urllib3.HTTPResponse) -> None:
    """Check the first bytes of a body.

    Raises:
        FetchError: `not_jpeg`, or `placeholder` for Imgur's picture in place of a removed image.
    """
    if start.startswith(JPEG_START):
        return
    if hashlib.md5(start, usedforsecurity=False).hexdigest() == PLACEHOLDER_MD5:
        raise FetchError(Reason.PLACEHOLDER, "the image was removed")
    content_type = header_text(raw.headers.get("Content-Type", "not stated"))
    raise FetchError(Reason.NOT_JPEG, f"the body is {kind_of(start)}; its Content-Type: {content_type}")


_KINDS = (
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"GIF8", "a GIF image"),
    (b"BM", "a BMP image"),
    (b"II*\0", "a TIFF image"),
    (b"MM\0*", "a TIFF image"),
    (b"%PDF", "a PDF file"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "gzip data"),
    (b"{", "JSON"),
    (b"<", "HTML or XML"),
)


def kind_of(start: bytes) -> str:
    """Return in words what kind of data a body that is not a JPEG seems to be, from its first bytes."""
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "a WebP image"
    if start[4:8] == b"ftyp":
        return "an AVIF, HEIC or video file"
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    return next((kind for magic, kind in _KINDS if text.startswith(magic)), "no JPEG")
