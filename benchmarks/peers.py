"""What the benchmarks run: this project, its peers, and the limits that no downloader can pass.

Each contestant is a command. The peers from PyPI have a virtual environment of their own below
`build/bench`, made when it is first asked for; so has this project, as a user would install it: the tests'
environment holds packages that make Python start more slowly. curl, aria2c, jpeginfo and nginx are the
distribution's.
"""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
BUILD = HERE.parent / "build" / "bench"
PACKAGES = {
    "ours": ["-e", str(HERE.parent)],
    "img2dataset": ["img2dataset"],
    "scrapy": ["scrapy", "pillow"],
    "plot": ["matplotlib"],
}
PROGRAMS = {"nginx": "nginx", "curl": "curl", "aria2c": "aria2", "jpeginfo": "jpeginfo"}
"""By program, the name of Debian's package."""

RESIZED_SIDE = 256
"""Pixels; img2dataset's default."""

MEGABYTE = 1024
"""In the unit of `ru_maxrss`, which is 1024 bytes on Linux."""


@dataclass(frozen=True)
class Run:
    """Args: wall and processor time in seconds, and the largest memory of one of its processes in MB."""

    seconds: float
    peak_mb: float
    cpu_seconds: float = 0.0


def timed(words: list[object], folder: Path, *, says_seconds: bool = False, **environ: str) -> Run:
    """Run a command in a folder; exits with what it said if it fails.

    Args:
        words: The command.
        folder: Where.
        says_seconds: It prints how long its work took, without its own start: that counts. Before that, it
            may print the processor's seconds.
        environ: Added to the environment.
    """
    command = [str(word) for word in words]
    said = folder / "said.log"
    with said.open("wb") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **environ}, stdout=output, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)[:200]} failed:\n{said.read_text(errors='replace')[-2000:]}")
    cpu_seconds = usage.ru_utime + usage.ru_stime
    if says_seconds:
        *_, cpu_seconds, seconds = [cpu_seconds, *map(float, said.read_text().splitlines()[-1].split())]
    return Run(seconds, usage.ru_maxrss / MEGABYTE, cpu_seconds)


def check_programs() -> None:
    missing = [package for program, package in PROGRAMS.items() if not shutil.which(program)]
    if missing:
        sys.exit(f"install what is compared with: apt-get install {' '.join(missing)}")


