import json
import re
import tarfile
from datetime import timedelta

import dagster as dg
import pyarrow.parquet as pq
import pytest
from PIL import Image

from imgdl_pipeline.assets import AssetKeys, build_assets
from imgdl_pipeline.component import ImageGalleries
from imgdl_pipeline.config.galleries import Galleries
from imgdl_pipeline.core.download.run import Progress
from imgdl_pipeline.core.model.schemas import CATALOG, DOWNLOADS, LINKS
from imgdl_pipeline.core.storage.layout import dataset_leases_path
from imgdl_pipeline.core.storage.lease import Lease
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline.progress import every_few_seconds
from imgdl_pipeline.resources import ImageDownloads
from imgdl_pipeline.verdicts import CHECKS
from imgdl_pipeline_tests.support.pictures import jpeg


@pytest.fixture
def materialize(tmp_path, monkeypatch):
    """Materializes assets of a galleries file with a store of the test's own."""
    monkeypatch.setenv("IMGDL_STORE", str(tmp_path / "store"))

    def materialize_(galleries, partition, only=None, downloads=None, **more):
        assets = [
            each for each in build_assets(galleries) if only is None or each.key.to_user_string() == only
        ]
        return dg.materialize(
            assets,
            partition_key=partition,
            resources={"image_downloads": downloads or ImageDownloads(limit=None)},
            **more,
        )

    return materialize_


@pytest.fixture
def galleries(tmp_path, server):
    """A gallery of three links on the tests' server: a picture, its copy, and a dead one."""
    server.serve("/a.jpg", jpeg(1))
    server.serve("/b.jpg", jpeg(1))
    lines = "\n".join(f"{server.url(path)},{path}" for path in ("/a.jpg", "/b.jpg", "/dead.jpg"))
    (tmp_path / "links.csv").write_text(f"url,title\n{lines}\n")
    return Galleries(
        store="not used: IMGDL_STORE is set",
        download={"allow_addresses": ["127.0.0.1/32"], "attempts": 1},
        galleries=[
            {"name": "mine", "source": {"type": "url_list", "path": str(tmp_path / "links.csv")}},
            {
                "name": "locked",
                "source": {"type": "imgur", "gallery": "hot", "client_id": "{{ env.NO_SUCH }}"},
            },
        ],
    )


def metadata(result, asset):
    [materialization] = result.asset_materializations_for_node(asset)
    return {key: entry.value for key, entry in materialization.metadata.items()}


def test_the_assets_are_the_contracts_three_partitioned_by_gallery(galleries):
    assets = build_assets(galleries)
    assert [each.key.to_user_string() for each in assets] == [
        "gallery_links",
        "gallery_images",
        "gallery_catalog",
    ]
    links, images = (dg.AssetKey(f"gallery_{name}") for name in ("links", "images"))
    assert set(assets[1].dependency_keys) == {links}
    assert set(assets[2].dependency_keys) == {links, images}
    assert all(each.partitions_def.get_partition_keys() == ["mine", "locked"] for each in assets)


def test_a_gallery_becomes_the_contracts_three_files(materialize, galleries, tmp_path):
    assert materialize(galleries, "mine").success
    store = tmp_path / "store"
    for path, schema in {
        "links/gallery=mine/links.parquet": LINKS,
        "downloads/gallery=mine/downloads.parquet": DOWNLOADS,
        "catalog/gallery=mine/catalog.parquet": CATALOG,
    }.items():
        assert pq.read_schema(store / path).equals(schema)
    rows = pq.read_table(store / "catalog/gallery=mine/catalog.parquet", partitioning=None).to_pylist()
    assert [(row["status"], row["reason"]) for row in rows] == [
        ("ok", None),
        ("ok", None),
        ("failed", "http_404"),
    ]
    assert (store / rows[0]["path"]).read_bytes() == jpeg(1)
    assert rows[0]["attributes"] == '{"title": "/a.jpg"}'


