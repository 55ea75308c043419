"""Measures this project against its peers and against what the machine allows; prints medians and ratios.

`python benchmarks/run.py [CONTEST …]` sets up what it compares with, makes the images, and lets the
contestants of each contest take turns, so that a noisy minute is everybody's. What it measured is kept in
`build/bench/results.json`, and drawn into `docs/benchmark.png`.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import corpus
import many_hosts
import peers
import servers
from peers import Run

Contestants = dict[str, Callable[[Path], Run]]
Rounds = dict[str, list[Run]]

OURS = "imgdl_pipeline"


@dataclass(frozen=True)
class Goal:
    """A ratio that is wanted: what it is of, and at least or at most how much."""

    what: str
    ratio: Callable[[Rounds], float]
    least: float | None = None
    most: float | None = None

    def __str__(self) -> str:
        wanted = f"≥ {self.least}" if self.least is not None else f"≤ {self.most}"
        return f"{self.what}, wanted {wanted}"

    def is_met(self, value: float) -> bool:
        return value >= self.least if self.least is not None else value <= (self.most or 0)


@dataclass(frozen=True)
class Contest:
    """Contestants that do the same work, in turn.

    Args:
        title: What they do.
        images: How many each has; 0 where that is not what counts.
        contestants: By name.
        goals: What is wanted of us.
    """

    title: str
    images: int
    contestants: Contestants
    goals: tuple[Goal, ...]

    def measure(self, rounds: int, scratch: Path) -> Rounds:
        """Let each contestant run so often, each time in a new folder below `scratch`.

        The folders stay: a file system looks again and again at what was just deleted, so that a contestant's
        files, deleted at once, would take their time from the next one's. Nor is what one has yet to write
        to the disk left to the next.
        """
        runs: Rounds = {name: [] for name in self.contestants}
        for number in range(rounds):
            for name, run in self.contestants.items():
                print(f"{self.title}, round {number + 1}: {name}", file=sys.stderr, flush=True)
                folder = Path(tempfile.mkdtemp(dir=scratch))
                os.sync()
                runs[name].append(run(folder))
        return runs


def seconds(rounds: Rounds, name: str) -> list[float]:
    return [run.seconds for run in rounds[name]]


def times_as_long(rounds: Rounds, one: str, other: str) -> float:
    """How many times as long one took as another: the median of the rounds' ratios, as noise is a round's."""
    return statistics.median(a / b for a, b in zip(seconds(rounds, one), seconds(rounds, other), strict=True))


def ratio(one: str, other: str, **wanted: float) -> Goal:
    return Goal(f"{one} / {other}", partial(times_as_long, one=one, other=other), **wanted)


@contextmanager
def listed(address: str, corpus_: corpus.Corpus, count: int) -> Iterator[Path]:
    """A file of links to a corpus, which is gone through as often as it takes."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "links.txt"
        paths = (f"{n // corpus_.count}/{corpus_.name}/{n % corpus_.count:05d}.jpg" for n in range(count))
        file.write_text("".join(f"{address}/{path}\n" for path in paths))
        yield file


@contextmanager
def waiting(_: Path) -> Iterator[Contest]:
    """How well waiting overlaps: 50 ms a request, 100 ms more a connection, images of 15 kB."""
    count = 2000
    with servers.far(50, 100) as address, listed(address, corpus.SMALL, count) as links:
        yield Contest(
            "waiting, 50 ms a request and 100 ms a connection",
            count,
            {
                f"{OURS}, 1 worker": partial(peers.ours, links, workers=1),
                f"{OURS}, 8 workers": partial(peers.ours, links, workers=8),
                "the textbook's script, 8 threads": partial(peers.textbook, links),
                "curl, 8 at a time": partial(peers.curl, links),
                "aria2c, 8 at a time": partial(peers.aria2c, links),
            },
            (
                ratio(f"{OURS}, 1 worker", f"{OURS}, 8 workers", least=7.6),
                ratio(f"{OURS}, 8 workers", "curl, 8 at a time", most=1.05),
                ratio(f"{OURS}, 8 workers", "aria2c, 8 at a time", most=1.05),
            ),
        )


@contextmanager
def many_workers(_: Path) -> Iterator[Contest]:
    """The same with 64 workers, on a server so far away that they do not fill the processor."""
    count = 2000
    with servers.far(200, 100) as address, listed(address, corpus.SMALL, count) as links:
        yield Contest(
            "waiting, 200 ms a request and 100 ms a connection",
            count,
            {f"{OURS}, {n} workers": partial(peers.ours, links, workers=n) for n in (8, 64)},
            (ratio(f"{OURS}, 8 workers", f"{OURS}, 64 workers", least=7),),
        )


