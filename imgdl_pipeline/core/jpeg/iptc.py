"""Reads IPTC-IIM: the records that press photographs carry in a Photoshop segment (IIM 4.2)."""

import itertools
import struct
from collections.abc import Iterator, Sequence

from imgdl_pipeline.core.jpeg.text import clean, utf8_or_latin1

RESOURCE = b"8BIM"
IPTC_RESOURCE = 0x0404
DATASET = 0x1C
UTF8_MARKER = b"\x1b%G"
"""Dataset 1:90 with this value: the texts are UTF-8."""

MAX_DATASETS = 1_000

CHARACTER_SET = (1, 90)
ATTRIBUTES = {
    (2, 5): "title",
    (2, 25): "tags",
    (2, 55): "date",
    (2, 60): "time",
    (2, 80): "author",
    (2, 110): "credit",
    (2, 116): "copyright",
    (2, 120): "caption",
}
"""The catalog's names of datasets, by record and number; `time` belongs to `date`."""


def read_iptc(segments: Sequence[bytes]) -> dict[str, str | list[str]]:
    """Read what Photoshop segments hold of IPTC, under the catalog's names.

    Args:
        segments: Payloads, without their prefix; a long resource goes on in the next segment.
    """
    texts: dict[str, list[str]] = {}
    is_utf8 = False
    datasets = (each for block in _resources(b"".join(segments)) for each in _datasets(block))
    for key, value in itertools.islice(datasets, MAX_DATASETS):
        if key == CHARACTER_SET:
            is_utf8 = value == UTF8_MARKER
        elif key in ATTRIBUTES:
            text = clean(value.decode("utf-8", "replace") if is_utf8 else utf8_or_latin1(value))
            if text:
                texts.setdefault(ATTRIBUTES[key], []).append(text)
    time = texts.pop("time", [""])[0]
    found: dict[str, str | list[str]] = {
        name: values if name == "tags" else ", ".join(values) if name == "author" else values[0]
        for name, values in texts.items()
    }
    if "date" in found:
        found["date"] = _iso(str(found["date"]), time)
    return found


def _resources(data: bytes) -> Iterator[bytes]:
    """Yield the IPTC resources: `8BIM`, a number, a padded Pascal string, a length, the padded data."""
    place = 0
    while data[place : place + 4] == RESOURCE and place + 7 <= len(data):
        number, name_length = struct.unpack_from(">HB", data, place + 4)
        place += 6 + (name_length + 2) // 2 * 2
        if place + 4 > len(data):
            return
        (size,) = struct.unpack_from(">I", data, place)
        if number == IPTC_RESOURCE:
            yield data[place + 4 : place + 4 + size]
        place += 4 + (size + 1) // 2 * 2


def _datasets(block: bytes) -> Iterator[tuple[tuple[int, int], bytes]]:
    """Yield record and number, and value, of each dataset; a length of 32,768 or more is not read."""
    place = 0
    while place + 5 <= len(block) and block[place] == DATASET:
        record, number, length = struct.unpack_from(">BBH", block, place + 1)
        if length > 0x7FFF:
            return
        place += 5
        yield (record, number), block[place : place + length]
        place += length


def _iso(date: str, time: str) -> str:
    """Return `CCYYMMDD` and `HHMMSS±HHMM` as ISO 8601; a date of another form is left as it is."""
    if not (len(date) == 8 and date.isascii() and date.isdigit()):
        return date
    day = f"{date[:4]}-{date[4:6]}-{date[6:]}"
    clock = time[:6]
    is_time = len(clock) == 6 and clock.isascii() and clock.isdigit()
    return f"{day}T{clock[:2]}:{clock[2:4]}:{clock[4:]}" if is_time else day
