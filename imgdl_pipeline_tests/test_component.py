"""The component as a dg project meets it: through YAML and through Dagster's own tools."""

import os
import re
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import dagster as dg
import jsonschema
import pytest

from imgdl_pipeline import ImageGalleries
from imgdl_pipeline.component import JOB_NAME, SCHEDULE_NAME
from imgdl_pipeline.config.galleries import Galleries

BIN = Path(sys.executable).parent

FILE = """\
type: imgdl_pipeline.ImageGalleries
attributes:
  store: data
  galleries:
    - name: hubble
      source: {type: wikimedia_commons, category: Hubble images of galaxies}
    - name: earth
      source: {type: imgur, gallery: r/EarthPorn, client_id: "{{ env.IMGUR_CLIENT_ID }}"}
    - name: products
      source: {type: url_list, path: products.csv, url_column: image_url}
      download: {workers: 32, user_agent: null}
"""


@pytest.fixture
def project(tmp_path):
    """A dg project with one component."""
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "shop"\nversion = "0"\n'
        '[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "shop"\n'
    )
    defs = tmp_path / "src/shop/defs/pictures"
    defs.mkdir(parents=True)
    (tmp_path / "src/shop/__init__.py").touch()
    (tmp_path / "src/shop/definitions.py").write_text(
        "from pathlib import Path\nimport dagster as dg\n\n@dg.definitions\ndef defs():\n"
        "    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)\n"
    )
    (defs / "defs.yaml").write_text(FILE)
    return tmp_path


def dg_(project, *words):
    """What a dg command prints, and whether it succeeded."""
    environ = {**os.environ, "PYTHONPATH": str(project / "src"), "COLUMNS": "300", "NO_COLOR": "1"}
    run = subprocess.run(
        [BIN / "dg", *words],
        cwd=project,
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return run.returncode == 0, re.sub(r"\x1b\[[\d;]*m", "", run.stdout + run.stderr)


def test_dg_lists_the_component_with_what_it_is_for(project):
    succeeded, told = dg_(project, "list", "components")
    assert succeeded
    assert "imgdl_pipeline.ImageGalleries" in told
    assert "Image galleries: lists their links, downloads the images, validates and catalogs" in told


def test_dg_accepts_a_good_file_and_loads_its_definitions(project):
    assert dg_(project, "check", "yaml") == (True, "All component YAML validated successfully.\n")
    succeeded, told = dg_(project, "check", "defs")
    assert succeeded, told


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("workers: 32", "wrokers: 32", 11, "('wrokers' was unexpected)"),
        ("workers: 32", "workers: many", 11, "'many' is not of type 'integer'"),
        ("type: imgur", "type: flickr", 8, "'flickr' is not one of ['demo', 'url_list', 'imgur', "),
        ("category:", "kategory:", 6, "('kategory' was unexpected)"),
    ],
)
def test_dg_points_at_a_wrong_key_by_its_line(project, old, new, line, words):
    (project / "src/shop/defs/pictures/defs.yaml").write_text(FILE.replace(old, new))
    succeeded, told = dg_(project, "check", "yaml")
    assert not succeeded
    assert f"defs.yaml:{line} - imgdl_pipeline.ImageGalleries attributes.galleries" in told
    assert words in told


def test_loading_a_wrong_file_says_where_what_and_what_is_allowed(project):
    file = project / "src/shop/defs/pictures/defs.yaml"
    file.write_text(FILE.replace("store: data", "store: data\n  schedule: daily"))
    succeeded, told = dg_(project, "check", "defs")
    assert not succeeded
    assert f"{file}:4: attributes.schedule: 'daily' is no cron expression" in told


def test_dg_scaffolds_a_file_that_works(project):
    assert dg_(project, "scaffold", "defs", "imgdl_pipeline.ImageGalleries", "cats")[0]
    assert "type: demo" in (project / "src/shop/defs/cats/defs.yaml").read_text()
    (project / "src/shop/defs/pictures/defs.yaml").unlink()
    (project / "src/shop/defs/pictures").rmdir()
    assert dg_(project, "check", "yaml")[0]
    assert dg_(project, "check", "defs")[0]


def test_a_very_large_gallery_is_scaffolded_beside_galleries_and_a_wrong_key_is_told_with_its_line(project):
    assert dg_(project, "scaffold", "defs", "imgdl_pipeline.ShardedGallery", "laion")[0]
    file = project / "src/shop/defs/laion/defs.yaml"
    assert "shards: 4" in file.read_text()
    assert dg_(project, "check", "yaml")[0]
    succeeded, listed = dg_(project, "list", "defs", "--json")
    assert succeeded
    for name in ("laion/gallery_list", "laion/gallery_catalog", "laion_shards_with_work", "gallery_links"):
        assert f'"{name}"' in listed
    file.write_text(file.read_text().replace("shards: 4", "shards: 0"))
    succeeded, words = dg_(project, "check", "yaml")
    assert not succeeded
    assert "laion/defs.yaml:4" in words
    assert "0 is less than the minimum of 1" in words