def test_each_materialization_tells_its_numbers(materialize, galleries, tmp_path):
    result = materialize(galleries, "mine")
    links, images, catalog = (metadata(result, f"gallery_{name}") for name in ("links", "images", "catalog"))
    assert links["dagster/row_count"] == images["dagster/row_count"] == catalog["dagster/row_count"] == 3
    assert catalog["path"] == str(tmp_path / "store/catalog/gallery=mine/catalog.parquet")
    for told in (images, catalog):
        assert (told["ok"], told["failed"], told["invalid"], told["refused"]) == (2, 1, 0, 0)
        assert told["failed/http_404"] == 1
    assert (images["tried"], images["fetched"], images["bytes"]) == (3, 2, 2 * len(jpeg(1)))
    assert 0 < images["latency_p50_s"] <= images["latency_p95_s"] <= images["latency_p99_s"] < 30
    assert images["images_per_second"] > 0
    assert (catalog["checked"], catalog["duplicates"]) == (2, 1)
    assert catalog["share_failed"] == pytest.approx(1 / 3, abs=1e-3)
    columns = catalog["dagster/column_schema"].columns
    assert [column.name for column in columns] == CATALOG.names
    assert all(column.description for column in columns)


def test_numbers_are_numbers_so_that_they_plot(materialize, galleries):
    told = metadata(materialize(galleries, "mine"), "gallery_images")
    words = {"path", "dagster/column_schema", "failures"}
    assert all(isinstance(value, (int, float)) for key, value in told.items() if key not in words)


def test_one_asset_can_be_materialized_alone(materialize, galleries):
    materialize(galleries, "mine")
    assert materialize(galleries, "mine", only="gallery_catalog").success


def test_an_unset_secret_fails_its_own_gallerys_run_only(materialize, galleries):
    result = materialize(galleries, "locked", raise_on_error=False)
    assert not result.success
    [failure] = result.get_step_failure_events()[:1]
    error = failure.event_specific_data.error.cause or failure.event_specific_data.error
    assert "source.client_id needs the environment variable NO_SUCH, which is not set" in error.message
    assert materialize(galleries, "mine").success


def test_a_step_that_its_source_fails_ends_with_the_cause_and_nothing_behind_it(materialize, galleries):
    result = materialize(galleries, "locked", raise_on_error=False)
    [failure] = result.get_step_failure_events()[:1]
    data = failure.event_specific_data
    words = "source.client_id needs the environment variable NO_SUCH, which is not set"
    assert data.user_failure_data.description == words
    told = {name: value.value for name, value in data.user_failure_data.metadata.items()}
    assert told == {"gallery": "locked", "source": "imgur", "error": "MissingSecretError"}
    assert (data.error.cause, data.error.context) == (None, None)


def test_a_run_may_override_the_settings_in_its_config(materialize, galleries, server):
    config = {"resources": {"image_downloads": {"config": {"user_agent": "trial/1.0", "limit": 1}}}}
    result = materialize(galleries, "mine", run_config=config)
    assert metadata(result, "gallery_images")["tried"] == 1
    assert {headers["User-Agent"] for _, headers in server.requests} == {"trial/1.0"}


def test_a_run_with_a_bad_setting_fails_before_anything_is_fetched(materialize, galleries, server):
    config = {"resources": {"image_downloads": {"config": {"workers": 0}}}}
    assert not materialize(galleries, "mine", run_config=config, raise_on_error=False).success
    assert server.requests == []


def test_the_demo_gallery_needs_nothing(materialize, demo_port):
    galleries = Galleries(galleries=[{"name": "demo", "source": {"type": "demo", "images": 20}}])
    result = materialize(galleries, "demo")
    told = metadata(result, "gallery_catalog")
    assert (told["ok"], told["failed/http_410"], told["invalid/truncated"]) == (18, 1, 1)


def test_no_thread_is_left_behind(materialize, galleries):
    import threading

    materialize(galleries, "mine")
    assert not [each for each in threading.enumerate() if each.name.startswith(("Download", "validate"))]


def test_progress_is_logged_every_few_seconds_and_not_every_time():
    now, said = [0.0], []
    say = every_few_seconds(said.append, clock=lambda: now[0])
    for second in range(21):
        now[0] = float(second)
        say(Progress(done=second, total=20, failed=0, seconds=float(second)))
    assert [line.partition(" ")[0] for line in said] == ["5", "10", "15", "20"]


@pytest.fixture(params=[False, True], ids=["partitions", "own assets"])
def asset_per_gallery(request):
    return request.param


