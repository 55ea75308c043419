"""Each file in examples/ works as it is."""

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest
from PIL import Image

from imgdl_pipeline import ImageGalleries
from imgdl_pipeline.config.galleries import Galleries
from imgdl_pipeline.config.galleries_file import read_galleries_file
from imgdl_pipeline.core.sources import source_types, type_name

EXAMPLES = Path(__file__).parent.parent / "examples"
FILES = sorted(EXAMPLES.glob("*.yaml"))
FORMS = {"asset_per_gallery", "galleries_from"}
STAGES = {"dataset"}
"""Examples that show a form of the galleries file or a stage, and no source."""
BIN = Path(sys.executable).parent


def test_every_source_has_an_example():
    assert {file.stem for file in FILES} - FORMS - STAGES == {
        type_name(each).replace("wikimedia_commons", "commons") for each in source_types()
    }


@pytest.mark.parametrize("form", sorted(FORMS))
def test_an_example_of_a_form_has_that_key(form, monkeypatch):
    monkeypatch.chdir(EXAMPLES.parent)
    galleries = read_galleries_file(EXAMPLES / f"{form}.yaml")
    assert getattr(galleries, form)
    assert len(galleries.galleries) == 2


@pytest.mark.parametrize(
    "file", [file for file in FILES if file.stem not in FORMS | STAGES], ids=lambda file: file.stem
)
def test_an_example_loads_and_is_of_its_source(file):
    for gallery in read_galleries_file(file).galleries:
        assert gallery.source.type.replace("wikimedia_commons", "commons") == file.stem


def test_dg_accepts_every_example(tmp_path):
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "shop"\nversion = "0"\n'
        '[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "shop"\n'
    )
    (tmp_path / "src/shop").mkdir(parents=True)
    for file in FILES:
        folder = tmp_path / "src/shop/defs" / file.stem
        folder.mkdir(parents=True)
        (folder / "defs.yaml").write_text(file.read_text())
    check = subprocess.run(
        [BIN / "dg", "check", "yaml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert check.returncode == 0, check.stdout + check.stderr
    assert "All component YAML validated successfully" in check.stdout


def test_a_gallerys_links_stand_downstream_of_the_asset_that_makes_its_list(tmp_path, monkeypatch, demo_port):
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    exec((EXAMPLES / "upstream_asset.py").read_text(), scope)
    defs = scope["defs"]
    graph = defs.resolve_asset_graph()
    assert graph.get(dg.AssetKey("gallery_links")).parent_keys == {dg.AssetKey(["shop", "products"])}
    products = scope["products"]
    with dg.instance_for_test() as instance:  # Dagster's own ephemeral one may be collected too early
        assert dg.materialize([products], instance=instance).success
        job = defs.resolve_job_def("download_galleries")
        run = job.execute_in_process(partition_key="products", instance=instance)
    assert run.output_for_node is not None
    assert run.asset_materializations_for_node("gallery_links")[0].metadata["links"].value == 2


@pytest.mark.parametrize(
    "partitions",
    [None, dg.DailyPartitionsDefinition("2026-01-01"), dg.StaticPartitionsDefinition(["a", "b"])],
    ids=["none", "daily", "others"],
)
def test_the_asset_that_makes_a_list_may_have_partitions_of_its_own(partitions):
    @dg.asset(key=["shop", "products"], partitions_def=partitions)
    def products() -> None: ...

    source = {"type": "url_list", "path": "p.parquet", "asset": "shop/products"}
    galleries = Galleries.model_validate({"galleries": [{"name": "g", "source": source}]})
    defs = dg.Definitions.merge(
        dg.Definitions(assets=[products]), dg.build_defs_for_component(ImageGalleries(galleries))
    )
    dg.Definitions.validate_loadable(defs)


def test_the_dataset_of_the_example_is_made_by_one_command_and_read_by_tarfile(tmp_path, demo_port):
    """`--select '*' --partition demo`, with near duplicates, which have no partitions, in between."""
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
        env={**os.environ, "IMGDL_CONFIG": str(EXAMPLES / "dataset.yaml"), "IMGDL_STORE": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    samples: dict[str, dict[str, bytes]] = {}
    with tarfile.open(tmp_path / "datasets/demo/00000.tar") as tar:
        for member in tar:
            key, _, extension = member.name.rpartition(".")
            samples.setdefault(key, {})[extension] = tar.extractfile(member).read()
    catalog = pq.read_table(tmp_path / "catalog/gallery=demo/catalog.parquet", partitioning=None)
    ok = {row["url"]: row for row in catalog.to_pylist() if row["status"] == "ok"}
    near = pq.read_table(tmp_path / "near_duplicates/near_duplicates.parquet").to_pylist()
    copies = {row["url"] for row in near if not row["representative"]}
    assert copies
    assert {json.loads(each["json"])["url"] for each in samples.values()} == set(ok) - copies
    for sample in samples.values():
        assert set(sample) == {"jpg", "json", "txt"}
        row = ok[json.loads(sample["json"])["url"]]
        assert sample["txt"].decode() == json.loads(row["attributes"])["title"]
        with Image.open(io.BytesIO(sample["jpg"])) as picture:
            assert max(picture.size) == 256
    assert (tmp_path / "near_duplicates/near_duplicates.parquet").exists()


def test_the_example_of_a_dataset_has_no_near_duplicates_as_its_first_line_says():
    """`representative` chooses one image of each group."""
    [gallery] = read_galleries_file(EXAMPLES / "dataset.yaml").galleries
    assert "no near duplicates" in (EXAMPLES / "dataset.yaml").read_text().splitlines()[0]
    assert "representative" in gallery.dataset.where