def load(galleries=FILE):
    import yaml

    component = ImageGalleries.from_attributes_dict(attributes=yaml.safe_load(galleries)["attributes"])
    return component, dg.build_defs_for_component(component)


def test_a_component_made_in_python_is_the_same_as_one_from_yaml():
    component, _ = load()
    assert isinstance(component, ImageGalleries)
    assert ImageGalleries(component.galleries).galleries == component.galleries


def test_each_gallery_is_a_partition_of_the_job():
    _, defs = load()
    job = defs.resolve_job_def(JOB_NAME)
    assert job.partitions_def.get_partition_keys() == ["hubble", "earth", "products"]
    assert job.executor_def.name == "in_process"


def test_the_schedule_asks_for_one_run_a_gallery_and_never_twice_for_a_tick():
    _, defs = load()
    schedule = defs.resolve_schedule_def(SCHEDULE_NAME)
    assert schedule.cron_schedule == "0 6 * * *"
    tick = datetime(2026, 11, 22, 6, tzinfo=timezone.utc)

    def requests():
        with dg.DagsterInstance.ephemeral() as instance:
            context = dg.build_schedule_context(
                instance=instance, scheduled_execution_time=tick, repository_def=defs.get_repository_def()
            )
            return schedule.evaluate_tick(context).run_requests

    first, again = requests(), requests()
    assert [each.partition_key for each in first] == ["hubble", "earth", "products"]
    assert len({each.run_key for each in first}) == 3
    assert [each.run_key for each in first] == [each.run_key for each in again]


def test_a_schedule_of_null_is_no_schedule():
    _, defs = load(FILE.replace("store: data", "schedule: null"))
    assert not list(defs.schedules or [])


def test_two_components_can_be_merged_as_far_as_their_resource_goes():
    mine, theirs = FILE, FILE.replace("store: data", "store: data\n  assets: {key_prefix: [media]}")
    (_, one), (_, other) = load(mine), load(theirs)
    merged = dg.Definitions.merge(
        dg.Definitions(resources=one.resources), dg.Definitions(resources=other.resources)
    )
    assert list(merged.resources) == ["image_downloads", "gallery_tables", "media_gallery_tables"]


@pytest.mark.parametrize(
    ("attributes", "place", "words"),
    [
        ({"near_duplicates": {"distance": 17}}, "near_duplicates.distance", "17 is greater than the maximum"),
        ({"near_duplicates": {"distance": 4, "distence": 4}}, "near_duplicates", "'distence' was unexpected"),
        ({"dataset": {"format": "tar"}}, "galleries.0.dataset.format", "'tar' is not one of ['webdataset'"),
        ({"dataset": {"format": "parquet", "wheer": "x"}}, "galleries.0.dataset", "'wheer' was unexpected"),
        (
            {"dataset": {"format": "parquet", "resize": {"side": 0}}},
            "galleries.0.dataset.resize.side",
            "0 is less than the minimum",
        ),
    ],
)
def test_the_editors_schema_points_at_the_wrong_key_of_a_dataset(attributes, place, words):
    gallery = {"name": "a", "source": {"type": "demo"}, "dataset": attributes.pop("dataset", None)}
    file = {**attributes, "galleries": [gallery]}
    [error] = jsonschema.Draft202012Validator(Galleries.editor_schema()).iter_errors(file)
    assert ".".join(map(str, error.absolute_path)) == place
    assert words in error.message


def test_the_editors_schema_takes_datasets_and_templates_in_them():
    dataset = {
        "format": "parquet",
        "where": "{{ env.WHERE }}",
        "shard_images": "{{ env.IMAGES }}",
        "resize": {"side": "{{ env.SIDE }}", "how": "pad"},
    }
    galleries = [
        {"name": name, "source": {"type": "demo"}, "dataset": each}
        for name, each in {"a": dataset, "b": None}.items()
    ]
    file = {"near_duplicates": {"distance": "{{ env.DISTANCE }}"}, "galleries": galleries}
    assert not list(jsonschema.Draft202012Validator(Galleries.editor_schema()).iter_errors(file))


def test_the_editors_schema_allows_null_where_the_contract_does():
    schema = Galleries.editor_schema()
    assert schema["properties"]["schedule"]["type"] == ["string", "null"]
    assert schema["$defs"]["DownloadSettings"]["properties"]["user_agent"]["type"] == ["string", "null"]


def test_the_assets_fit_into_a_graph_that_has_others():
    galleries = Galleries(
        galleries=[{"name": "demo", "source": {"type": "demo"}}],
        assets={
            "key_prefix": ["media", "raw"],
            "group_name": "media",
            "descriptions": {"gallery_links": "What the shop shows."},
            "owners": ["team:pictures", "ann@shop.example"],
            "tags": {"domain": "shop"},
            "kinds": ["s3"],
            "pool": None,
        },
    )
    defs = dg.build_defs_for_component(ImageGalleries(galleries))
    graph = defs.resolve_asset_graph()
    keys = {key.to_user_string() for key in graph.get_all_asset_keys()}
    assert keys == {f"media/raw/gallery_{name}" for name in ("links", "images", "catalog")}
    images = graph.get(dg.AssetKey(["media", "raw", "gallery_images"]))
    assert images.parent_keys == {dg.AssetKey(["media", "raw", "gallery_links"])}
    assert (images.group_name, images.owners) == ("media", ["team:pictures", "ann@shop.example"])
    assert images.tags["domain"] == "shop"
    assert images.kinds == {"jpeg", "parquet", "s3"}
    assert images.pools == set()
    assert images.description.startswith("The image files")
    assert graph.get(dg.AssetKey(["media", "raw", "gallery_links"])).description == "What the shop shows."
    assert "dagster/code_references" in images.metadata
    assert {key.asset_key for key in graph.asset_check_keys} == {
        dg.AssetKey(["media", "raw", "gallery_catalog"])
    }