class Watched:
    """A gallery in a Dagster instance, and an asset downstream that runs when a data version changes.

    Args:
        galleries: The galleries file.
        instance: The Dagster instance.
        stage: The stage that the asset is downstream of.
        condition: When it runs; by default when the data version of what is upstream changed.
    """

    def __init__(self, galleries, instance, stage, condition=None):
        self.instance, self.stage, self.cursor = instance, stage, None
        own = galleries.asset_per_gallery
        self.component = ImageGalleries(galleries)
        self.upstream = getattr(AssetKeys.of(galleries, "mine" if own else None), stage)
        changed = dg.AutomationCondition.any_deps_match(dg.AutomationCondition.data_version_changed())
        defs = dg.build_defs_for_component(self.component)
        partitions = defs.resolve_asset_graph().get(self.upstream).partitions_def

        @dg.asset(deps=[self.upstream], partitions_def=partitions, automation_condition=condition or changed)
        def downstream(): ...

        self.defs = dg.Definitions.merge(defs, dg.Definitions(assets=[downstream]))

    def run(self):
        job = self.defs.resolve_job_def("download_galleries")
        result = job.execute_in_process(instance=self.instance, **self.component.runs["mine"])
        assert result.success
        event = self.instance.get_latest_materialization_event(self.upstream)
        return event.asset_materialization.tags.get("dagster/data_version")

    def woken(self):
        """What is requested of the asset downstream since the last time."""
        only = dg.AssetSelection.assets("downstream")
        result = dg.evaluate_automation_conditions(self.defs, self.instance, only, cursor=self.cursor)
        self.cursor = result.cursor
        return result.total_requested


@pytest.mark.parametrize("stage", ["links", "catalog"])
def test_an_unchanged_list_wakes_nothing_downstream_and_a_changed_one_does(
    galleries, tmp_path, monkeypatch, server, asset_per_gallery, stage
):
    monkeypatch.setenv("IMGDL_STORE", str(tmp_path / "store"))
    galleries = galleries.model_copy(update={"asset_per_gallery": asset_per_gallery})
    with dg.DagsterInstance.ephemeral() as instance:
        watched = Watched(galleries, instance, stage)
        first = watched.run()
        watched.woken()  # the first evaluation has nothing to compare with
        assert (watched.run(), watched.woken()) == (first, 0)
        server.serve("/new.jpg", jpeg(7))
        with (tmp_path / "links.csv").open("a") as links:
            links.write(f"{server.url('/new.jpg')},new\n")
        assert watched.run() != first
        assert (watched.woken(), watched.woken()) == (1, 0)


def test_an_image_that_is_another_one_now_wakes_what_is_downstream_of_the_catalog(
    galleries, tmp_path, monkeypatch, server
):
    monkeypatch.setenv("IMGDL_STORE", str(tmp_path / "store"))
    with dg.DagsterInstance.ephemeral() as instance:
        of_links, of_catalog = (Watched(galleries, instance, stage) for stage in ("links", "catalog"))
        versions = of_links.run(), of_catalog.run()
        of_links.woken(), of_catalog.woken()
        for path in (tmp_path / "store/images/mine").rglob("*.jpg"):
            path.unlink()
        server.serve("/a.jpg", jpeg(8))
        server.serve("/b.jpg", jpeg(8))
        assert (of_links.run(), of_catalog.run()[:0]) == (versions[0], "")
        assert of_catalog.run() != versions[1]
        assert (of_links.woken(), of_catalog.woken()) == (0, 1)


def test_the_same_list_has_the_same_version_in_every_run(materialize, galleries):
    versions = set()
    for _ in range(3):
        result = materialize(galleries, "mine", only="gallery_links")
        [event] = result.get_asset_materialization_events()
        versions.add(event.materialization.tags["dagster/data_version"])
    assert len(versions) == 1


def test_eager_is_requested_for_any_run_even_of_an_unchanged_list(galleries, tmp_path, monkeypatch):
    """As Dagster defines it; docs say which condition looks at data versions."""
    monkeypatch.setenv("IMGDL_STORE", str(tmp_path / "store"))
    with dg.DagsterInstance.ephemeral() as instance:
        watched = Watched(galleries, instance, "links", dg.AutomationCondition.eager())
        watched.run()
        watched.woken()
        watched.run()
        assert watched.woken() == 1


def specs_of(galleries):
    graph = dg.build_defs_for_component(ImageGalleries(galleries)).resolve_asset_graph()
    return {key.to_user_string(): graph.get(key) for key in graph.get_all_asset_keys()}


