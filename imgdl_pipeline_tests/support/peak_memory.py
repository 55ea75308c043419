"""`python -m imgdl_pipeline_tests.support.peak_memory STORE URL …`: run some links and measure.

A process of its own, because a process never forgets its peak. Prints a JSON object: `peak_mb`, and
`outcomes` by url. Dagster is loaded as in a real run.
"""

import json
import sys
from datetime import datetime, timezone
from pathlib import Path

import imgdl_pipeline.definitions  # noqa: F401 -- what a run has in memory anyway
from imgdl_pipeline.core.catalog.build import build_catalog
from imgdl_pipeline.core.download.run import download_gallery
from imgdl_pipeline.core.model.links import Link, links_table
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.storage.store import Store, links_path

SETTINGS = DownloadSettings(allow_addresses=("127.0.0.0/8",), attempts=1, timeout=10)


def peak_mb() -> float:
    """The most memory that this process had at a time; `ru_maxrss` would count its parent's, too."""
    status = Path("/proc/self/status").read_text()
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return int(kilobytes) / 1024


def main(root: str, *urls: str) -> None:
    store = Store(root)
    links = links_table(map(Link, urls), datetime.now(timezone.utc))
    store.write_table(links_path("heavy"), links)
    download_gallery("heavy", store, SETTINGS)
    rows = build_catalog("heavy", store, SETTINGS).catalog.to_pylist()
    outcomes = {row["url"]: row["reason"] or row["status"] for row in rows}
    print(json.dumps({"peak_mb": round(peak_mb()), "outcomes": outcomes}))


if __name__ == "__main__":
    main(*sys.argv[1:])
