import io
import random
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps, JpegImagePlugin

from imgdl_pipeline.core.jpeg.exif import read_exif
from imgdl_pipeline.core.jpeg.header import read_header
from imgdl_pipeline.core.jpeg.icc import profile_of
from imgdl_pipeline.core.jpeg.resize import Resize, decoded_size, resized, target_size
from imgdl_pipeline.core.model.dataset_settings import ResizeSettings
from imgdl_pipeline_tests.support import profiles
from imgdl_pipeline_tests.support.pictures import PICTURE, jpeg, photo
from imgdl_pipeline_tests.support.segments import segment, with_segments, xmp

FIT = Resize(**ResizeSettings(side=64).model_dump())
KEEP = replace(FIT, color="keep", metadata="keep")


def resize(data, settings=FIT, **more):
    """The resized picture, decoded, and its bytes; its size is what is said of it."""
    width, height, made = resized(data, replace(settings, **more), read_header(data))
    image = Image.open(io.BytesIO(made))
    assert image.size == (width, height)
    return image, made


def flat(color, mode="RGB", size=(100, 80), **options):
    file = io.BytesIO()
    Image.new(mode, size, color).save(file, "JPEG", quality=98, **options)
    return file.getvalue()


def is_near(image, color, tolerance=4):
    pixel = image.getpixel((image.width // 2, image.height // 2))
    pairs = zip(pixel if isinstance(pixel, tuple) else (pixel,), color, strict=True)
    return all(abs(a - b) <= tolerance for a, b in pairs)


def test_the_workers_settings_are_the_galleries():
    assert [each.name for each in fields(Resize)] == list(ResizeSettings.model_fields)


@pytest.mark.parametrize(
    ("how", "size", "expected"),
    [
        ("fit", (320, 240), (64, 48)),
        ("fit", (240, 320), (48, 64)),
        ("fit", (40, 30), (40, 30)),
        ("fit", (1, 5000), (1, 64)),
        ("fit", (5000, 3), (64, 1)),
        ("fit", (1, 1), (1, 1)),
        ("fill", (320, 240), (64, 64)),
        ("fill", (40, 30), (64, 64)),
        ("fill", (1, 5000), (64, 64)),
        ("pad", (320, 240), (64, 64)),
        ("pad", (40, 30), (64, 64)),
        ("pad", (1, 1), (64, 64)),
    ],
)
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_sizes_are_as_the_settings_say(mode, how, size, expected):
    image, made = resize(jpeg(1, size, mode), how=how)
    assert image.size == expected
    assert image.mode == read_header(made).mode == ("L" if mode == "L" else "RGB")


@given(
    st.integers(1, 65_500),
    st.integers(1, 65_500),
    st.integers(1, 8192),
    st.sampled_from(["fit", "fill", "pad"]),
)
def test_a_picture_is_never_decoded_smaller_than_it_becomes(width, height, side, how):
    settings = replace(FIT, side=side, how=how)
    target = target_size(width, height, settings)
    assert 1 <= min(target) <= max(target) <= side
    if how != "fill":
        assert target[0] <= width
        assert target[1] <= height
        decoded = decoded_size(width, height, settings)
        assert decoded == (width, height) or all(a >= 1.5 * b for a, b in zip(decoded, target, strict=True))


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40), st.sampled_from(["fit", "fill", "pad"]))
def test_any_picture_becomes_one_of_the_size_that_was_asked_for(width, height, side, how):
    image, _ = resize(flat((10, 200, 30), size=(width, height)), side=side, how=how)
    assert max(image.size) == (side if how != "fit" else min(side, max(width, height)))
    assert how == "fit" or image.size == (side, side)
    assert how == "pad" or is_near(image, (10, 200, 30), 8)


def test_fit_shows_the_whole_picture_and_fill_its_middle():
    image = Image.new("RGB", (400, 200), (200, 0, 0))
    image.paste((0, 0, 200), (100, 0, 300, 200))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95)
    fitted, _ = resize(file.getvalue())
    assert fitted.getpixel((2, 16))[0] > 150
    filled, _ = resize(file.getvalue(), how="fill")
    assert all(filled.getpixel((x, 32))[2] > 150 for x in (3, 32, 60))


