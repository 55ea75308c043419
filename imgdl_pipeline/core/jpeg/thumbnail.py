"""Makes a small picture of a JPEG, the right way up."""

import io

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from imgdl_pipeline.core.jpeg.header import Buffer, picture_only

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture as EXIF's orientation says."""


def thumbnail(data: Buffer, side: int, orientation: int) -> tuple[int, int, bytes]:
    """Decode a JPEG reduced, and turn it as it is to be displayed.

    Pillow is given the picture data alone (`picture_only`): it joins the metadata of a hostile file in
    quadratic time, and interprets some of it as soon as a file is opened.

    Args:
        data: The whole file, which has been validated.
        side: Pixels that neither side of the result exceeds.
        orientation: EXIF's, 1 to 8.

    Returns:
        Width, height, and RGB bytes row by row.
    """
    with JpegImageFile(io.BytesIO(picture_only(data))) as image:
        image.draft("RGB", (side, side))
        image.thumbnail((side, side))
        small = image.convert("RGB")
    if orientation in UPRIGHT:
        small = small.transpose(UPRIGHT[orientation])
    return small.width, small.height, small.tobytes()
