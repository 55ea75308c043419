"""Datasets of stored images, bytes as they are, against copying the files with cp and tar.

    python benchmarks/export.py [IMAGES]

All three read the same files from the same disk and write to it. Medians of five turns, taken by turns.
"""

import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from imgdl_pipeline.core.dataset.export import export_dataset
from imgdl_pipeline.core.model.dataset_settings import DatasetSettings
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline_tests.support.datasets import Gallery

IMAGES, IMAGE_BYTES, TURNS = 2000, 150_000, 5
FORMATS = ("webdataset", "parquet", "imagefolder")
GOAL = 900
"""Images a second that a dataset of tar files should reach."""


def main(images: int) -> None:
    with tempfile.TemporaryDirectory(dir=".") as folder:
        root = Path(folder)
        store = Store(str(root / "store"))
        gallery = Gallery(store, picture=lambda number, _: random.Random(number).randbytes(IMAGE_BYTES))
        gallery.put(*range(images))
        contests = {
            "cp -r": lambda: _run("cp", "-r", root / "store/images", root / "copy"),
            "tar": lambda: _run("tar", "cf", root / "copy", root / "store/images"),
            **{each: lambda each=each: _export(store, each) for each in FORMATS},
        }
        seconds = {name: [] for name in contests}
        for _ in range(TURNS):
            for name, contest in contests.items():
                started = time.perf_counter()
                contest()
                seconds[name].append(time.perf_counter() - started)
                _clean(root)
        medians = {name: statistics.median(each) for name, each in seconds.items()}
        for name, median in medians.items():
            ratio = medians["cp -r"] / median
            print(f"{name:12} {images / median:7.0f} images/s   {ratio:5.2f} x cp -r")
        print(f"goal: webdataset >= {GOAL} images/s")


def _run(*command: object) -> None:
    subprocess.run(list(map(str, command)), check=True, stderr=subprocess.DEVNULL)


def _export(store: Store, format_: str) -> None:
    settings = DatasetSettings.model_validate({"format": format_, "shard_images": 1000})
    export_dataset(store, "g", settings)


def _clean(root: Path) -> None:
    shutil.rmtree(root / "store/datasets", ignore_errors=True)
    shutil.rmtree(root / "copy", ignore_errors=True)
    (root / "copy").unlink(missing_ok=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else IMAGES)
