"""What is known of a JPEG once it has been checked: its facts, or why it is none; and what is checked at all.

Nothing here decodes, so the run's own process may import it.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any

from imgdl_pipeline.core.jpeg.header import MODES, JpegHeader
from imgdl_pipeline.core.model.outcome import Reason

if TYPE_CHECKING:  # the workers start without pydantic
    from imgdl_pipeline.core.model.settings import DownloadSettings


class InvalidImageError(Exception):
    """The bytes are no whole, valid JPEG.

    Args:
        reason: One whose status is `invalid`.
        detail: The same in words.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type["InvalidImageError"], tuple[Reason, str]]:
        """Let the error be sent to another process."""
        return type(self), (self.reason, self.detail)

    def row(self) -> dict[str, object]:
        """Return the columns that say so."""
        return {"status": self.reason.status.value, "reason": self.reason.value, "detail": self.detail}


@dataclass(frozen=True, slots=True)
class Embedded:
    """Facts from a file's metadata; the fields are columns of the catalog.

    Args:
        orientation: EXIF's, 1 to 8; 1 where none is stated.
        taken_at: When the picture was taken, by the camera's clock, without a zone.
        latitude: Degrees, south negative.
        longitude: Degrees, west negative.
        color_profile: The ICC profile's description.
        embedded: JSON object of what XMP, IPTC and EXIF say, in this order of trust, under `NAMES`.
        exif: JSON object of the EXIF tags by name; `_error` where they could not be read.
    """

    orientation: int
    taken_at: datetime | None
    latitude: float | None
    longitude: float | None
    color_profile: str | None
    embedded: str
    exif: str


@dataclass(frozen=True, slots=True)
class JpegFacts(Embedded):
    """The facts about a whole, valid JPEG; the fields are columns of the catalog.

    Args:
        width: Pixels across, as the file has them, whatever EXIF's orientation says.
        height: Pixels down.
        mode: L, RGB or CMYK.
        progressive: Whether it is.
        phash: 64 bits as 16 hex digits, of the picture as it is displayed.
        warning: What is odd about the file outside its picture; None for nothing.
    """

    width: int
    height: int
    mode: str
    progressive: bool
    phash: str
    warning: str | None

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> "JpegFacts":
        """Return the facts that a worker sent, which is not trusted to send any.

        Raises:
            KeyError, TypeError, ValueError: They are no facts.
        """
        facts = {name: values[name] for name in FACT_NAMES}
        if facts["taken_at"] is not None:
            facts["taken_at"] = datetime.fromisoformat(facts["taken_at"])
        for name, value in facts.items():
            if not _IS_VALID[name](value):
                raise ValueError(f"{name} is {value!r:.100}")
        return JpegFacts(**facts)

    def row(self) -> dict[str, object]:
        """Return its columns. `dataclasses.asdict` would copy each value deeply, at ten times the cost."""
        return {name: getattr(self, name) for name in FACT_NAMES}


FACT_NAMES = tuple(field.name for field in fields(JpegFacts))

MAX_SIDE = 65_535
"""Pixels: a JPEG's frame has 16 bits for a side."""


def _is_whole(value: object, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _is_degrees(value: object, most: int) -> bool:
    return value is None or (type(value) in (int, float) and -most <= value <= most)  # type: ignore[operator]


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value.encode("utf-8", "replace").decode() == value


def _is_object(value: object) -> bool:
    return _is_text(value) and isinstance(json.loads(str(value)), dict)


_IS_VALID: dict[str, Callable[[Any], bool]] = {
    "width": lambda value: _is_whole(value, 1, MAX_SIDE),
    "height": lambda value: _is_whole(value, 1, MAX_SIDE),
    "mode": lambda value: value in MODES.values(),
    "progressive": lambda value: isinstance(value, bool),
    "orientation": lambda value: _is_whole(value, 1, 8),
    "taken_at": lambda value: value is None or value.tzinfo is None,
    "latitude": lambda value: _is_degrees(value, 90),
    "longitude": lambda value: _is_degrees(value, 180),
    "color_profile": lambda value: value is None or _is_text(value),
    "warning": lambda value: value is None or _is_text(value),
    "embedded": _is_object,
    "exif": _is_object,
    "phash": lambda value: _is_text(value) and re.fullmatch("[0-9a-f]{16}", value) is not None,
}
"""What each fact must be to be believed, when a process has sent it that may have been taken over."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What is decoded at all.

    Args:
        max_pixels: An image of more is not.
        max_decode_bytes: One that takes more memory to decode is not; only those that come in several
            scans, as progressive ones do, take any that grows with the image.
    """

    max_pixels: int
    max_decode_bytes: int

    @staticmethod
    def of(settings: "DownloadSettings") -> "Limits":
        """Return those of a gallery."""
        return Limits(settings.max_pixels, settings.max_decode_bytes)

    def asdict(self) -> dict[str, int]:
        """Return them by name."""
        return {"max_pixels": self.max_pixels, "max_decode_bytes": self.max_decode_bytes}

    def check(self, header: JpegHeader) -> None:
        """Let an image through that may be decoded.

        Raises:
            InvalidImageError: `too_many_pixels` or `too_much_memory`.
        """
        size = f"{header.width} × {header.height}"
        pixels = header.width * header.height
        if pixels > self.max_pixels:
            raise InvalidImageError(
                Reason.TOO_MANY_PIXELS, f"{size} is {pixels} pixels, and max_pixels is {self.max_pixels}"
            )
        if header.decode_bytes > self.max_decode_bytes:
            raise InvalidImageError(
                Reason.TOO_MUCH_MEMORY,
                f"{size} in several scans takes {header.decode_bytes} bytes to decode, "
                f"and max_decode_bytes is {self.max_decode_bytes}",
            )