def test_a_file_with_datasets_and_near_duplicates_loads_and_lists_its_definitions(project):
    text = FILE.replace("store: data", "store: data\n  near_duplicates: {distance: 4}")
    text += "      dataset: {format: webdataset, where: representative}\n"
    (project / "src/shop/defs/pictures/defs.yaml").write_text(text)
    assert dg_(project, "check", "yaml") == (True, "All component YAML validated successfully.\n")
    succeeded, told = dg_(project, "list", "defs")
    assert succeeded, told
    for name in ("gallery_dataset", "near_duplicates", "find_near_duplicates", "remove_images"):
        assert name in told


def test_a_wrong_condition_of_a_dataset_is_told_with_its_line_when_the_project_is_loaded(project):
    file = project / "src/shop/defs/pictures/defs.yaml"
    file.write_text(FILE + "      dataset: {format: webdataset, where: representative}\n")
    succeeded, told = dg_(project, "check", "defs")
    assert not succeeded
    assert f"{file}:12: attributes.galleries.2.dataset.where: 'representative' is no DuckDB SQL" in told


def test_the_schedule_runs_a_gallery_with_its_own_assets_up_to_its_dataset():
    galleries = Galleries(
        asset_per_gallery=True,
        near_duplicates={"distance": 4},
        galleries=[
            {"name": "a", "source": {"type": "demo"}, "dataset": {"format": "parquet"}},
            {"name": "b", "source": {"type": "demo"}},
        ],
    )
    runs = ImageGalleries(galleries).runs
    assert [key.path[-1] for key in runs["a"]["asset_selection"]] == ["links", "images", "catalog", "dataset"]
    assert [key.path[-1] for key in runs["b"]["asset_selection"]] == ["links", "images", "catalog"]


def test_downloads_run_in_a_pool_unless_told_otherwise():
    galleries = Galleries(galleries=[{"name": "demo", "source": {"type": "demo"}}])
    graph = dg.build_defs_for_component(ImageGalleries(galleries)).resolve_asset_graph()
    assert graph.get(dg.AssetKey("gallery_images")).pools == {"gallery_downloads"}


@pytest.mark.parametrize("status", ["RUNNING", "STOPPED"])
def test_the_schedule_has_the_status_that_the_file_states(status):
    galleries = Galleries(galleries=[{"name": "demo", "source": {"type": "demo"}}], schedule_status=status)
    defs = dg.build_defs_for_component(ImageGalleries(galleries))
    [schedule] = defs.schedules
    assert schedule.default_status is dg.DefaultScheduleStatus[status]


def test_loading_a_file_prints_no_warning(tmp_path):
    """What Dagster has in preview or beta is used on purpose, and is no news to whoever uses this."""
    run = subprocess.run(
        [sys.executable, "-W", "always", "-c", "from imgdl_pipeline.definitions import defs; defs()"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "PreviewWarning" not in run.stderr
    assert "BetaWarning" not in run.stderr


def test_two_galleries_files_with_prefixes_stand_in_one_code_location():
    def defs_of(prefix):
        galleries = Galleries(
            galleries=[{"name": "demo", "source": {"type": "demo"}}], assets={"key_prefix": [prefix]}
        )
        return dg.build_defs_for_component(ImageGalleries(galleries))

    merged = dg.Definitions.merge(defs_of("shop"), defs_of("press"))
    dg.Definitions.validate_loadable(merged)
    assert merged.resolve_job_def("shop_download_galleries").name != "download_galleries"
    assert merged.resolve_schedule_def("press_daily_galleries")
    assert merged.resolve_sensor_def("press_gallery_freshness")


def test_the_assets_link_to_the_code_the_galleries_file_and_what_it_names(tmp_path):
    galleries = Galleries(
        galleries=[{"name": "demo", "source": {"type": "demo"}}],
        assets={"code_references": ["https://wiki.example/pictures", "notes.md"]},
    )
    defs = dg.build_defs_for_component(ImageGalleries(galleries, tmp_path / "galleries.yaml"))
    links = defs.resolve_asset_graph().get(dg.AssetKey("gallery_links"))
    known = links.metadata["dagster/code_references"].code_references
    places = [getattr(each, "url", None) or each.file_path for each in known]
    assert places[:2] == [str(tmp_path / "galleries.yaml"), "https://wiki.example/pictures"]
    assert [Path(place).name for place in places[2:]] == ["notes.md", "assets.py"]
