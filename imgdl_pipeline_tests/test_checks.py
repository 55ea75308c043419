from datetime import timedelta

import dagster as dg
import pytest

from imgdl_pipeline.assets import AssetKeys, build_assets
from imgdl_pipeline.checks import build_checks
from imgdl_pipeline.component import ImageGalleries
from imgdl_pipeline.config.galleries import Galleries
from imgdl_pipeline.core.model.schemas import CATALOG
from imgdl_pipeline.core.storage.layout import catalog_path
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline.resources import IMAGE_DOWNLOADS, ImageDownloads
from imgdl_pipeline.verdicts import CHECKS, inspected
from imgdl_pipeline_tests.support.pictures import jpeg

WARN, ERROR = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR


def catalogs(galleries):
    return {each.name: AssetKeys.of(galleries).catalog for each in galleries.galleries}


class Checked:
    """Two galleries on the tests' server, materialized and checked."""

    def __init__(self, folder, server):
        self.folder, self.server = folder, server
        self.list("a", 8, dead=0)
        self.list("b", 2, dead=2)

    def list(self, gallery, good, dead):
        urls = [self.server.serve(f"/{gallery}{number}.jpg", jpeg(number)) for number in range(good)]
        urls += [self.server.url(f"/{gallery}-dead{number}.jpg") for number in range(dead)]
        (self.folder / f"{gallery}.txt").write_text("\n".join(urls))

    def galleries(self, **more):
        return Galleries(
            store=str(self.folder / "store"),
            download={"allow_addresses": ["127.0.0.1/32"], "attempts": 1},
            galleries=[
                {"name": name, "source": {"type": "url_list", "path": str(self.folder / f"{name}.txt")}}
                for name in ("a", "b")
            ],
            **more,
        )

    def run(self, gallery, **more):
        """Materialize a gallery; its checks' results by name."""
        galleries = self.galleries(**more)
        result = dg.materialize(
            [*build_assets(galleries), *build_checks(galleries, catalogs(galleries))],
            partition_key=gallery,
            resources={"image_downloads": IMAGE_DOWNLOADS},
        )
        assert result.success
        return {each.check_name: each for each in result.get_asset_check_evaluations()}


@pytest.fixture
def checked(tmp_path, server):
    return Checked(tmp_path, server)


def test_a_sound_gallery_passes_every_check_for_itself(checked):
    results = checked.run("a")
    assert set(results) == set(CHECKS)
    assert all(each.passed for each in results.values())
    assert {each.partition for each in results.values()} == {"a"}
    assert not any(each.blocking for each in results.values())
    assert results["files_are_intact"].metadata["files_read"].value == 8


@pytest.mark.parametrize(
    ("checks", "passed", "severity"),
    [
        ({}, False, WARN),
        ({"failed_error": 0.4}, False, ERROR),
        ({"failed_warn": 0.6}, True, WARN),
    ],
)
def test_too_many_failures_warn_or_are_an_error_as_the_galleries_file_says(checked, checks, passed, severity):
    result = checked.run("b", checks=checks)["few_links_failed"]
    assert (result.passed, result.severity) == (passed, severity)
    assert result.description == "2 of 4 links failed"
    assert result.metadata["share_failed"].value == 0.5
    assert "`failed/http_404`" in result.metadata["rows"].value


def test_a_file_that_is_altered_or_unknown_is_found_and_named(checked):
    checked.run("a")
    store = Store(str(checked.folder / "store"))
    first = min(file.path for file in store.list("images/a"))
    store.put(first, b"altered")
    store.put("images/a/stray.jpg", jpeg(99))
    seen = inspected(checked.galleries(checks={"files": "all"}), "a")
    intact, unknown = CHECKS["files_are_intact"](seen), CHECKS["no_damaged_file_is_stored"](seen)
    assert (intact.passed, intact.severity) == (False, ERROR)
    assert (unknown.passed, unknown.severity) == (False, ERROR)
    assert f"| `altered` | `{first}` |" in intact.metadata["rows"].value
    assert "`images/a/stray.jpg`" in unknown.metadata["rows"].value


def test_a_list_is_compared_with_the_one_before_it_and_no_other(checked):
    assert checked.run("a")["list_is_as_long_as_before"].description == (
        "8 links are listed, and this is the first list"
    )
    checked.list("a", 3, dead=0)
    result = checked.run("a")["list_is_as_long_as_before"]
    assert (result.passed, result.severity) == (False, WARN)
    assert result.description == "3 links are listed, and 8 were before"
    assert checked.server.url("/a7.jpg") in result.metadata["rows"].value
    again = checked.run("a")["list_is_as_long_as_before"]
    assert (again.passed, again.description) == (True, "3 links are listed, and 3 were before")
    checked.list("a", 2, dead=0)
    assert checked.run("a", checks={"lost_warn": 0.2})["list_is_as_long_as_before"].passed is False


