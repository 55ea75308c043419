import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest

from imgdl_pipeline.config.galleries_file import GalleriesFileError
from imgdl_pipeline.definitions import CONFIG_VARIABLE, EMBEDDED_CONFIG, defs

BIN = Path(sys.executable).parent


@pytest.fixture(autouse=True)
def instance():
    """Dagster looks for an instance when it resolves definitions."""
    with dg.instance_for_test():
        yield


def partitions():
    keys = defs().resolve_asset_graph().get_all_asset_keys()
    return keys, defs().resolve_job_def("download_galleries").partitions_def.get_partition_keys()


def test_without_a_variable_the_embedded_demo_gallery_is_loaded(monkeypatch):
    monkeypatch.delenv(CONFIG_VARIABLE, raising=False)
    keys, names = partitions()
    assert {key.to_user_string() for key in keys} == {"gallery_links", "gallery_images", "gallery_catalog"}
    assert names == ["demo"]


def test_the_variable_names_another_file_and_one_more_gallery_is_one_more_partition(monkeypatch, tmp_path):
    file = tmp_path / "mine.yaml"
    monkeypatch.setenv(CONFIG_VARIABLE, str(file))
    file.write_text(EMBEDDED_CONFIG.read_text())
    assert partitions()[1] == ["demo"]
    file.write_text(EMBEDDED_CONFIG.read_text() + "    - name: more\n      source: {type: demo, images: 3}\n")
    assert partitions()[1] == ["demo", "more"]


def test_a_broken_file_fails_the_load_and_says_why(monkeypatch, tmp_path):
    (tmp_path / "mine.yaml").write_text("type: imgdl_pipeline.ImageGalleries\nattributes: {galleries: []}\n")
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "mine.yaml"))
    with pytest.raises(GalleriesFileError, match=r"mine.yaml:2: attributes.galleries: .*at least one"):
        defs()


def test_steps_run_in_one_process():
    assert defs().executor is dg.in_process_executor


def test_what_is_loaded_is_nothing_for_the_garbage_collector():
    code = "import gc, imgdl_pipeline.definitions as ours; ours.defs(); print(gc.get_freeze_count())"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(told.stdout) > 100_000


def test_the_contracts_command_materializes_a_gallery(tmp_path, demo_port):
    environ = {**os.environ, "IMGDL_STORE": str(tmp_path / "store")}
    words = [
        "asset",
        "materialize",
        "-m",
        "imgdl_pipeline.definitions",
        "--select",
        "*",
        "--partition",
        "demo",
    ]
    run = subprocess.run(
        [BIN / "dagster", *words],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "RUN_SUCCESS" in run.stderr
    catalog = pq.read_table(tmp_path / "store/catalog/gallery=demo/catalog.parquet", partitioning=None)
    assert catalog.num_rows == 40
