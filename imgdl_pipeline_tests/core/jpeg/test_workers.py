import hashlib
import io
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import datetime, timezone
from pathlib import Path

import pytest
from PIL import Image

from imgdl_pipeline.core.catalog.build import build_catalog
from imgdl_pipeline.core.download.run import download_gallery
from imgdl_pipeline.core.jpeg import resize
from imgdl_pipeline.core.jpeg.facts import InvalidImageError, Limits
from imgdl_pipeline.core.jpeg.fork_server import SHARED_BYTES
from imgdl_pipeline.core.jpeg.header import read_header
from imgdl_pipeline.core.jpeg.validate import validate_jpeg
from imgdl_pipeline.core.jpeg.worker_client import MAX_ANSWER_BYTES, Answer, WrongAnswerError
from imgdl_pipeline.core.jpeg.workers import MAX_BYTES_PER_PIXEL, JpegWorkers, _resized
from imgdl_pipeline.core.model.dataset_settings import ResizeSettings
from imgdl_pipeline.core.model.links import Link, links_table
from imgdl_pipeline.core.model.outcome import ResourceError
from imgdl_pipeline.core.storage.layout import links_path
from imgdl_pipeline_tests.support import bad_decoder, profiles
from imgdl_pipeline_tests.support.pictures import PICTURE, jpeg, samplings
from imgdl_pipeline_tests.support.segments import xmp


def simplejpeg_odd_answers():
    """The names of the odd answers that the bad decoder can give."""
    text = (Path(bad_decoder.__path__[0]) / "simplejpeg.py").read_text()
    return re.findall(r'^    "(.*?)": ', text, re.MULTILINE)


LIMITS = Limits(max_pixels=50_000_000, max_decode_bytes=300_000_000)


def please(do):
    """A sound picture at which the bad decoder does something."""
    return jpeg(1, (64, 64), comment=f"please {do}".encode())


@pytest.fixture
def bad_decoders(monkeypatch):
    """One worker whose decoder misbehaves where it is told to."""
    monkeypatch.syspath_prepend(str(Path(bad_decoder.__path__[0])))
    with JpegWorkers(1, cpu_s=1) as workers:
        yield workers


def refusal(workers, image, limits=LIMITS):
    with pytest.raises(InvalidImageError) as caught:
        workers.validate(image, limits)
    return caught.value


def test_a_worker_gives_the_facts_that_validation_gives(jpegs):
    assert jpegs.validate(PICTURE, LIMITS) == validate_jpeg(PICTURE, LIMITS)


@pytest.mark.parametrize("extra", [0, SHARED_BYTES], ids=["small", "too large to be shared"])
def test_an_image_may_be_bytes_or_a_file_in_memory_or_on_disk(jpegs, extra, tmp_path):
    image = PICTURE + bytes(extra)
    file = tmp_path / "a.jpg"
    file.write_bytes(image)
    with file.open("rb") as opened:
        facts = [jpegs.validate(each, LIMITS) for each in (image, io.BytesIO(image), opened)]
    assert facts == [validate_jpeg(image, LIMITS)] * 3


def test_an_empty_file_is_not_jpeg(jpegs, tmp_path):
    file = tmp_path / "a.jpg"
    file.touch()
    with file.open("rb") as opened:
        assert refusal(jpegs, opened).reason.value == "not_jpeg"
    assert refusal(jpegs, b"").reason.value == "not_jpeg"


def test_what_is_wrong_is_told_as_validation_tells_it(jpegs):
    error = refusal(jpegs, PICTURE[:-500])
    assert (error.reason.value, error.detail) == ("truncated", "Premature end of JPEG file")


def test_a_file_of_another_digest_was_altered(jpegs):
    with pytest.raises(InvalidImageError, match="hash_mismatch: the stored file was altered"):
        jpegs.validate(PICTURE, LIMITS, sha256="0" * 64)


def test_threads_share_the_workers(jpegs):
    pictures = [jpeg(seed) for seed in range(20)]
    with ThreadPoolExecutor(6) as threads:
        facts = list(threads.map(lambda picture: jpegs.validate(picture, LIMITS), pictures))
    assert facts == [validate_jpeg(picture, LIMITS) for picture in pictures]