def test_only_failed_links_are_named_among_the_failed(checked):
    checked.server.serve("/b0.jpg", jpeg(0)[:-500])
    table = checked.run("b")["few_links_failed"].metadata["rows"].value
    assert "failed/http_404" in table
    assert "truncated" not in table
    assert checked.run("a")["few_links_failed"].metadata["rows"].value == "no link failed"


def test_every_result_says_where_the_rows_stand(checked):
    catalog = str(checked.folder / "store" / catalog_path("a"))
    assert {each.metadata["catalog"].value for each in checked.run("a").values()} == {catalog}


def made_older(checked, gallery):
    """A catalog that no run has written for an hour."""
    store = Store(str(checked.folder / "store"))
    catalog = store.read_table(catalog_path(gallery), CATALOG)
    earlier = [each - timedelta(hours=1) for each in catalog["last_seen"].to_pylist()]
    place = catalog.schema.get_field_index("last_seen")
    store.write_table(catalog_path(gallery), catalog.set_column(place, CATALOG.field("last_seen"), [earlier]))


def test_a_gallery_that_nobody_refreshes_has_its_checks_run_once(checked):
    checked.run("a")
    made_older(checked, "a")
    galleries = checked.galleries(schedule="* * * * *", schedule_status="RUNNING")
    defs = dg.build_defs_for_component(ImageGalleries(galleries))
    sensor = defs.resolve_sensor_def("gallery_freshness")
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(instance, definitions=defs)
        [[request], [again]] = [sensor(context).run_requests for _ in range(2)]
        assert request.run_key == again.run_key
        assert request.run_key.startswith("a 20")
        job = defs.resolve_job_def("check_galleries")
        result = job.execute_in_process(partition_key=request.partition_key, instance=instance)
    told = {each.check_name: (each.partition, each.passed) for each in result.get_asset_check_evaluations()}
    assert set(told) == set(CHECKS)
    assert told["is_fresh"] == ("a", False)


def test_when_all_galleries_are_fresh_the_sensor_says_so(checked):
    checked.run("a")
    galleries = checked.galleries(schedule="0 6 * * *")
    sensor = dg.build_defs_for_component(ImageGalleries(galleries)).resolve_sensor_def("gallery_freshness")
    with dg.DagsterInstance.ephemeral() as instance:
        tick = sensor(dg.build_sensor_context(instance))
    assert (tick.run_requests, tick.skip_reason.skip_message) == ([], "none of 2 galleries is stale")


def test_a_list_that_is_new_does_not_hide_downloads_that_fail(checked):
    checked.run("a", schedule="* * * * *")
    made_older(checked, "a")
    seen = inspected(checked.galleries(schedule="* * * * *"), "a")
    assert CHECKS["is_fresh"](seen).passed is False


def test_a_gallery_of_pages_instead_of_pictures_is_an_error(checked):
    for number in range(8):
        checked.server.serve(f"/a{number}.jpg", b"<!DOCTYPE html><title>Log in</title>")
    result = checked.run("a")["few_links_are_invalid"]
    assert (result.passed, result.severity) == (False, ERROR)
    assert result.description == "8 of 8 links are invalid"
    assert result.metadata["share_invalid"].value == 1.0


def test_a_gallery_of_junk_links_is_an_error(checked):
    (checked.folder / "a.txt").write_text("['http://h.org/a.jpg']\nnothing\n")
    result = checked.run("a")["few_links_were_refused"]
    assert (result.passed, result.severity) == (False, ERROR)
    assert "`refused/scheme`" in result.metadata["rows"].value


def test_links_that_a_time_limit_left_are_counted_by_a_check_and_in_the_metadata(checked):
    galleries = checked.galleries()
    result = dg.materialize(
        [*build_assets(galleries), *build_checks(galleries, catalogs(galleries))],
        partition_key="a",
        resources={"image_downloads": ImageDownloads(limit=None, force=False, time_limit=1e-6)},
    )
    assert result.success
    verdicts = {each.check_name: each for each in result.get_asset_check_evaluations()}
    assert (verdicts["every_link_was_tried"].passed, verdicts["every_link_was_tried"].severity) == (
        False,
        WARN,
    )
    assert verdicts["every_link_was_tried"].description == "8 listed links wait for the next run"
    [images] = result.asset_materializations_for_node("gallery_images")
    assert images.metadata["waiting"].value == 8
