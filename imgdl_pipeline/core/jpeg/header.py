"""What stands in a JPEG before its first scan: size, components, progression and EXIF.

Read by the marker syntax of ITU-T T.81, annex B. Pillow could tell the same, but its header parser also
reads the EXIF of strangers, and warns, and fails where only the EXIF is damaged.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

START_OF_IMAGE = b"\xff\xd8"
JPEG_START = START_OF_IMAGE + b"\xff"
"""What every JPEG begins with: its start-of-image marker, and the first byte of the next one."""

END_OF_IMAGE = 0xD9
START_OF_SCAN = 0xDA
APP1 = 0xE1
EXIF_PREFIX = b"Exif\0\0"

STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
"""Markers that no length follows: TEM and the restarts."""

DECODED_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
"""Start-of-frame markers of the kinds that reach a decoder: sequential and progressive, Huffman-coded or
arithmetic-coded. libjpeg-turbo before 3.1.4 writes past its buffer when it reduces a lossless image."""

OTHER_FRAMES = {
    0xC3: "lossless",
    0xC5: "hierarchical (differential sequential)",
    0xC6: "hierarchical (differential progressive)",
    0xC7: "hierarchical (differential lossless)",
    0xC8: "of a reserved kind (JPG)",
    0xCB: "lossless and arithmetic-coded",
    0xCD: "hierarchical (differential sequential, arithmetic-coded)",
    0xCE: "hierarchical (differential progressive, arithmetic-coded)",
    0xCF: "hierarchical (differential lossless, arithmetic-coded)",
    0xDE: "hierarchical",
    0xF7: "JPEG-LS",
}
"""Markers of the kinds that do not, and what they are called. DHP (0xDE) comes before hierarchical frames."""

PROGRESSIVE_FRAMES = frozenset({0xC2, 0xCA})

SAMPLE_BITS = 8

SAMPLES_A_BLOCK = 64
COEFFICIENT_BYTES = 2
"""What libjpeg keeps of every sample while an image comes in several scans (its JCOEF is a short)."""

MODES = {1: "L", 3: "RGB", 4: "CMYK"}
"""By number of components, in Pillow's words."""


class CutHeaderError(Exception):
    """The bytes end before the first scan."""


class BadHeaderError(Exception):
    """The bytes before the first scan are no header of a JPEG."""


class UnsupportedJpegError(Exception):
    """The header is that of a JPEG of a kind that is not decoded; names the kind."""


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """What the header says.

    Args:
        width: Pixels across.
        height: Pixels down.
        mode: L, RGB or CMYK.
        progressive: Whether the frame is.
        decode_bytes: Memory that a decoder must hold: all coefficients where the image comes in several
            scans, as progressive ones do; 0 where it is decoded row by row.
        exif: The EXIF data, from its byte order mark on; None where there is none.
    """

    width: int
    height: int
    mode: str
    progressive: bool
    decode_bytes: int
    exif: bytes | None


def read_header(data: bytes) -> JpegHeader:
    """Read a JPEG's header; `data` begins with the start-of-image marker.

    Raises:
        CutHeaderError, BadHeaderError: It is none.
        UnsupportedJpegError: It is one that no decoder may see.
    """
    frame, exif, components_in_scan = None, None, 0
    for marker, payload in _segments(data):
        if marker == START_OF_SCAN:
            components_in_scan = payload[0] if payload else 0
        elif marker in OTHER_FRAMES:
            raise UnsupportedJpegError(f"the image is {OTHER_FRAMES[marker]}, which is not decoded")
        elif marker in DECODED_FRAMES:
            if frame is not None:
                raise BadHeaderError("the header has two frames")
            frame = _frame(marker, payload)
        elif marker == APP1 and exif is None and payload.startswith(EXIF_PREFIX):
            exif = payload[len(EXIF_PREFIX) :]
    if frame is None:
        raise BadHeaderError("no frame comes before the first scan")
    in_several_scans = frame.progressive or components_in_scan < len(frame.components) // 3
    decode_bytes = _coefficient_bytes(frame.width, frame.height, frame.components) if in_several_scans else 0
    return JpegHeader(frame.width, frame.height, frame.mode, frame.progressive, decode_bytes, exif)