@contextmanager
def download(root: Path) -> Iterator[Contest]:
    """The download alone, from a server that answers at once."""
    count = 2000
    with _fast(root) as address, listed(address, corpus.LARGE, count) as links:
        yield Contest(
            "download alone, images of 1 MP and 150 kB, 8 at a time",
            count,
            {
                OURS: partial(peers.ours, links),
                "a bare urllib3 loop": partial(peers.bare, links, library="urllib3"),
                "a bare requests loop": partial(peers.bare, links, library="requests"),
                "aria2c": partial(peers.aria2c, links),
                "curl": partial(peers.curl, links),
            },
            (
                ratio("aria2c", OURS, least=1.0),
                ratio("a bare urllib3 loop", OURS, least=0.9),
                ratio("a bare requests loop", OURS, least=1.0),
            ),
        )


@contextmanager
def validation(root: Path) -> Iterator[Contest]:
    """The check alone: strictly decoded, hashed perceptually, with dimensions and EXIF."""
    images = root / corpus.LARGE.name
    yield Contest(
        "validation alone, images of 1 MP and 150 kB",
        corpus.LARGE.count,
        {
            OURS: partial(peers.our_validation, images),
            "jpeginfo -c, one core": partial(peers.jpeginfo, images),
        },
        (ratio("jpeginfo -c, one core", OURS, least=1.8),),
    )


@contextmanager
def resize(root: Path) -> Iterator[Contest]:
    """Resizing stored images for a dataset, in each of the ways that both have."""
    images = root / corpus.LARGE.name
    contestants: Contestants = {}
    for how in ("fit", "pad", "fill"):
        contestants[f"{OURS}, {how}"] = partial(peers.our_resizing, images, how=how)
        contestants[f"img2dataset, {how}"] = partial(peers.img2dataset_resizing, images, how=how)
    yield Contest(
        f"resizing to {peers.RESIZED_SIDE} pixels, images of 1 MP and 150 kB",
        corpus.LARGE.count,
        contestants,
        tuple(ratio(f"img2dataset, {how}", f"{OURS}, {how}", least=2.0) for how in ("fit", "pad", "fill")),
    )


def marginal(rounds: Rounds, name: str) -> float:
    """Seconds an image, so that what a start costs cancels out."""
    few, many = (statistics.median(seconds(rounds, f"{name}, {count} links")) for count in JOBS)
    return (many - few) / (JOBS[1] - JOBS[0])


JOBS = (1000, 4000)


def cheaper(one: str, other: str, **wanted: float) -> Goal:
    return Goal(
        f"{one} / {other}, an image",
        lambda rounds: marginal(rounds, one) / marginal(rounds, other),
        **wanted,
    )


@contextmanager
def job(root: Path) -> Iterator[Contest]:
    """Whole jobs, from the command line to the catalog."""
    with (
        _fast(root) as address,
        listed(address, corpus.LARGE, JOBS[0]) as few,
        listed(address, corpus.LARGE, JOBS[1]) as many,
    ):
        known: dict[str, Callable[[Path, Path], Run]] = {
            OURS: peers.our_job,
            "img2dataset, nothing decoded": peers.img2dataset,
            "Scrapy's images pipeline": peers.scrapy,
            "the limit: curl, then jpeginfo -c": peers.limit,
        }
        yield Contest(
            "the whole job, images of 1 MP and 150 kB",
            0,
            {
                f"{name}, {count} links": partial(run, links)
                for count, links in zip(JOBS, (few, many), strict=True)
                for name, run in known.items()
            },
            (
                cheaper("img2dataset, nothing decoded", OURS, least=1.2),
                cheaper("the limit: curl, then jpeginfo -c", OURS, least=0.7),
                Goal(
                    f"{OURS}, peak of memory in MB",
                    lambda rounds: max(
                        run.peak_mb for name in rounds if OURS in name for run in rounds[name]
                    ),
                    most=250,
                ),
            ),
        )


@contextmanager
def start(root: Path) -> Iterator[Contest]:
    """What a run costs that has nothing to do."""
    with _fast(root) as address, listed(address, corpus.SMALL, 1) as links:
        yield Contest(
            "start-up: one link, and Dagster's empty job of three assets",
            0,
            {OURS: partial(peers.our_job, links), "an empty job": peers.empty_job},
            (ratio(OURS, "an empty job", most=1.2),),
        )


@contextmanager
def table(root: Path) -> Iterator[Contest]:
    """What the download alone costs, by number of workers, size and distance."""
    with _fast(root) as near, servers.far(50, 100) as away:
        places = {"at once": near, "after 50 ms": away}
        contestants: Contestants = {}
        for size in (corpus.SMALL, corpus.LARGE):
            for place, address in places.items():
                if address is away and size is corpus.LARGE:
                    continue  # the far server has small pictures only
                for workers in (1, 8, 32, 128):
                    name = f"{size.name} images, answered {place}, {workers} workers"
                    contestants[name] = partial(
                        _ours_of, address, size, 500 if workers == 1 else 2000, workers
                    )
        yield Contest("by workers, size and distance", -1, contestants, ())


