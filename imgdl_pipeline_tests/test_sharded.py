"""A very large gallery in Dagster: its list, the sensor, and the runs of its shards."""

import json

import dagster as dg
import pyarrow as pa
import pyarrow.dataset as pads
import pytest

from imgdl_pipeline import GalleryStage, ShardedGallery
from imgdl_pipeline.config.galleries_file import read_galleries_file
from imgdl_pipeline.definitions import component, defs
from imgdl_pipeline.sharded import MOST_REQUESTS
from imgdl_pipeline_tests.support.pictures import jpeg

LINKS = 30
"""So many that each of three shards has some, whatever the server's port is."""

FILE = """\
type: imgdl_pipeline.ShardedGallery
attributes:
  name: laion
  shards: {shards}
  store: store
  source: {{type: url_list, path: links.txt}}
  download: {{allow_addresses: [127.0.0.0/8], robots_txt: false, attempts: 1}}
"""


class Laion:
    """The gallery of `FILE` with everything that Dagster loads from it."""

    def __init__(self, folder, text, instance):
        (folder / "laion.yaml").write_text(text)
        self.component, self.defs, self.instance = component(), defs(), instance

    def run(self, job, partition=None, **more):
        return self.defs.resolve_job_def(f"laion_{job}").execute_in_process(
            instance=self.instance, partition_key=partition, raise_on_error=False, **more
        )

    def list(self):
        return self.run("list_gallery")

    def tick(self, cursor=None):
        context = dg.build_sensor_context(
            instance=self.instance, cursor=cursor, definitions=self.defs, sensor_name="laion_shards_with_work"
        )
        return self.defs.get_repository_def().get_sensor_def("laion_shards_with_work")(context)

    def run_shards(self, requests):
        return [self.run("download_galleries", each.partition_key) for each in requests]


