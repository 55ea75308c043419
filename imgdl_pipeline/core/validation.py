"""Is this a whole, valid JPEG? Its facts, or the reason why not.

Pillow forgives most damage to an image, so the strict verdict is simplejpeg's: libjpeg-turbo decodes the
file, and any of its warnings counts. The decode is to gray at a reduced scale, which sees the same
damage for half the time: every bit of the file is entropy-decoded all the same. It releases the GIL.
"""

import json
import math
import threading
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import imagehash
import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

from imgdl_pipeline.core.jpeg_header import (
    EXIF_PREFIX,
    JPEG_START,
    BadHeaderError,
    CutHeaderError,
    JpegHeader,
    count_scans,
    read_header,
)
from imgdl_pipeline.core.outcome import Reason

HASHED_SIDE = 64
"""Pixels that a reduced side keeps at least: ImageHash works on 32, so that nothing it sees is lost."""

LARGE_PIXELS = 20_000_000
"""Progressive images of more are decoded one at a time: each takes 3 to 6 bytes of memory a pixel."""

MAX_SCANS = 100
"""Encoders make some ten scans; each costs a pass over all pixels, and takes a few bytes to ask for."""

EXIF_TEXT_CHARS = 1000
"""A longer EXIF text is cut; a tag is a caption, not a payload."""


class InvalidImageError(Exception):
    """The bytes are no whole, valid JPEG.

    Args:
        reason: One of those whose status is `invalid`.
        detail: The same in words.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class JpegFacts:
    """What the catalog says of a whole, valid JPEG.

    Args:
        width: Pixels across, as the file has them, whatever EXIF's orientation says.
        height: Pixels down.
        mode: L, RGB or CMYK.
        progressive: Whether it is.
        phash: 64 bits as 16 hex digits; within 6 bits of ImageHash's `phash` of the decoded image.
        exif: JSON object of the EXIF tags by name.
    """

    width: int
    height: int
    mode: str
    progressive: bool
    phash: str
    exif: str


def validate_jpeg(data: bytes, max_pixels: int) -> JpegFacts:
    """Check a file from its first byte to its last.

    Args:
        data: The whole file.
        max_pixels: An image of more is not decoded.

    Raises:
        InvalidImageError: `not_jpeg`, `truncated`, `corrupt` or `too_many_pixels`.
    """
    header = _header(data)
    pixels = header.width * header.height
    if pixels > max_pixels:
        raise InvalidImageError(
            Reason.TOO_MANY_PIXELS,
            f"{header.width} × {header.height} is {pixels} pixels, and max_pixels is {max_pixels}",
        )
    scans = count_scans(data)
    if scans > MAX_SCANS:
        raise InvalidImageError(Reason.CORRUPT, f"{scans} scans, and no encoder makes more than {MAX_SCANS}")
    is_large = header.progressive and pixels > LARGE_PIXELS
    with _large if is_large else nullcontext():
        gray = _decode_strictly(data)
    return JpegFacts(
        width=header.width,
        height=header.height,
        mode=header.mode,
        progressive=header.progressive,
        phash=str(imagehash.phash(Image.fromarray(gray))),
        exif=exif_json(header.exif),
    )


def _header(data: bytes) -> JpegHeader:
    if not data.startswith(JPEG_START):
        raise InvalidImageError(Reason.NOT_JPEG, "the file does not begin as a JPEG does")
    try:
        return read_header(data)
    except CutHeaderError as error:
        raise InvalidImageError(Reason.TRUNCATED, str(error)) from error
    except BadHeaderError as error:
        raise InvalidImageError(Reason.CORRUPT, str(error)) from error


def _decode_strictly(data: bytes) -> npt.NDArray[np.uint8]:
    """Decode the whole scan, to gray and reduced; libjpeg's warnings are errors."""
    try:
        pixels = simplejpeg.decode_jpeg(
            data, "GRAY", min_height=HASHED_SIDE, min_width=HASHED_SIDE, strict=True
        )
    except (ValueError, MemoryError) as error:
        detail = str(error) or type(error).__name__
        truncated = "premature end of jpeg file" in detail.lower()
        reason = Reason.TRUNCATED if truncated else Reason.CORRUPT
        raise InvalidImageError(reason, detail) from error
    gray: npt.NDArray[np.uint8] = pixels[:, :, 0]
    return gray


def exif_json(data: bytes | None) -> str:
    """The EXIF tags as a JSON object, by name.

    Names are those of the EXIF 2.32 standard as Pillow spells them; GPS tags stand in an object
    `GPSInfo`. Rationals become numbers, and raw bytes that are no text are left out. EXIF that cannot
    be read gives what could be: it never makes an image invalid.

    Args:
        data: From the byte order mark on; None gives an empty object.
    """
    tags: dict[str, Any] = {}
    try:
        tags.update(_tags(data) if data else {})
    except Exception as error:  # noqa: BLE001 -- strangers' bytes: Pillow raises nearly anything on them
        tags["_error"] = f"{type(error).__name__}: {error}"[:EXIF_TEXT_CHARS]
    return json.dumps(tags, ensure_ascii=False, allow_nan=False, sort_keys=True)


_large = threading.Lock()
"""Held while a large progressive image is decoded."""

_quiet = threading.Lock()
"""Held while warnings are off, which they are for the whole process."""


def _tags(data: bytes) -> dict[str, Any]:
    exif = Image.Exif()
    with _quiet, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of EXIF that is damaged, which is not ours
        exif.load(EXIF_PREFIX + data)
        tags = _named(exif, ExifTags.TAGS) | _named(exif.get_ifd(ExifTags.IFD.Exif), ExifTags.TAGS)
        gps = _named(exif.get_ifd(ExifTags.IFD.GPSInfo), ExifTags.GPSTAGS)
    return {**tags, "GPSInfo": gps} if gps else tags


_POINTERS = frozenset({ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo, ExifTags.IFD.Interop})
_OPAQUE = frozenset({ExifTags.Base.MakerNote, ExifTags.Base.PrintImageMatching})


def _named(ifd: Any, names: dict[int, str]) -> dict[str, Any]:
    values = {}
    for tag, value in dict(ifd).items():
        plain = None if tag in _POINTERS or tag in _OPAQUE else _plain(value)
        if plain is not None:
            values[names.get(tag, f"0x{tag:04X}")] = plain
    return values


def _plain(value: Any) -> Any:
    """A tag's value as JSON has it, or None where JSON has no form for it."""
    if isinstance(value, (bool, int)):
        return value
    if isinstance(value, (float, IFDRational)):
        number = float(value)
        return number if math.isfinite(number) else None
    if isinstance(value, bytes):
        value = _text(value)
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode().rstrip("\0 ")[:EXIF_TEXT_CHARS]
    if isinstance(value, (tuple, list)):
        return [_plain(each) for each in value[:EXIF_TEXT_CHARS]]
    return None


def _text(value: bytes) -> str | None:
    """EXIF's undefined bytes as text, where they are: comments begin with an 8-byte character code."""
    for prefix, encoding in ((b"ASCII\0\0\0", "ascii"), (b"UNICODE\0", "utf-16")):
        if value.startswith(prefix):
            return value[8:].decode(encoding, "replace")
    stripped = value.rstrip(b"\0")
    return stripped.decode() if stripped.isascii() and stripped.decode().isprintable() else None