def test_a_large_image_waits_for_its_turn(jpegs):
    large = jpeg(1, (1500, 1500), progressive=True)
    checked = threading.Thread(target=jpegs.validate, args=(large, LIMITS))
    with jpegs.budget.reserve(10_000_000):
        checked.start()
        jpegs.validate(PICTURE, LIMITS)  # a small one does not
        assert checked.is_alive()
    checked.join(30)
    assert not checked.is_alive()


@pytest.mark.parametrize(
    ("do", "detail"),
    [
        ("abort", "its decoder crashed: SIGABRT"),
        ("crash", "its decoder crashed: SIGSEGV"),
        ("loop", "its decoder was stopped after 1 s of the processor"),
        ("allocate", "its decoder needs more than 5560"),
        ("exit", "its decoder ended with status 1"),
    ],
)
def test_a_decoder_that_misbehaves_costs_its_own_image_and_no_other(bad_decoders, do, detail):
    bad_decoders.validate(PICTURE, LIMITS)
    error = refusal(bad_decoders, please(do))
    assert error.reason.value == "corrupt"
    assert error.detail.startswith(detail)
    bad_decoders.validate(PICTURE, LIMITS)


def test_a_decoder_that_waits_is_stopped_by_the_clock(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(bad_decoder.__path__[0])))
    with JpegWorkers(1, wall_s=1) as workers:
        assert refusal(workers, please("wait")).detail == "its decoder was stopped after 1 s"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux offers it without root")
@pytest.mark.parametrize("do", ["open", "connect", "fork", "kill", "own", "cut"])
def test_a_decoder_may_neither_open_nor_connect_nor_fork_nor_signal(bad_decoders, do):
    assert refusal(bad_decoders, please(do)).detail == "not allowed: Operation not permitted"


def test_a_large_image_cannot_be_rewritten_by_its_decoder(bad_decoders):
    with tempfile.TemporaryFile() as file:
        file.write(please("rewrite") + bytes(6_000_000))
        file.flush()
        assert refusal(bad_decoders, file).detail == "not allowed: Permission denied"


@pytest.mark.parametrize("how", simplejpeg_odd_answers())
def test_an_odd_answer_costs_its_own_image_and_the_worker(bad_decoders, how):
    bad_decoders.validate(PICTURE, LIMITS)
    assert (
        refusal(bad_decoders, please(f"answer {how}")).detail == "its decoder gave no answer that makes sense"
    )
    assert bad_decoders.validate(PICTURE, LIMITS) == validate_jpeg(PICTURE, LIMITS)


def test_where_no_picture_can_be_decoded_no_image_is_corrupt(monkeypatch, tmp_path):
    (tmp_path / "simplejpeg.py").write_text("def decode_jpeg(*_, **__): raise RuntimeError('an update')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with JpegWorkers(1) as workers, pytest.raises(ResourceError):
        workers.validate(PICTURE, LIMITS)


def test_a_decoder_sees_no_secret_of_the_environment(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "sesame")
    with JpegWorkers(1) as workers:
        workers.validate(PICTURE, LIMITS)
        processes = [*workers._server._workers, workers._server._process]
        for process in processes:
            assert b"sesame" not in Path(f"/proc/{process.pid}/environ").read_bytes()


def test_an_image_whose_worker_dies_of_an_earlier_one_is_tried_again(jpegs):
    jpegs.validate(PICTURE, LIMITS)
    for worker in list(jpegs._server._workers):
        os.kill(worker.pid, signal.SIGSEGV)
    assert jpegs.validate(PICTURE, LIMITS).width == 320


def test_workers_start_again_when_the_server_that_forks_them_is_gone():
    with JpegWorkers(1) as workers:
        workers.validate(PICTURE, LIMITS)
        os.kill(workers._server._process.pid, signal.SIGKILL)
        assert workers.validate(PICTURE, LIMITS).width == 320


def test_workers_start_again_when_server_and_worker_are_gone_and_no_image_is_corrupt():
    with JpegWorkers(2) as workers:
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(lambda _: workers.validate(PICTURE, LIMITS), range(6)))
        for worker in list(workers._server._workers):
            os.kill(worker.pid, signal.SIGKILL)
        os.kill(workers._server._process.pid, signal.SIGKILL)
        assert [workers.validate(PICTURE, LIMITS).width for _ in range(4)] == [320] * 4


