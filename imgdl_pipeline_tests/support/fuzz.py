"""Fuzzes the validator, guided by the coverage of our code and of Pillow's EXIF parser.

`pip install atheris`, then `python -m imgdl_pipeline_tests.support.fuzz [SECONDS]`. It ends at the first
input that raises what it should not, or that takes a second, and writes it to the current folder. The inputs
that it starts from, in `fuzzed.zip`, are those that earlier runs have kept, and the tests go through them.
"""

import json
import sys
import tempfile
import time
import zipfile

import atheris

from imgdl_pipeline_tests.support.pictures import FUZZED

with atheris.instrument_imports(include=["imgdl_pipeline", "PIL"]):
    from imgdl_pipeline.core.jpeg.validate import InvalidImageError, Limits, exif_json, validate_jpeg
    from imgdl_pipeline.core.model.settings import DownloadSettings

LIMITS = Limits.of(DownloadSettings())


def check(data: bytes) -> None:
    """Give facts or a reason, and JSON, in less than a second."""
    started = time.process_time()
    try:
        json.loads(validate_jpeg(data, LIMITS).exif)
    except InvalidImageError:
        pass
    json.loads(exif_json(data))
    if time.process_time() - started > 1:
        raise TimeoutError("this input takes more than a second")


def main(seconds: str = "600") -> None:
    with tempfile.TemporaryDirectory() as folder:
        zipfile.ZipFile(FUZZED).extractall(folder)
        atheris.Setup([sys.argv[0], folder, f"-max_total_time={seconds}", "-max_len=6000"], check)
        atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:2])
