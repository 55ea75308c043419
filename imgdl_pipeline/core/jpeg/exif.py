"""Reads EXIF: the tags of a TIFF structure, as JSON has them.

The tags are those of CIPA DC-008 (Exif 3.0). They are read here, and not by Pillow, because what matters is
lost there: byte order of comments, types that are newer than Pillow, and a bound on the sum of all values.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from PIL.ExifTags import GPSTAGS, IFD, TAGS, Base

from imgdl_pipeline.core.jpeg.header import EXIF_START
from imgdl_pipeline.core.jpeg.text import MAX_CHARS, clean, utf8_or_latin1
from imgdl_pipeline.core.jpeg.tiff import (
    ASCII,
    BYTE,
    FORMATS,
    RATIONAL,
    SBYTE,
    SRATIONAL,
    UNDEFINED,
    UTF8,
    Entry,
    ExifError,
    Tiff,
)

MAX_VALUES = 1_000
"""Of a longer list of numbers, the rest is left out."""

MAX_TEXT_BYTES = 8 + 4 * MAX_CHARS
"""A character code, and the longest text in UTF-8."""

FIRST_TAGS = frozenset({Base.Orientation, Base.DateTimeOriginal, Base.DateTimeDigitized})
"""Read before all others, so that no list of numbers takes their room."""

MAX_BYTES = 65_536
"""Of the values of one file, as their characters and eight for a number; what comes then is left out."""

XP_TAGS = range(0x9C9B, 0x9CA0)
"""Windows's XPTitle to XPSubject: bytes that are UTF-16, little-endian."""

NUMBERS = frozenset({Base.FileSource, Base.SceneType, Base.ComponentsConfiguration})
"""Undefined bytes that are numbers."""

OPAQUE = frozenset({Base.MakerNote, Base.PrintImageMatching})

MOST_BYTES_AS_NUMBERS = 16
"""More bytes than that are a payload of their own, such as an ICC profile or IPTC."""


@dataclass(frozen=True, slots=True)
class Exif:
    """What a file's EXIF holds.

    Args:
        tags: JSON-able values by the tag's name, as Pillow spells it; GPS tags are in an object `GPSInfo`.
            A tag without a name is `0x` and its number in hex.
    """

    tags: Mapping[str, Any] = field(default_factory=dict)

    @property
    def orientation(self) -> int:
        """How the picture is to be turned for display, 1 to 8; 1 where nothing valid is stated."""
        value = self.tags.get("Orientation")
        return value if isinstance(value, int) and 1 <= value <= 8 else 1

    @property
    def taken_at(self) -> datetime | None:
        """When the picture was taken, by the camera's clock."""
        for name in ("DateTimeOriginal", "DateTimeDigitized"):
            taken_at = _time(self.tags.get(name))
            if taken_at is not None:
                seconds = f"0.{self.tags.get(name.replace('DateTime', 'SubsecTime'), '')}".rstrip()
                is_fraction = seconds[2:].isascii() and seconds[2:].isdigit()
                return taken_at + timedelta(seconds=float(seconds[:8])) if is_fraction else taken_at
        return None

    @property
    def place(self) -> tuple[float, float] | None:
        """Latitude and longitude in degrees, south and west negative; None where they are not stated."""
        gps = self.tags.get("GPSInfo")
        if not isinstance(gps, dict):
            return None
        latitude = _degrees(gps.get("GPSLatitude"), gps.get("GPSLatitudeRef"), "N", "S", 90)
        longitude = _degrees(gps.get("GPSLongitude"), gps.get("GPSLongitudeRef"), "E", "W", 180)
        return None if latitude is None or longitude is None else (latitude, longitude)


def _time(value: object) -> datetime | None:
    """Return an EXIF time, `YYYY:MM:DD hh:mm:ss`; cameras without a clock write blanks or zeros."""
    if not isinstance(value, str):
        return None
    for form in ("%Y:%m:%d %H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S"):
        try:
            return datetime.strptime(value[:19], form)  # noqa: DTZ007 -- a camera's clock has no zone
        except ValueError:
            continue
    return None


def _degrees(value: object, reference: object, plus: str, minus: str, most: int) -> float | None:
    parts = value if isinstance(value, list) else [value]
    sign = {plus: 1, minus: -1}.get(str(reference)[:1].upper())
    if sign is None or not 1 <= len(parts) <= 3 or not all(isinstance(each, (int, float)) for each in parts):
        return None
    degrees = sum(float(part) / 60**power for power, part in enumerate(parts))
    return sign * degrees if 0 <= degrees <= most else None


def joined(segments: Sequence[bytes]) -> bytes:
    """Put EXIF together, which a long one has split over several segments.

    Raises:
        ExifError: None of the segments begins as a TIFF structure does.
    """
    starts = [number for number, each in enumerate(segments) if each.startswith(EXIF_START)]
    if not starts:
        raise ExifError("it does not begin as a TIFF structure does")
    first, *others = starts
    return b"".join(segments[first : others[0] if others else len(segments)])


