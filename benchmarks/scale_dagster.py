"""What each step of a whole Dagster run takes of a gallery of very many links: processor time and memory.

`python benchmarks/scale_dagster.py [LINKS …]` makes a gallery as yesterday's run left it, with its dataset,
and runs its job again in a process of its own, where nothing has changed. Options:

- `--shard`: the one shard of a `ShardedGallery`, with 1.3 kB of captions and EXIF per link;
- `--new`: the images are stored, but no catalog knows them, and there is no dataset: the first run after the
  download;
- `--listed`: only list so many links, and divide them into shards of 500,000;
- `--format FORMAT`: the dataset's format; `none` for a gallery without one.

The memory of the processes that decode is not in the figures: they have the same size in every gallery.
"""

import argparse
import hashlib
import io
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from imgdl_pipeline.core.catalog.build import build_catalog
from imgdl_pipeline.core.listing.shards import list_shards
from imgdl_pipeline.core.model.schemas import CATALOG, DOWNLOADS, LINKS
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.sources.url_list import UrlListSource
from imgdl_pipeline.core.storage.layout import catalog_path, downloads_path, image_path, links_path
from imgdl_pipeline.core.storage.store import Store, write_batches

YESTERDAY = datetime.now(timezone.utc) - timedelta(days=1)
CHUNK = 10_000
SHARD_LINKS = 500_000
WORDS = " ".join(random.Random(1).choices([f"word{number}" for number in range(3_000)], k=20_000))

GALLERY = """\
type: imgdl_pipeline.ImageGalleries
attributes:
  store: store
  galleries:
    - name: g
      source: {{type: url_list, path: links.parquet}}
      {dataset}
"""

SHARD = """\
type: imgdl_pipeline.ShardedGallery
attributes:
  name: laion
  shards: 1
  store: store
  source: {{type: url_list, path: links.parquet}}
  {dataset}
"""


def jpeg(number: int, comment: str) -> bytes:
    """A picture whose EXIF has a description, and whose bytes no other picture has."""
    if comment not in _PICTURES:
        exif, file = Image.Exif(), io.BytesIO()
        exif[0x010E] = comment
        Image.new("RGB", (24, 16), (90, 120, 40)).save(file, "JPEG", exif=exif)
        _PICTURES[comment] = file.getvalue()
    picture, text = _PICTURES[comment], f"{number:012d}".encode()
    return picture[:2] + b"\xff\xfe\x00\x0e" + text + picture[2:]


_PICTURES: dict[str, bytes] = {}


def make(folder: Path, count: int, options: argparse.Namespace) -> None:
    """Make a gallery whose images are stored; with a catalog, unless it is to be new."""
    name, text = ("laion/0000", 400) if options.shard else ("g", 20)
    store, comment = Store(str(folder / "store")), WORDS[:text]
    dataset = "" if options.format == "none" else f"dataset: {{format: {options.format}}}"
    (folder / "galleries.yaml").write_text((SHARD if options.shard else GALLERY).format(dataset=dataset))
    facts = known_facts(jpeg(0, comment))

    def chunks():
        schema = pa.schema([("url", pa.string()), ("caption", pa.string())])
        with pq.ParquetWriter(folder / "links.parquet", schema) as listed:
            for start in range(0, count, CHUNK):
                numbers = range(start, min(start + CHUNK, count))
                made = chunk(folder / "store", name, numbers, text, comment, facts)
                captions = [json.loads(each)["caption"] for each in made["attributes"]]
                listed.write_table(pa.table({"url": made["url"], "caption": captions}))
                yield made

    with (folder / "rows").open("w+b") as file:
        schema = pa.schema(
            [*CATALOG, *(DOWNLOADS.field(each) for each in ("tried_at",)), LINKS.field("listed_at")]
        )
        write_batches(file, schema, (rows(each, schema) for each in chunks()))
    made = pq.ParquetFile(folder / "rows")
    kept = {links_path(name): LINKS, downloads_path(name): DOWNLOADS, catalog_path(name): CATALOG}
    if options.new:
        del kept[catalog_path(name)]
    if options.shard:
        del kept[links_path(name)]
    for path, schema in kept.items():
        numbers = list(range(made.num_row_groups))
        if schema is DOWNLOADS:  # which has links in the order in which they were answered
            random.Random(1).shuffle(numbers)
        with tempfile.TemporaryFile() as file:
            write_batches(file, schema, (part(made.read_row_group(each), schema) for each in numbers))
            store.write_file(path, file)
    (folder / "rows").unlink()
    if options.shard:
        source = UrlListSource(type="url_list", path=str(folder / "links.parquet"))
        list_shards("laion", source, store, DownloadSettings(), 1)