def test_only_a_gallerys_own_catalog_has_a_freshness_policy(galleries):
    assert all(each.freshness_policy is None for each in specs_of(galleries).values())
    own = specs_of(galleries.model_copy(update={"asset_per_gallery": True}))
    policies = {key: each.freshness_policy for key, each in own.items() if each.freshness_policy}
    assert set(policies) == {"gallery/mine/catalog", "gallery/locked/catalog"}
    assert {each.fail_window.to_timedelta() for each in policies.values()} == {timedelta(days=2)}


@pytest.mark.parametrize(
    ("settings", "window"),
    [
        ({"schedule": "0 6 * * 1"}, timedelta(days=14)),
        ({"schedule": None}, None),
        ({"checks": {"fresh_days": 3}}, timedelta(days=3)),
        ({"schedule": None, "checks": {"fresh_days": 0.5}}, timedelta(hours=12)),
    ],
)
def test_a_freshness_policy_follows_the_gallerys_own_schedule_and_fresh_days(settings, window):
    galleries = Galleries(
        asset_per_gallery=True, galleries=[{"name": "g", "source": {"type": "demo"}, **settings}]
    )
    policy = specs_of(galleries)["gallery/g/catalog"].freshness_policy
    assert (policy and policy.fail_window.to_timedelta()) == window


def test_a_gallery_has_owners_tags_group_and_automation_of_its_own():
    condition = dg.AutomationCondition.on_cron("0 6 * * *")
    galleries = Galleries(
        asset_per_gallery=True,
        assets={"owners": ["team:all"], "tags": {"domain": "shop"}, "kinds": ["s3"]},
        galleries=[
            {
                "name": "own",
                "source": {"type": "demo"},
                "assets": {
                    "owners": ["ann@shop.example"],
                    "tags": {"domain": "press"},
                    "group_name": "press",
                    "automation_condition": condition,
                },
            },
            {"name": "plain", "source": {"type": "demo"}},
        ],
    )
    specs = specs_of(galleries)
    own, plain = specs["gallery/own/images"], specs["gallery/plain/images"]
    assert (own.owners, plain.owners) == (["ann@shop.example"], ["team:all"])
    assert (own.tags["domain"], plain.tags["domain"]) == ("press", "shop")
    assert (own.group_name, plain.group_name) == ("press", "plain")
    assert (own.automation_condition, plain.automation_condition) == (condition, None)
    assert own.kinds == plain.kinds == {"jpeg", "parquet", "s3"}


def test_names_with_dashes_and_dots_are_keys_as_they_are_written(tmp_path, monkeypatch, demo_port):
    monkeypatch.setenv("IMGDL_STORE", str(tmp_path / "store"))
    names = ("a-b", "a.b", "a_b", "2026.11-x")
    galleries = Galleries(
        asset_per_gallery=True,
        galleries=[{"name": name, "source": {"type": "demo", "images": 3}} for name in names],
    )
    component = ImageGalleries(galleries)
    defs = dg.build_defs_for_component(component)
    dg.Definitions.validate_loadable(defs)
    job = defs.resolve_job_def("download_galleries")
    for name in names:
        result = job.execute_in_process(**component.runs[name])
        assert [event.asset_key.path for event in result.get_asset_materialization_events()] == [
            ["gallery", name, stage] for stage in ("links", "images", "catalog")
        ]
    assert {path.name for path in (tmp_path / "store/catalog").iterdir()} == {
        f"gallery={name}" for name in names
    }


def test_thresholds_and_limits_do_not_plot_where_galleries_share_an_asset(materialize, galleries):
    """A number that the galleries file sets is text: as a line in a plot it would tell nothing."""
    for stage in ("links", "images", "catalog"):
        told = metadata(materialize(galleries, "mine"), f"gallery_{stage}")
        assert not [key for key in told if key.startswith(("allowed", "warn", "error"))]


