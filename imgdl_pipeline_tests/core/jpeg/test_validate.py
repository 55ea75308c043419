import io
import json
import random
import threading
import time
import zipfile
from dataclasses import replace

import imagehash
import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from imgdl_pipeline.core.jpeg.facts import InvalidImageError, Limits
from imgdl_pipeline.core.jpeg.validate import validate_jpeg
from imgdl_pipeline.core.model.outcome import Status
from imgdl_pipeline_tests.support.hostile import LOSSLESS, many_scans, resized
from imgdl_pipeline_tests.support.pictures import FUZZED, jpeg, photo

LIMITS = Limits(max_pixels=10_000_000, max_decode_bytes=1_000_000)
SOUND = jpeg(1, (640, 480))

ARITHMETIC = bytes.fromhex(
    "ffd8ffe000104a46494600010100000100010000ffdb0043000d090a0b0a080d0b0a0b0e0e0d0f132015131212"
    "13271c1e17202e2931302e292d2c333a4a3e333646372c2d405741464c4e525352323e5a615a50604a51524fff"
    "c9000b080010001001011100ffcc000600101005ffda0008010100003f00ff0072c8fa5642e0e0223a0d58fd24"
    "f271ffd9"
)
"""16 × 16 shades of gray, arithmetic-coded, which Pillow cannot write."""


def verdict(data, limits=LIMITS):
    try:
        validate_jpeg(data, limits)
    except InvalidImageError as error:
        return error.reason.value
    return "valid"


VERDICTS = {"valid", "truncated", "corrupt", "unsupported", "too_many_pixels"}


def test_a_sound_jpeg_gives_its_facts():
    facts = validate_jpeg(SOUND, LIMITS)
    assert (facts.width, facts.height, facts.mode, facts.progressive) == (640, 480, "RGB", False)
    assert json.loads(facts.exif) == {}


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 3}])
def test_every_common_kind_of_jpeg_is_valid(mode, options):
    facts = validate_jpeg(jpeg(2, (200, 150), mode, **options), LIMITS)
    assert (facts.mode, facts.progressive) == (mode, "progressive" in options)


def test_an_arithmetic_coded_jpeg_is_valid():
    facts = validate_jpeg(ARITHMETIC, LIMITS)
    assert (facts.width, facts.height, facts.mode) == (16, 16, "L")


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (7, 9), (65, 63), (1024, 768)])
def test_an_image_of_any_shape_is_valid(size):
    facts = validate_jpeg(jpeg(3, size), LIMITS)
    assert (facts.width, facts.height) == size


@pytest.mark.parametrize("size", [(640, 480), (1000, 1000), (33, 77)])
@pytest.mark.parametrize("shade", [0, 128, 200, 255])
def test_the_phash_of_a_plain_image_is_imagehashs_own(size, shade):
    file = io.BytesIO()
    Image.new("L", size, shade).save(file, "JPEG")
    data = file.getvalue()
    assert validate_jpeg(data, LIMITS).phash == str(imagehash.phash(Image.open(file)))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("size", [(40, 30), (100, 700), (640, 480), (1500, 1100)])
@pytest.mark.parametrize("seed", range(4))
def test_the_phash_is_imagehashs_within_six_bits(mode, size, seed):
    data = jpeg(seed, size, mode, quality=75)
    theirs = imagehash.phash(Image.open(io.BytesIO(data)))
    assert imagehash.hex_to_hash(validate_jpeg(data, LIMITS).phash) - theirs <= 6


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_jpeg_that_ends_early_is_truncated(kept, options):
    data = jpeg(4, (640, 480), **options)
    assert verdict(data[: int(len(data) * kept)]) == "truncated"


@pytest.mark.parametrize("length", range(3, 400, 7))
def test_a_jpeg_that_ends_within_its_header_is_truncated(length):
    assert verdict(SOUND[:length]) == "truncated"


def test_a_missing_end_of_image_is_truncated():
    assert verdict(SOUND[:-2]) == "truncated"


def test_most_damage_within_the_scan_is_corrupt():
    """As many as libjpeg's warnings find: what decodes without one is, to a decoder, another picture."""
    draw_from, found = random.Random(5), 0
    for _ in range(100):
        place = draw_from.randrange(1000, len(SOUND) - 600)
        damaged = SOUND[:place] + bytes(512) + SOUND[place + 512 :]
        found += verdict(damaged) in ("corrupt", "truncated")
    assert found >= 90


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"GIF89a", b"<html>", b"\x89PNG\r\n\x1a\n", b"\0" * 99])
def test_what_does_not_begin_as_a_jpeg_is_not_jpeg(data):
    assert verdict(data) == "not_jpeg"


def test_bytes_after_the_end_are_no_damage():
    assert verdict(SOUND + b"and a script, or the second picture of a stereo pair") == "valid"


