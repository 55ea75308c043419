import json
import struct
import time
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from imgdl_pipeline.core.jpeg.exif import MAX_BYTES, read_exif
from imgdl_pipeline.core.jpeg.tiff import ExifError
from imgdl_pipeline_tests.support.segments import tiff

ASCII, SHORT, LONG, RATIONAL, UNDEFINED, UTF8 = 2, 3, 4, 5, 7, 129
EXIF, GPS = 0x8769, 0x8825
COMMENT = 0x9286


def ascii_(tag, value):
    return (tag, ASCII, len(value), value)


def undefined(tag, value):
    return (tag, UNDEFINED, len(value), value)


def comment(value, order="<"):
    return read_exif(tiff([undefined(COMMENT, value)], order=order)).tags.get("UserComment")


def test_tags_are_json_by_name():
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Canon\0"
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.XResolution] = 72.0
    inner = exif.get_ifd(ExifTags.IFD.Exif)
    inner[ExifTags.Base.ExposureTime] = 0.005
    inner[ExifTags.Base.UserComment] = b"ASCII\0\0\0hello"
    inner[ExifTags.Base.MakerNote] = b"\1\2\3"
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    gps[ExifTags.GPS.GPSLatitudeRef] = "N"
    gps[ExifTags.GPS.GPSLatitude] = (51.0, 28.0, 38.5)
    assert read_exif(exif.tobytes()[6:]).tags == {
        "Make": "Canon",
        "Orientation": 6,
        "XResolution": 72.0,
        "ExposureTime": 0.005,
        "UserComment": "hello",
        "GPSInfo": {"GPSLatitudeRef": "N", "GPSLatitude": [51.0, 28.0, 38.5]},
    }


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("written_in", ["utf-16-le", "utf-16-be", "utf-16"])
@pytest.mark.parametrize("text", ["a photo of a cat, café", "кошка", "x"])
def test_a_unicode_comment_is_read_in_whichever_byte_order_it_was_written(order, written_in, text):
    assert comment(b"UNICODE\0" + text.encode(written_in) + bytes(4), order) == text


def test_a_comment_of_characters_that_show_no_order_is_read_in_the_files_own():
    for order, encoding in (("<", "utf-16-le"), (">", "utf-16-be")):
        assert comment(b"UNICODE\0" + "猫の写真".encode(encoding), order) == "猫の写真"


@pytest.mark.parametrize(
    "written",
    [
        "猫の写真".encode("iso2022_jp"),
        "猫の写真".encode("iso2022_jp")[3:-3],
        "猫の写真".encode("shift_jis"),
    ],
    ids=["with escape sequences", "bare JIS X 0208", "Shift JIS"],
)
def test_a_japanese_comment_is_read(written):
    assert comment(b"JIS\0\0\0\0\0" + written) == "猫の写真"


@pytest.mark.parametrize("code", [b"ASCII\0\0\0", bytes(8)])
def test_a_comment_of_no_stated_encoding_is_utf8_or_latin1(code):
    assert comment(code + "café".encode()) == "café"
    assert comment(code + "café".encode("latin-1")) == "café"


def test_a_comment_without_a_code_is_text_if_it_looks_like_text():
    assert comment(b"hello there") == "hello there"
    assert comment(b"\x01\x02\xff") is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"Canon\0", "Canon"),
        (b"Canon\0garbage", "Canon"),
        ("Zoë\0".encode(), "Zoë"),
        ("Zoë\0".encode("latin-1"), "Zoë"),
        (b"Canon   \0", "Canon"),
        (b"x" * 5000, "x" * 1000),
    ],
    ids=["plain", "text after the NUL", "UTF-8", "Latin-1", "blanks", "long"],
)
def test_a_text_ends_at_its_first_nul_and_may_be_utf8(value, text):
    assert read_exif(tiff([ascii_(0x010F, value)])).tags == {"Make": text}


def test_the_utf8_type_of_exif_3_is_text():
    value = "Zoë's Kamera\0".encode()
    assert read_exif(tiff([(0x010F, UTF8, len(value), value)])).tags == {"Make": "Zoë's Kamera"}