def test_pad_puts_white_around_a_picture():
    image, _ = resize(flat((10, 20, 30), size=(200, 100)), how="pad")
    assert image.getpixel((32, 2)) == image.getpixel((32, 61)) == (255, 255, 255)
    assert is_near(image, (10, 20, 30))
    gray, _ = resize(flat(20, "L", (100, 200)), how="pad")
    assert gray.getpixel((2, 32)) == gray.getpixel((61, 32)) == 255


@pytest.mark.parametrize("how", ["fit", "fill", "pad"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_of_any_orientation_is_upright(orientation, how):
    upright = photo(3, (96, 64))
    undone = {5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, orientation)
    exif = Image.Exif()
    exif[0x0112] = undone
    lying = Image.new("RGB", upright.size)
    lying.paste(upright)
    lying.getexif().update(exif)
    file = io.BytesIO()
    turned = ImageOps.exif_transpose(lying)
    exif[0x0112] = orientation
    turned.save(file, "JPEG", quality=97, subsampling=0, exif=exif)
    image, _ = resize(file.getvalue(), how=how, quality=97, chroma="4:4:4", metadata="keep")
    plain = io.BytesIO()
    upright.save(plain, "JPEG", quality=97, subsampling=0)
    expected, _ = resize(plain.getvalue(), how=how, quality=97, chroma="4:4:4")
    assert image.size == expected.size
    pairs = zip(image.tobytes(), expected.tobytes(), strict=True)
    assert sum(abs(a - b) for a, b in pairs) / len(image.tobytes()) < 3
    assert image.getexif()[0x0112] == 1


def test_a_picture_that_is_small_enough_is_treated_like_all_others():
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "Canon"
    data = flat(
        (200, 120, 80), size=(40, 30), exif=exif, icc_profile=profiles.screen(profiles.ADOBE_RGB, 2.2)
    )
    image, made = resize(data)
    assert image.size == (30, 40)
    assert not read_header(made).metadata
    assert is_near(image, profiles.converted(profiles.ADOBE_RGB, 2.2, (200, 120, 80)))


@pytest.mark.parametrize("primaries", [profiles.ADOBE_RGB, profiles.DISPLAY_P3], ids=["Adobe RGB", "P3"])
def test_colours_become_srgb_and_no_profile_is_left(primaries):
    data = flat((200, 120, 80), icc_profile=profiles.screen(primaries, 2.2))
    image, made = resize(data)
    assert is_near(image, profiles.converted(primaries, 2.2, (200, 120, 80)))
    assert "icc" not in read_header(made).metadata


def test_borders_are_white_whatever_the_profile_says():
    image, _ = resize(flat((9, 9, 9), icc_profile=profiles.screen(profiles.ADOBE_RGB)), how="pad")
    assert image.getpixel((32, 1)) == (255, 255, 255)


def test_kept_colours_come_with_their_profile():
    profile = profiles.screen(profiles.DISPLAY_P3)
    image, made = resize(flat((200, 120, 80), icc_profile=profile), KEEP)
    assert is_near(image, (200, 120, 80))
    assert profile_of(read_header(made).metadata["icc"]) == profile


def test_a_kept_profile_may_take_several_segments():
    profile = profiles.screen(profiles.DISPLAY_P3) + bytes(200_000)
    _, made = resize(flat((1, 2, 3), icc_profile=profile), KEEP)
    assert len(read_header(made).metadata["icc"]) == 4
    assert profile_of(read_header(made).metadata["icc"]) == profile


@pytest.mark.parametrize("color", ["srgb", "keep"])
@pytest.mark.parametrize(
    "profile", [b"rubbish", profiles.gray(2.2), bytes(5_000_000)], ids=["broken", "of gray", "huge"]
)
def test_with_a_profile_of_no_use_pixels_are_kept_and_there_is_no_profile(profile, color):
    image, made = resize(flat((200, 120, 80), icc_profile=profile), KEEP, color=color)
    assert is_near(image, (200, 120, 80))
    assert "icc" not in read_header(made).metadata


def test_a_profile_in_pieces_that_do_not_fit_is_none():
    data = with_segments(segment(0xE2, b"ICC_PROFILE\0\1\3" + profiles.screen(profiles.DISPLAY_P3)))
    assert "icc" not in read_header(resize(data, KEEP)[1]).metadata


@pytest.mark.parametrize("color", ["srgb", "keep"])
def test_cmyk_becomes_rgb_and_has_no_profile(color):
    plain, _ = resize(flat((255, 0, 0, 0), "CMYK"), color=color)
    assert is_near(plain, (0, 255, 255))
    press, made = resize(flat((255, 0, 0, 0), "CMYK", icc_profile=profiles.press()), KEEP, color=color)
    red, green, _ = press.getpixel((5, 5))
    assert abs(red - green) < 5
    assert "icc" not in read_header(made).metadata


def test_gray_stays_gray_and_keeps_a_profile_of_gray():
    profile = profiles.gray(1.0)
    image, _ = resize(flat(128, "L", icc_profile=profile))
    assert image.mode == "L"
    assert is_near(image, (188,))
    image, made = resize(flat(128, "L", icc_profile=profile), KEEP)
    assert is_near(image, (128,))
    assert profile_of(read_header(made).metadata["icc"]) == profile


def described(**more):
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Canon", 3
    return jpeg(1, (200, 100), exif=exif, xmp=xmp("<dc:title>A lake</dc:title>"), **more)


def test_metadata_is_dropped():
    assert not read_header(resize(described())[1]).metadata


def test_kept_metadata_says_how_the_new_picture_is():
    metadata = read_header(resize(described(), metadata="keep")[1]).metadata
    assert read_exif(metadata["exif"][0]).tags == {"Make": "Canon", "Orientation": 1}
    assert b"A lake" in metadata["xmp"][0]


def test_comments_and_other_segments_are_never_copied():
    data = with_segments(segment(0xFE, b"a comment"), segment(0xED, b"Photoshop 3.0\0"), picture=described())
    _, made = resize(data, KEEP)
    assert b"a comment" not in made
    assert b"Photoshop" not in made


@pytest.mark.parametrize(
    "payload",
    [b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0rubbish", b"http://ns.adobe.com/xap/1.0/\0<broken"],
)
def test_metadata_that_cannot_be_read_is_dropped_and_the_picture_is_made(payload):
    image, made = resize(with_segments(segment(0xE1, payload)), KEEP)
    assert image.size == (64, 43)
    assert not read_header(made).metadata


def test_a_thousand_metadata_segments_are_no_trouble():
    many = [segment(0xE1, b"Exif\0\0II*\0" + bytes(60_000)) for _ in range(200)]
    assert resize(with_segments(*many), KEEP)[0].size == (64, 43)


def test_random_bytes_in_the_metadata_are_no_trouble():
    draw_from = random.Random(1)
    for _ in range(50):
        payloads = [b"Exif\0\0II*\0\x08\0\0\0", b"ICC_PROFILE\0\1\1", b"http://ns.adobe.com/xap/1.0/\0"]
        markers = (0xE1, 0xE2, 0xE1)
        segments = [
            segment(marker, payload + draw_from.randbytes(300))
            for marker, payload in zip(markers, payloads, strict=True)
        ]
        assert resize(with_segments(*segments), KEEP)[0].size == (64, 43)


@pytest.mark.parametrize("how", ["fit", "fill", "pad"])
def test_the_same_bytes_and_settings_give_the_same_bytes(how):
    data = described(icc_profile=profiles.screen(profiles.ADOBE_RGB))
    for settings in (FIT, KEEP):
        assert resize(data, settings, how=how)[1] == resize(data, settings, how=how)[1]


def test_quality_and_chroma_are_the_encoders():
    sizes = [len(resize(PICTURE, quality=quality)[1]) for quality in (30, 60, 90)]
    assert sizes == sorted(set(sizes))
    found = [
        JpegImagePlugin.get_sampling(resize(PICTURE, chroma=each)[0]) for each in ("4:4:4", "4:2:2", "4:2:0")
    ]
    assert found == [0, 1, 2]


def test_a_progressive_picture_is_resized_to_a_baseline_one():
    image, made = resize(jpeg(progressive=True))
    assert image.size == (64, 48)
    assert not read_header(made).progressive


def test_a_reduced_picture_is_like_one_that_was_decoded_whole_and_filtered():
    picture = photo(5, (1151, 863))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=95)
    made, _ = resize(file.getvalue(), side=200, quality=98, chroma="4:4:4")
    reference = Image.open(io.BytesIO(file.getvalue())).resize(made.size, Image.Resampling.LANCZOS)
    differences = [abs(a - b) for a, b in zip(made.tobytes(), reference.tobytes(), strict=True)]
    assert sum(differences) / len(differences) < 1
