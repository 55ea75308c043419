import pytest
from PIL import Image

from imgdl_pipeline.core.jpeg.color import is_usable, to_srgb
from imgdl_pipeline.core.jpeg.icc import MAX_BYTES
from imgdl_pipeline_tests.support import profiles

PIXELS = [(200, 120, 80), (90, 160, 110), (128, 128, 128), (20, 30, 40)]


@pytest.mark.parametrize("pixel", PIXELS)
@pytest.mark.parametrize("primaries", [profiles.ADOBE_RGB, profiles.DISPLAY_P3, profiles.SRGB])
def test_a_screens_colours_become_srgb_as_the_formulas_have_it(primaries, pixel):
    image = to_srgb(Image.new("RGB", (4, 4), pixel), profiles.screen(primaries, 2.2))
    expected = profiles.converted(primaries, 2.2, pixel)
    assert image.mode == "RGB"
    assert all(abs(a - b) <= 2 for a, b in zip(image.getpixel((1, 1)), expected, strict=True))


def test_gray_stays_gray_with_the_tones_of_srgb():
    image = to_srgb(Image.new("L", (4, 4), 128), profiles.gray(1.0))
    assert image.mode == "L"
    assert abs(image.getpixel((1, 1)) - 188) <= 2  # half of the light, as sRGB writes it


def test_cmyk_becomes_rgb_as_its_profile_says():
    image = to_srgb(Image.new("CMYK", (4, 4), (255, 0, 0, 0)), profiles.press())
    assert image.mode == "RGB"
    red, green, blue = image.getpixel((1, 1))
    assert max(red, green, blue) - min(red, green, blue) <= 3  # that press's cyan is gray
    assert 150 < green < 220


def test_cmyk_without_a_profile_becomes_rgb_by_the_plain_formula():
    assert to_srgb(Image.new("CMYK", (1, 1), (255, 0, 0, 0)), None).getpixel((0, 0)) == (0, 255, 255)


@pytest.mark.parametrize(
    ("profile", "mode"),
    [
        (b"rubbish", "RGB"),
        (profiles.screen(profiles.ADOBE_RGB)[:200], "RGB"),
        (profiles.screen(profiles.ADOBE_RGB), "L"),
        (profiles.gray(2.2), "RGB"),
        (profiles.press(), "RGB"),
        (profiles.screen(profiles.ADOBE_RGB) + bytes(MAX_BYTES), "RGB"),
    ],
    ids=["no profile", "cut", "of colours for gray", "of gray for colours", "of CMYK for RGB", "huge"],
)
def test_pixels_stay_as_they_are_where_the_profile_is_broken_or_of_another_mode(profile, mode):
    image = Image.new(mode, (2, 2), (10, 200, 30) if mode == "RGB" else 77)
    assert to_srgb(image, profile).tobytes() == image.tobytes()


def test_a_profile_of_the_pixels_mode_is_usable():
    assert is_usable(profiles.gray(2.2), "L")
    assert not is_usable(profiles.gray(2.2), "RGB")
    assert not is_usable(None, "RGB")
