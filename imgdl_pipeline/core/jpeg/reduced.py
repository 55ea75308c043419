"""Decodes a JPEG in colour at a fraction of its size: libjpeg reduces it for less than decoding it whole.

The file has been validated before, so what a decoder warns of is not looked at again.
"""

import io

import simplejpeg
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from imgdl_pipeline.core.jpeg.facts import InvalidImageError
from imgdl_pipeline.core.jpeg.header import Buffer, JpegHeader, picture_only
from imgdl_pipeline.core.model.outcome import Reason

WHOLE = 8
"""Eighths of a picture that is not reduced."""

SCALES = (1, 2, 3, 4, WHOLE)
"""Eighths at which a picture is decoded; the other ones take longer than the whole."""

PILLOW_SCALES = {3: 4}
"""What Pillow, which knows halves only, takes instead."""

COLORSPACES = {"L": "GRAY", "RGB": "RGB"}
"""simplejpeg's names of modes. CMYK is Pillow's, which knows that Adobe's programs invert it."""


def decode_reduced(data: Buffer, header: JpegHeader, scale: int) -> tuple[Image.Image, int]:
    """Decode a picture at some eighths of its size.

    Args:
        data: The whole file.
        header: Its header.
        scale: One of `SCALES`.

    Returns:
        The picture, of mode L, RGB or CMYK, and at how many eighths it is.

    Raises:
        InvalidImageError: It cannot be decoded.
    """
    width, height = (-(-side * scale // WHOLE) for side in (header.width, header.height))
    if header.mode in COLORSPACES:
        try:
            pixels = simplejpeg.decode_jpeg(
                data, COLORSPACES[header.mode], min_height=height, min_width=width, strict=True
            )
        except ValueError:  # a warning, or sampling factors that TurboJPEG has no name for
            pass
        else:
            return Image.fromarray(pixels[:, :, 0] if header.mode == "L" else pixels), scale
    return _decoded_by_pillow(data, header, PILLOW_SCALES.get(scale, scale))


def _decoded_by_pillow(data: Buffer, header: JpegHeader, scale: int) -> tuple[Image.Image, int]:
    divisor = WHOLE // scale
    with JpegImageFile(io.BytesIO(picture_only(data))) as image:
        if divisor > 1:
            image.draft(None, (header.width // divisor, header.height // divisor))
        try:
            image.load()
        except OSError as error:
            raise InvalidImageError(Reason.CORRUPT, str(error)) from error
        return image.copy(), scale