def test_a_run_of_a_gallery_that_is_gone_says_so(galleries, materialize):
    """It may have waited in a queue while the gallery was removed from the file."""
    gone = galleries.model_copy(update={"galleries": galleries.galleries[1:]})
    job = dg.build_defs_for_component(ImageGalleries(gone)).resolve_job_def("download_galleries")
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(
            instance=instance, tags={"dagster/partition": "mine"}, raise_on_error=False
        )
    [failure] = result.get_step_failure_events()[:1]
    words = failure.event_specific_data.user_failure_data.description
    assert words == "the gallery mine is not in the galleries file any more"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"workers": 0}, "workers: Input should be greater than or equal to 1, not 0"),
        ({"recheck": "sometimes"}, "recheck: .*must be never, or a number of days above 0"),
        ({"recheck": [7]}, "recheck: "),
        ({"limit": 0}, "limit: "),
        ({"allow_addresses": ["nonsense"]}, "allow_addresses: .*give a CIDR such as"),
    ],
)
def test_a_wrong_launchpad_value_fails_the_first_step_before_it_works_and_says_why(
    galleries, tmp_path, monkeypatch, server, config, words
):
    monkeypatch.setenv("IMGDL_STORE", str(tmp_path / "store"))
    defs = dg.build_defs_for_component(ImageGalleries(galleries))
    job = defs.resolve_job_def("download_galleries")
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(
            instance=instance,
            partition_key="mine",
            run_config={"resources": {"image_downloads": {"config": config}}},
            raise_on_error=False,
        )
    assert not result.success
    assert server.requests == []
    assert not list((tmp_path / "store").rglob("*.*"))
    [failure] = result.get_step_failure_events()
    words_of_step = failure.step_failure_data.user_failure_data.description
    assert re.search(rf"resources\.image_downloads\.config\.{words}", words_of_step)


def test_a_wrong_launchpad_value_leaves_the_verdicts_of_the_last_run(galleries, tmp_path, monkeypatch):
    monkeypatch.setenv("IMGDL_STORE", str(tmp_path / "store"))
    defs = dg.build_defs_for_component(ImageGalleries(galleries))
    job = defs.resolve_job_def("download_galleries")
    catalog = dg.AssetKey("gallery_catalog")
    keys = [dg.AssetCheckKey(catalog, name) for name in CHECKS]
    partitions = defs.resolve_asset_graph().get(catalog).partitions_def
    with dg.DagsterInstance.ephemeral() as instance:
        assert job.execute_in_process(instance=instance, partition_key="mine").success
        config = {"resources": {"image_downloads": {"config": {"workers": 0}}}}
        job.execute_in_process(
            instance=instance, partition_key="mine", run_config=config, raise_on_error=False
        )
        states = instance.event_log_storage.get_asset_check_state([(key, partitions) for key in keys])
    spoilt = {
        key.name
        for key, state in states.items()
        for status, subset in state.subsets.items()
        if status.value == "EXECUTION_FAILED" and "mine" in subset.subset_value.get_partition_keys()
    }
    assert spoilt == set()


@pytest.mark.parametrize(
    "config", [{"workers": "many"}, {"wrokers": 3}, {"user_agent": 7}, {"robots_txt": "no"}]
)
def test_a_launchpad_value_of_a_wrong_type_is_refused_before_there_is_a_run(galleries, config):
    defs = dg.build_defs_for_component(ImageGalleries(galleries))
    job = defs.resolve_job_def("download_galleries")
    with dg.DagsterInstance.ephemeral() as instance:
        with pytest.raises(dg.DagsterInvalidConfigError):
            job.execute_in_process(
                instance=instance,
                partition_key="mine",
                run_config={"resources": {"image_downloads": {"config": config}}},
            )
        assert instance.get_runs_count() == 0


@pytest.fixture
def with_dataset(galleries):
    """Makes the galleries file in which `mine` has a dataset; `locked` never has one."""

    def with_dataset_(allow_empty=False, file=(), **dataset):
        mine, locked = (each.model_dump(exclude_unset=True) for each in galleries.galleries)
        mine |= {"dataset": {"format": "webdataset", **dataset}, "allow_empty": allow_empty}
        return Galleries(
            **{**galleries.model_dump(exclude_unset=True), "galleries": [mine, locked], **dict(file)}
        )

    return with_dataset_


def members(tar):
    with tarfile.open(tar) as opened:
        return [each.name for each in opened]


def failure_of(result):
    """The words of a step that failed, and what is shown beside them."""
    [failure] = result.get_step_failure_events()
    data = failure.step_failure_data
    told = {name: entry.value for name, entry in data.user_failure_data.metadata.items()}
    return data.user_failure_data.description, told


def test_the_asset_of_datasets_is_there_only_where_a_gallery_has_one(galleries, with_dataset):
    assert "gallery_dataset" not in specs_of(galleries)
    specs = specs_of(with_dataset())
    assert set(specs) == {f"gallery_{name}" for name in ("links", "images", "catalog", "dataset")}
    dataset = specs["gallery_dataset"]
    assert dataset.parent_keys == {dg.AssetKey("gallery_catalog")}
    assert dataset.partitions_def.get_partition_keys() == ["mine", "locked"]
    assert dataset.description.startswith("A dataset of the images, for training jobs and other readers")
    assert "dagster/column_schema" not in dataset.metadata, "its columns depend on its format"


