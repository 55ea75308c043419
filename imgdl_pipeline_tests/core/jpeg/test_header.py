import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdl_pipeline.core.jpeg.header import (
    BadHeaderError,
    CutHeaderError,
    JpegHeader,
    UnsupportedJpegError,
    count_scans,
    picture_only,
    read_header,
)
from imgdl_pipeline_tests.support.pictures import jpeg

SIZE = (123, 45)


def segment(marker, payload):
    return bytes([0xFF, marker]) + (len(payload) + 2).to_bytes(2, "big") + payload


FRAME = segment(0xC0, b"\x08\x00\x2d\x00\x7b\x01\x01\x11\x00")
SCAN = segment(0xDA, b"\x01\x01\x00\x00\x3f\x00")


@pytest.mark.parametrize(("mode", "progressive"), [("L", False), ("RGB", True), ("CMYK", False)])
def test_a_pictures_header_is_read(mode, progressive):
    data = jpeg(0, SIZE, mode, progressive=progressive)
    assert read_header(data) == JpegHeader(*SIZE, mode, progressive, 18_432 if progressive else 0)


def test_the_segments_that_describe_a_picture_are_found_by_their_kind():
    head = [
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>"),
        segment(0xE1, b"Exif\0\0MM\0*"),
        segment(0xE1, b"Exif\0\0more"),
        segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0part"),
        segment(0xE2, b"ICC_PROFILE\0\1\1icc"),
        segment(0xED, b"Photoshop 3.0\x008BIM"),
        segment(0xE3, b"Exif\0\0of another marker"),
    ]
    assert read_header(b"\xff\xd8" + b"".join(head) + FRAME + SCAN).metadata == {
        "xmp": (b"<x/>",),
        "exif": (b"MM\0*", b"more"),
        "extended_xmp": (b"part",),
        "icc": (b"\1\1icc",),
        "photoshop": (b"8BIM",),
    }


def test_the_picture_alone_is_what_decoding_takes():
    comment, stray = segment(0xFE, b"hello"), b"stray bytes"
    jfif, canonical = segment(0xE0, b"JFIF\0\x07\x01rest"), segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")
    tables, rest = segment(0xDB, bytes(65)) + segment(0xDD, b"\0\4"), SCAN + b"entropy\xff\xfe\0\4ab\xff\xd9"
    data = b"\xff\xd8" + jfif + comment + stray + tables + comment + FRAME + rest
    assert picture_only(data) == b"\xff\xd8" + canonical + tables + FRAME + rest


@pytest.mark.parametrize(
    ("components", "transform", "kept"), [(3, 0, 0), (3, 1, 1), (3, 7, 1), (4, 0, 0), (4, 2, 2), (4, 9, 2)]
)
def test_how_colours_are_coded_is_kept_as_libjpeg_assumes_it(components, transform, kept):
    adobe = segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([transform]))
    picture = picture_only(b"\xff\xd8" + adobe + frame(components=components) + SCAN)
    assert picture == b"\xff\xd8" + adobe[:-1] + bytes([kept]) + frame(components=components) + SCAN


def test_fill_bytes_and_restarts_between_segments_are_passed_over():
    header = read_header(b"\xff\xd8\xff\xff\xff" + FRAME[1:] + b"\xff\xd0" + SCAN)
    assert (header.width, header.height, header.mode) == (123, 45, "L")


@pytest.mark.parametrize("kept", range(2, len(FRAME + SCAN)))
def test_a_header_that_is_cut_says_so(kept):
    whole = b"\xff\xd8" + FRAME + SCAN
    if kept < 2 + len(FRAME) + 2:
        with pytest.raises(CutHeaderError):
            read_header(whole[:kept])


@pytest.mark.parametrize(
    "data",
    [
        SCAN,
        b"\xff\xd9",
        segment(0xC0, b"\x08\x00\x2d") + SCAN,
        segment(0xC0, b"\x08\x00\x2d\x00\x7b\x02\x01\x11\x00") + SCAN,
        segment(0xC0, b"\x08\x00\x2d\0\0\x01\x01\x11\x00") + SCAN,
        segment(0xC0, b"\x08\x00\x2d\0\x7b\0") + SCAN,
        FRAME + FRAME + SCAN,
        b"\xff\xe0\x00\x01" + FRAME + SCAN,
    ],
    ids=[
        *("no frame", "end of image", "short frame", "fewer components than said", "no width"),
        *("no components", "two frames", "length of one"),
    ],
)
def test_what_is_no_header_says_so(data):
    with pytest.raises(BadHeaderError):
        read_header(b"\xff\xd8" + data)


