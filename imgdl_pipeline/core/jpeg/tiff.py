"""Reads the directories of a TIFF structure (TIFF 6.0), which EXIF is, as far as they are whole."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

MAX_ENTRIES = 1_000
"""Entries that are read of one directory; cameras write some hundred."""

BYTE, ASCII, RATIONAL, SBYTE, UNDEFINED, SRATIONAL, UTF8 = 1, 2, 5, 6, 7, 10, 129

FORMATS = {BYTE: "B", 3: "H", 4: "I", SBYTE: "b", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I"}
"""Types that are numbers, by their code, as the module `struct` has them."""

SIZES = {type_: struct.calcsize(f"={letter}") for type_, letter in FORMATS.items()} | {
    ASCII: 1,
    UNDEFINED: 1,
    UTF8: 1,
    RATIONAL: 8,
    SRATIONAL: 8,
}

POINTERS = frozenset({4, 9, 13})
"""Types of a pointer to another directory; some programs write a signed one."""


class ExifError(Exception):
    """The data is no TIFF structure."""


class Entry(NamedTuple):
    """One entry of a directory; its value is `length` of a type, at `place`."""

    tag: int
    type: int
    length: int
    place: int


@dataclass(frozen=True, slots=True)
class Tiff:
    """The bytes of a TIFF structure, and their order: `<` or `>`."""

    data: bytes
    order: str

    @staticmethod
    def of(data: bytes) -> "Tiff":
        """Return the structure that begins with the first of some bytes.

        Raises:
            ExifError: It is none.
        """
        order = {b"II": "<", b"MM": ">"}.get(data[:2])
        if order is None or len(data) < 8 or struct.unpack_from(f"{order}H", data, 2) != (42,):
            raise ExifError("it does not begin as a TIFF structure does")
        return Tiff(data, order)

    def unpack(self, letter: str, place: int, count: int) -> tuple[Any, ...] | None:
        """Read numbers; None where they would lie outside."""
        form = f"{self.order}{count}{letter}"
        if place < 0 or place + struct.calcsize(form) > len(self.data):
            return None
        return struct.unpack_from(form, self.data, place)

    def entries(self, place: int) -> Iterator[Entry]:
        """Yield a directory's entries, as far as they and their values lie within the data."""
        (count,) = self.unpack("H", place, 1) or (0,)
        for number in range(min(count, MAX_ENTRIES)):
            start = place + 2 + 12 * number
            head, values = self.unpack("H", start, 2), self.unpack("I", start + 4, 2)
            if head is None or values is None:
                return
            (tag, type_), (length, offset) = head, values
            size = SIZES.get(type_, 0) * length
            value_at = start + 8 if size <= 4 else offset
            if size and value_at + size <= len(self.data):
                yield Entry(tag, type_, length, value_at)

    def directory(self, entries: list[Entry], tag: int) -> list[Entry]:
        """Return the entries of the directory that the first pointer of a tag leads to."""
        pointer = next((entry for entry in entries if entry.tag == tag), None)
        return [] if pointer is None else list(self.entries(self.pointer(pointer)))

    def pointer(self, entry: Entry) -> int:
        """Return the place that an entry points at; -1, which is nowhere, for what is no pointer."""
        if entry.type not in POINTERS:
            return -1
        (place,) = self.unpack("I", entry.place, 1) or (-1,)
        return int(place)

    def bytes(self, entry: Entry, most: int) -> bytes:
        """Return the first bytes of an entry's value, `most` at most."""
        return self.data[entry.place : entry.place + min(entry.length * SIZES[entry.type], most)]
