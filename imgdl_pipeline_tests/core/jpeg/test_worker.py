"""What a worker answers, asked in this process; `test_workers.py` asks real ones."""

import hashlib

import pytest

from imgdl_pipeline.core.jpeg.facts import JpegFacts, Limits
from imgdl_pipeline.core.jpeg.header import read_header
from imgdl_pipeline.core.jpeg.validate import validate_jpeg
from imgdl_pipeline.core.jpeg.worker import answered, memory_for
from imgdl_pipeline.core.model.dataset_settings import ResizeSettings
from imgdl_pipeline_tests.support.pictures import PICTURE, jpeg

LIMITS = {"max_pixels": 50_000_000, "max_decode_bytes": 300_000_000}


def ask(data, job="validate", **more):
    reserved = []
    request = {"job": job, "size": len(data), "limits": LIMITS, **more}
    answer, payload = answered(request, data, reserved.append)
    return answer, payload, reserved


def test_the_facts_travel_as_json_and_are_the_same_afterwards():
    answer, payload, reserved = ask(PICTURE)
    assert JpegFacts.from_json(answer["facts"]) == validate_jpeg(PICTURE, Limits(**LIMITS))
    assert (payload, reserved) == (b"", [])


def test_an_image_that_is_not_valid_is_a_reason_and_a_detail():
    answer, *_ = ask(PICTURE[:-500])
    assert answer == {"reason": "truncated", "detail": "Premature end of JPEG file"}


def test_the_digest_is_checked_before_the_image_is():
    assert ask(PICTURE, sha256=hashlib.sha256(PICTURE).hexdigest())[0]["facts"]
    assert ask(PICTURE[:9], sha256="0" * 64)[0]["reason"] == "hash_mismatch"


def test_a_large_image_reserves_its_memory_first():
    large = jpeg(1, (1500, 1500), progressive=True)
    [reserved] = ask(large)[2]
    assert reserved == read_header(large).decode_bytes > 4_000_000


@pytest.mark.parametrize("error", [MemoryError, RuntimeError])
def test_whatever_a_decoder_raises_is_an_answer(error, monkeypatch):
    def fail(*_):
        raise error("odd")

    monkeypatch.setattr("imgdl_pipeline.core.jpeg.worker.validate_jpeg", fail)
    answer, *_ = ask(PICTURE)
    assert answer["reason"] == "corrupt"
    words = f"more than {memory_for({'size': len(PICTURE), 'limits': LIMITS})} bytes"
    assert (words if error is MemoryError else "RuntimeError: odd") in answer["detail"]
    assert answer.get("unexpected", False) == (error is RuntimeError)


def test_a_thumbnail_is_the_answers_payload():
    answer, payload, _ = ask(PICTURE, "thumbnail", side=32)
    assert answer == {"width": 32, "height": 24}
    assert len(payload) == 32 * 24 * 3


RESIZE = ResizeSettings(side=64).model_dump()


def test_a_resized_picture_is_the_answers_payload():
    answer, payload, reserved = ask(PICTURE, "resize", resize=RESIZE)
    assert answer == {"width": 64, "height": 48}
    assert read_header(payload).width == 64
    assert reserved == []


def test_a_picture_of_very_many_pixels_is_resized_when_it_is_the_only_large_one():
    large = jpeg(1, (5000, 4000), "L")
    assert ask(large, "resize", resize=RESIZE)[2] == []  # its decoder reduces it
    side = {**RESIZE, "side": 4000}
    assert ask(large, "resize", resize=side)[2] == [4 * 5000 * 4000]


def test_resizing_may_take_memory_for_the_pixels():
    request = {"size": 0, "limits": LIMITS}
    more = memory_for({**request, "resize": {**RESIZE, "side": 1000}}) - memory_for(request)
    assert more == 4 * (LIMITS["max_pixels"] + 4 * 1000**2)
