"""This project's download alone: from the link list to the files and the ledger. Prints the seconds."""

import sys
from datetime import datetime, timezone
from pathlib import Path

from imgdl_pipeline.core.download.run import download_gallery
from imgdl_pipeline.core.model.links import Link, links_table
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.storage.layout import links_path
from imgdl_pipeline.core.storage.store import Store


def main(list_file: str, folder: str, workers: str) -> None:
    links = [Link(url) for url in Path(list_file).read_text().split()]
    store = Store(folder)
    store.write_table(links_path("bench"), links_table(links, datetime.now(timezone.utc)))
    settings = DownloadSettings(
        workers=int(workers), per_host=int(workers), allow_addresses=("127.0.0.1/32",)
    )
    run = download_gallery("bench", store, settings, checks_early=False)
    if run.tried["status"].to_pylist() != ["ok"] * len(links):
        sys.exit("not every link was downloaded")
    print(run.seconds)


if __name__ == "__main__":
    main(*sys.argv[1:])