def python(name: str) -> Path:
    """The interpreter of a contestant's environment, which is made where it is missing."""
    folder = BUILD / name
    if not (folder / "ready").exists():
        print(f"setting up {name}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *PACKAGES[name]], check=True)
        (folder / "ready").touch()
    return folder / "bin" / "python"


def count_images(folder: Path, links: Path) -> None:
    """Make sure that a contestant has stored as many images as there are links: a failure is fast, too."""
    wanted = len(links.read_text().split())
    found = sum(1 for _ in folder.rglob("*.jpg"))
    if found != wanted:
        sys.exit(f"{folder.name}: {found} images of {wanted} links")


# Downloads alone.


def ours(links: Path, folder: Path, workers: int = 8) -> Run:
    return timed(
        [python("ours"), HERE / "ours.py", links, folder / "store", workers], folder, says_seconds=True
    )


def textbook(links: Path, folder: Path, workers: int = 8) -> Run:
    return timed([python("ours"), HERE / "textbook.py", links, folder, workers], folder, says_seconds=True)


def bare(links: Path, folder: Path, library: str) -> Run:
    return timed([python("ours"), HERE / "bare.py", links, folder, 8, library], folder, says_seconds=True)


def curl(links: Path, folder: Path, workers: int = 8) -> Run:
    return timed(curl_words(links, folder, workers), folder)


def curl_words(links: Path, folder: Path, workers: int) -> list[object]:
    config = folder / "curl.conf"
    named = enumerate(links.read_text().split())
    config.write_text("".join(f"url = {link}\noutput = {number:06d}.jpg\n" for number, link in named))
    return ["curl", "-sfZ", "--parallel-max", workers, "--config", config]


def aria2c(links: Path, folder: Path, workers: int = 8) -> Run:
    named = enumerate(links.read_text().split())
    tasks = folder / "aria2c.txt"
    tasks.write_text("".join(f"{link}\n  out={number:06d}.jpg\n" for number, link in named))
    return timed(["aria2c", "-q", f"-j{workers}", "-d", folder, "-i", tasks], folder)


# Validation alone.


def our_validation(images: Path, folder: Path) -> Run:
    return timed([python("ours"), HERE / "validation.py", images], folder, says_seconds=True)


def jpeginfo(images: Path, folder: Path, cores: int = 1) -> Run:
    """Libjpeg's own verdict on every image of a folder."""
    find = f"find -L {images} -name '*.jpg' -print0"
    return timed(["sh", "-c", f"{find} | xargs -0 -P {cores} -n 100 jpeginfo -c > verdicts.txt"], folder)


# Resizing alone.


def our_resizing(images: Path, folder: Path, how: str) -> Run:
    words = [python("ours"), HERE / "resize.py", images, how, RESIZED_SIDE]
    return timed(words, folder, says_seconds=True)


def img2dataset_resizing(images: Path, folder: Path, how: str) -> Run:
    script = HERE / "resize_img2dataset.py"
    words = [python("img2dataset"), "-W", "ignore", script, images, how, RESIZED_SIDE]
    return timed(words, folder, says_seconds=True)


# Whole jobs.

GALLERIES = """\
type: imgdl_pipeline.ImageGalleries
attributes:
  store: {folder}/store
  download: {{allow_addresses: [127.0.0.1/32]}}
  galleries:
    - name: bench
      source: {{type: url_list, path: {links}}}
"""


def dagster(folder: Path, *words: object, **environ: str) -> Run:
    """Dagster's command for all assets of a module, in an instance of its own, as a user runs it."""
    home = folder / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    command = [python("ours"), "-m", "dagster", "asset", "materialize", "--select", "*", *words]
    return timed(command, folder, DAGSTER_HOME=str(home), **environ)


def our_job(links: Path, folder: Path) -> Run:
    config = folder / "galleries.yaml"
    config.write_text(GALLERIES.format(folder=folder, links=links))
    words = ["-m", "imgdl_pipeline.definitions", "--partition", "bench"]
    return dagster(folder, *words, IMGDL_CONFIG=str(config))


def empty_job(folder: Path) -> Run:
    return dagster(folder, "-f", HERE / "empty_job.py")


def img2dataset(links: Path, folder: Path) -> Run:
    run = timed(img2dataset_words(links, folder, threads=16, shard=250), folder)
    count_images(folder / "out", links)
    return run


def img2dataset_words(links: Path, folder: Path, threads: int, shard: int) -> list[object]:
    """Without re-encoding, so that it decodes nothing; shards small enough for all of its processes."""
    options = {
        "url_list": links,
        "output_folder": folder / "out",
        "output_format": "files",
        "processes_count": os.cpu_count(),
        "thread_count": threads,
        "number_sample_per_shard": shard,
        "resize_mode": "no",
        "disable_all_reencoding": True,
    }
    words = [f"--{name}={value}" for name, value in options.items()]
    return [python("img2dataset").with_name("img2dataset"), *words]


def scrapy(links: Path, folder: Path) -> Run:
    run = timed([python("scrapy"), HERE / "scrapy_images.py", links, folder / "out"], folder)
    count_images(folder / "out", links)
    return run


def limit(links: Path, folder: Path) -> Run:
    """What the same bytes cost at least: curl, then libjpeg on every core."""
    images = folder / "images"
    images.mkdir()
    downloaded = curl(links, images)
    checked = jpeginfo(images, folder, cores=os.cpu_count() or 1)
    return Run(downloaded.seconds + checked.seconds, max(downloaded.peak_mb, checked.peak_mb))
