import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdl_pipeline.core.jpeg.xmp import read_xmp
from imgdl_pipeline.core.jpeg.xmp_copy import MAX_BYTES, upright_xmp
from imgdl_pipeline_tests.support.segments import xmp

TIFF = 'xmlns:tiff="http://ns.adobe.com/tiff/1.0/"'


def copied(packet, *, is_srgb=True):
    return upright_xmp(packet, (30, 20), is_srgb=is_srgb)


@pytest.mark.parametrize(
    "properties",
    [
        f"<tiff:Orientation {TIFF}>6</tiff:Orientation><exif:PixelXDimension>4000</exif:PixelXDimension>",
        f'<rdf:Description {TIFF} tiff:Orientation="6" exif:PixelXDimension="4000"/>',
    ],
    ids=["elements", "attributes"],
)
def test_the_copy_is_upright_and_says_the_new_size(properties):
    copy = copied(xmp(properties)).decode()
    assert "4000" not in copy
    assert ">1<" in copy or 'Orientation="1"' in copy
    assert ">30<" in copy or 'PixelXDimension="30"' in copy


def test_titles_and_rights_are_copied():
    copy = copied(xmp("<dc:title>A lake</dc:title><plus:DataMining>DMI-PROHIBITED</plus:DataMining>"))
    assert read_xmp([copy], []).attributes["title"] == "A lake"
    assert (
        read_xmp([copy], []).attributes
        == read_xmp(
            [xmp("<dc:title>A lake</dc:title><plus:DataMining>DMI-PROHIBITED</plus:DataMining>")], []
        ).attributes
    )


def test_thumbnails_and_the_number_of_a_second_packet_are_left_out():
    copy = copied(
        xmp(
            "<xmp:Thumbnails>AAAA</xmp:Thumbnails><dc:title>A lake</dc:title>"
            "<xmpNote:HasExtendedXMP>0123</xmpNote:HasExtendedXMP>"
        )
    )
    assert b"AAAA" not in copy
    assert b"0123" not in copy
    assert b"A lake" in copy


@pytest.mark.parametrize(
    "packet",
    [b"<broken", b'<!DOCTYPE x [<!ENTITY e "eee">]><x>&e;</x>', b"", xmp("\u20ac" * 40_000)],
    ids=["broken", "with a document type", "empty", "too long for a segment"],
)
def test_a_packet_that_cannot_be_written_is_none(packet):
    assert copied(packet) is None


@given(st.text(max_size=50))
def test_any_text_is_a_packet_or_none(text):
    copy = copied(xmp(f"<dc:title>{text}</dc:title>"))
    assert copy is None or len(copy) <= MAX_BYTES
