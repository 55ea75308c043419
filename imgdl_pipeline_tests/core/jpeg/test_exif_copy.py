import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from imgdl_pipeline.core.jpeg.exif import read_exif
from imgdl_pipeline.core.jpeg.exif_copy import MAX_BYTES, upright_exif
from imgdl_pipeline.core.jpeg.tiff import ExifError
from imgdl_pipeline_tests.support.segments import tiff

SHORT, LONG, ASCII, UNDEFINED = 3, 4, 2, 7
CAMERA, ORIENTATION, EXIF, GPS = 0x010F, 0x0112, 0x8769, 0x8825


def short(value, order="<"):
    return struct.pack(f"{order}H", value)


def copied(data, **more):
    return upright_exif(data, (30, 20), **{"is_srgb": True, **more})


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_copy_is_upright_and_says_the_new_size_and_colours(order):
    inner = [(0xA001, SHORT, 1, short(2, order)), (0xA002, LONG, 1, struct.pack(f"{order}I", 4000))]
    inner += [(0xA003, SHORT, 1, short(3000, order)), (0x9003, ASCII, 20, b"2026:01:02 03:04:05\0")]
    main = [(CAMERA, ASCII, 6, b"Canon\0"), (ORIENTATION, SHORT, 1, short(6, order)), (EXIF, LONG, 1, None)]
    tags = read_exif(copied(tiff(main, inner, order=order))).tags
    assert tags == {
        "Make": "Canon",
        "Orientation": 1,
        "ColorSpace": 1,
        "ExifImageWidth": 30,
        "ExifImageHeight": 20,
        "DateTimeOriginal": "2026:01:02 03:04:05",
    }


def test_the_colour_space_stays_where_colours_do():
    data = tiff([(EXIF, LONG, 1, None)], [(0xA001, SHORT, 1, short(2))])
    assert read_exif(copied(data, is_srgb=False)).tags == {"ColorSpace": 2}


def test_places_are_copied_and_pillow_reads_them():
    north = [(1, ASCII, 2, b"N\0"), (2, 5, 3, struct.pack("<6I", 48, 1, 30, 1, 0, 1))]
    copy = copied(tiff([(CAMERA, ASCII, 6, b"Canon\0"), (GPS, LONG, 1, None)], north))
    exif = Image.Exif()
    exif.load(b"Exif\0\0" + copy)
    assert exif[CAMERA] == "Canon"
    assert exif.get_ifd(GPS)[2] == (48.0, 30.0, 0.0)


def test_the_thumbnail_the_makers_notes_and_unnamed_tags_are_left_out():
    exif = Image.Exif()
    exif[CAMERA] = "Canon"
    thumbnail = io.BytesIO()
    Image.new("RGB", (16, 16)).save(thumbnail, "JPEG")
    inner = [(0x927C, UNDEFINED, 9, b"maker=123"), (0xEA1C, UNDEFINED, 9, b"padding--")]
    data = tiff([(CAMERA, ASCII, 6, b"Canon\0"), (EXIF, LONG, 1, None)], inner) + thumbnail.getvalue()
    copy = copied(data)
    assert read_exif(copy).tags == {"Make": "Canon"}
    assert all(each not in copy for each in (b"maker", b"padding", b"\xff\xd8\xff"))


def test_of_a_tag_that_is_there_twice_the_first_one_is_copied():
    data = tiff([(CAMERA, ASCII, 6, b"Canon\0"), (CAMERA, ASCII, 6, b"Nikon\0")])
    assert read_exif(copied(data)).tags == {"Make": "Canon"}


def test_values_that_overlap_never_fill_more_than_a_segment():
    count = 200  # each names the same 60 kB
    entries = b"".join(struct.pack("<HHII", 0x010E + number, ASCII, 60_000, 3000) for number in range(count))
    data = b"II*\0\x08\0\0\0" + struct.pack("<H", count) + entries
    copy = copied(data.ljust(3000, b"\0") + b"x" * 60_000)
    assert 60_000 < len(copy) <= MAX_BYTES


def test_nothing_is_written_where_nothing_can_be_copied():
    assert copied(tiff([])) is None
    with pytest.raises(ExifError):
        copied(b"rubbish")


@given(st.binary(max_size=300), st.sampled_from([b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"]))
def test_any_bytes_are_copied_to_a_structure_that_can_be_read_or_to_nothing(rubbish, start):
    copy = copied(start + rubbish)
    assert copy is None or (len(copy) <= MAX_BYTES and read_exif(copy).orientation == 1)
    assert copy is None or upright_exif(copy, (30, 20), is_srgb=True) == copy