def test_with_near_duplicates_a_dataset_comes_after_them(with_dataset):
    file = {"near_duplicates": {"distance": 4}, "assets": {"key_prefix": ["media"]}}
    specs = specs_of(with_dataset(file=file))
    near, catalog = dg.AssetKey(["media", "near_duplicates"]), dg.AssetKey(["media", "gallery_catalog"])
    assert specs["media/gallery_dataset"].parent_keys == {near, catalog}
    assert specs["media/near_duplicates"].parent_keys == {catalog}
    assert {
        key for key, spec in specs.items() if near in spec.parent_keys
    } == {"media/gallery_dataset"}  # fmt: skip


def test_of_galleries_with_assets_of_their_own_only_those_with_a_dataset_have_its_asset(with_dataset):
    file = {"asset_per_gallery": True, "near_duplicates": {"distance": 4}, "assets": {"tags": {"a": "b"}}}
    specs = specs_of(with_dataset(file=file))
    assert [key for key in specs if key.endswith("dataset")] == ["gallery/mine/dataset"]
    dataset = specs["gallery/mine/dataset"]
    near = dg.AssetKey("near_duplicates")
    assert dataset.parent_keys == {dg.AssetKey(["gallery", "mine", "catalog"]), near}
    assert (dataset.group_name, dataset.tags["a"]) == ("mine", "b")
    assert not dataset.is_partitioned
    assert dataset.freshness_policy is None
    assert specs["near_duplicates"].parent_keys == {
        dg.AssetKey(["gallery", name, "catalog"]) for name in ("mine", "locked")
    }


def test_the_file_describes_the_asset_of_datasets_in_its_own_words(with_dataset):
    file = {"assets": {"descriptions": {"gallery_dataset": "What the model is trained with."}}}
    assert specs_of(with_dataset(file=file))["gallery_dataset"].description == (
        "What the model is trained with."
    )


def test_a_gallery_becomes_the_dataset_that_it_asks_for_and_tells_its_numbers(
    materialize, with_dataset, tmp_path
):
    result = materialize(with_dataset(where="duplicate_of is null", caption="attributes.title"), "mine")
    folder, told = tmp_path / "store/datasets/mine", metadata(result, "gallery_dataset")
    names = members(folder / "00000.tar")
    assert sorted(name.rpartition(".")[2] for name in names) == ["jpg", "json", "txt"]
    files = [each for each in folder.rglob("*") if each.is_file() and each.name != "manifest.json"]
    assert told.pop("seconds") >= 0
    assert told.pop("settings") == {
        **json.loads((folder / "manifest.json").read_text())["settings"],
        "where": "duplicate_of is null",
        "caption": "attributes.title",
    }
    assert told == {
        "path": str(folder),
        "dagster/row_count": 1,
        "format": "webdataset",
        "images": 1,
        "bytes": sum(each.stat().st_size for each in files),
        "files": len(files),
        "written": 1,
        "missing": 0,
        "licences": "| licence | images |\n| --- | --- |\n| `none known` | 1 |",
    }


def version_of(result, asset="gallery_dataset"):
    [event] = result.asset_materializations_for_node(asset)
    return event.tags["dagster/data_version"]


def test_a_dataset_that_stays_as_it_is_keeps_its_version_and_another_one_has_another(
    materialize, with_dataset
):
    first = materialize(with_dataset(), "mine")
    again = materialize(with_dataset(), "mine")
    assert metadata(first, "gallery_dataset")["written"] == 1
    assert metadata(again, "gallery_dataset")["written"] == 0
    assert version_of(first) == version_of(again)
    fewer = materialize(with_dataset(where="duplicate_of is null"), "mine", only="gallery_dataset")
    assert version_of(fewer) != version_of(first)


