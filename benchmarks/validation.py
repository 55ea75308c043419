"""This project's validation alone, of all images of a folder, on all cores. Prints the seconds."""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from imgdl_pipeline.core.catalog.build import BATCH_FILES
from imgdl_pipeline.core.jpeg.facts import Limits
from imgdl_pipeline.core.jpeg.workers import JpegWorkers
from imgdl_pipeline.core.model.settings import DownloadSettings


def main(folder: str) -> None:
    limits = Limits.of(DownloadSettings())
    started = time.perf_counter()
    files = list(Path(folder).glob("*.jpg"))
    batches = [files[start : start + BATCH_FILES] for start in range(0, len(files), BATCH_FILES)]

    def check(batch: list[Path]) -> None:
        for file in batch:
            with file.open("rb") as image:
                jpegs.validate(image, limits)

    with JpegWorkers() as jpegs, ThreadPoolExecutor(jpegs.count) as threads:
        list(threads.map(check, batches))
    print(time.perf_counter() - started)


if __name__ == "__main__":
    main(*sys.argv[1:])
