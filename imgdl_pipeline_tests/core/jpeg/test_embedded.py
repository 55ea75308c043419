import json
from datetime import datetime

from imgdl_pipeline.core.jpeg.embedded import NAMES, read_embedded
from imgdl_pipeline.core.jpeg.header import JpegHeader, read_header
from imgdl_pipeline.core.sources.attributes import NAMES as SOURCE_NAMES
from imgdl_pipeline_tests.support.segments import iptc, segment, tiff, with_segments, xmp

EXIF = tiff(
    [
        (0x010E, 2, 12, b"EXIF caption"),
        (0x0112, 3, 1, b"\6\0"),
        (0x013B, 2, 11, b"EXIF artist"),
        (0x8769, 4, 1, None),
    ],
    [(0x9003, 2, 20, b"2024:02:29 12:00:00\0")],
)
IPTC = iptc((2, 80, b"IPTC author"), (2, 116, b"IPTC copyright"), (2, 55, b"20230101"))
XMP = xmp("<photoshop:Credit>XMP credit</photoshop:Credit>")


def embedded(*segments):
    return read_embedded(read_header(with_segments(*segments)))


def exif(data):
    return segment(0xE1, b"Exif\0\0" + data)


def test_a_picture_without_metadata_has_the_defaults():
    facts, warning = embedded()
    assert (facts.orientation, facts.taken_at, facts.latitude, facts.longitude) == (1, None, None, None)
    assert (facts.color_profile, facts.embedded, facts.exif, warning) == (None, "{}", "{}", None)


def test_what_xmp_iptc_and_exif_say_is_one_object_and_each_is_trusted_more_than_the_next():
    xmp_segment = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)
    facts, _ = embedded(exif(EXIF), segment(0xED, IPTC), xmp_segment)
    assert json.loads(facts.embedded) == {
        "caption": "EXIF caption",
        "author": "IPTC author",
        "copyright": "IPTC copyright",
        "credit": "XMP credit",
        "date": "2023-01-01",
    }
    assert (facts.orientation, facts.taken_at) == (6, datetime(2024, 2, 29, 12))


def test_without_exif_the_time_is_that_of_iptc():
    facts, _ = embedded(segment(0xED, IPTC))
    assert facts.taken_at == datetime(2023, 1, 1)


def test_exif_that_is_split_over_several_segments_is_joined():
    facts, _ = embedded(exif(EXIF[:60]), exif(EXIF[60:]))
    assert facts.taken_at == datetime(2024, 2, 29, 12)


def test_a_second_exif_is_not_joined_to_the_first():
    facts, _ = embedded(exif(EXIF), exif(tiff([(0x0112, 3, 1, b"\3\0")])))
    assert facts.orientation == 6


def test_exif_that_cannot_be_read_says_so_in_its_own_column():
    facts, warning = embedded(exif(b"rubbish"))
    assert json.loads(facts.exif) == {"_error": "it does not begin as a TIFF structure does"}
    assert warning is None


def test_an_icc_profile_that_cannot_be_read_is_a_warning():
    assert embedded(segment(0xE2, b"ICC_PROFILE\0\1\1rubbish"))[1] == "its ICC profile cannot be read"


def test_the_names_are_those_of_a_sources_attributes_and_two_more():
    assert set(NAMES) - set(SOURCE_NAMES) == {"copyright", "data_mining", "digital_source_type"}


def test_odd_types_of_tags_do_no_harm():
    odd = tiff([(0x9C9E, 3, 1, b"\1\0"), (0x013B, 3, 1, b"\1\0"), (0x010E, 5, 1, bytes(8))])
    header = JpegHeader(1, 1, "L", False, 0, {"exif": (odd,)})
    assert json.loads(read_embedded(header)[0].embedded) == {}


def test_a_broken_first_exif_does_not_hide_a_good_second_one():
    assert embedded(exif(b"rubbish"), exif(EXIF))[0].orientation == 6


def test_a_property_of_a_second_xmp_packet_is_read():
    prefix = b"http://ns.adobe.com/xap/1.0/\0"
    second = xmp("<plus:DataMining>DMI-PROHIBITED</plus:DataMining>")
    facts, _ = embedded(segment(0xE1, prefix + XMP), segment(0xE1, prefix + second))
    assert json.loads(facts.embedded) == {"credit": "XMP credit", "data_mining": "DMI-PROHIBITED"}


def test_thousands_of_keywords_are_cut():
    keywords = [(2, 25, "犬".encode() * 300)] * 60
    facts, _ = embedded(segment(0xED, iptc(*keywords)))
    assert 50 < len(json.loads(facts.embedded)["tags"]) * 300 / 300 < 67
    assert len(facts.embedded) < 25_000