def rows(known: dict[str, object], schema: pa.Schema) -> pa.Table:
    count = len(known["url"])
    return pa.table({each: known.get(each, pa.nulls(count)) for each in schema.names}).cast(schema)


def part(made: pa.Table, schema: pa.Schema) -> pa.Table:
    """The rows of one file of a gallery."""
    if schema is DOWNLOADS:
        made = made.take(np.random.default_rng(1).permutation(made.num_rows))
    there = {each: made[each] for each in schema.names if each in made.schema.names}
    return rows(there, schema)


def chunk(root: Path, name: str, numbers: range, text: int, comment: str, facts: dict[str, object]):
    """Store some images, and return their rows as columns."""
    urls = [f"https://host{number % 997}.example/photos/{number:08d}/picture.jpg" for number in numbers]
    paths, sha256s = [image_path(name, url) for url in urls], []
    for number, path in zip(numbers, paths, strict=True):
        data, target = jpeg(number, comment), root / path
        try:
            target.write_bytes(data)
        except FileNotFoundError:
            target.parent.mkdir(parents=True)
            target.write_bytes(data)
        sha256s.append(hashlib.sha256(data).hexdigest())
    starts = [number * 7 % (len(WORDS) - text) for number in numbers]
    times = dict.fromkeys(("fetched_at", "first_seen", "last_seen", "tried_at", "listed_at"), YESTERDAY)
    same = {**facts, **times, "status": "ok", "bytes": len(data), "http_status": 200, "attempts": 1}
    same |= {"elapsed_s": 0.1, "opt_outs": "[]"}
    return {
        **{key: [value] * len(urls) for key, value in same.items()},
        "url": urls,
        "path": paths,
        "sha256": sha256s,
        "attributes": [json.dumps({"caption": WORDS[start : start + text]}) for start in starts],
    }


def known_facts(picture: bytes) -> dict[str, object]:
    """What the catalog says about a picture, apart from its bytes."""
    with tempfile.TemporaryDirectory() as folder:
        store, url = Store(folder), "https://a.example/a.jpg"
        store.put(image_path("g", url), picture)
        row = {"url": [url], "status": ["ok"], "path": [image_path("g", url)], "bytes": [len(picture)]}
        row |= {"sha256": [hashlib.sha256(picture).hexdigest()], "tried_at": [YESTERDAY]}
        store.write_table(downloads_path("g"), rows(row, DOWNLOADS))
        store.write_table(links_path("g"), rows({"url": [url], "listed_at": [YESTERDAY]}, LINKS))
        [found] = build_catalog("g", store, DownloadSettings()).catalog.to_pylist()
    names = ("width", "height", "mode", "progressive", "orientation", "phash", "embedded", "exif")
    return {each: found[each] for each in names}


