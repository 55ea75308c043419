"""This project's resizing of all images of a folder, on all cores. Prints the seconds, without its start."""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import IO

from imgdl_pipeline.core.jpeg.facts import Limits
from imgdl_pipeline.core.jpeg.workers import JpegWorkers
from imgdl_pipeline.core.model.dataset_settings import ResizeSettings
from imgdl_pipeline.core.model.settings import DownloadSettings

QUALITY = 95
"""img2dataset's default."""


def main(folder: str, how: str, side: str) -> None:
    limits = Limits.of(DownloadSettings())
    settings = ResizeSettings(side=int(side), how=how, quality=QUALITY)
    files = sorted(Path(folder).glob("*.jpg"))

    def resize(batch: list[Path]) -> None:
        for file in batch:
            opened: partial[AbstractContextManager[IO[bytes]]] = partial(file.open, "rb")
            jpegs.resize(opened, 0, limits, settings)

    with JpegWorkers() as jpegs, ThreadPoolExecutor(jpegs.count) as threads:
        list(threads.map(resize, [files[:1]] * 2 * jpegs.count))
        batches = [files[start : start + 20] for start in range(0, len(files), 20)]
        started = time.perf_counter()
        list(threads.map(resize, batches))
        print(time.perf_counter() - started)


if __name__ == "__main__":
    main(*sys.argv[1:])
