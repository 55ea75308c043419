import time
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdl_pipeline.core.jpeg.xmp import MAX_BYTES, read_xmp
from imgdl_pipeline_tests.support.segments import xmp


def attributes(properties):
    return read_xmp([xmp(properties)], []).attributes


def test_every_property_that_the_catalog_has_a_name_for_is_read():
    assert attributes("""
        <dc:title><rdf:Alt><rdf:li xml:lang="x-default">A cat</rdf:li></rdf:Alt></dc:title>
        <dc:description><rdf:Alt><rdf:li xml:lang="de">Katze</rdf:li>
        <rdf:li xml:lang="x-default">Cat, café</rdf:li></rdf:Alt></dc:description>
        <dc:creator><rdf:Seq><rdf:li>Ada</rdf:li><rdf:li>Bob</rdf:li></rdf:Seq></dc:creator>
        <photoshop:Credit>Agency</photoshop:Credit>
        <dc:rights><rdf:Alt><rdf:li xml:lang="x-default">© 2024 Ada</rdf:li></rdf:Alt></dc:rights>
        <xmpRights:UsageTerms><rdf:Alt><rdf:li xml:lang="x-default">CC BY 4.0</rdf:li></rdf:Alt>
        </xmpRights:UsageTerms>
        <cc:license rdf:resource="https://creativecommons.org/licenses/by/4.0/"/>
        <xmpRights:WebStatement>https://example.org/</xmpRights:WebStatement>
        <dc:subject><rdf:Bag><rdf:li>cat</rdf:li><rdf:li>sofa</rdf:li></rdf:Bag></dc:subject>
        <photoshop:DateCreated>2024-02-29T12:00:00+02:00</photoshop:DateCreated>
        <plus:DataMining rdf:resource="http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED-AIMLTRAINING"/>
        <Iptc4xmpExt:DigitalSourceType>http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia</Iptc4xmpExt:DigitalSourceType>
    """) == {
        "title": "A cat",
        "caption": "Cat, café",
        "author": "Ada, Bob",
        "credit": "Agency",
        "copyright": "© 2024 Ada",
        "license": "CC BY 4.0",
        "license_url": "https://creativecommons.org/licenses/by/4.0/",
        "tags": ["cat", "sofa"],
        "date": "2024-02-29T12:00:00+02:00",
        "data_mining": "DMI-PROHIBITED-AIMLTRAINING",
        "digital_source_type": "trainedAlgorithmicMedia",
    }


def test_properties_may_be_written_as_attributes():
    packet = xmp("").replace(
        b'rdf:about=""', b'rdf:about="" photoshop:Credit="Agency" plus:DataMining="DMI-PROHIBITED"'
    )
    assert read_xmp([packet], []).attributes == {"credit": "Agency", "data_mining": "DMI-PROHIBITED"}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-16-le"])
def test_a_packet_in_utf16_is_read(encoding):
    text = xmp("<photoshop:Credit>café</photoshop:Credit>").decode()
    packet = (b"" if encoding == "utf-16" else "\ufeff".encode(encoding)) + text.encode(encoding)
    assert read_xmp([packet], []).attributes == {"credit": "café"}


def test_a_packet_padded_with_nuls_is_read():
    assert read_xmp([xmp("<photoshop:Credit>A</photoshop:Credit>") + bytes(99)], []).attributes == {
        "credit": "A"
    }


GUID = b"0123456789ABCDEF0123456789ABCDEF"


