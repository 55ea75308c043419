"""This project's download alone: from the link list to the files and the ledger.

Prints the processor's seconds, and the seconds that it took.
"""

import resource
import sys
from datetime import datetime, timezone
from pathlib import Path

from imgdl_pipeline.core.download.run import download_gallery
from imgdl_pipeline.core.model.links import Link, links_table
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.storage.layout import links_path
from imgdl_pipeline.core.storage.store import Store


def main(
    list_file: str,
    folder: str,
    workers: str,
    per_host: str = "",
    robots_txt: str = "yes",
    processes: str = "1",
) -> None:
    links = [Link(url) for url in Path(list_file).read_text().split()]
    store = Store(folder)
    store.write_table(links_path("bench"), links_table(links, datetime.now(timezone.utc)))
    settings = DownloadSettings(
        workers=int(workers),
        per_host=int(per_host or workers),
        processes=int(processes),
        robots_txt=robots_txt == "yes",
        allow_addresses=("127.0.0.0/8",),
    )
    before = _processor_seconds()
    run = download_gallery("bench", store, settings, checks_early=False)
    if run.tried["status"].to_pylist() != ["ok"] * len(links):
        sys.exit("not every link was downloaded")
    print(_processor_seconds() - before, run.seconds)


def _processor_seconds() -> float:
    """Return those of this process, and of the processes that it has started and that have ended."""
    both = [resource.getrusage(each) for each in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in both)


if __name__ == "__main__":
    main(*sys.argv[1:])
