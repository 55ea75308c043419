import io
import random
import re
import subprocess
import sys

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from imgdl_pipeline.core.jpeg import libjpeg
from imgdl_pipeline.core.jpeg.decode import DamagedError, decode
from imgdl_pipeline_tests.support.pictures import jpeg, samplings
from imgdl_pipeline_tests.support.segments import segment, with_segments

PICTURE = jpeg(1, (96, 64))
SCAN = PICTURE.rindex(b"\xff\xda")
RESTARTS = jpeg(1, (96, 64), restart_marker_blocks=1)
PROGRESSIVE = jpeg(1, (96, 64), progressive=True)

ARITHMETIC = bytes.fromhex(
    "ffd8ffe000104a46494600010100000100010000ffdb0043000d090a0b0a080d0b0a0b0e0e0d0f132015131212"
    "13271c1e17202e2931302e292d2c333a4a3e333646372c2d405741464c4e525352323e5a615a50604a51524fff"
    "c9000b080010001001011100ffcc000600101005ffda0008010100003f00ff0072c8fa5642e0e0223a0d58fd24"
    "f271ffd9"
)

LARGE_ARITHMETIC = ARITHMETIC.replace(b"\x08\0\x10\0\x10", b"\x08\1\0\1\0")
"""It says that it has 256 × 256."""


def changed(data, pattern, replacement):
    return re.sub(pattern, replacement, data, count=1, flags=re.DOTALL)


STRAY = b"\0\xff\xdb"

OUTSIDE = {
    "Corrupt JPEG data: bad ICC marker": with_segments(
        *[segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(9))] * 2, picture=PICTURE
    ),
    "Corrupt JPEG data: 1 extraneous bytes before marker 0xdb": PICTURE.replace(
        b"\xff\xdb", b"\0\xff\xdb", 1
    ),
    "Warning: unknown JFIF revision number 9.01": PICTURE.replace(b"JFIF\0\1", b"JFIF\0\x09", 1),
    "Unknown Adobe color transform code 7": with_segments(
        segment(0xEE, b"Adobe\0\x64\0\0\0\0\x07"), picture=PICTURE[:2] + PICTURE[20:]
    ),
}
"""libjpeg-turbo's warnings about what is not the picture."""

INSIDE = {
    "Premature end of JPEG file": PICTURE[:-2],
    "Corrupt JPEG data: bad Huffman code": PICTURE[: SCAN + 81] + b"\x7f" * 40 + PICTURE[SCAN + 121 :],
    "Corrupt JPEG data: premature end of data segment": PICTURE[: SCAN + 200] + b"\xff\xd9",
    "Corrupt JPEG data: 28 extraneous bytes before marker 0xd9": PICTURE[:-2] + b"\x11" * 30 + b"\xff\xd9",
    "Corrupt JPEG data: found marker 0xd5 instead of RST0": RESTARTS.replace(b"\xff\xd0", b"\xff\xd5", 1),
    "Invalid SOS parameters for sequential JPEG": changed(PICTURE, rb"\x00\x3f\x00", b"\x01\x3f\x00"),
    "Inconsistent progression sequence for component 0 coefficient 0": PROGRESSIVE[:-2]
    + PROGRESSIVE[PROGRESSIVE.rindex(b"\xff\xda") : -2]
    + PROGRESSIVE[-2:],
    "Corrupt JPEG data: bad arithmetic code": LARGE_ARITHMETIC[: LARGE_ARITHMETIC.index(b"\xff\xda") + 10]
    + random.Random(221).randbytes(4000).replace(b"\xff", b"\xfe")
    + b"\xff\xd9",
}
"""libjpeg-turbo's warnings about the picture."""


@pytest.mark.parametrize("warning", OUTSIDE)
def test_a_warning_about_what_is_not_the_picture_is_no_damage(warning):
    decoded = decode(OUTSIDE[warning])
    assert decoded.warning == warning
    assert np.array_equal(decoded.gray, decode(PICTURE).gray)


@pytest.mark.parametrize("warning", INSIDE)
def test_a_warning_about_the_picture_is_damage(warning):
    with pytest.raises(DamagedError) as caught:
        decode(INSIDE[warning])
    assert re.sub(r"component \d coefficient \d+", "component 0 coefficient 0", str(caught.value)) == warning