class Sampled:
    """Looks at this process again and again: when, how much memory, how much processor time."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, float, float, float]] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Sampled":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._is_over.wait(0.01):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            self.samples.append((time.time(), pages * 4096 / 2**20, time.process_time(), peak))

    def between(self, start: float, end: float) -> dict[str, float]:
        here = [each for each in self.samples if start <= each[0] <= end] or [(start, 0, 0, 0)]
        first, last = here[0], here[-1]
        seen = max(each[1] for each in here)
        peak = last[3] if last[3] > first[3] else seen  # it may have been between two looks
        return {"s": end - start, "cpu_s": last[2] - first[2], "peak_mb": peak}


def run(folder: Path, *, is_shard: bool) -> None:
    """Run the job in this process, and print what each step and the whole took, as JSON."""
    os.chdir(folder)
    os.environ |= {"IMGDL_CONFIG": "galleries.yaml", "DAGSTER_HOME": ""}
    import dagster as dg

    from imgdl_pipeline.definitions import defs

    prefix, partition = ("laion_", "0000") if is_shard else ("", "g")
    job = defs().resolve_job_def(f"{prefix}download_galleries")
    told, before = {}, time.process_time()
    with Sampled() as sampled, dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(instance=instance, partition_key=partition)
        events = instance.all_logs(result.run_id)
    times = {(each.step_key, each.dagster_event_type): each.timestamp for each in events}
    for (step, kind), start in times.items():
        if kind is dg.DagsterEventType.STEP_START:
            end = times[step, dg.DagsterEventType.STEP_SUCCESS]
            told[step.rpartition("gallery_")[2]] = sampled.between(start, end)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    decoder = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    told["all"] = {
        "s": sampled.samples[-1][0] - sampled.samples[0][0],
        "cpu_s": time.process_time() - before,
        "peak_mb": peak,
    }
    print(json.dumps({"steps": told, "decoder_mb": decoder}))


def make_list(folder: Path, count: int) -> None:
    """Make a list with captions of 400 bytes."""
    schema = pa.schema([("url", pa.string()), ("caption", pa.string())])
    with pq.ParquetWriter(folder / "links.parquet", schema) as listed:
        for first in range(0, count, CHUNK):
            numbers = range(first, min(first + CHUNK, count))
            urls = [f"https://host{number % 99_991}.example/photos/{number:08d}.jpg" for number in numbers]
            starts = [number * 7 % (len(WORDS) - 400) for number in numbers]
            captions = [WORDS[start : start + 400] for start in starts]
            listed.write_table(pa.table({"url": urls, "caption": captions}, schema=schema))


def list_links(folder: Path, count: int) -> None:
    """List the links in this process, and print what it took, as JSON."""
    source = UrlListSource(type="url_list", path=str(folder / "links.parquet"))
    started, before = time.time(), time.process_time()
    list_shards("laion", source, Store(str(folder / "store")), DownloadSettings(), -(-count // SHARD_LINKS))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    step = {"s": time.time() - started, "cpu_s": time.process_time() - before, "peak_mb": peak}
    print(json.dumps({"steps": {"list": step}, "decoder_mb": 0}))


def shown(folder: Path, count: int, options: argparse.Namespace) -> None:
    kinds = ["--shard"] * options.shard + ["--listed", str(count)] * options.listed
    command = [sys.executable, __file__, "--run", str(folder), *kinds]
    told = subprocess.run(command, capture_output=True, check=False, text=True)
    if told.returncode:
        sys.exit(told.stderr)
    found = json.loads(told.stdout.splitlines()[-1])
    for step, each in found["steps"].items():
        print(f"  {step:28} {each['s']:7.1f} s  cpu {each['cpu_s']:7.1f} s  {each['peak_mb']:5.0f} MB")
    if not options.listed:
        print(f"  the largest decoder {found['decoder_mb']:.0f} MB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("links", nargs="*", type=int, default=[100_000])
    parser.add_argument("--shard", action="store_true")
    parser.add_argument("--new", action="store_true")
    parser.add_argument("--listed", action="store_true")
    parser.add_argument(
        "--format", default="webdataset", choices=("webdataset", "parquet", "imagefolder", "none")
    )
    parser.add_argument("--make", type=Path, help="only make a gallery of so many links in this folder")
    parser.add_argument("--run", type=Path, help="only run the gallery in this folder")
    options = parser.parse_args()
    if options.run and options.listed:
        list_links(options.run, options.links[0])
        return
    if options.run:
        run(options.run, is_shard=options.shard)
        return
    for count in options.links:
        if options.make:
            make(options.make, count, options)
            continue
        with tempfile.TemporaryDirectory() as name, suppress(KeyboardInterrupt):
            if options.listed:
                make_list(Path(name), count)
                print(f"{count:,} links", flush=True)
                shown(Path(name), count, options)
                continue
            make(Path(name), count, options)
            print(f"{count:,} links, their first run" if options.new else f"{count:,} links", flush=True)
            if options.format != "none" and not options.new:
                shown(Path(name), count, options)
                print(f"{count:,} links again", flush=True)
            shown(Path(name), count, options)


if __name__ == "__main__":
    main()
