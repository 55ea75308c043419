import io

import pytest
from PIL import Image

from imgdl_pipeline.core.jpeg.facts import InvalidImageError
from imgdl_pipeline.core.jpeg.header import read_header
from imgdl_pipeline.core.jpeg.reduced import SCALES, decode_reduced
from imgdl_pipeline_tests.support.pictures import PICTURE, jpeg, samplings


def distance(image, other):
    """The mean difference of two pictures' shades."""
    pairs = zip(image.convert("RGB").tobytes(), other.convert("RGB").tobytes(), strict=True)
    return sum(abs(a - b) for a, b in pairs) / (3 * image.width * image.height)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_picture_of_any_mode_is_decoded_at_some_eighths(mode, scale):
    data = jpeg(1, (323, 241), mode, quality=95)
    image, found = decode_reduced(data, read_header(data), scale)
    assert found == (4 if (mode, scale) == ("CMYK", 3) else scale)
    assert (image.mode, image.size) == (mode, (-(-323 * found // 8), -(-241 * found // 8)))

    even = jpeg(1, (640, 480), mode, quality=95)
    image, _ = decode_reduced(even, read_header(even), scale)
    assert distance(image, Image.open(io.BytesIO(even)).resize(image.size, Image.Resampling.BOX)) < 3


@pytest.mark.parametrize("name", samplings())
def test_sampling_factors_without_a_name_are_decoded_too(name):
    data = samplings()[name]
    image, _ = decode_reduced(data, read_header(data), 4)
    assert distance(image, Image.open(io.BytesIO(data)).resize(image.size, Image.Resampling.BOX)) < 7


def test_a_progressive_picture_is_the_same():
    data = jpeg(progressive=True)
    image, _ = decode_reduced(data, read_header(data), 4)
    assert distance(image, decode_reduced(PICTURE, read_header(PICTURE), 4)[0]) < 1


def test_a_file_that_ends_early_is_corrupt():
    with pytest.raises(InvalidImageError, match="corrupt"):
        decode_reduced(PICTURE[:-500], read_header(PICTURE), 4)
