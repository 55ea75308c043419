import os
import re
import subprocess
import sys

import pytest

from imgdl_pipeline.__main__ import summary


def run(tmp_path, *words, **environ):
    return subprocess.run(
        [sys.executable, "-m", "imgdl_pipeline", *words],
        cwd=tmp_path,
        env={**os.environ, "DAGSTER_HOME": str(tmp_path / "home"), **environ},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_it_runs_the_demo_gallery_and_prints_what_became_of_it(tmp_path, demo_port):
    first = run(tmp_path)
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("demo: 40 links\n  ok           37\n  invalid       2   1 ")
    assert "  failed        1   1 http_410\n  refused       0\n" in first.stdout
    assert f"catalog: {tmp_path}/data/catalog/gallery=demo/catalog.parquet\n" in first.stdout
    assert re.search(r"downloaded 38 images, \d\.\d MB, in \d+\.\d s: \d+ a second\n", first.stdout)
    assert first.stdout.endswith("look at it in the web UI: make dev\n")
    assert "downloaded 1 image, " in run(tmp_path).stdout, "only the damaged one is asked for again"


def test_it_runs_a_gallery_whose_assets_have_a_prefix(tmp_path, demo_port):
    (tmp_path / "mine.yaml").write_text(
        "type: imgdl_pipeline.ImageGalleries\nattributes:\n"
        "  assets: {key_prefix: [media]}\n  galleries: [{name: demo, source: {type: demo, images: 4}}]\n"
    )
    ran = run(tmp_path, IMGDL_CONFIG=str(tmp_path / "mine.yaml"))
    assert ran.stdout.startswith("demo: 4 links\n"), ran.stderr


def test_a_run_that_fails_says_so_and_exits_with_1(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "type: imgdl_pipeline.ImageGalleries\n"
        "attributes: {galleries: [{name: demo, source: {type: url_list, path: nowhere.txt}}]}\n"
    )
    failed = run(tmp_path, IMGDL_CONFIG=str(tmp_path / "mine.yaml"))
    assert failed.returncode == 1
    assert "nowhere.txt: there is no such file" in failed.stderr
    assert failed.stderr.splitlines()[-1].startswith("the run of demo failed: ")
    assert "nowhere.txt" in failed.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "text", "told"),
    [
        (
            ["nobody"],
            "{galleries: [{name: demo, source: {type: demo}}]}",
            "there is no gallery nobody, only demo\n",
        ),
        (
            [],
            "{galleries: []}",
            "mine.yaml:2: attributes.galleries: Value error, name at least one gallery\n",
        ),
    ],
)
def test_a_mistake_is_told_without_a_traceback(tmp_path, words, text, told):
    (tmp_path / "mine.yaml").write_text(f"type: imgdl_pipeline.ImageGalleries\nattributes: {text}\n")
    failed = run(tmp_path, *words, IMGDL_CONFIG="mine.yaml")
    assert failed.returncode == 1
    assert failed.stderr.endswith(told)
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize("status", ["ok", "invalid", "failed", "refused"])
def test_every_status_has_its_line(status):
    images = {"fetched": 0, "bytes": 0, "seconds": 0.0, "images_per_second": 0.0}
    catalog = {"dagster/row_count": 3, "path": "p", "ok": 1, "invalid": 0, "failed": 2, "refused": 0}
    assert re.search(rf"^  {status} +\d", summary("g", images, {**catalog, "failed/dns": 2}), re.MULTILINE)