@dataclass(frozen=True, slots=True)
class _Frame:
    """A frame's header. `components` has three bytes for each: its id, its sampling, its table."""

    width: int
    height: int
    mode: str
    progressive: bool
    components: bytes


def _frame(marker: int, payload: bytes) -> _Frame:
    """Read a start-of-frame segment: bits, height, width, then the components.

    Raises:
        BadHeaderError: It is none.
        UnsupportedJpegError: No decoder may see the image.
    """
    if len(payload) < 6 or len(payload) != 6 + 3 * payload[5]:
        raise BadHeaderError("the frame's header has not the length that it should have")
    bits, count = payload[0], payload[5]
    height, width = int.from_bytes(payload[1:3], "big"), int.from_bytes(payload[3:5], "big")
    if bits != SAMPLE_BITS:
        raise UnsupportedJpegError(f"the image has {bits} bits a sample, and only {SAMPLE_BITS} are decoded")
    if not height:
        raise UnsupportedJpegError("the image's height comes after its first scan, which is not decoded")
    if not width or not count:
        raise BadHeaderError(f"{width} × {height} pixels of {count} components are no image")
    if count not in MODES:
        raise UnsupportedJpegError(f"the image has {count} components, and only 1, 3 or 4 are decoded")
    return _Frame(width, height, MODES[count], marker in PROGRESSIVE_FRAMES, payload[6:])


def _coefficient_bytes(width: int, height: int, components: bytes) -> int:
    """Bytes of all coefficients; `components` is as in `_Frame`."""
    sampling = [(max(1, each >> 4), max(1, each & 15)) for each in components[1::3]]
    most_across, most_down = (max((each[axis] for each in sampling), default=1) for axis in (0, 1))
    blocks = 0
    for across, down in sampling:
        blocks_across = -(-width * across // (8 * most_across))
        blocks_down = -(-height * down // (8 * most_down))
        blocks += blocks_across * blocks_down
    return blocks * SAMPLES_A_BLOCK * COEFFICIENT_BYTES


MAX_SEGMENTS = 10_000
"""Encoders write some tens, and split metadata of megabytes into hundreds."""

_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
"""Any marker but the restarts; within a scan, 0xFF is followed by 0 or by one of those.

One 0xFF, and not any number of them: a run of many would be looked at once for each of its starts.
"""


def count_scans(data: bytes) -> int:
    """The scans up to the end of the image; what comes after that is no part of it.

    Raises:
        BadHeaderError: There are more segments than any encoder writes.
    """
    scans, place = 0, len(START_OF_IMAGE)
    for _ in range(MAX_SEGMENTS):
        match = _MARKER.search(data, place)
        if match is None or match[1][0] == END_OF_IMAGE:
            return scans
        marker, place = match[1][0], match.end()
        scans += marker == START_OF_SCAN
        if marker not in STANDALONE:
            place += max(2, int.from_bytes(data[place : place + 2], "big"))
    raise BadHeaderError(f"more than {MAX_SEGMENTS} segments")


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The marker and the payload of each segment up to the header of the first scan."""
    place = len(START_OF_IMAGE)
    for _ in range(MAX_SEGMENTS):
        marker, place = _next_marker(data, place)
        if marker == END_OF_IMAGE:
            raise BadHeaderError("the image ends before its first scan")
        if marker in STANDALONE:
            continue
        length = int.from_bytes(data[place : place + 2], "big")
        if place + max(length, 2) > len(data):
            raise CutHeaderError("the file ends within its header")
        if length < 2:
            raise BadHeaderError(f"a segment is {length} bytes long")
        yield marker, data[place + 2 : place + length]
        if marker == START_OF_SCAN:
            return
        place += length
    raise BadHeaderError(f"more than {MAX_SEGMENTS} segments")


_ANY_MARKER = re.compile(rb"\xff([^\x00\xff])")


def _next_marker(data: bytes, place: int) -> tuple[int, int]:
    """The marker at or after a place, and the place behind it. Any number of 0xFF may come before.

    Stray bytes are passed over as libjpeg does, 0xFF 0x00 among them: taken for a marker here and not there,
    it could hide from us the frame that a decoder then sees.
    """
    match = _ANY_MARKER.search(data, place)
    if match is None:
        raise CutHeaderError("the file ends within its header")
    return match[1][0], match.end()
