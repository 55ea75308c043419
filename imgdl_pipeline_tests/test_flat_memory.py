"""Memory does not grow with captions and EXIF: each step has a process, and so a peak, of its own."""

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
from imgdl_pipeline.core.catalog.build import build_catalog
from imgdl_pipeline.core.download.run import download_gallery
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.storage.store import Store

store, step = Store(sys.argv[1]), {"download": download_gallery, "catalog": build_catalog}[sys.argv[2]]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
step("g", store, DownloadSettings())
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.fixture
def heavy(store):
    """A gallery whose captions alone are 240 MB, although its files are small; nothing of it is asked for."""
    known = {
        "url": [f"https://h{number % 7}.org/{number}.jpg" for number in range(COUNT)],
        "status": pa.repeat("refused", COUNT),
        "reason": pa.repeat("removed", COUNT),
        "attributes": pa.repeat(json.dumps({"caption": "x" * TEXT_BYTES}), COUNT),
        **{
            name: pa.repeat(pa.scalar(NOW), COUNT)
            for name in ("listed_at", "tried_at", "first_seen", "last_seen")
        },
    }
    for path, schema in (
        (links_path("g"), LINKS),
        (downloads_path("g"), DOWNLOADS),
        (catalog_path("g"), CATALOG),
    ):
        table = pa.table({name: known.get(name, pa.nulls(COUNT)) for name in schema.names})
        store.write_table(path, table.cast(schema))
    return store


@pytest.mark.parametrize(("step", "limit_mb"), [("download", 150), ("catalog", 300)])
def test_long_texts_are_never_all_in_memory(heavy, step, limit_mb):
    command = [sys.executable, "-c", MEASURED, heavy.root, step]
    measured = subprocess.run(command, capture_output=True, check=True, text=True)
    assert float(measured.stdout) < limit_mb
