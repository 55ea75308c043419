"""How much faster several Celery workers are than one: four galleries, each answer of which takes 100 ms.

`nox -s several_machines` makes the Python for it, `.nox/several_machines/bin/python`. The arguments are
numbers of workers. They stand for machines, but share this one's cores with PostgreSQL, Redis and Dagster's
daemon. The time is from the first run's way into Celery's queue to the end of the last.
"""

import argparse
import os
import resource
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import servers

sys.path.insert(0, str(Path(__file__).parent.parent))
from imgdl_pipeline_tests.support.several_machines import (
    deployment,
    galleries_yaml,
    statuses,
    wait_until,
)

GALLERIES = 4
THREADS = 2
ANSWER_MS = 100


def processor_seconds() -> float:
    """Of all programs that were started here and have ended, with their children."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(workers: int, links: int) -> tuple[float, float, float]:
    """Run all galleries with so many workers: seconds, a run's median, and processor time of all workers."""
    with tempfile.TemporaryDirectory() as name, servers.far(ANSWER_MS, 0) as address:
        folder = Path(name)
        urls = {f"g{g}": [f"{address}/g{g}/{n}.jpg" for n in range(links)] for g in range(GALLERIES)}
        galleries = galleries_yaml(str(folder / "store"), urls, folder, workers=THREADS)
        with deployment(folder, galleries, {}) as (machines, instance):
            with ExitStack() as stack:
                names = [f"w{number}" for number in range(workers)]
                for each in names:
                    stack.enter_context(machines.worker(each))
                wait_until(lambda: all("ready." in machines.said(each) for each in names), "all are ready")
                before = processor_seconds()
                machines.backfill(*urls)
                launched = processor_seconds() - before
                done = {(each, "SUCCESS") for each in urls}
                wait_until(lambda: set(statuses(instance)) == done, "all runs", seconds=3600)
            spent = processor_seconds() - before - launched
            records = instance.get_run_records()
            ended = max(each.end_time or 0 for each in records)
            stats = [instance.get_run_stats(each.dagster_run.run_id) for each in records]
            handed = min(each.launch_time or 0 for each in stats)
            lengths = [(each.end_time or 0) - (each.start_time or 0) for each in records]
    return ended - handed, statistics.median(lengths), spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workers", nargs="*", type=int, default=[1, 2, 4])
    parser.add_argument("--links", type=int, default=1200, help="of each gallery")
    options = parser.parse_args()
    waits = options.links * ANSWER_MS / 1000 / THREADS
    print(
        f"{GALLERIES} galleries of {options.links} links, {THREADS} threads each: a run waits {waits:.0f} s"
    )
    one = 0.0
    for workers in options.workers:
        seconds, run, spent = measure(workers, options.links)
        one = one or seconds
        print(
            f"{workers} workers {seconds:7.1f} s, {one / seconds:4.2f} times as fast; a run {run:5.1f} s, "
            f"{spent / GALLERIES:4.1f} s of the processor; load {os.getloadavg()[0]:.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
