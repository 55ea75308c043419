import io

import pytest
from PIL import Image

from imgdl_pipeline.core.jpeg.thumbnail import thumbnail
from imgdl_pipeline_tests.support.pictures import jpeg


def halves(orientation):
    """A thumbnail's size, and the colours of its halves; the picture is red on the left, else blue."""
    image = Image.new("RGB", (80, 40), (200, 0, 0))
    image.paste((0, 0, 200), (40, 0, 80, 40))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95)
    width, height, pixels = thumbnail(file.getvalue(), 40, orientation)
    small = Image.frombytes("RGB", (width, height), pixels)
    return (
        small.size,
        small.getpixel((width // 2, height // 4)),
        small.getpixel((width // 2, 3 * height // 4)),
    )


@pytest.mark.parametrize(("orientation", "upper"), [(5, "red"), (6, "red"), (7, "blue"), (8, "blue")])
def test_a_picture_that_lies_on_its_side_is_turned_upright(orientation, upper):
    size, first, second = halves(orientation)
    assert size == (20, 40)
    assert (first[0] > first[2]) == (upper == "red")
    assert (second[0] > second[2]) == (upper == "blue")


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_picture_of_any_mode_is_rgb_and_no_larger_than_asked_for(mode):
    width, height, pixels = thumbnail(jpeg(1, (300, 200), mode), 60, 1)
    assert (width, height, len(pixels)) == (60, 40, 3 * 60 * 40)
