"""Is this a whole, valid JPEG? Its facts, or the reason why not.

Pillow forgives most damage to an image, so the strict verdict is simplejpeg's: libjpeg-turbo decodes the
file, and any of its warnings counts. The decode is to gray at a reduced scale, which sees the same
damage for half the time: every bit of the file is entropy-decoded all the same. It releases the GIL.
"""

import functools
import json
import math
import threading
import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

from imgdl_pipeline.core.jpeg.header import (
    EXIF_PREFIX,
    JPEG_START,
    BadHeaderError,
    CutHeaderError,
    JpegHeader,
    UnsupportedJpegError,
    count_scans,
    read_header,
)
from imgdl_pipeline.core.model.outcome import Reason
from imgdl_pipeline.core.model.settings import DownloadSettings

HASHED_SIDE = 64
"""Pixels that a reduced side keeps at least: ImageHash works on 32, so that nothing it sees is lost."""

LARGE_BYTES = 4_000_000
"""Files of more, and images that take more memory than that to decode, are checked one at a time."""

MAX_SCANS = 100
"""Encoders make some ten scans; each costs a pass over all pixels, and takes a few bytes to ask for."""

MAX_SCANNED_BYTES = 2_000_000_000
"""All scans together may pass over that much of what an image takes to decode: a second's work at most."""

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
        phash: 64 bits as 16 hex digits; of a photograph within 6 bits of ImageHash's `phash`, of line
            drawings and dots, which lose more by being decoded reduced, not always.
        exif: JSON object of the EXIF tags by name.
    """

    width: int
    height: int
    mode: str
    progressive: bool
    phash: str
    exif: str

    def row(self) -> dict[str, object]:
        """Its columns. `dataclasses.asdict` would copy each value deeply, at ten times the cost."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


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
    def of(settings: DownloadSettings) -> "Limits":
        """Those of a gallery."""
        return Limits(settings.max_pixels, settings.max_decode_bytes)

    def check(self, header: JpegHeader) -> None:
        """Let an image through that may be decoded.

        Raises:
            InvalidImageError: `too_many_pixels`.
        """
        size = f"{header.width} × {header.height}"
        pixels = header.width * header.height
        if pixels > self.max_pixels:
            raise InvalidImageError(
                Reason.TOO_MANY_PIXELS, f"{size} is {pixels} pixels, and max_pixels is {self.max_pixels}"
            )
        if header.decode_bytes > self.max_decode_bytes:
            raise InvalidImageError(
                Reason.TOO_MANY_PIXELS,
                f"{size} in several scans takes {header.decode_bytes} bytes to decode, "
                f"and max_decode_bytes is {self.max_decode_bytes}",
            )


def turn(size: int) -> AbstractContextManager[object]:
    """Held while something of so many bytes is in memory: large things take turns, small ones do not."""
    return _large if size > LARGE_BYTES else nullcontext()


def validate_jpeg(data: bytes, limits: Limits) -> JpegFacts:
    """Check a file from its first byte to its last.

    Args:
        data: The whole file.
        limits: An image beyond them is not decoded.

    Raises:
        InvalidImageError: `not_jpeg`, `truncated`, `corrupt`, `unsupported` or `too_many_pixels`.
    """
    header = _header(data)
    limits.check(header)
    if header.decode_bytes:  # where one scan holds all, libjpeg allows no second one
        _check_scans(data, header)
    with turn(max(len(data), header.decode_bytes)):
        gray = _decode_strictly(data)
    return JpegFacts(
        width=header.width,
        height=header.height,
        mode=header.mode,
        progressive=header.progressive,
        phash=phash(gray),
        exif=exif_json(header.exif),
    )


def _header(data: bytes) -> JpegHeader:
    if not data.startswith(JPEG_START):
        raise InvalidImageError(Reason.NOT_JPEG, "the file does not begin as a JPEG does")
    try:
        return read_header(data)
    except CutHeaderError as error:
        raise InvalidImageError(Reason.TRUNCATED, str(error)) from error
    except UnsupportedJpegError as error:
        raise InvalidImageError(Reason.UNSUPPORTED, str(error)) from error
    except BadHeaderError as error:
        raise InvalidImageError(Reason.CORRUPT, str(error)) from error


def _check_scans(data: bytes, header: JpegHeader) -> None:
    try:
        scans = count_scans(data)
    except BadHeaderError as error:
        raise InvalidImageError(Reason.CORRUPT, str(error)) from error
    most = min(MAX_SCANS, MAX_SCANNED_BYTES // header.decode_bytes)
    if scans > most:
        detail = f"{scans} scans of {header.width} × {header.height}, where no encoder makes more than {most}"
        raise InvalidImageError(Reason.CORRUPT, detail)


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


PHASH_SIDE = 8
PHASH_SAMPLES = 32
LONGEST_HASHED = 512
"""Pixels of a side that the transform is made for; a strip of 65 500 × 64 would need a hundred MB else."""

LANCZOS_LOBES = 3


def phash(gray: npt.NDArray[np.uint8]) -> str:
    """The perceptual hash of an image, as ImageHash's `phash` has it.

    The lowest 8 × 8 frequencies of the image at 32 × 32 pixels, each compared with their median. ImageHash
    resizes, rounds to whole shades and transforms; here both are one multiplication by side, which takes an
    eighth of the time. That tips a bit or two now and then.

    Args:
        gray: Shades, by row and column.

    Returns:
        64 bits as 16 hex digits.
    """
    rows, columns = gray.shape
    if max(rows, columns) > LONGEST_HASHED:
        columns, rows = min(columns, LONGEST_HASHED), min(rows, LONGEST_HASHED)
        gray = np.asarray(Image.fromarray(gray).resize((columns, rows), Image.Resampling.BOX))
    low = np.rint(_frequencies(rows) @ gray.astype(np.float32) @ _frequencies(columns).T)  # noise becomes 0
    ordered = np.sort(low, axis=None)
    middle = len(ordered) // 2
    return np.packbits(low > (ordered[middle - 1] + ordered[middle]) / 2).tobytes().hex()


@functools.lru_cache(maxsize=64)
def _frequencies(side: int) -> npt.NDArray[np.float32]:
    """What takes a side of so many pixels to its lowest frequencies, 8 × side.

    Pillow's Lanczos filter to 32 samples, then the discrete cosine transform, type II, without its constant
    factor.
    """
    scale = side / PHASH_SAMPLES
    samples = np.arange(PHASH_SAMPLES) + 0.5
    distance = (np.arange(side) + 0.5 - samples[:, None] * scale) / max(scale, 1.0)
    is_near = np.abs(distance) < LANCZOS_LOBES
    weights = np.where(is_near, np.sinc(distance) * np.sinc(distance / LANCZOS_LOBES), 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    cosines = np.cos(np.pi / PHASH_SAMPLES * np.outer(np.arange(PHASH_SIDE), samples))
    frequencies: npt.NDArray[np.float32] = (cosines @ weights).astype(np.float32)
    return frequencies


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


_large = threading.RLock()
"""Held while a large file or image is in memory; whoever holds it to read a file may go on to decode it."""

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
    if isinstance(value, IFDRational) and not value.denominator:  # before 12.3, Pillow fails on its number
        return None
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
