"""Copies EXIF for a picture that was made from another one: upright, smaller, perhaps with other colours.

The structure is written anew, so that only what its directories name is copied. Left out are the thumbnail,
which shows the picture as it was, the maker's notes and whatever else holds places in the old structure, and
tags without a name.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from PIL.ExifTags import GPSTAGS, IFD, TAGS, Base

from imgdl_pipeline.core.jpeg.tiff import Entry, Tiff

MAX_BYTES = 65_533 - len(b"Exif\0\0")
"""What one segment holds."""

SHORT, LONG = 3, 4

SRGB = 1
"""EXIF's ColorSpace of sRGB."""

LEFT_OUT = frozenset(
    {
        *(Base.MakerNote, Base.PrintImageMatching, Base.SubIFDs, Base.InterColorProfile, Base.ImageResources),
        *(Base.StripOffsets, Base.StripByteCounts, Base.TileOffsets, Base.TileByteCounts),
        *(Base.JpegIFOffset, Base.JpegIFByteCount, Base.XMLPacket, Base.IPTCNAA),
        *(IFD.Exif, IFD.GPSInfo, IFD.Interop),
    }
)
"""Tags that hold places, other structures, or how the old file's colours are coded."""


class _Field(NamedTuple):
    """What is written of an entry."""

    tag: int
    type: int
    length: int
    value: bytes

    @property
    def size(self) -> int:
        """Bytes that it takes in a directory and behind it."""
        return 12 + (len(self.value) + len(self.value) % 2 if len(self.value) > 4 else 0)


def upright_exif(data: bytes, size: tuple[int, int], *, is_srgb: bool) -> bytes | None:
    """Return EXIF for a new picture; None where nothing of it can be copied.

    Of values that are longer than a segment together, those that come too late are left out.

    Args:
        data: The old one, from the byte order mark on.
        size: Width and height of the new picture, which stand for the old ones where those are stated.
        is_srgb: Whether the new picture's colours were converted to sRGB.

    Raises:
        ExifError: It is no TIFF structure.
    """
    tiff = Tiff.of(data)
    (first,) = tiff.unpack("I", 4, 1) or (0,)
    entries = list(tiff.entries(first))
    new: dict[int, int] = {Base.Orientation: 1, Base.ImageWidth: size[0], Base.ImageLength: size[1]}
    new |= {Base.ExifImageWidth: size[0], Base.ExifImageHeight: size[1]}
    new |= {Base.ColorSpace: SRGB} if is_srgb else {}
    room = _Room(MAX_BYTES - 8 - 3 * (2 + 4) - 2 * 12)
    main = room.filled(_fields(tiff, entries, TAGS, new))
    inner = room.filled(_fields(tiff, tiff.directory(entries, IFD.Exif), TAGS, new))
    places = room.filled(_fields(tiff, tiff.directory(entries, IFD.GPSInfo), GPSTAGS, {}))
    return _written(tiff.order, main, {IFD.Exif: inner, IFD.GPSInfo: places})


def _fields(
    tiff: Tiff, entries: Iterable[Entry], names: Mapping[int, str], new: Mapping[int, int]
) -> Iterator[_Field]:
    """Yield what is copied of a directory; of a tag that is there more than once, the first entry."""
    seen = set()
    for entry in entries:
        if entry.tag in seen or entry.tag not in names or (names is TAGS and entry.tag in LEFT_OUT):
            continue
        seen.add(entry.tag)
        if entry.tag in new:
            type_, letter = (SHORT, "H") if entry.type == SHORT else (LONG, "I")
            yield _Field(entry.tag, type_, 1, struct.pack(f"{tiff.order}{letter}", new[entry.tag]))
        else:
            yield _Field(entry.tag, entry.type, entry.length, tiff.bytes(entry, MAX_BYTES))


class _Room:
    """The bytes that are left for fields."""

    def __init__(self, left: int) -> None:
        self._left = left

    def filled(self, fields: Iterable[_Field]) -> list[_Field]:
        """Return the fields for which there is room, in the order of their tags."""
        kept = []
        for each in fields:
            if each.size <= self._left:
                self._left -= each.size
                kept.append(each)
        return sorted(kept)


def _written(order: str, main: list[_Field], others: Mapping[int, list[_Field]]) -> bytes | None:
    """Return a TIFF structure of a first directory and of others that it points to."""
    present = {tag: fields for tag, fields in others.items() if fields}
    if not main and not present:
        return None
    place = 8 + len(_directory(order, [*main, *(_Field(tag, LONG, 1, bytes(4)) for tag in present)], 8))
    pointers, behind = [], b""
    for tag, fields in present.items():
        pointers.append(_Field(tag, LONG, 1, struct.pack(f"{order}I", place + len(behind))))
        behind += _directory(order, fields, place + len(behind))
    mark = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HI", 42, 8)
    return mark + _directory(order, sorted([*main, *pointers]), 8) + behind


def _directory(order: str, fields: list[_Field], place: int) -> bytes:
    """Return a directory that begins at a place, with its values behind it; no other one follows it."""
    values_at, head, values = place + 2 + 12 * len(fields) + 4, b"", b""
    for each in fields:
        head += struct.pack(f"{order}HHI", each.tag, each.type, each.length)
        if len(each.value) <= 4:
            head += each.value.ljust(4, b"\0")
        else:
            head += struct.pack(f"{order}I", values_at + len(values))
            values += each.value + bytes(len(each.value) % 2)
    return struct.pack(f"{order}H", len(fields)) + head + bytes(4) + values
