"""`python -m imgdl_pipeline_tests.support.peak_memory STORE URL …`: run some links and measure.

A process of its own, because a process never forgets its peak. Prints a JSON object: `peak_mb`, of this
process and its decoding processes together, and `outcomes` by url. Dagster is loaded as in a real run.
"""

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path

import imgdl_pipeline.definitions  # noqa: F401 -- what a run has in memory anyway
from imgdl_pipeline.core.catalog.build import build_catalog
from imgdl_pipeline.core.download.run import download_gallery
from imgdl_pipeline.core.model.links import Link, links_table
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.storage.layout import links_path
from imgdl_pipeline.core.storage.store import Store

SETTINGS = DownloadSettings(allow_addresses=("127.0.0.0/8",), attempts=1, timeout=10)


def tree_mb(pid: str = "self") -> float:
    """Memory of a process and of those that it has started, each shared page counted once (Linux's PSS)."""
    total = 0.0
    with suppress(OSError):  # a process that has just ended
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            total += sum(tree_mb(child) for child in children.read_text().split())
    return total


@contextmanager
def watched() -> Iterator[list[float]]:
    """Look at the memory of this process and its children every 20 ms; the list holds the peak so far."""
    peak, is_over = [0.0], threading.Event()

    def watch() -> None:
        while not is_over.wait(0.02):
            peak[0] = max(peak[0], tree_mb())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        is_over.set()
        thread.join()


def main(root: str, *urls: str) -> None:
    store = Store(root)
    links = links_table(map(Link, urls), datetime.now(timezone.utc))
    store.write_table(links_path("heavy"), links)
    with watched() as peak:
        download_gallery("heavy", store, SETTINGS)
        rows = build_catalog("heavy", store, SETTINGS).catalog.to_pylist()
    outcomes = {row["url"]: row["reason"] or row["status"] for row in rows}
    print(json.dumps({"peak_mb": round(peak[0]), "outcomes": outcomes}))


if __name__ == "__main__":
    main(*sys.argv[1:])
