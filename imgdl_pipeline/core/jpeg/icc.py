"""Reads ICC profiles, which describe a file's colours (ICC.1:2022; annex B.4 is about JPEGs)."""

import io
from collections.abc import Sequence

from PIL import ImageCms

from imgdl_pipeline.core.jpeg.text import clean


class IccError(Exception):
    """There is a profile that cannot be read; says why."""


def profile_of(chunks: Sequence[bytes]) -> bytes | None:
    """Put a profile together; each chunk begins with its number, from 1, and the number of all chunks.

    Raises:
        IccError: Chunks are missing, repeated or miscounted.
    """
    if not chunks:
        return None
    parts = {chunk[0]: chunk[2:] for chunk in chunks if len(chunk) > 1}
    totals = {chunk[1] for chunk in chunks if len(chunk) > 1}
    if len(parts) != len(chunks) or totals != {len(parts)} or set(parts) != set(range(1, len(parts) + 1)):
        raise IccError("the pieces of its ICC profile are missing, repeated or miscounted")
    return b"".join(parts[number] for number in sorted(parts))


MAX_BYTES = 4_000_000
"""A longer profile neither converts pixels nor is copied: those of printing presses have a few megabytes."""

COLOR_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
"""The colour space that a profile names, by the mode of the pixels that it describes."""


def usable(profile: bytes, mode: str) -> ImageCms.ImageCmsProfile | None:
    """Return a profile opened; None where it cannot be read, or describes pixels of another mode."""
    if len(profile) > MAX_BYTES:
        return None
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    except OSError:
        return None
    return opened if opened.profile.xcolor_space.strip() == COLOR_SPACES[mode] else None


def description(profile: bytes) -> str | None:
    """Return a profile's description, such as `Display P3`; None where it has none.

    Raises:
        IccError: It is no ICC profile.
    """
    try:
        found = ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.profile_description
    except OSError as error:
        raise IccError("its ICC profile cannot be read") from error
    return clean(found or "").strip() or None