@pytest.fixture
def laion(tmp_path, monkeypatch, server):
    """The gallery, of some pictures and a dead link, as a galleries file with more attributes defines it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IMGDL_CONFIG", "laion.yaml")
    monkeypatch.delenv("IMGDL_STORE", raising=False)
    paths = [f"/{number}.jpg" for number in range(LINKS)]
    for number, path in enumerate(paths):
        server.serve(path, jpeg(number))
    (tmp_path / "links.txt").write_text("\n".join(map(server.url, [*paths, "/dead.jpg"])))

    def laion_(*attributes, shards=3):
        text = FILE.format(shards=shards) + "".join(f"  {line}\n" for line in attributes)
        return Laion(tmp_path, text, instance)

    with dg.DagsterInstance.ephemeral() as instance:
        yield laion_


def metadata(result, asset):
    [event] = [
        each
        for each in result.get_asset_materialization_events()
        if each.asset_key == dg.AssetKey(["laion", asset])
    ]
    return {key: each.value for key, each in event.step_materialization_data.materialization.metadata.items()}


def test_the_assets_are_those_of_the_contract(laion):
    of_file = laion("dataset: {format: webdataset}")
    graph = of_file.defs.get_repository_def().asset_graph
    keys = [dg.AssetKey(["laion", f"gallery_{name}"]) for name in ("list", "images", "catalog", "dataset")]
    assert set(graph.get_all_asset_keys()) == set(keys)
    assert graph.get(keys[0]).partitions_def is None
    for key, upstream in ((keys[1], {keys[0]}), (keys[2], {keys[0], keys[1]}), (keys[3], {keys[2]})):
        assert graph.get(key).partitions_def.get_partition_keys() == ["0000", "0001", "0002"]
        assert graph.get(key).parent_keys == upstream


def test_the_list_says_how_it_was_divided(laion):
    told = metadata(laion().list(), "gallery_list")
    assert (told["links"], told["shards"], told["hosts"]) == (LINKS + 1, 3, 1)
    assert told["links_in_smallest_shard"] <= (LINKS + 1) // 3 <= told["links_in_largest_shard"]
    assert told["path"].endswith("links/gallery=laion")


def test_the_sensor_requests_each_shard_once_per_list_and_the_runs_fetch_every_link(laion, tmp_path):
    of_file = laion("dataset: {format: parquet}")
    assert of_file.tick().run_requests == []
    assert of_file.list().success
    asked = of_file.tick()
    assert sorted(each.partition_key for each in asked.run_requests) == ["0000", "0001", "0002"]
    again = of_file.tick(asked.cursor)
    assert again.run_requests == []
    assert "requested already" in again.skip_reason.skip_message
    results = of_file.run_shards(asked.run_requests)
    assert all(each.success for each in results)
    assert sum(metadata(each, "gallery_catalog")["ok"] for each in results) == LINKS
    assert sum(metadata(each, "gallery_dataset")["images"] for each in results) == LINKS
    done = of_file.tick(asked.cursor)
    assert done.run_requests == []
    assert "no shard of laion has a list that is newer" in done.skip_reason.skip_message
    catalog = pads.dataset(str(tmp_path / "store/catalog"), partitioning="hive").to_table(
        ["gallery", "status"]
    )
    assert catalog["status"].to_pylist().count("ok") == LINKS
    assert set(catalog["gallery"].to_pylist()) == {"laion"}
    assert of_file.list().success
    assert len(of_file.tick(asked.cursor).run_requests) == 3


def test_a_tick_requests_a_bounded_number_of_runs_and_the_next_one_the_others(laion):
    of_file = laion(shards=MOST_REQUESTS + 5)
    assert of_file.list().success
    first = of_file.tick()
    second = of_file.tick(first.cursor)
    assert (len(first.run_requests), len(second.run_requests)) == (MOST_REQUESTS, 5)
    keys = {each.partition_key for each in (*first.run_requests, *second.run_requests)}
    assert len(keys) == MOST_REQUESTS + 5


def test_a_shard_that_no_list_was_made_for_fails_in_words(laion):
    result = laion().run("download_galleries", "0001")
    [failure] = [each for each in result.all_events if each.is_step_failure]
    assert "materialize gallery_list first" in failure.step_failure_data.user_failure_data.description


def cause(result):
    [failure] = [each for each in result.all_events if each.is_step_failure]
    return failure.step_failure_data.user_failure_data.description


def test_another_number_of_shards_fails_in_words_that_name_the_command(laion):
    assert laion().list().success
    changed = laion(shards=5)
    assert "imgdl reshard laion 5" in cause(changed.list())
    assert "imgdl reshard laion 5" in cause(changed.run("download_galleries", "0001"))


def test_a_shard_with_few_links_gets_a_warning_for_their_share(laion):
    of_file = laion("checks: {failed_error: 0}")
    of_file.list()
    results = of_file.run_shards(of_file.tick().run_requests)
    bad = [
        each
        for result in results
        for each in result.get_asset_check_evaluations()
        if each.check_name == "few_links_failed" and not each.passed
    ]
    assert [each.severity for each in bad] == [dg.AssetCheckSeverity.WARN]


def test_a_source_that_fails_is_the_failures_description_and_the_lists_stay(laion, tmp_path):
    of_file = laion()
    assert of_file.list().success
    (tmp_path / "links.txt").unlink()
    result = of_file.list()
    [failure] = [each for each in result.all_events if each.is_step_failure]
    told = failure.step_failure_data.user_failure_data
    assert "links.txt" in told.description
    assert told.metadata["gallery"].value == "laion"
    assert all(each.success for each in of_file.run_shards(of_file.tick().run_requests))


def test_the_verdict_of_a_shard_belongs_to_its_partition(laion):
    of_file = laion("checks: {failed_error: 0}")
    of_file.list()
    results = of_file.run_shards(of_file.tick().run_requests)
    verdicts = [
        each
        for result in results
        for each in result.get_asset_check_evaluations()
        if each.check_name == "few_links_failed"
    ]
    assert [each.passed for each in verdicts].count(False) == 1
    assert {each.partition for each in verdicts} == {"0000", "0001", "0002"}
    assert of_file.run("check_galleries", "0001").success
    assert of_file.run("check_galleries").success


def test_a_download_setting_of_one_run_counts_for_a_shard(laion):
    of_file = laion()
    of_file.list()
    config = {"resources": {"image_downloads": {"config": {"limit": 1}}}}
    results = [of_file.run("download_galleries", f"{number:04d}", run_config=config) for number in range(3)]
    assert [metadata(each, "gallery_images")["tried"] for each in results] == [1, 1, 1]


def test_assets_downstream_take_the_tables_of_shards(laion):
    of_file = laion()
    of_file.list()
    of_file.run_shards(of_file.tick().run_requests)
    taken = {}

    @dg.asset(
        partitions_def=dg.StaticPartitionsDefinition(["0000", "0001", "0002"]),
        ins={"catalog": dg.AssetIn(["laion", "gallery_catalog"])},
    )
    def of_shard(catalog: pa.Table) -> None:
        taken["shard"] = catalog

    @dg.asset(
        ins={
            "links": dg.AssetIn(["laion", "gallery_list"]),
            "catalog": dg.AssetIn(["laion", "gallery_catalog"]),
        }
    )
    def of_all(links: pa.Table, catalog: pa.Table) -> None:
        taken.update(links=links, catalog=catalog)

    merged = dg.Definitions.merge(of_file.defs, dg.Definitions(assets=[of_shard, of_all]))
    for asset, partition in ((of_shard, "0001"), (of_all, None)):
        job = dg.define_asset_job("take", selection=[asset])
        whole = dg.Definitions.merge(merged, dg.Definitions(jobs=[job]))
        taker = whole.resolve_job_def("take")
        assert taker.execute_in_process(instance=of_file.instance, partition_key=partition).success
    assert 0 < taken["shard"].num_rows < LINKS + 1
    assert taken["links"].num_rows == taken["catalog"].num_rows == LINKS + 1
    assert set(taken["links"]["gallery"].to_pylist()) == {"laion/0000", "laion/0001", "laion/0002"}


def test_a_subclass_may_change_the_lists_asset_and_what_runs(laion, tmp_path):
    ran = []

    class Tagged(ShardedGallery):
        def get_asset_spec(self, stage: GalleryStage) -> dg.AssetSpec:
            return super().get_asset_spec(stage).merge_attributes(tags={"stage": stage.name})

        def execute(self, context, stage, image_downloads):
            ran.append((stage.name, stage.gallery.name))
            yield from super().execute(context, stage, image_downloads)

    laion()
    own = Tagged(read_galleries_file(tmp_path / "laion.yaml"))
    whole = dg.build_defs_for_component(own)
    graph = whole.get_repository_def().asset_graph
    assert graph.get(dg.AssetKey(["laion", "gallery_list"])).tags["stage"] == "links"
    assert whole.resolve_job_def("laion_list_gallery").execute_in_process().success
    job = whole.resolve_job_def("laion_download_galleries")
    assert job.execute_in_process(partition_key="0000").success
    assert ran == [("links", "laion"), ("images", "laion/0000"), ("catalog", "laion/0000")]


def test_the_schedule_lists_and_has_the_status_of_the_file(laion):
    repository = laion("schedule_status: RUNNING").defs.get_repository_def()
    [schedule] = repository.schedule_defs
    assert (schedule.name, schedule.job_name) == ("laion_daily_list", "laion_list_gallery")
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    assert {each.default_status for each in repository.sensor_defs} == {dg.DefaultSensorStatus.RUNNING}
    assert not laion("schedule: null").defs.get_repository_def().schedule_defs


def test_the_cursor_names_the_list_that_each_run_was_requested_for(laion):
    of_file = laion()
    of_file.list()
    asked = of_file.tick()
    assert set(json.loads(asked.cursor)) == {"0000", "0001", "0002"}
    assert all(
        each.run_key == f"laion/{each.partition_key} {json.loads(asked.cursor)[each.partition_key]}"
        for each in asked.run_requests
    )
