"""Memory does not grow with captions and EXIF: each step has a process, and so a peak, of its own."""

import hashlib
import json
import subprocess
import sys

import pyarrow as pa
import pytest

from imgdl_pipeline.core.model.schemas import CATALOG, DOWNLOADS, LINKS
from imgdl_pipeline.core.storage.layout import catalog_path, downloads_path, links_path
from imgdl_pipeline_tests.support.rows import NOW

COUNT, TEXT_BYTES = 60_000, 4_000

MEASURED = """
import resource, sys
from imgdl_pipeline.config.galleries import Galleries
from imgdl_pipeline.core.catalog.build import build_catalog
from imgdl_pipeline.core.dataset.export import export_dataset
from imgdl_pipeline.core.download.run import download_gallery
from imgdl_pipeline.core.model.dataset_settings import DatasetSettings
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline.verdicts import CHECKS, judge
import duckdb

store, step = Store(sys.argv[1]), sys.argv[2]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
if step == "download":
    download_gallery("g", store, DownloadSettings())
elif step == "catalog":
    build_catalog("g", store, DownloadSettings())
elif step == "checks":
    gallery = {"name": "g", "source": {"type": "demo"}}
    galleries = Galleries.model_validate({"store": sys.argv[1], "galleries": [gallery]})
    assert len(judge(galleries, galleries.galleries[0], CHECKS)) == len(CHECKS)
else:
    settings = DatasetSettings(
        format=step, where=sys.argv[3], caption="attributes.caption", shard_images=9_000
    )
    assert export_dataset(store, "g", settings).images == int(sys.argv[4])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""

FILE = b"a picture that nobody decodes"
REFUSED = {"status": "refused", "reason": "removed"}
OK = {
    "status": "ok",
    "path": "images/g/00/picture.jpg",
    "sha256": hashlib.sha256(FILE).hexdigest(),
    "bytes": len(FILE),
}


def write_heavy(store, same):
    """Write a gallery whose captions alone are 240 MB, although its files are small."""
    times = dict.fromkeys(("listed_at", "tried_at", "first_seen", "last_seen"), NOW)
    text = json.dumps({"caption": "x" * TEXT_BYTES})
    known = {name: pa.repeat(pa.scalar(value), COUNT) for name, value in {**same, **times}.items()}
    known["url"] = [f"https://h{number % 7}.org/{number}.jpg" for number in range(COUNT)]
    known["attributes"] = known["exif"] = pa.repeat(text, COUNT)
    for path, schema in (
        (links_path("g"), LINKS),
        (downloads_path("g"), DOWNLOADS),
        (catalog_path("g"), CATALOG),
    ):
        table = pa.table({name: known.get(name, pa.nulls(COUNT)) for name in schema.names})
        store.write_table(path, table.cast(schema))


def peak_mb(store, *arguments):
    command = [sys.executable, "-c", MEASURED, store.root, *arguments]
    return float(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


@pytest.mark.parametrize(("step", "limit_mb"), [("download", 150), ("catalog", 300)])
def test_long_texts_are_never_all_in_memory(store, step, limit_mb):
    write_heavy(store, REFUSED)  # so that nothing is asked for
    assert peak_mb(store, step) < limit_mb


@pytest.fixture
def stored(store):
    """A gallery whose images are all one file."""
    write_heavy(store, OK)
    store.put(OK["path"], FILE)
    return store


def test_checks_do_not_read_long_texts(stored):
    assert peak_mb(stored, "checks") < 150


@pytest.mark.long
@pytest.mark.parametrize(
    ("format_", "where", "images"),
    [
        ("webdataset", "exif like '%xx%'", COUNT),
        ("parquet", "exif like '%xx%' and url like '%77.jpg'", COUNT // 100),
    ],
)
def test_a_dataset_never_has_long_texts_all_in_memory(stored, format_, where, images):
    assert peak_mb(stored, format_, where, str(images)) < 250