def test_a_gallery_without_a_dataset_skips_its_partition_and_writes_nothing(
    with_dataset, tmp_path, monkeypatch, demo_port
):
    monkeypatch.setenv("IMGDL_STORE", str(tmp_path / "store"))
    demo = {"name": "demo", "source": {"type": "demo", "images": 3}}
    given = [each.model_dump(exclude_unset=True) for each in with_dataset().galleries]
    galleries = Galleries(galleries=[*given, demo])
    job = dg.build_defs_for_component(ImageGalleries(galleries)).resolve_job_def("download_galleries")
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(instance=instance, partition_key="demo")
        materialized = instance.get_materialized_partitions(dg.AssetKey("gallery_dataset"))
    assert result.success
    assert [event.asset_key.path[-1] for event in result.get_asset_materialization_events()] == [
        f"gallery_{name}" for name in ("links", "images", "catalog")
    ]
    assert materialized == set()
    assert not (tmp_path / "store/datasets").exists()


def test_what_is_downstream_of_a_skipped_dataset_is_skipped_too(materialize, with_dataset, tmp_path):
    (tmp_path / "store").mkdir()
    galleries = with_dataset()
    seen = []

    @dg.asset(
        deps=[dg.AssetKey("gallery_dataset")],
        partitions_def=build_assets(galleries)[0].partitions_def,
    )
    def trained():
        seen.append("trained")

    datasets = [each for each in build_assets(galleries) if each.key.path == ["gallery_dataset"]]
    result = dg.materialize(
        [*datasets, trained],
        partition_key="locked",
        resources={"image_downloads": ImageDownloads(limit=None)},
    )
    assert result.success
    assert seen == []


def test_a_dataset_without_images_fails_its_run_and_says_why(materialize, with_dataset):
    result = materialize(with_dataset(where="width > 9000"), "mine", raise_on_error=False)
    words, _ = failure_of(result)
    assert words == (
        "the dataset of mine has no images: none is ok, or for none this holds: width > 9000"
    )  # fmt: skip
    assert {event.asset_key.path[-1] for event in result.get_asset_materialization_events()} == {
        f"gallery_{name}" for name in ("links", "images", "catalog")
    }


def test_a_dataset_may_be_empty_where_the_gallery_may(materialize, with_dataset, tmp_path):
    result = materialize(with_dataset(where="width > 9000", allow_empty=True), "mine")
    told = metadata(result, "gallery_dataset")
    assert (told["images"], told["dagster/row_count"], told["licences"]) == (0, 0, "none")
    assert (tmp_path / "store/datasets/mine/manifest.json").exists()


def test_images_whose_files_are_gone_are_named_in_a_warning_without_what_is_secret_in_their_links(
    materialize, galleries, with_dataset, tmp_path, server, capfd
):
    link = server.url("/b.jpg?access_token=abc123def456")
    server.serve("/b.jpg", jpeg(2))
    (tmp_path / "links.csv").write_text(f"url,title\n{server.url('/a.jpg')},A\n{link},B\n")
    materialize(galleries, "mine")
    rows = pq.read_table(tmp_path / "store/catalog/gallery=mine/catalog.parquet", partitioning=None)
    [lost] = [row for row in rows.to_pylist() if row["url"] == link]
    (tmp_path / "store" / lost["path"]).unlink()
    result = materialize(with_dataset(), "mine", only="gallery_dataset")
    told = metadata(result, "gallery_dataset")
    assert (told["images"], told["missing"]) == (1, 1)
    said = capfd.readouterr().err
    warning = said.partition("left out 1 image whose file is gone or was altered: http://")[2]
    assert "/b.jpg" in warning.splitlines()[0]
    assert "abc123def456" not in said + json.dumps(told, default=str)


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("cast(attributes->>'title' as integer) > 3", "Could not convert string '/a.jpg' to INT32"),
        ("cast(url || '?token=abc123def456' as integer) > 3", "Could not convert string 'http"),
    ],
)
def test_a_condition_that_fails_on_the_data_fails_the_run_in_words(
    materialize, with_dataset, capfd, where, words
):
    result = materialize(with_dataset(where=where), "mine", raise_on_error=False)
    told, beside = failure_of(result)
    assert "is no DuckDB SQL over the catalog's columns: Conversion Error: " + words in told
    assert beside == {"gallery": "mine", "source": "url_list", "error": "WhereError"}
    assert "abc123def456" not in told + capfd.readouterr().err