def test_damage_counts_also_where_something_else_is_odd():
    both = OUTSIDE["Corrupt JPEG data: bad ICC marker"][:-500]
    with pytest.raises(DamagedError, match="Premature end"):
        decode(both)


SAMPLINGS = samplings()


@pytest.fixture(params=SAMPLINGS)
def sampling_case(request):
    """A picture whose sampling factors TurboJPEG has no name for, as libjpeg-turbo's cjpeg wrote it."""
    return SAMPLINGS[request.param]


def test_a_picture_whose_sampling_factors_have_no_name_is_decoded(sampling_case):
    decoded = decode(sampling_case)
    assert decoded.warning is None
    theirs = np.asarray(Image.open(io.BytesIO(sampling_case)).convert("L").resize(decoded.gray.shape[::-1]))
    assert abs(decoded.gray.astype(int).mean() - theirs.mean()) < 3


@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_such_a_picture_that_ends_early_is_truncated(sampling_case, kept):
    with pytest.raises(DamagedError) as caught:
        decode(sampling_case[: int(len(sampling_case) * kept)])
    assert caught.value.truncated


def test_such_a_picture_with_damage_in_its_scan_is_found_as_strictly_as_any_other(sampling_case):
    start = sampling_case.rindex(b"\xff\xda") + 14
    found = 0
    for place in range(start, len(sampling_case) - 300, 97):
        damaged = sampling_case[:place] + bytes(256) + sampling_case[place + 256 :]
        try:
            decode(damaged)
        except DamagedError:
            found += 1
    assert found >= 0.9 * len(range(start, len(sampling_case) - 300, 97))


def test_such_a_picture_with_stray_bytes_in_its_header_is_whole(sampling_case):
    odd = sampling_case.replace(b"\xff\xdb", b"\0\xff\xdb", 1)
    assert decode(odd).warning == "Corrupt JPEG data: 1 extraneous bytes before marker 0xdb"


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("size", [(320, 240), (1000, 700), (50, 40), (61, 900)])
@pytest.mark.parametrize("progressive", [False, True])
def test_both_ways_of_decoding_give_the_same_shades(mode, size, progressive):
    data = jpeg(3, size, mode, subsampling=0, progressive=progressive)
    ours = libjpeg.decode_gray(data, 64)
    theirs = simplejpeg.decode_jpeg(data, "GRAY", min_height=64, min_width=64)[:, :, 0]
    assert ours.shape == theirs.shape
    assert np.abs(ours.astype(int) - theirs).max() <= 2


def test_a_libjpeg_of_another_abi_is_not_used(monkeypatch):
    monkeypatch.setattr(libjpeg._imaging, "jpeglib_version", "8.0")
    with pytest.raises(libjpeg.LibjpegError, match="cannot be checked"):
        libjpeg.decode_gray(PICTURE, 64)


def test_a_fatal_error_of_libjpegs_own_interface_is_damage_and_spends_the_process():
    """In a marker after a picture whose sampling factors have no name: a fuzzer found it."""
    start = samplings()["3x1.jpg"][:-2]
    code = (
        "import sys; from imgdl_pipeline.core.jpeg import libjpeg\n"
        "from imgdl_pipeline.core.jpeg.decode import DamagedError, decode\n"
        "try: decode(sys.stdin.buffer.read())\n"
        "except DamagedError as error: print(error, libjpeg.is_spent())"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        input=start + b"\xff\xda\0\1",
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert run.stdout.decode().strip() == "Bogus marker length True"


@pytest.mark.parametrize("marker", [0xD8, 0x02, 0xBF, 0xDF, 0xF0])
def test_a_marker_at_which_libjpeg_fails_is_damage_also_in_the_header(marker):
    with pytest.raises(DamagedError):
        decode(with_segments(segment(marker, b"a segment of a kind that no JPEG has"), picture=PICTURE))


@pytest.mark.parametrize("picture", [PICTURE, PROGRESSIVE], ids=["baseline", "progressive"])
def test_stray_bytes_that_were_a_huffman_table_are_damage(picture):
    """Libjpeg would decode with its own tables, to another picture."""
    table = picture.index(b"\xff\xc4")
    with pytest.raises(DamagedError, match="extraneous bytes"):
        decode(picture[:table] + b"\0\0" + picture[table + 2 :])
