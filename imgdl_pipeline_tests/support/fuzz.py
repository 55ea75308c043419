"""Fuzzes the whole validator, guided by the coverage of our code.

`pip install atheris`, then `python -m imgdl_pipeline_tests.support.fuzz [SECONDS [CORPUS]]`. It is a
process of its own, and ends at the first input that crashes a native decoder, raises what it should not, or
takes a second; that input is written to the current folder. The inputs that it starts from, in `fuzzed.zip`,
are those that earlier runs have kept, and the tests go through them.
"""

import json
import sys
import tempfile
import time
import zipfile
from contextlib import nullcontext

import atheris

from imgdl_pipeline_tests.support.pictures import FUZZED

with atheris.instrument_imports(include=["imgdl_pipeline"]):
    from imgdl_pipeline.core.jpeg.decode import NoMemoryError
    from imgdl_pipeline.core.jpeg.facts import InvalidImageError, JpegFacts, Limits
    from imgdl_pipeline.core.jpeg.validate import validate_jpeg

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
    if time.process_time() - started > 1:
        raise TimeoutError("this input takes more than a second")


def main(seconds: str = "600", corpus: str | None = None) -> None:
    with tempfile.TemporaryDirectory() if corpus is None else nullcontext(corpus) as folder:
        zipfile.ZipFile(FUZZED).extractall(folder)
        limits = [f"-max_total_time={seconds}", "-max_len=6000", "-rss_limit_mb=2000"]
        atheris.Setup([sys.argv[0], folder, *limits], check)
        atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:3])