def test_more_pixels_than_allowed_are_not_decoded(monkeypatch):
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *_: pytest.fail("decoded"))
    assert verdict(SOUND, replace(LIMITS, max_pixels=640 * 480 - 1)) == "too_many_pixels"


@pytest.mark.parametrize(
    "data",
    [LOSSLESS, LOSSLESS.replace(b"\xff\xc3", b"\xff\xc5"), SOUND.replace(b"\0\x11\x08", b"\0\x11\x0c")],
    ids=["lossless", "hierarchical", "12 bits"],
)
def test_a_jpeg_of_a_kind_that_is_not_decoded_is_unsupported_and_no_decoder_sees_it(data, monkeypatch):
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *_: pytest.fail("decoded"))
    assert verdict(data) == "unsupported"


def test_exactly_as_many_pixels_as_allowed_are_decoded():
    assert verdict(SOUND, replace(LIMITS, max_pixels=640 * 480)) == "valid"


def test_more_pixels_than_pillows_own_limit_are_no_warning():
    file = io.BytesIO()
    Image.new("L", (16_000, 12_000)).save(file, "JPEG")
    assert verdict(file.getvalue(), replace(LIMITS, max_pixels=200_000_000)) == "valid"


@given(st.binary(max_size=2000))
def test_any_bytes_that_begin_as_a_jpeg_have_a_verdict(rubbish):
    assert verdict(b"\xff\xd8\xff" + rubbish) in VERDICTS


@given(st.lists(st.tuples(st.floats(0, 0.999), st.binary(min_size=1, max_size=8)), min_size=1, max_size=5))
def test_a_damaged_jpeg_has_a_verdict(changes):
    small = bytearray(jpeg(7, (48, 40)))
    for place, patch in changes:
        start = 2 + int(place * (len(small) - 2))
        small[start : start + len(patch)] = patch
    assert verdict(bytes(small)) in {*VERDICTS, "not_jpeg"}


def test_validation_runs_without_the_gil():
    """Two threads decode at the same time; a decoder that held the GIL would never let them meet."""
    large = np.asarray(photo(8, (3000, 2000)))
    data = simplejpeg.encode_jpeg(np.ascontiguousarray(large), quality=90)
    ticks, stop = 0, threading.Event()

    def count():
        nonlocal ticks
        while not stop.is_set():
            ticks += 1

    counter = threading.Thread(target=count)
    counter.start()
    before = ticks
    validate_jpeg(data, LIMITS)
    moved = ticks - before
    stop.set()
    counter.join()
    assert moved > 1000


def test_a_photo_with_a_video_behind_it_is_valid():
    assert verdict(SOUND + random.Random(1).randbytes(5_000_000)) == "valid"


def test_a_file_that_asks_for_the_same_scan_again_and_again_is_not_decoded(monkeypatch):
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *_: pytest.fail("decoded"))
    assert verdict(many_scans(200)) == "corrupt"


def test_a_large_image_may_have_fewer_scans_than_a_small_one():
    limits = Limits(max_pixels=100_000_000, max_decode_bytes=120_000_000)
    large = resized(many_scans(85), 6000, 6000)
    with pytest.raises(InvalidImageError, match="scans of 6000 × 6000, where no encoder makes more"):
        validate_jpeg(large, limits)
    with pytest.raises(InvalidImageError, match="Inconsistent progression"):  # it is decoded
        validate_jpeg(many_scans(85), limits)


def test_a_progressive_image_that_takes_too_much_memory_is_not_decoded():
    data = jpeg(1, (640, 480), progressive=True)
    small = Limits(max_pixels=10_000_000, max_decode_bytes=921_599)
    with pytest.raises(InvalidImageError) as caught:
        validate_jpeg(data, small)
    assert str(caught.value) == (
        "too_much_memory: "
        "640 × 480 in several scans takes 921600 bytes to decode, and max_decode_bytes is 921599"
    )
    assert validate_jpeg(data, replace(small, max_decode_bytes=921_600)).progressive
    assert validate_jpeg(jpeg(1, (640, 480)), replace(small, max_decode_bytes=1)).width == 640


def test_what_a_fuzzer_kept_is_an_image_or_has_a_reason_and_takes_no_time():
    """One input for each path that 1.9 million of them have found through our code and Pillow's."""
    with zipfile.ZipFile(FUZZED) as corpus:
        inputs = [corpus.read(name) for name in corpus.namelist()]
    assert len(inputs) > 800
    for data in inputs:
        started = time.process_time()
        try:
            json.loads(validate_jpeg(data, LIMITS).exif)
        except InvalidImageError as error:
            assert error.reason.status is Status.INVALID
        assert time.process_time() - started < 1
