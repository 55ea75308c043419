"""Makes a JPEG of another size from a stored one, for datasets. Called in the contained workers only.

Every picture is treated alike, also one that is small enough as it is: turned upright, its colours and its
metadata handled as the settings say, and encoded anew. The same bytes and settings give the same bytes again.
"""

import io
from dataclasses import dataclass
from typing import cast

from PIL import Image

from imgdl_pipeline.core.jpeg.color import is_usable, to_srgb
from imgdl_pipeline.core.jpeg.embedded import orientation_of
from imgdl_pipeline.core.jpeg.exif import joined
from imgdl_pipeline.core.jpeg.exif_copy import upright_exif
from imgdl_pipeline.core.jpeg.header import Buffer, JpegHeader
from imgdl_pipeline.core.jpeg.icc import IccError, profile_of
from imgdl_pipeline.core.jpeg.reduced import SCALES, WHOLE, decode_reduced
from imgdl_pipeline.core.jpeg.thumbnail import UPRIGHT
from imgdl_pipeline.core.jpeg.tiff import ExifError
from imgdl_pipeline.core.jpeg.xmp_copy import upright_xmp

FILTER = Image.Resampling.BICUBIC

DECODED_AT_LEAST = 1.5
"""Times the new side that the decoder leaves to the filter, which is better at fine detail."""

WHITE: dict[str, int | tuple[int, ...]] = {"L": 255, "RGB": (255, 255, 255)}

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Resize:
    """What `ResizeSettings` say; the workers start without pydantic."""

    side: int
    how: str
    quality: int
    chroma: str
    color: str
    metadata: str


def resized(data: Buffer, resize: Resize, header: JpegHeader) -> tuple[int, int, bytes]:
    """Make a JPEG of another size, the right way up.

    Args:
        data: The whole file, which has been validated.
        resize: Size, colours, metadata and encoding.
        header: The file's.

    Returns:
        Width and height, and the JPEG.
    """
    profile = _profile(header)
    image = _scaled(data, resize, header)
    orientation = orientation_of(header)
    if orientation in UPRIGHT:
        image = image.transpose(UPRIGHT[orientation])
    is_kept = resize.color == "keep" and header.mode != "CMYK"
    if not is_kept:
        image = to_srgb(image, profile)
    if resize.how == "pad":
        image = _padded(image, resize.side)
    options: dict[str, object] = {}
    if is_kept and is_usable(profile, header.mode):
        options["icc_profile"] = profile
    if resize.metadata == "keep":
        options |= _metadata(header, image.size, is_srgb=not is_kept)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=resize.quality, subsampling=resize.chroma, **options)
    return image.width, image.height, file.getvalue()


def target_size(width: int, height: int, resize: Resize) -> tuple[int, int]:
    """Return the size of a picture before its borders, for a picture that is not turned."""
    if resize.how == "fill":
        return resize.side, resize.side
    longer = max(width, height)
    if longer <= resize.side:
        return width, height
    return max(1, round(width * resize.side / longer)), max(1, round(height * resize.side / longer))


def decoded_size(width: int, height: int, resize: Resize) -> tuple[int, int]:
    """Return the size at which a picture is decoded, before it is filtered."""
    scale = _scale(width, height, resize)
    return -(-width * scale // WHOLE), -(-height * scale // WHOLE)


def _scale(width: int, height: int, resize: Resize) -> int:
    """Return the eighths at which a picture is decoded."""
    _, _, across, down = _shown(width, height, resize)
    target = target_size(width, height, resize)
    needed = DECODED_AT_LEAST * WHOLE * max(target[0] / across, target[1] / down)
    return next((each for each in SCALES if each >= needed), WHOLE)


def _shown(width: int, height: int, resize: Resize) -> Box:
    """Return what is shown of a picture: left and upper edge, width and height."""
    if resize.how != "fill":
        return 0, 0, width, height
    side = min(width, height)
    return (width - side) / 2, (height - side) / 2, side, side


def _scaled(data: Buffer, resize: Resize, header: JpegHeader) -> Image.Image:
    """Decode what is shown of a picture, at its new size.

    A picture that is reduced while it is decoded ends within its last row and column: `box` says where.
    """
    size = header.width, header.height
    image, scale = decode_reduced(data, header, _scale(*size, resize))
    left, top, across, down = _shown(*size, resize)
    box = tuple(each * scale / WHOLE for each in (left, top, left + across, top + down))
    return image.resize(target_size(*size, resize), FILTER, box=cast(Box, box))


def _padded(image: Image.Image, side: int) -> Image.Image:
    square = Image.new(image.mode, (side, side), WHITE[image.mode])
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def _profile(header: JpegHeader) -> bytes | None:
    try:
        return profile_of(header.metadata.get("icc", ()))
    except IccError:
        return None


def _metadata(header: JpegHeader, size: tuple[int, int], *, is_srgb: bool) -> dict[str, object]:
    """Return what Pillow is to write of EXIF and XMP."""
    kept: dict[str, object] = {}
    try:
        exif = upright_exif(joined(header.metadata.get("exif", ())), size, is_srgb=is_srgb)
    except ExifError:
        exif = None
    if exif:
        kept["exif"] = b"Exif\0\0" + exif
    for packet in header.metadata.get("xmp", ())[:1]:
        xmp = upright_xmp(packet, size, is_srgb=is_srgb)
        if xmp:
            kept["xmp"] = xmp
    return kept