def frame(marker=0xC0, bits=8, height=45, components=1):
    each = b"".join(bytes([number, 0x11, 0]) for number in range(components))
    return segment(
        marker, bytes([bits]) + height.to_bytes(2, "big") + b"\x00\x7b" + bytes([components]) + each
    )


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (frame(0xC3), "lossless"),
        (frame(0xC5), "hierarchical"),
        (frame(0xC6), "hierarchical"),
        (frame(0xC7), "hierarchical"),
        (frame(0xC8), "reserved"),
        (frame(0xCB), "lossless and arithmetic-coded"),
        (frame(0xCD), "hierarchical"),
        (frame(0xCE), "hierarchical"),
        (frame(0xCF), "hierarchical"),
        (frame(0xF7), "JPEG-LS"),
        (frame(0xDE) + frame(), "hierarchical"),
        (frame() + frame(0xC3), "lossless"),
        (frame(0xC0, bits=12), "12 bits"),
        (frame(0xC1, bits=12), "12 bits"),
        (frame(0xC2, bits=12), "12 bits"),
        (frame(0xC9, bits=16), "16 bits"),
        (frame(height=0), "height comes after"),
        (frame(components=2), "2 components"),
        (frame(components=5), "5 components"),
    ],
)
def test_a_kind_that_no_decoder_may_see_is_named(head, kind):
    with pytest.raises(UnsupportedJpegError, match=kind):
        read_header(b"\xff\xd8" + head + SCAN)


@pytest.mark.parametrize("marker", [0xC0, 0xC1, 0xC2, 0xC9, 0xCA])
def test_the_five_kinds_that_are_decoded_have_a_header(marker):
    assert read_header(b"\xff\xd8" + frame(marker) + SCAN).width == 123


def test_stray_bytes_hide_no_frame_that_libjpeg_would_see():
    """To libjpeg, 0xFF 0x00 is no marker with a length after it, but two bytes to pass over."""
    hidden = b"\xff\x00" + (len(frame(0xC3)) + 2).to_bytes(2, "big") + frame(0xC3)
    with pytest.raises(UnsupportedJpegError, match="lossless"):
        read_header(b"\xff\xd8" + hidden + FRAME + SCAN)


@given(st.binary())
def test_any_bytes_are_a_header_or_an_error(rubbish):
    try:
        read_header(b"\xff\xd8" + rubbish)
    except (CutHeaderError, BadHeaderError, UnsupportedJpegError):
        pass


def test_scans_are_counted_up_to_the_end_of_the_image():
    picture = jpeg(0, SIZE, progressive=True)
    scans = count_scans(picture)
    assert 5 < scans < 20
    assert count_scans(picture + SCAN * 500) == scans
    assert count_scans(picture[:-2] + SCAN * 500 + picture[-2:]) == scans + 500


def test_a_preview_in_the_exif_is_no_scan_of_the_image():
    picture = jpeg(0, SIZE)
    with_preview = picture[:2] + segment(0xE1, b"Exif\0\0" + SCAN * 50 + b"\xff\xd9") + picture[2:]
    assert count_scans(with_preview) == count_scans(picture) == 1


@given(st.binary())
def test_the_scans_of_any_bytes_can_be_counted(rubbish):
    assert count_scans(b"\xff\xd8" + rubbish) >= 0


@pytest.mark.parametrize(
    ("frame", "scan", "decode_bytes"),
    [
        (0xC0, b"\x03", 0),
        (0xC0, b"\x01", 3 * 16 * 8 * 128),
        (0xC2, b"\x03", 3 * 16 * 8 * 128),
        (0xC2, b"", 3 * 16 * 8 * 128),
    ],
    ids=["one scan", "a scan a component", "progressive", "a scan without a word"],
)
def test_an_image_in_several_scans_takes_two_bytes_a_sample(frame, scan, decode_bytes):
    components = b"".join(bytes([number, 0x11, 0]) for number in (1, 2, 3))
    head = segment(frame, b"\x08\x00\x40\x00\x80\x03" + components)
    assert read_header(b"\xff\xd8" + head + segment(0xDA, scan)).decode_bytes == decode_bytes


def test_subsampled_components_take_less():
    assert read_header(jpeg(0, (640, 480), progressive=True)).decode_bytes == 640 * 480 * 2 * 3 // 2


@pytest.mark.parametrize(
    "middle",
    [
        b"\xff" * 2_000_000 + b"\x00",
        b"\xff\xe0\x00\x02" * 500_000,
        b"\xff" * 2_000_000,
        b"\xff\xd0" * 1_000_000,
    ],
    ids=["fill bytes", "empty segments", "fill bytes to the end", "restarts"],
)
def test_no_file_takes_long_to_look_through(middle):
    """Each of these took minutes or hours once, by loops over bytes or by a backtracking expression."""
    for data in (b"\xff\xd8" + middle + FRAME + SCAN, b"\xff\xd8" + FRAME + SCAN + middle + b"\xff\xd9"):
        started = time.process_time()
        try:
            read_header(data)
            count_scans(data)
        except (BadHeaderError, CutHeaderError, UnsupportedJpegError):
            pass
        assert time.process_time() - started < 1
