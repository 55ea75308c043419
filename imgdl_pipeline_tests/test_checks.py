from datetime import timedelta

import dagster as dg
import pytest

from imgdl_pipeline.assets import AssetKeys, build_assets
from imgdl_pipeline.checks import CHECKS, build_checks, build_freshness_sensor, inspected
from imgdl_pipeline.core.columns import LINKS
from imgdl_pipeline.core.galleries import Galleries
from imgdl_pipeline.core.store import Store, links_path
from imgdl_pipeline.resources import DOWNLOADS_RESOURCE
from imgdl_pipeline_tests.conftest import jpeg

WARN, ERROR = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR


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
            [*build_assets(galleries), build_checks(galleries, AssetKeys.of(galleries))],
            partition_key=gallery,
            resources={"downloads": DOWNLOADS_RESOURCE},
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


def test_a_list_that_shrinks_warns(checked):
    checked.run("a")
    checked.list("a", 3, dead=0)
    result = checked.run("a")["list_is_as_long_as_before"]
    assert (result.passed, result.severity) == (False, WARN)
    assert result.description == "3 links are listed, and 8 were before"
    assert checked.run("a", checks={"lost_warn": 0.7})["list_is_as_long_as_before"].passed


def test_a_gallery_that_nobody_refreshes_is_told_without_a_run(checked):
    checked.run("a")
    galleries = checked.galleries(schedule="* * * * *", schedule_status="RUNNING")
    store = Store(galleries.store)
    links = store.read_table(links_path("a"), LINKS)
    earlier = [each - timedelta(hours=1) for each in links["listed_at"].to_pylist()]
    store.write_table(links_path("a"), links.set_column(2, LINKS.field("listed_at"), [earlier]))
    sensor = build_freshness_sensor(galleries, AssetKeys.of(galleries))
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    with dg.instance_for_test() as instance, dg.build_sensor_context(instance) as context:
        events = sensor(context).asset_events
    told = {each.partition: (each.check_name, each.passed, each.description) for each in events}
    assert told["a"][:2] == ("is_fresh", False)
    assert told["b"] == ("is_fresh", True, "not listed yet")
