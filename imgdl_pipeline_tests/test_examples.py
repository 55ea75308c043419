"""Each file in examples/ works as it is."""

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

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