def read_exif(data: bytes) -> Exif:
    """Read the tags of IFD0, of the Exif directory and of the GPS directory.

    Damaged entries are left out; the values of what remains are bounded by `MAX_BYTES`. Of a tag that is
    there more than once, the first one counts, and one of IFD0 before one of the Exif directory.

    Args:
        data: From the byte order mark on.

    Raises:
        ExifError: It is no TIFF structure.
    """
    tiff = Tiff.of(data)
    (first,) = tiff.unpack("I", 4, 1) or (0,)
    entries = list(tiff.entries(first))
    inner = tiff.directory(entries, IFD.Exif)
    gps = tiff.directory(entries, IFD.GPSInfo)
    budget = _Budget(MAX_BYTES)
    tags = budget.named(tiff, [*entries, *inner], TAGS)
    places = budget.named(tiff, gps, GPSTAGS)
    return Exif(tags | {"GPSInfo": places} if places else tags)


class _Budget:
    """Gives tags their names, until the sum of their values is used up."""

    def __init__(self, left: int) -> None:
        self._left = left

    def named(self, tiff: Tiff, entries: list[Entry], names: Mapping[int, str]) -> dict[str, Any]:
        tags: dict[str, Any] = {}
        for entry in sorted(entries, key=lambda entry: entry.tag not in FIRST_TAGS):
            name = names.get(entry.tag, f"0x{entry.tag:04X}")
            value = None if entry.tag in _NOT_VALUES or name in tags else _value(tiff, entry)
            if value is None:
                continue
            self._left -= len(value) if isinstance(value, str) else 8 * min(entry.length, MAX_VALUES)
            if self._left < 0:
                break
            tags[name] = value
        return tags


_NOT_VALUES = frozenset({IFD.Exif, IFD.GPSInfo, IFD.Interop}) | OPAQUE


def _value(tiff: Tiff, entry: Entry) -> Any:
    """Return an entry's value as JSON has it, or None where JSON has no form for it."""
    if entry.tag in XP_TAGS and entry.type == BYTE:
        return clean(tiff.bytes(entry, MAX_TEXT_BYTES).decode("utf-16-le", "replace"))
    if entry.type in (ASCII, UTF8):
        return clean(utf8_or_latin1(tiff.bytes(entry, MAX_TEXT_BYTES).partition(b"\0")[0]))
    if entry.tag == Base.UserComment or (entry.type == UNDEFINED and entry.tag not in NUMBERS):
        return _undefined(tiff.bytes(entry, MAX_TEXT_BYTES), tiff.order)
    if entry.type in (BYTE, SBYTE, UNDEFINED) and entry.length > MOST_BYTES_AS_NUMBERS:
        return None
    numbers = _numbers(tiff, entry)
    return numbers[0] if entry.length == 1 else numbers


def _numbers(tiff: Tiff, entry: Entry) -> list[float | int | None]:
    count = min(entry.length, MAX_VALUES)
    if entry.type in (RATIONAL, SRATIONAL):
        parts = tiff.unpack("I" if entry.type == RATIONAL else "i", entry.place, 2 * count) or ()
        pairs = zip(parts[::2], parts[1::2], strict=True)
        return [above / below if below else None for above, below in pairs]
    numbers = tiff.unpack(FORMATS.get(entry.type, "B"), entry.place, count) or ()
    return [number if math.isfinite(number) else None for number in numbers]


def _undefined(value: bytes, order: str) -> str | None:
    """Return undefined bytes as text, where they are: comments begin with an 8-byte character code."""
    code, text = value[:8], value[8:]
    if code == b"UNICODE\0":
        found = _utf16(text, order)
    elif code == b"JIS\0\0\0\0\0":
        found = _jis(text)
    elif code in (b"ASCII\0\0\0", bytes(8)):
        found = utf8_or_latin1(text.partition(b"\0")[0])
    else:
        stripped = value.rstrip(b"\0")
        found = stripped.decode() if stripped.isascii() and stripped.decode().isprintable() else ""
    return clean(found) or None


def _utf16(text: bytes, order: str) -> str:
    """Decode UTF-16 by its byte order mark; else in the file's byte order, or in the other one.

    Some programs write the other one. The characters of a text are from few blocks of Unicode, so that their
    high bytes are fewer distinct ones in the right order than in the wrong one.
    """
    if text[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return text.decode("utf-16", "replace")
    distinct = {"<": len(set(text[1::2])), ">": len(set(text[0::2]))}
    other = {"<": ">", ">": "<"}[order]
    chosen = other if distinct[other] < distinct[order] else order
    return text.decode("utf-16-le" if chosen == "<" else "utf-16-be", "replace")


def _jis(text: bytes) -> str:
    """Decode JIS X 0208: with escape sequences (ISO-2022-JP), or bare pairs of 7-bit bytes."""
    text = text.rstrip(b"\0 ")
    if b"\x1b" in text:
        return text.decode("iso2022_jp", "replace")
    if len(text) % 2 == 0 and all(0x21 <= byte <= 0x7E for byte in text):
        return (b"\x1b$B" + text).decode("iso2022_jp", "replace")
    return text.decode("shift_jis", "replace")
