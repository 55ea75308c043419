"""How well waiting overlaps: 8 workers against one, and against the peers, in turn within one run.

The server answers each request after 50 ms and takes 100 ms more for each new connection. Prints the
median seconds of each contestant, and the ratios. Ours and the textbook's script time their downloading
themselves, without the start of Python; curl and aria2c are timed as whole processes.
"""

import argparse
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
RATIOS = (
    ("ours, 1 worker", "ours, 8 workers", 7.5),
    ("textbook, 8 threads", "ours, 8 workers", 2.5),
    ("curl, 8 at a time", "ours, 8 workers", None),
    ("aria2c, 8 at a time", "ours, 8 workers", None),
)


def script(name: str, workers: int) -> Callable[[Path, Path], float]:
    def run(links: Path, folder: Path) -> float:
        words = [sys.executable, str(HERE / name), str(links), str(folder), str(workers)]
        return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)

    return run


def program(words: Callable[[Path, Path], list[str]]) -> Callable[[Path, Path], float]:
    def run(links: Path, folder: Path) -> float:
        started = time.perf_counter()
        subprocess.run(words(links, folder), check=True, capture_output=True, cwd=folder)
        return time.perf_counter() - started

    return run


def curl(links: Path, folder: Path) -> list[str]:
    config = folder / "curl.conf"
    config.write_text("".join(f"url = {link}\nremote-name\n" for link in links.read_text().split()))
    return ["curl", "-sfZ", "--parallel-max", "8", "--config", str(config)]


def aria2c(links: Path, folder: Path) -> list[str]:
    return ["aria2c", "-q", "-j8", "-d", str(folder), "-i", str(links)]


def contestants() -> dict[str, Callable[[Path, Path], float]]:
    known = {
        "ours, 1 worker": script("ours.py", 1),
        "ours, 8 workers": script("ours.py", 8),
        "textbook, 8 threads": script("textbook.py", 8),
    }
    if shutil.which("curl"):
        known["curl, 8 at a time"] = program(curl)
    if shutil.which("aria2c"):
        known["aria2c, 8 at a time"] = program(aria2c)
    return known


def measure(rounds: int, links: Path) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in contestants()}
    for _ in range(rounds):
        for name, run in contestants().items():
            with tempfile.TemporaryDirectory() as folder:
                seconds[name].append(run(links, Path(folder)))
    return seconds


def report(seconds: dict[str, list[float]], count: int) -> None:
    print(f"{count} images; {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    for name, each in seconds.items():
        median = statistics.median(each)
        print(f"{name:22} median {median:7.2f} s   {count / median:7.1f} images/s")
    for slow, fast, goal in RATIOS:
        if slow in seconds:
            ratio = statistics.median(
                one / other for one, other in zip(seconds[slow], seconds[fast], strict=True)
            )
            wanted = f"   wanted: {goal} or more" if goal else ""
            print(f"{slow} / {fast}: {ratio:.2f}{wanted}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    server = subprocess.Popen([sys.executable, HERE / "slow_server.py"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout
        match = re.search(r"port (\d+)", server.stdout.readline())
        assert match
        with tempfile.TemporaryDirectory() as folder:
            links = Path(folder) / "links.txt"
            base = f"http://127.0.0.1:{match[1]}"
            links.write_text("".join(f"{base}/{number:05d}.jpg\n" for number in range(options.images)))
            report(measure(options.rounds, links), options.images)
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
