"""Reads what a JPEG has before its first scan: size, components, progression and metadata segments.

The marker syntax is that of ITU-T T.81, annex B. Pillow could read the same, but its header parser also
interprets the EXIF of strangers, warns, and fails where only the EXIF is damaged.
"""

import mmap
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

START_OF_IMAGE = b"\xff\xd8"
JPEG_START = START_OF_IMAGE + b"\xff"
"""What every JPEG begins with: its start-of-image marker, and the first byte of the next one."""

END_OF_IMAGE = 0xD9
START_OF_SCAN = 0xDA
APP0, APP1, APP2, APP13, APP14 = 0xE0, 0xE1, 0xE2, 0xED, 0xEE

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

EXIF_START = (b"II*\0", b"MM\0*")
"""What EXIF begins with: the byte order mark and number of a TIFF structure."""

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


Buffer = bytes | memoryview | mmap.mmap
"""What the bytes of a file may be in: a slice of it is made bytes before it is kept."""

METADATA = {
    "exif": (APP1, b"Exif\0\0"),
    "xmp": (APP1, b"http://ns.adobe.com/xap/1.0/\0"),
    "extended_xmp": (APP1, b"http://ns.adobe.com/xmp/extension/\0"),
    "icc": (APP2, b"ICC_PROFILE\0"),
    "photoshop": (APP13, b"Photoshop 3.0\0"),
}
"""The segments that describe a picture: each kind's marker, and what its payload begins with."""


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
        metadata: Payloads of segments by their kind in `METADATA`, in the file's order, without the prefix.
    """

    width: int
    height: int
    mode: str
    progressive: bool
    decode_bytes: int
    metadata: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict)


def read_header(data: Buffer) -> JpegHeader:
    """Read a JPEG's header; `data` begins with the start-of-image marker.

    Raises:
        CutHeaderError, BadHeaderError: It is none.
        UnsupportedJpegError: It is one that no decoder may see.
    """
    frame, components_in_scan = None, 0
    metadata: dict[str, list[bytes]] = {}
    for segment in _segments(data):
        marker, payload = segment.marker, segment.payload
        if marker == START_OF_SCAN:
            components_in_scan = payload[0] if payload else 0
        elif marker in OTHER_FRAMES:
            raise UnsupportedJpegError(f"the image is {OTHER_FRAMES[marker]}, which is not decoded")
        elif marker in DECODED_FRAMES:
            if frame is not None:
                raise BadHeaderError("the header has two frames")
            frame = _frame(marker, payload)
        else:
            for kind, (wanted, prefix) in METADATA.items():
                if marker == wanted and payload.startswith(prefix):
                    metadata.setdefault(kind, []).append(payload[len(prefix) :])
    if frame is None:
        raise BadHeaderError("no frame comes before the first scan")
    in_several_scans = frame.progressive or components_in_scan < len(frame.components) // 3
    return JpegHeader(
        width=frame.width,
        height=frame.height,
        mode=frame.mode,
        progressive=frame.progressive,
        decode_bytes=_coefficient_bytes(frame) if in_several_scans else 0,
        metadata={kind: tuple(payloads) for kind, payloads in metadata.items()},
    )


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
        raise BadHeaderError("the frame's header has the wrong length")
    bits, count = payload[0], payload[5]
    height, width = int.from_bytes(payload[1:3], "big"), int.from_bytes(payload[3:5], "big")
    if bits != SAMPLE_BITS:
        raise UnsupportedJpegError(
            f"the image has {bits} bits per sample, and only {SAMPLE_BITS} are decoded"
        )
    if not height:
        raise UnsupportedJpegError("the image's height comes after its first scan, which is not decoded")
    if not width or not count:
        raise BadHeaderError(f"{width} × {height} pixels of {count} components are no image")
    if count not in MODES:
        raise UnsupportedJpegError(f"the image has {count} components, and only 1, 3 or 4 are decoded")
    return _Frame(width, height, MODES[count], marker in PROGRESSIVE_FRAMES, payload[6:])


def _coefficient_bytes(frame: _Frame) -> int:
    """Return the bytes that all coefficients of a frame take."""
    sampling = [(max(1, each >> 4), max(1, each & 15)) for each in frame.components[1::3]]
    most_across, most_down = (max((each[axis] for each in sampling), default=1) for axis in (0, 1))
    blocks = 0
    for across, down in sampling:
        blocks_across = -(-frame.width * across // (8 * most_across))
        blocks_down = -(-frame.height * down // (8 * most_down))
        blocks += blocks_across * blocks_down
    return blocks * SAMPLES_A_BLOCK * COEFFICIENT_BYTES


JFIF = b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0"
ADOBE = b"Adobe"
ADOBE_TRANSFORM = 11
"""Where an Adobe segment says how its colours are coded: 0, 1 (YCbCr) or 2 (YCCK)."""

OF_THE_PICTURE = frozenset({0xC4, 0xCC, 0xDB, 0xDD, START_OF_SCAN}) | DECODED_FRAMES
"""Huffman tables, arithmetic conditioning, quantization tables, restart interval, scan and frame."""


def picture_only(data: Buffer) -> bytes:
    """Return the file without what is not picture data: whatever a decoder objects to then is the picture.

    Only the header is changed, up to its first scan. It keeps the segments that decoding takes; those that
    say how colours are coded are replaced by canonical ones, with the coding that libjpeg assumes.

    Raises:
        CutHeaderError, BadHeaderError: The file has no header.
    """
    has_jfif, adobe, components, tables, end = False, None, 0, [], 0
    for segment in _segments(data):
        end = segment.end
        if segment.marker in OF_THE_PICTURE:
            tables.append(_written(segment.marker, segment.payload))
            components = segment.payload[5] if segment.marker in DECODED_FRAMES else components
        elif segment.marker == APP0 and segment.payload.startswith(b"JFIF\0"):
            has_jfif = True
        elif segment.marker == APP14 and segment.payload.startswith(ADOBE) and len(segment.payload) >= 12:
            adobe = segment.payload[ADOBE_TRANSFORM]
    colours = [_written(APP0, JFIF)] if has_jfif else []
    if adobe is not None:
        assumed = 2 if components == 4 else 1
        colours.append(_written(APP14, ADOBE + bytes([0, 100, 0, 0, 0, 0, assumed if adobe else 0])))
    return b"".join([START_OF_IMAGE, *colours, *tables, data[end:]])


HUFFMAN_TABLES = 0xC4
ARITHMETIC_FRAMES = frozenset({0xC9, 0xCA})


def lacks_tables(data: Buffer) -> bool:
    """Return whether the first scan uses a Huffman table that the header does not define.

    libjpeg takes its own tables then. Where bytes are stray in the header, the file's own may be among them.
    """
    defined: set[int] = set()
    for segment in _segments(data):
        if segment.marker in ARITHMETIC_FRAMES:
            return False
        if segment.marker == HUFFMAN_TABLES:
            place = 0
            while place + 17 <= len(segment.payload):
                defined.add(segment.payload[place])
                place += 17 + sum(segment.payload[place + 1 : place + 17])
        if segment.marker == START_OF_SCAN:
            count = segment.payload[0] if segment.payload else 0
            selectors = segment.payload[2 : 1 + 2 * count : 2]
            first, last = (*segment.payload[1 + 2 * count :], 0, 0)[:2]
            is_dc, is_ac = first == 0, last > 0
            needed = {each >> 4 for each in selectors if is_dc} | {
                0x10 | (each & 15) for each in selectors if is_ac
            }
            return not needed <= defined
    return True


def _written(marker: int, payload: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(payload) + 2).to_bytes(2, "big") + payload


MAX_SEGMENTS = 10_000
"""Encoders write some tens, and split metadata of megabytes into hundreds."""

_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
"""Any marker but the restarts; within a scan, 0xFF is followed by 0 or by one of those.

One 0xFF, and not any number of them: a run of many would be looked at once for each of its starts.
"""


def count_scans(data: Buffer) -> int:
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


class _Segment(NamedTuple):
    """A marker, what follows its length, and the place behind that."""

    marker: int
    payload: bytes
    end: int


def _segments(data: Buffer) -> Iterator[_Segment]:
    """Yield each segment up to the header of the first scan."""
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
        yield _Segment(marker, bytes(data[place + 2 : place + length]), place + length)
        if marker == START_OF_SCAN:
            return
        place += length
    raise BadHeaderError(f"more than {MAX_SEGMENTS} segments")


_ANY_MARKER = re.compile(rb"\xff([^\x00\xff])")


def _next_marker(data: Buffer, place: int) -> tuple[int, int]:
    """The marker at or after a place, and the place behind it. Any number of 0xFF may come before.

    Stray bytes are passed over as libjpeg does, 0xFF 0x00 among them: taken for a marker here and not there,
    it could hide from us the frame that a decoder then sees.
    """
    match = _ANY_MARKER.search(data, place)
    if match is None:
        raise CutHeaderError("the file ends within its header")
    return match[1][0], match.end()
