import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdl_pipeline.core.jpeg.iptc import read_iptc
from imgdl_pipeline_tests.support.segments import iptc

PREFIX = len(b"Photoshop 3.0\0")


def read(*datasets):
    return read_iptc([iptc(*datasets)[PREFIX:]])


def test_every_dataset_that_the_catalog_has_a_name_for_is_read():
    assert read(
        (2, 5, b"A cat"),
        (2, 25, b"cat"),
        (2, 25, b"sofa"),
        (2, 55, b"20240229"),
        (2, 60, b"123015+0200"),
        (2, 80, b"Ada"),
        (2, 110, b"Agency"),
        (2, 116, b"(c) Ada"),
        (2, 120, b"A cat on a sofa"),
        (2, 101, b"a country, which has no name here"),
    ) == {
        "title": "A cat",
        "tags": ["cat", "sofa"],
        "date": "2024-02-29T12:30:15",
        "author": "Ada",
        "credit": "Agency",
        "copyright": "(c) Ada",
        "caption": "A cat on a sofa",
    }


def test_the_marker_of_the_character_set_is_heeded():
    assert read((1, 90, b"\x1b%G"), (2, 80, "Zoë".encode())) == {"author": "Zoë"}
    assert read((1, 90, b"\x1b%G"), (2, 80, b"Zo\xeb")) == {"author": "Zo\ufffd"}


def test_without_a_marker_a_text_is_utf8_or_latin1():
    assert read((2, 80, b"Zo\xeb")) == {"author": "Zoë"}
    assert read((2, 80, "Zoë".encode())) == {"author": "Zoë"}


@pytest.mark.parametrize(("date", "iso"), [(b"20240229", "2024-02-29"), (b"spring 1999", "spring 1999")])
def test_a_date_is_iso_8601_where_it_is_one(date, iso):
    assert read((2, 55, date)) == {"date": iso}


def test_a_resource_may_go_on_in_the_next_segment():
    whole = iptc((2, 120, b"x" * 900))[PREFIX:]
    assert read_iptc([whole[:500], whole[500:]]) == {"caption": "x" * 900}


def test_a_dataset_of_an_extended_length_ends_the_reading():
    assert read_iptc(
        [iptc((2, 80, b"Ada"))[PREFIX:] + b"8BIM\x04\x04\0\0\0\0\0\x08\x1c\2\x78\x80\4\0\0\0"]
    ) == {"author": "Ada"}


@given(st.binary(max_size=300))
def test_any_bytes_are_read_without_an_error(rubbish):
    read_iptc([rubbish])
    read_iptc([b"8BIM\x04\x04\0\0" + rubbish])
    read_iptc([b"8BIM\x04\x04\0\0\0\0\1\0" + rubbish])
