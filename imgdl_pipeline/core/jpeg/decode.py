"""Decodes a JPEG strictly: any of libjpeg's warnings about the picture is an error.

Pillow forgives most damage, so the verdict is libjpeg-turbo's, through simplejpeg. The decode is to gray at a
reduced scale, which sees the same damage for half the time: every bit of the file is entropy-decoded all the
same.
"""

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import simplejpeg

from imgdl_pipeline.core.jpeg import libjpeg
from imgdl_pipeline.core.jpeg.header import Buffer, lacks_tables, picture_only

HASHED_SIDE = 64
"""Pixels that a reduced side keeps at least: ImageHash works on 32, so that nothing it sees is lost."""

Gray = npt.NDArray[np.uint8]


class DamagedError(Exception):
    """The picture data is damaged; says how.

    Args:
        words: libjpeg's.
        truncated: Whether they say that the data ends early.
    """

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.truncated = "premature end of jpeg file" in words.lower()


class NoMemoryError(Exception):
    """The decoder needed more memory than it may have."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture that was decoded without a warning about its own data.

    Args:
        gray: Shades by row and column, reduced.
        warning: libjpeg's warning about what is not picture data; None for none.
    """

    gray: Gray
    warning: str | None


def decode(data: Buffer) -> Decoded:
    """Decode the whole picture, to gray and reduced.

    A file at which libjpeg warns of something that may be outside the picture is decoded once more without
    what is not picture data: where that gives no warning, it was.

    Raises:
        DamagedError: libjpeg warns of the picture data, or fails.
        NoMemoryError: There was not enough memory.
    """
    try:
        return Decoded(_decode_strictly(data), None)
    except DamagedError as error:
        if not OUTSIDE.search(str(error)) or lacks_tables(data):
            raise
        warning = str(error)
    return Decoded(_decode_strictly(picture_only(data)), warning)


OUTSIDE = re.compile(
    "bad ICC marker|extraneous bytes before marker|unknown JFIF revision|Unknown Adobe color transform"
)
"""Warnings of libjpeg-turbo that may be about something outside the picture; its fatal errors never are."""

UNKNOWN_SAMPLING = "could not determine subsampling"
"""In TurboJPEG's error for sampling factors that it has no name for, though it decodes them."""


def _decode_strictly(data: Buffer) -> Gray:
    try:
        pixels = simplejpeg.decode_jpeg(
            data, "GRAY", min_height=HASHED_SIDE, min_width=HASHED_SIDE, strict=True
        )
    except MemoryError as error:
        raise NoMemoryError from error
    except ValueError as error:
        words = str(error)
        if UNKNOWN_SAMPLING in words.lower():
            return _decode_unnamed_sampling(data)
        if "insufficient memory" in words.lower():
            raise NoMemoryError from error
        raise DamagedError(words) from error
    gray: Gray = pixels[:, :, 0]
    return gray


def _decode_unnamed_sampling(data: Buffer) -> Gray:
    try:
        return libjpeg.decode_gray(data, HASHED_SIDE)
    except MemoryError as error:
        raise NoMemoryError from error
    except libjpeg.LibjpegError as error:
        raise DamagedError(str(error)) from error
