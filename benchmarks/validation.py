"""This project's validation alone, of all images of a folder, on all cores. Prints the seconds."""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from imgdl_pipeline.core.settings import DownloadSettings
from imgdl_pipeline.core.validation import Limits, validate_jpeg


def main(folder: str) -> None:
    limits = Limits.of(DownloadSettings())
    started = time.perf_counter()
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        files = Path(folder).glob("*.jpg")
        for _ in threads.map(lambda file: validate_jpeg(file.read_bytes(), limits), files):
            pass
    print(time.perf_counter() - started)


if __name__ == "__main__":
    main(*sys.argv[1:])
