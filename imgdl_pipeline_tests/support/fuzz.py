"""Fuzzes the whole validator, guided by the coverage of our code.

`pip install atheris`, then `python -m imgdl_pipeline_tests.support.fuzz [SECONDS [CORPUS]]`. It runs in
processes of its own, and ends at the first input that crashes a native decoder, raises what it should not, or
takes a second; that input is written to the current folder. The inputs that it starts from, in `fuzzed.zip`,
are those that earlier runs have kept, and the tests go through them.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from contextlib import nullcontext

import atheris

from imgdl_pipeline_tests.support.pictures import FUZZED

with atheris.instrument_imports(include=["imgdl_pipeline"]):
    from imgdl_pipeline.core.jpeg.decode import NoMemoryError
    from imgdl_pipeline.core.jpeg.facts import InvalidImageError, JpegFacts, Limits
    from imgdl_pipeline.core.jpeg.validate import validate_jpeg

MAX_THREADS = 500
SPENT = 42
"""The exit status of a process that has too many threads to go on."""

LIMITS = Limits(max_pixels=4_000_000, max_decode_bytes=30_000_000)


def check(data: bytes) -> None:
    """Give facts that are facts, or a reason, in less than a second."""
    started = time.process_time()
    try:
        facts = validate_jpeg(data, LIMITS).row()
        assert isinstance(json.loads(str(facts["exif"])), dict)
        assert isinstance(json.loads(str(facts["embedded"])), dict)
        JpegFacts.from_json({**facts, "taken_at": facts["taken_at"] and str(facts["taken_at"])})
    except (InvalidImageError, NoMemoryError):
        pass
    if threading.active_count() > MAX_THREADS:
        os._exit(SPENT)
    if time.process_time() - started > 1:
        raise TimeoutError("this input takes more than a second")


def fuzz(seconds: str, corpus: str) -> None:
    """Fuzz in this process, until fatal errors of libjpeg's own interface have left it too many threads."""
    limits = [f"-max_total_time={seconds}", "-max_len=6000", "-rss_limit_mb=4000"]
    atheris.Setup([sys.argv[0], corpus, *limits], check)
    atheris.Fuzz()


def main(seconds: str = "600", corpus: str | None = None) -> None:
    """Fuzz in child processes, one after another, for so many seconds or until an input is found."""
    ends_at = time.monotonic() + float(seconds)
    with tempfile.TemporaryDirectory() if corpus is None else nullcontext(corpus) as folder:
        zipfile.ZipFile(FUZZED).extractall(folder)
        while (left := ends_at - time.monotonic()) > 1:
            module = "imgdl_pipeline_tests.support.fuzz"
            child = subprocess.run(
                [sys.executable, "-m", module, "child", f"{left:.0f}", folder], check=False
            )
            if child.returncode not in (0, SPENT):
                sys.exit(child.returncode)


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        fuzz(*sys.argv[2:4])
    else:
        main(*sys.argv[1:3])