def test_a_process_that_was_forked_later_cannot_use_the_workers():
    code = PARENT.partition("print")[0] + (
        "pid = os.fork()\n"
        "if not pid:\n"
        "    try: workers.validate(PICTURE, Limits(10**6, 10**8))\n"
        "    except Exception as error: print(error, flush=True)\n"
        "    os._exit(0)\n"
        "os.waitpid(pid, 0)\n"
        "print(workers.validate(PICTURE, Limits(10**6, 10**8)).width)\n"
        "workers.close()\n"
    )
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert run.stdout.splitlines() == [
        "decoding processes cannot be shared with a process that was forked later",
        "320",
    ]


def test_threads_that_hold_memory_and_workers_never_wait_for_each_other():
    large = jpeg(1, (1600, 1600), progressive=True)
    with JpegWorkers(2) as workers, ThreadPoolExecutor(5) as threads:
        asked = [
            threads.submit(workers.validate_stored, lambda: nullcontext(large), 10_000_000, LIMITS)
            for _ in range(10)
        ]
        assert [each.result(60).width for each in asked] == [1600] * 10


def test_a_program_that_cannot_be_started_is_no_image_s_fault(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with JpegWorkers(1) as workers, pytest.raises(ResourceError, match="does not start"):
        workers.validate(PICTURE, LIMITS)


def test_closed_workers_decode_nothing_and_leave_no_process():
    workers = JpegWorkers(2)
    workers.validate(PICTURE, LIMITS)
    server = workers._server._process._popen
    workers.close()
    assert server.poll() is not None
    with pytest.raises(ResourceError):
        workers.validate(PICTURE, LIMITS)


def test_no_process_is_started_before_it_is_needed():
    with JpegWorkers() as workers:
        assert workers._server._process is None


PARENT = """
import os, sys, time
from imgdl_pipeline.core.jpeg.facts import Limits
from imgdl_pipeline.core.jpeg.workers import JpegWorkers
from imgdl_pipeline_tests.support.pictures import PICTURE
workers = JpegWorkers(1)
workers.validate(PICTURE, Limits(10**6, 10**8))
print(workers._server._process.pid, *[each.pid for each in workers._server._workers], flush=True)
time.sleep(1000)
"""


def test_no_process_outlives_a_run_that_is_killed():
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert len(pids) == 2
    for pid in pids:
        gone = threading.Event()
        for _ in range(200):
            if not Path(f"/proc/{pid}").exists():
                break
            gone.wait(0.05)
        else:
            pytest.fail(f"process {pid} is left")


def test_a_thumbnail_is_small_and_upright(jpegs):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = jpeg(1, (400, 200), exif=exif)
    small = jpegs.thumbnail(lambda: nullcontext(turned), 0, LIMITS, 100)
    assert (small.width, small.height, len(small.pixels)) == (50, 100, 3 * 50 * 100)


def resized(workers, image, sha256=None, **settings):
    settings = ResizeSettings(**{"side": 64, **settings})
    return workers.resize(lambda: nullcontext(image), 0, LIMITS, settings, sha256)


@pytest.mark.parametrize(
    "picture",
    [
        PICTURE,
        jpeg(1, mode="L", icc_profile=profiles.gray(1.8)),
        jpeg(1, mode="CMYK"),
        jpeg(1, mode="CMYK", icc_profile=profiles.press()),
        jpeg(1, icc_profile=profiles.screen(profiles.ADOBE_RGB), xmp=xmp("<dc:title>A</dc:title>")),
        jpeg(1, progressive=True, icc_profile=b"rubbish"),
        samplings()["3x1.jpg"],
    ],
    ids=["plain", "gray with a profile", "CMYK", "CMYK with a profile", "Adobe RGB", "broken", "sampling"],
)
@pytest.mark.parametrize("color", ["srgb", "keep"])
def test_a_contained_worker_resizes_as_this_process_does(jpegs, picture, color):
    for how in ("fit", "fill", "pad"):
        settings = ResizeSettings(side=64, how=how, color=color, metadata="keep")
        expected = resize.resized(picture, resize.Resize(**settings.model_dump()), read_header(picture))
        found = resized(jpegs, picture, how=how, color=color, metadata="keep")
        assert (found.width, found.height, found.data) == expected


def test_a_resized_picture_may_be_larger_than_other_answers(jpegs):
    noise = io.BytesIO()
    Image.frombytes("RGB", (1400, 1400), random.Random(1).randbytes(3 * 1400**2)).save(
        noise, "JPEG", quality=100
    )
    found = resized(jpegs, noise.getvalue(), side=1400, quality=100, chroma="4:4:4")
    assert len(found.data) > MAX_ANSWER_BYTES
    assert len(found.data) < 1400**2 * MAX_BYTES_PER_PIXEL
    assert jpegs.validate(found.data, LIMITS).width == 1400


def test_a_picture_enlarged_to_the_largest_side_is_made_within_the_limits(jpegs):
    found = resized(jpegs, PICTURE, side=8192, how="fill", quality=50)
    assert (found.width, found.height) == (8192, 8192)


def test_what_is_resized_has_the_digest_that_was_asked_for(jpegs):
    assert resized(jpegs, PICTURE, hashlib.sha256(PICTURE).hexdigest()).width == 64
    with pytest.raises(InvalidImageError, match="hash_mismatch"):
        resized(jpegs, PICTURE, "0" * 64)


def test_what_is_no_whole_jpeg_is_not_resized(jpegs):
    for damaged, reason in ((b"text", "not_jpeg"), (PICTURE[:-500], "corrupt")):
        with pytest.raises(InvalidImageError, match=reason):
            resized(jpegs, damaged)


@pytest.mark.parametrize(
    ("do", "detail"), [("crash", "crashed: SIGSEGV"), ("loop", "was stopped after 1 s of the processor")]
)
def test_a_picture_whose_resizing_kills_the_worker_costs_no_other(bad_decoders, do, detail):
    with pytest.raises(InvalidImageError, match=detail):
        resized(bad_decoders, please(do))
    assert resized(bad_decoders, PICTURE).width == 64


@pytest.mark.parametrize(
    "answer",
    [
        Answer({"width": 320, "height": 240}, b""),
        Answer({"width": 320, "height": 240}, b"GIF89a" + bytes(100)),
        Answer({"width": 320, "height": 240}, PICTURE[:100]),
        Answer({"width": 320, "height": 241}, PICTURE),
        Answer({"width": "320", "height": 240}, PICTURE),
        Answer({}, PICTURE),
    ],
    ids=["nothing", "no JPEG", "a part of one", "another size", "a text", "no size"],
)
def test_an_answer_that_is_not_the_jpeg_it_says_is_wrong(answer):
    with pytest.raises(WrongAnswerError):
        _resized(answer, 320)


def test_a_jpeg_larger_than_was_asked_for_is_wrong():
    with pytest.raises(WrongAnswerError):
        _resized(Answer({"width": 320, "height": 240}, PICTURE), 319)


def test_a_gallery_of_images_that_break_decoders_has_the_right_rows(bad_decoders, store, server, loopback):
    bodies = {"abort": please("abort"), "loop": please("loop"), "allocate": please("allocate")}
    bodies |= {f"sound{number}": jpeg(number) for number in range(5)}
    links = [Link(server.serve(f"/{name}.jpg", body)) for name, body in bodies.items()]
    store.write_table(links_path("g"), links_table(links, datetime.now(timezone.utc)))
    download_gallery("g", store, loopback, jpegs=bad_decoders)
    rows = build_catalog("g", store, loopback, jpegs=bad_decoders).catalog.to_pylist()
    outcomes = {row["url"].rpartition("/")[2]: row["reason"] or row["status"] for row in rows}
    expected = {f"{name}.jpg": "ok" if "sound" in name else "corrupt" for name in bodies}
    assert outcomes == expected
