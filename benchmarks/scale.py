"""What a link costs in a gallery of very many: an unchanged run over 10,000, 100,000 and 1,000,000 links.

`python benchmarks/scale.py [LINKS …]` makes a link list, its images (hard links to one file), its ledger
and its catalog, and runs the three steps on it, in a process of their own. Nothing is downloaded.

`python benchmarks/scale.py --download [LINKS …]` downloads 1,000, 10,000 and 100,000 tiny images: memory is
not to grow with the list.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from imgdl_pipeline.config.galleries import Gallery
from imgdl_pipeline.core.catalog.build import build_catalog
from imgdl_pipeline.core.download.run import download_gallery
from imgdl_pipeline.core.listing.build import list_gallery
from imgdl_pipeline.core.model.links import Link, links_table
from imgdl_pipeline.core.model.schemas import CATALOG, DOWNLOADS
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.sources.url_list import UrlListSource
from imgdl_pipeline.core.storage.layout import catalog_path, downloads_path, image_path, links_path
from imgdl_pipeline.core.storage.store import Store

SIZES = (10_000, 100_000, 1_000_000)
YESTERDAY = datetime.now(timezone.utc) - timedelta(days=1)


def make(folder: Path, count: int) -> None:
    """A gallery as yesterday's run left it."""
    urls = [f"https://pictures.example/photos/{number:08d}/picture.jpg" for number in range(count)]
    pq.write_table(
        pa.table({"url": urls, "title": [f"Picture {n}" for n in range(count)]}), folder / "l.parquet"
    )
    store = Store(str(folder / "store"))
    paths = [image_path("g", url) for url in urls]
    picture = folder / "picture.jpg"
    picture.write_bytes(b"\xff\xd8\xff" + bytes(2000))
    for number, path in enumerate(paths):
        if number % 60_000 == 0:  # a file has 65,000 names at most
            picture = folder / f"picture{number}.jpg"
            picture.write_bytes(b"\xff\xd8\xff" + bytes(2000))
        target = folder / "store" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(picture, target)
    digests = np.random.default_rng(1).integers(0, 2**63, (count, 4))
    known = {
        "url": pa.array(urls),
        "status": pa.repeat("ok", count),
        "path": pa.array(paths),
        "sha256": pa.array(["".join(f"{part:016x}" for part in row) for row in digests]),
        "bytes": pa.repeat(2003, count),
        "width": pa.repeat(640, count),
        "height": pa.repeat(480, count),
        "mode": pa.repeat("RGB", count),
        "orientation": pa.repeat(1, count),
        "embedded": pa.repeat("{}", count),
        "phash": pa.array([f"{row[0]:016x}" for row in digests]),
        "exif": pa.repeat("{}", count),
        "attributes": pa.array([json.dumps({"title": f"Picture {n}"}) for n in range(count)]),
        **{
            name: pa.repeat(pa.scalar(YESTERDAY), count)
            for name in ("fetched_at", "first_seen", "last_seen", "tried_at")
        },
    }
    for path, schema in ((downloads_path("g"), DOWNLOADS), (catalog_path("g"), CATALOG)):
        columns = {name: known.get(name, pa.nulls(count)) for name in schema.names}
        store.write_table(path, pa.table(columns).cast(schema))


def unchanged(folder: Path) -> None:
    """Today's run; prints seconds by step, and the peak of memory in MB."""
    store, settings = Store(str(folder / "store")), DownloadSettings()
    gallery = Gallery(name="g", source=UrlListSource(type="url_list", path=str(folder / "l.parquet")))
    seconds, started = {}, time.perf_counter()

    def lap(step: str) -> None:
        seconds[step] = time.perf_counter() - started - sum(seconds.values())

    list_gallery(gallery.name, gallery.source, store, settings)
    lap("links")
    assert not download_gallery("g", store, settings).tried.num_rows
    lap("images")
    assert not build_catalog("g", store, settings).checked
    lap("catalog")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**seconds, "peak_mb": peak}))


def download(folder: Path, count: int, port: int) -> None:
    """A first run over so many links; prints its seconds, and the peak of memory in MB."""
    store = Store(str(folder))
    links = (Link(f"http://127.0.0.1:{port}/{number}.jpg") for number in range(count))
    store.write_table(links_path("g"), links_table(links, datetime.now(timezone.utc)))
    run = download_gallery("g", store, DownloadSettings(allow_addresses=("127.0.0.1/32",)))
    assert run.fetched.num_rows == count
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": run.seconds, "peak_mb": peak}))


def download_all(sizes: list[int]) -> None:
    slow_server = [sys.executable, str(Path(__file__).with_name("slow_server.py"))]
    options = ["--side", "16", "--request-ms", "0", "--connection-ms", "0"]
    with subprocess.Popen([*slow_server, *options], stdout=subprocess.PIPE, text=True) as server:
        port = server.stdout.readline().split()[-1]
        for count in sizes:
            with tempfile.TemporaryDirectory() as name:
                command = [sys.executable, __file__, "--download-run", name, str(count), port]
                told = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
            speed = f"{told['seconds']:7.1f} s  {count / told['seconds']:5.0f} a second"
            print(f"{count:9,} tiny images  {speed}  {told['peak_mb']:5.0f} MB")
        server.terminate()


def main(sizes: list[int]) -> None:
    for count in sizes:
        with tempfile.TemporaryDirectory() as name:
            make(Path(name), count)
            run = subprocess.run([sys.executable, __file__, "--run", name], capture_output=True, check=True)
        told = json.loads(run.stdout)
        steps = ["links", "images", "catalog"]
        total = sum(told[step] for step in steps)
        laps = "".join(f"  {step} {told[step]:6.2f} s" for step in steps)
        each = f"{total / count * 1e6:5.1f} µs a link"
        print(f"{count:9,} links{laps}   all {total:6.2f} s = {each}, {told['peak_mb']:5.0f} MB")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        unchanged(Path(sys.argv[2]))
    elif sys.argv[1:2] == ["--download-run"]:
        download(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    elif sys.argv[1:2] == ["--download"]:
        download_all([int(each) for each in sys.argv[2:]] or [1_000, 10_000, 100_000])
    else:
        main([int(each) for each in sys.argv[1:]] or list(SIZES))
