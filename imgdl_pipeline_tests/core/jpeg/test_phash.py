import io
import tracemalloc

import imagehash
import numpy as np
import pytest
from PIL import Image

from imgdl_pipeline.core.jpeg.facts import Limits
from imgdl_pipeline.core.jpeg.phash import phash
from imgdl_pipeline.core.jpeg.validate import validate_jpeg
from imgdl_pipeline_tests.support.pictures import photo

LIMITS = Limits(max_pixels=10_000_000, max_decode_bytes=100_000_000)


@pytest.mark.parametrize("size", [(32, 32), (40, 30), (300, 200), (64, 900)])
@pytest.mark.parametrize("seed", range(10))
def test_of_the_same_pixels_the_phash_is_imagehashs_within_two_bits(size, seed):
    gray = photo(seed, size, "L")
    assert imagehash.hex_to_hash(phash(np.asarray(gray))) - imagehash.phash(gray) <= 2


def test_a_long_strip_takes_little_memory_to_hash():
    strip = np.asarray(photo(1, (65500, 64), "L"))
    tracemalloc.start()
    strip_hash = phash(strip)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8_000_000
    assert imagehash.hex_to_hash(strip_hash) - imagehash.phash(Image.fromarray(strip)) <= 2


STORED = {
    1: lambda image: image,
    2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    3: lambda image: image.transpose(Image.Transpose.ROTATE_180),
    4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
    6: lambda image: image.transpose(Image.Transpose.ROTATE_90),
    7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
    8: lambda image: image.transpose(Image.Transpose.ROTATE_270),
}
"""How a picture is stored that EXIF's orientation turns upright."""


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("seed", range(5))
def test_each_orientation_is_turned_upright(orientation, seed):
    picture = photo(seed, (96, 64), "L")
    stored = np.asarray(STORED[orientation](picture))
    upright = imagehash.hex_to_hash(phash(stored, orientation=orientation))
    assert upright - imagehash.hex_to_hash(phash(np.asarray(picture))) <= 1


def hashed(picture, orientation, quality):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    STORED[orientation](picture).save(file, "JPEG", quality=quality, exif=exif)
    return imagehash.hex_to_hash(validate_jpeg(file.getvalue(), LIMITS).phash)


@pytest.mark.parametrize("size", [(640, 480), (1024, 768), (1000, 667), (333, 500), (2047, 1535)])
@pytest.mark.parametrize("seed", range(8))
def test_a_picture_has_the_same_hash_within_two_bits_in_whichever_orientation_it_is_stored(size, seed):
    picture = photo(seed, size)
    first = hashed(picture, 1, 90)
    assert max(hashed(picture, orientation, 90) - first for orientation in range(2, 9)) <= 2
