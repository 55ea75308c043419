"""img2dataset's resizing of all images of a folder, on all cores; prints the seconds, without its start.

Its own class, with its own defaults, in as many processes as there are cores.
"""

import io
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from img2dataset.resizer import Resizer

MODES = {"fit": "keep_ratio_largest", "pad": "border", "fill": "center_crop"}
"""Its names of what ours are."""


def start(how: str, side: int) -> None:
    global resizer
    resizer = Resizer(side, MODES[how], resize_only_if_bigger=False)


def resize(file: Path) -> int:
    data, *_, error = resizer(io.BytesIO(file.read_bytes()))
    if error:
        raise SystemExit(f"{file}: {error}")
    return len(data)


def main(folder: str, how: str, side: str) -> None:
    files = sorted(Path(folder).glob("*.jpg"))
    with ProcessPoolExecutor(os.cpu_count(), initializer=start, initargs=(how, int(side))) as processes:
        list(processes.map(resize, files[:1] * 20))
        started = time.perf_counter()
        list(processes.map(resize, files, chunksize=20))
        print(time.perf_counter() - started)


if __name__ == "__main__":
    main(*sys.argv[1:])