@pytest.mark.parametrize("tag", ["XPTitle", "XPComment", "XPAuthor", "XPKeywords", "XPSubject"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_windows_texts_are_utf16_little_endian_whatever_the_files_order_is(tag, order):
    value = "hé\0".encode("utf-16-le")
    assert read_exif(tiff([(ExifTags.Base[tag], 1, len(value), value)], order=order)).tags == {tag: "hé"}


def test_bytes_that_are_numbers_are_numbers():
    tags = read_exif(
        tiff(
            [(EXIF, LONG, 1, None), (GPS, LONG, 1, None)],
            [
                undefined(0x9101, b"\1\2\3\0"),
                undefined(0xA300, b"\3"),
                undefined(0xA301, b"\1"),
                undefined(0x9000, b"0232"),
            ],
            [(0, 1, 4, b"\2\3\0\0"), (5, 1, 1, b"\1")],
        )
    ).tags
    assert tags == {
        "ComponentsConfiguration": [1, 2, 3, 0],
        "FileSource": 3,
        "SceneType": 1,
        "ExifVersion": "0232",
        "GPSInfo": {"GPSVersionID": [2, 3, 0, 0], "GPSAltitudeRef": 1},
    }


def test_a_rational_without_a_value_is_left_out():
    assert read_exif(tiff([(0x011A, RATIONAL, 1, bytes(8))])).tags == {}
    third = struct.pack("<II", 1, 3)
    assert read_exif(tiff([(0x011A, RATIONAL, 1, third)])).tags == {"XResolution": pytest.approx(1 / 3)}


def test_a_tag_without_a_name_is_its_number():
    assert read_exif(tiff([(0xFDE8, SHORT, 1, b"\7\0")])).tags == {"0xFDE8": 7}


def test_a_payload_of_bytes_is_left_out():
    assert read_exif(tiff([(0x8773, UNDEFINED, 900, bytes(900)), (0x02BC, 1, 500, b"x" * 500)])).tags == {}


@pytest.mark.parametrize("count", [300, 60_000])
def test_the_sum_of_all_values_is_bounded(count):
    """Every entry may point at the same bytes: 64 kB of EXIF said 60 MB once."""
    value = b"y" * 900
    entries = [(0x9C9B - 2000 + number, ASCII, 900, value) for number in range(70)]
    data = bytearray(tiff(entries))
    whole = struct.pack("<H", min(count, 5000)) + bytes(data[10:22]) * min(count, 5000)
    looped = b"II*\0\x08\0\0\0" + whole + bytes(70_000)
    assert len(json.dumps(read_exif(looped).tags)) < 3 * MAX_BYTES
    many = tiff([(0x4000 + number, SHORT, 500, bytes(1000)) for number in range(60)])
    assert len(json.dumps(read_exif(many).tags)) < 3 * MAX_BYTES


def test_pointers_to_the_same_directory_again_and_again_take_no_time():
    at = 8 + 2 + 12 * 1000 + 4
    pointer = struct.pack("<HHII", EXIF, LONG, 1, 8)
    comment = struct.pack("<HHII", COMMENT, UNDEFINED, 1_000_000, at)
    data = b"II*\0\x08\0\0\0" + struct.pack("<H", 1000) + pointer * 100 + comment * 900 + bytes(4)
    started = time.process_time()
    read_exif(data + b"UNICODE\0" + bytes(1_000_000))
    assert time.process_time() - started < 1


def test_a_long_list_takes_no_room_from_what_the_catalog_needs():
    lists = [(0x4000 + number, SHORT, 9000, bytes(18_000)) for number in range(30)]
    exif = read_exif(tiff([*lists, (0x0112, SHORT, 1, b"\6\0"), ascii_(0x9003, b"2024:02:29 12:00:00\0")]))
    assert (exif.orientation, exif.taken_at) == (6, datetime(2024, 2, 29, 12))


def test_of_a_tag_that_is_there_twice_the_first_counts_and_ifd0_before_the_exif_directory():
    twice = [(0x0112, SHORT, 1, b"\6\0"), (0x0112, SHORT, 1, b"\3\0"), (EXIF, LONG, 1, None)]
    assert read_exif(tiff(twice, [(0x0112, SHORT, 1, b"\x08\0")])).orientation == 6


def test_directories_that_point_at_themselves_end():
    looped = b"II*\0\x08\0\0\0\1\0\x69\x87\4\0\1\0\0\0\x08\0\0\0\0\0\0\0"
    assert read_exif(looped).tags == {}


@pytest.mark.parametrize("data", [b"", b"II", b"II*\0", b"XX*\0\x08\0\0\0", b"II+\0\x08\0\0\0"])
def test_what_is_no_tiff_structure_says_so(data):
    with pytest.raises(ExifError):
        read_exif(data)


@pytest.mark.parametrize(("value", "orientation"), [(b"\6\0", 6), (b"\x09\0", 1), (b"\0\0", 1)])
def test_an_orientation_that_is_none_is_1(value, orientation):
    assert read_exif(tiff([(0x0112, SHORT, 1, value)])).orientation == orientation
    assert read_exif(tiff([])).orientation == 1


@pytest.mark.parametrize(
    ("tags", "taken_at"),
    [
        ({0x9003: b"2024:02:29 23:59:58"}, datetime(2024, 2, 29, 23, 59, 58)),
        ({0x9003: b"2024:02:29 23:59:58", 0x9291: b"25"}, datetime(2024, 2, 29, 23, 59, 58, 250_000)),
        ({0x9003: b"2024:02:29 23:59:58", 0x9291: b"x"}, datetime(2024, 2, 29, 23, 59, 58)),
        ({0x9004: b"2024:01:01 00:00:00"}, datetime(2024, 1, 1)),
        ({0x9003: b"0000:00:00 00:00:00", 0x9004: b"2024:01:01 00:00:00"}, datetime(2024, 1, 1)),
        ({0x9003: b"    :  :     :  :  "}, None),
        ({0x9003: b"2024:13:01 00:00:00"}, None),
        ({}, None),
    ],
)
def test_when_a_picture_was_taken(tags, taken_at):
    entries = [ascii_(tag, value + b"\0") for tag, value in tags.items()]
    assert read_exif(tiff([(EXIF, LONG, 1, None)], entries)).taken_at == taken_at


def rationals(*values):
    return b"".join(struct.pack("<II", round(value * 1000), 1000) for value in values)


@pytest.mark.parametrize(
    ("latitude", "longitude", "place"),
    [
        ((b"N", (51, 28, 38.5)), (b"E", (0, 0, 0)), (51.477361, 0.0)),
        ((b"S", (33, 51, 31)), (b"W", (151, 12.5, 0)), (-33.858611, -151.208333)),
        ((b"N", (91, 0, 0)), (b"E", (0, 0, 0)), None),
        ((b"", (51, 0, 0)), (b"E", (0, 0, 0)), None),
    ],
    ids=["north and east", "south and west", "beyond the pole", "without a reference"],
)
def test_where_a_picture_was_taken(latitude, longitude, place):
    gps = [
        ascii_(1, latitude[0] + b"\0"),
        (2, RATIONAL, 3, rationals(*latitude[1])),
        ascii_(3, longitude[0] + b"\0"),
        (4, RATIONAL, 3, rationals(*longitude[1])),
    ]
    found = read_exif(tiff([(GPS, LONG, 1, None)], gps)).place
    assert found == (place if place is None else pytest.approx(place, abs=1e-5))


@given(st.binary(max_size=300), st.sampled_from([b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b""]))
def test_any_bytes_give_tags_or_an_error(rubbish, start):
    try:
        exif = read_exif(start + rubbish)
    except ExifError:
        return
    json.dumps(exif.tags, allow_nan=False).encode()
    assert 1 <= exif.orientation <= 8
    assert exif.taken_at is None or exif.taken_at.year
    assert exif.place is None or abs(exif.place[0]) <= 90