def _ours_of(address: str, size: corpus.Corpus, count: int, workers: int, folder: Path) -> Run:
    with listed(address, size, count) as links:
        run = peers.ours(links, folder, workers)
    return Run(run.seconds / count, run.peak_mb)


OURS_WITHOUT_ROBOTS = f"{OURS}, without robots.txt"


@contextmanager
def _many_hosts(root: Path, scheme: str, per_host: int, workers: int) -> Iterator[Contest]:
    """A list with so many links to each host, over http or https, with so many requests at a time."""
    with many_hosts.place(scheme, per_host) as where:
        contestants: dict[str, Callable[..., Run]] = {
            OURS: partial(many_hosts.ours, robots_txt=True),
            OURS_WITHOUT_ROBOTS: partial(many_hosts.ours, robots_txt=False),
            f"{OURS_WITHOUT_ROBOTS}, with processes: 2": partial(
                many_hosts.ours, robots_txt=False, processes=2
            ),
            "a bare urllib3 loop": many_hosts.bare,
            "img2dataset": many_hosts.img2dataset,
            "curl": many_hosts.curl,
        }
        goals = (
            ratio("img2dataset", OURS_WITHOUT_ROBOTS, least=1.0),
            ratio("img2dataset", OURS, least=0.8),
            ratio("curl", OURS_WITHOUT_ROBOTS, least=0.85),
        )
        hosts = many_hosts.COUNT // per_host
        yield Contest(
            f"{many_hosts.COUNT} links at {hosts} hosts, {scheme}, 50 ms a request, {workers} at a time",
            many_hosts.COUNT,
            {name: partial(run, where, workers=workers) for name, run in contestants.items()},
            () if workers < 128 else goals[:2] if scheme == "http" else goals[2:],  # fewer only wait
        )


MANY_HOSTS = {
    f"{scheme}_{per_host}_{workers}": partial(_many_hosts, scheme=scheme, per_host=per_host, workers=workers)
    for scheme in ("http", "https")
    for per_host in (1, 4, 100)
    for workers in (32, 128)
}
"""By scheme, links per host, and requests at a time."""


@contextmanager
def _fast(root: Path) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder, servers.fast(root, Path(folder)) as address:
        yield address


CONTESTS = {
    **{
        each.__name__: each
        for each in (waiting, many_workers, download, validation, resize, job, start, table)
    },
    **MANY_HOSTS,
}


def report(contest: Contest, rounds: Rounds) -> str:
    lines = [f"{contest.title}{f' ({contest.images} images)' if contest.images > 0 else ''}"]
    width = max(map(len, rounds))
    for name, runs in rounds.items():
        median = statistics.median(run.seconds for run in runs)
        peak = max(run.peak_mb for run in runs)
        if contest.images < 0:
            lines.append(f"  {name:{width}} {1 / median:7.0f} images/s {peak:5.0f} MB")
            continue
        speed = f" {contest.images / median:7.0f} images/s" if contest.images else ""
        cpu = statistics.median(run.cpu_seconds for run in runs)
        spent = f" {cpu / contest.images * 1000:5.2f} ms of the processor each" if contest.images else ""
        lines.append(f"  {name:{width}} {median:7.2f} s{speed} {peak:5.0f} MB{spent}")
    for goal in contest.goals:
        value = goal.ratio(rounds)
        lines.append(f"  {goal}: {value:.2f}{'' if goal.is_met(value) else '  MISSED'}")
    return "\n".join(lines)


def machine() -> str:
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("contests", nargs="*", choices=[*CONTESTS, []], help="default: all")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    peers.check_programs()
    for name in peers.PACKAGES:
        peers.python(name)
    for each in (corpus.LARGE, corpus.SMALL):
        corpus.make(each, peers.BUILD / "corpus")
    results = peers.BUILD / "results.json"
    known = json.loads(results.read_text()) if results.exists() else {}
    print(machine())
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.contests or CONTESTS:
            with CONTESTS[name](peers.BUILD / "corpus") as contest:
                rounds = contest.measure(options.rounds, Path(scratch))
            print(report(contest, rounds), flush=True)
            known[name] = {
                "title": contest.title,
                "images": contest.images,
                "seconds": {each: statistics.median(seconds(rounds, each)) for each in rounds},
                "cpu_seconds": {
                    each: statistics.median(run.cpu_seconds for run in rounds[each]) for each in rounds
                },
            }
            results.write_text(json.dumps(known, indent=1))
    plot = [
        peers.python("plot"),
        peers.HERE / "plot.py",
        results,
        peers.HERE.parent / "docs" / "benchmark.png",
    ]
    subprocess.run(plot, check=True)


if __name__ == "__main__":
    main()