def extension(data, parts=2, guid=GUID):
    size = -(-len(data) // parts)
    return [
        guid + len(data).to_bytes(4, "big") + start.to_bytes(4, "big") + data[start : start + size]
        for start in range(0, len(data), size)
    ]


MAIN = xmp(
    f"<xmpNote:HasExtendedXMP>{GUID.decode()}</xmpNote:HasExtendedXMP><photoshop:Credit>A</photoshop:Credit>"
)
MORE = xmp(
    "<xmpRights:WebStatement>https://example.org/</xmpRights:WebStatement><photoshop:Credit>B</photoshop:Credit>"
)


def test_extended_xmp_is_put_together_and_the_main_packet_wins():
    expected = {"credit": "A", "license_url": "https://example.org/"}
    assert read_xmp([MAIN], extension(MORE, 3)[::-1]).attributes == expected


@pytest.mark.parametrize(
    "parts",
    [[], extension(MORE)[:1], extension(MORE, guid=b"F" * 32), [GUID], extension(MORE + b" " * MAX_BYTES)],
    ids=["none", "a part is missing", "another's", "cut", "too long"],
)
def test_extended_xmp_that_is_not_whole_is_left_out(parts):
    assert read_xmp([MAIN], parts).attributes == {"credit": "A"}


@pytest.mark.parametrize(
    ("value", "taken_at"),
    [
        ("2024-02-29T12:30:15.25+02:00", datetime(2024, 2, 29, 12, 30, 15, 250_000)),
        ("2024-02-29T12:30", datetime(2024, 2, 29, 12, 30)),
        ("2024-02-29", datetime(2024, 2, 29)),
        ("2024", None),
        ("2024-02-29junk", None),
        ("2024-02-30", None),
        ("yesterday", None),
    ],
)
def test_when_a_picture_was_taken(value, taken_at):
    assert read_xmp([xmp(f"<exif:DateTimeOriginal>{value}</exif:DateTimeOriginal>")], []).taken_at == taken_at


@pytest.mark.parametrize(
    ("latitude", "longitude", "place"),
    [
        ("51,28.5N", "0,30,36W", (51.475, -0.51)),
        ("91,0.0N", "0,0.0E", None),
        ("51", "0,0.0E", None),
        ("51,75.0N", "0,0.0E", None),
    ],
)
def test_where_a_picture_was_taken(latitude, longitude, place):
    packet = xmp(
        f"<exif:GPSLatitude>{latitude}</exif:GPSLatitude><exif:GPSLongitude>{longitude}</exif:GPSLongitude>"
    )
    found = read_xmp([packet], []).place
    assert found == (place if place is None else pytest.approx(place))


BOMB = b"".join(b'<!ENTITY a%d "%s">' % (n, b"&a%d;" % (n - 1) * 10 if n else b"ha") for n in range(12))


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"<x",
        b"<?xml version='1.0'?><!DOCTYPE x [" + BOMB + b"]><x>&a11;</x>",
        b"<!DOCTYPE x [<!ENTITY f SYSTEM 'file:///etc/hostname'>]><x>&f;</x>",
        b"<!DOCTYPE x SYSTEM 'http://127.0.0.1:1/x.dtd'><x/>",
        b"<x>" * 100_000 + b"</x>" * 100_000,
        b"<x " + b" ".join(b'a%d="1"' % number for number in range(50_000)) + b"/>",
        xmp("<dc:subject><rdf:Bag>" + "<rdf:li>x</rdf:li>" * 40_000 + "</rdf:Bag></dc:subject>"),
        xmp("<a>" * 200 + "</a>" * 200),
    ],
    ids=["nothing", "cut", "entities", "a file", "a document type", "deep", "wide", "a long list", "nested"],
)
def test_no_xml_of_a_stranger_takes_long_or_reaches_outside(packet):
    started = time.process_time()
    found = read_xmp([packet], []).attributes
    assert time.process_time() - started < 1
    assert found == {} or found == {"tags": ["x"] * 200}


@given(st.binary(max_size=300))
def test_any_bytes_are_read_without_an_error(rubbish):
    read_xmp([rubbish, rubbish], [rubbish])


@given(st.text(max_size=60))
def test_any_text_in_a_property_is_clean(text):
    escaped = "".join(f"&#{ord(each)};" for each in text)
    for value in read_xmp([xmp(f"<photoshop:Credit>{escaped}</photoshop:Credit>")], []).attributes.values():
        value.encode()