def test_a_dataset_that_someone_else_writes_fails_the_run_in_words(materialize, with_dataset, tmp_path):
    galleries, store = with_dataset(), Store(str(tmp_path / "store"))
    materialize(galleries, "mine")
    with Lease(store, "the dataset of mine", folder=dataset_leases_path("mine")):
        result = materialize(galleries, "mine", only="gallery_dataset", raise_on_error=False)
    words, beside = failure_of(result)
    assert words.startswith("another run is at work on the dataset of mine: process ")
    assert beside["error"] == "GalleryBusyError"


def test_a_dataset_before_its_catalog_says_what_to_run(materialize, with_dataset, tmp_path):
    (tmp_path / "store").mkdir()
    result = materialize(with_dataset(), "mine", only="gallery_dataset", raise_on_error=False)
    words, _ = failure_of(result)
    assert words == (
        f"{tmp_path}/store/catalog/gallery=mine/catalog.parquet does not exist: run the gallery first"
    )


def test_a_failing_export_leaves_the_dataset_of_before_and_the_catalog_of_now(
    materialize, with_dataset, tmp_path
):
    materialize(with_dataset(), "mine")
    before = {file: file.read_bytes() for file in (tmp_path / "store/datasets").rglob("*.*")}
    failing = with_dataset(where="cast(url as integer) > 3")
    assert not materialize(failing, "mine", raise_on_error=False).success
    assert {file: file.read_bytes() for file in (tmp_path / "store/datasets").rglob("*.*")} == before


def test_a_dataset_has_what_a_run_with_a_config_of_its_own_left(materialize, with_dataset):
    config = {"resources": {"image_downloads": {"config": {"limit": 1}}}}
    limited = materialize(with_dataset(), "mine", run_config=config)
    assert metadata(limited, "gallery_dataset")["images"] == 1
    assert metadata(materialize(with_dataset(), "mine"), "gallery_dataset")["images"] == 2


def test_a_dataset_of_small_pictures_has_them_and_not_those_of_the_store(materialize, with_dataset, tmp_path):
    galleries = with_dataset(resize={"side": 32, "how": "pad"}, where="duplicate_of is null")
    result = materialize(galleries, "mine")
    assert metadata(result, "gallery_dataset")["images"] == 1
    with tarfile.open(tmp_path / "store/datasets/mine/00000.tar") as tar:
        [picture] = [each for each in tar if each.name.endswith(".jpg")]
        with Image.open(tar.extractfile(picture)) as opened:
            assert opened.size == (32, 32)


def test_a_subclass_may_add_to_a_dataset(with_dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("IMGDL_STORE", str(tmp_path / "store"))

    class Published(ImageGalleries):
        def get_asset_spec(self, stage):
            spec = super().get_asset_spec(stage)
            return spec.replace_attributes(owners=["team:models"]) if stage.name == "dataset" else spec

        def execute(self, context, stage, image_downloads):
            for result in super().execute(context, stage, image_downloads):
                more = {"published": True} if stage.name == "dataset" else {}
                yield dg.MaterializeResult(
                    metadata={**result.metadata, **more}, data_version=result.data_version
                )

    defs = dg.build_defs_for_component(Published(with_dataset()))
    graph = defs.resolve_asset_graph()
    assert graph.get(dg.AssetKey("gallery_dataset")).owners == ["team:models"]
    assert graph.get(dg.AssetKey("gallery_catalog")).owners == []
    with dg.DagsterInstance.ephemeral() as instance:
        job = defs.resolve_job_def("download_galleries")
        result = job.execute_in_process(instance=instance, partition_key="mine")
    assert metadata(result, "gallery_dataset")["published"] is True
    assert "published" not in metadata(result, "gallery_catalog")


def test_everything_that_is_selected_runs_for_a_gallery_also_near_duplicates(
    with_dataset, tmp_path, monkeypatch
):
    """As `--select '*' --partition NAME` does: near duplicates have no partitions."""
    monkeypatch.setenv("IMGDL_STORE", str(tmp_path / "store"))
    file = {"near_duplicates": {"distance": 4}}
    defs = dg.build_defs_for_component(ImageGalleries(with_dataset(where="representative", file=file)))
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            list(defs.assets),
            instance=instance,
            partition_key="mine",
            resources=dict(defs.resources),
            selection="*",
        )
    made = [event.asset_key.path[-1] for event in result.get_asset_materialization_events()]
    assert made == [
        "gallery_links", "gallery_images", "gallery_catalog", "near_duplicates", "gallery_dataset"
    ]  # fmt: skip
    assert metadata(result, "gallery_dataset")["images"] == 1, "its copy looks like it"
