"""Is this a whole, valid JPEG? Its facts, or the reason why not. Called in the contained workers only."""

from imgdl_pipeline.core.jpeg.decode import DamagedError, Gray, decode
from imgdl_pipeline.core.jpeg.embedded import read_embedded
from imgdl_pipeline.core.jpeg.facts import Embedded, InvalidImageError, JpegFacts, Limits
from imgdl_pipeline.core.jpeg.header import (
    JPEG_START,
    BadHeaderError,
    Buffer,
    CutHeaderError,
    JpegHeader,
    UnsupportedJpegError,
    count_scans,
    read_header,
)
from imgdl_pipeline.core.jpeg.phash import phash
from imgdl_pipeline.core.model.outcome import Reason

MAX_SCANS = 100
"""Encoders make some ten scans; each costs a pass over all pixels, and takes a few bytes to ask for."""

MAX_SCANNED_BYTES = 10_000_000_000
"""All scans together may pass over that much of what an image takes to decode: five seconds' work at most."""


def judge_header(data: Buffer, limits: Limits) -> JpegHeader:
    """Read the header, and let an image through that may be decoded; no decoder has a part in this.

    Args:
        data: The whole file.
        limits: An image beyond them is not decoded.

    Raises:
        InvalidImageError: The header says why the image is not to be decoded.
    """
    if bytes(data[: len(JPEG_START)]) != JPEG_START:
        raise InvalidImageError(Reason.NOT_JPEG, "the file does not begin as a JPEG does")
    try:
        header = read_header(data)
        limits.check(header)
        if header.decode_bytes:  # where one scan holds all, libjpeg allows no second one
            _check_scans(count_scans(data), header)
    except CutHeaderError as error:
        raise InvalidImageError(Reason.TRUNCATED, str(error)) from error
    except UnsupportedJpegError as error:
        raise InvalidImageError(Reason.UNSUPPORTED, str(error)) from error
    except BadHeaderError as error:
        raise InvalidImageError(Reason.CORRUPT, str(error)) from error
    return header


def _check_scans(scans: int, header: JpegHeader) -> None:
    most = min(MAX_SCANS, MAX_SCANNED_BYTES // header.decode_bytes)
    if scans > most:
        raise BadHeaderError(
            f"{scans} scans of {header.width} × {header.height}, where no encoder makes more than {most}"
        )


def validate_jpeg(data: Buffer, limits: Limits, header: JpegHeader | None = None) -> JpegFacts:
    """Check a file from its first byte to its last.

    Args:
        data: The whole file.
        limits: An image beyond them is not decoded.
        header: What `judge_header` returned, where it was called before.

    Raises:
        InvalidImageError: `not_jpeg`, `truncated`, `corrupt`, `unsupported`, `too_many_pixels` or
            `too_much_memory`.
        NoMemoryError: There was not enough memory.
    """
    header = header or judge_header(data, limits)
    try:
        decoded = decode(data)
    except DamagedError as error:
        reason = Reason.TRUNCATED if error.truncated else Reason.CORRUPT
        raise InvalidImageError(reason, str(error)) from error
    embedded, icc_warning = read_embedded(header)
    return JpegFacts(
        **{name: getattr(embedded, name) for name in Embedded.__dataclass_fields__},
        width=header.width,
        height=header.height,
        mode=header.mode,
        progressive=header.progressive,
        phash=phash(decoded.gray, _extent(decoded.gray, header), embedded.orientation),
        warning=icc_warning or decoded.warning,
    )


EIGHTHS = range(1, 9)
"""The scales at which pictures are decoded."""


def _extent(gray: Gray, header: JpegHeader) -> tuple[float, float]:
    """Return how many rows and columns of a reduced picture the picture really fills."""
    sides = (header.height, header.width)
    for scale in EIGHTHS:
        if gray.shape == tuple(-(-side * scale // 8) for side in sides):
            return header.height * scale / 8, header.width * scale / 8
    return gray.shape[0], gray.shape[1]
