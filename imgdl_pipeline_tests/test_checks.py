import logging
import shutil
from datetime import timedelta

import dagster as dg
import pytest

from imgdl_pipeline.assets import AssetKeys, build_assets
from imgdl_pipeline.checks import build_checks
from imgdl_pipeline.component import ImageGalleries
from imgdl_pipeline.config.galleries import Galleries
from imgdl_pipeline.core.model.schemas import CATALOG
from imgdl_pipeline.core.storage.layout import catalog_path, downloads_path, links_path
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline.resources import IMAGE_DOWNLOADS, ImageDownloads
from imgdl_pipeline.verdicts import CHECKS, judge
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

    def galleries(self, only=("a", "b"), **more):
        return Galleries(
            store=str(self.folder / "store"),
            download={"allow_addresses": ["127.0.0.1/32"], "attempts": 1},
            galleries=[
                {"name": name, "source": {"type": "url_list", "path": str(self.folder / f"{name}.txt")}}
                for name in only
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
    galleries = checked.galleries(checks={"files": "all"})
    names = ("files_are_intact", "no_damaged_file_is_stored")
    intact, unknown = (each.verdict for each in judge(galleries, galleries.gallery("a"), names))
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
    galleries = checked.galleries(schedule="* * * * *")
    [judged] = judge(galleries, galleries.gallery("a"), ["is_fresh"])
    assert judged.verdict.passed is False


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


class Instance:
    """A Dagster instance in which the galleries run as the UI runs them, and what its UI shows of them.

    Args:
        checked: The galleries.
        instance: The Dagster instance.
        form: More settings: that each gallery has assets of its own, or nothing.
    """

    def __init__(self, checked, instance, form):
        self.checked, self.instance, self.form = checked, instance, form
        self.load()

    def load(self, **more):
        """Load the galleries file, as it is now."""
        self.component = ImageGalleries(self.checked.galleries(**self.form, **more))
        self.defs = dg.build_defs_for_component(self.component)
        self.is_partitioned = not self.component.galleries.asset_per_gallery

    def run(self, gallery, **more):
        job = self.defs.resolve_job_def("download_galleries")
        where = self.component.runs[gallery]
        return job.execute_in_process(instance=self.instance, raise_on_error=False, **where, **more)

    def check(self, gallery=None):
        job = self.defs.resolve_job_def("check_galleries")
        return job.execute_in_process(instance=self.instance, partition_key=gallery, raise_on_error=False)

    def catalog(self, gallery):
        return AssetKeys.of(self.component.galleries, None if self.is_partitioned else gallery).catalog

    def history(self, gallery, check):
        """The executions of a check of a gallery, the newest first."""
        found = self.instance.event_log_storage.get_asset_check_execution_history(
            dg.AssetCheckKey(self.catalog(gallery), check), limit=100
        )
        return [each for each in found if each.partition == (gallery if self.is_partitioned else None)]

    def latest(self, gallery, check):
        """The verdict that the UI shows for the check as a whole."""
        key = dg.AssetCheckKey(self.catalog(gallery), check)
        record = self.instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
        return record.event.dagster_event.asset_check_evaluation_data

    def shown(self, gallery):
        """The status of each check of a gallery, as the UI works it out; `missing` if it shows none."""
        partitions = self.defs.resolve_asset_graph().get(self.catalog(gallery)).partitions_def
        keys = [dg.AssetCheckKey(self.catalog(gallery), name) for name in CHECKS]
        if partitions is None:
            return {key.name: self._own_status(gallery, key.name) for key in keys}
        states = self.instance.event_log_storage.get_asset_check_state([(key, partitions) for key in keys])
        return {
            key.name: next(
                (
                    status.value
                    for status, subset in states[key].subsets.items()
                    if gallery in subset.subset_value.get_partition_keys()
                ),
                "missing",
            )
            for key in keys
        }

    def _own_status(self, gallery, check):
        history = self.history(gallery, check)
        if not history:
            return "missing"
        status = history[0].status.value
        is_over = self.instance.get_run_by_id(history[0].run_id).is_finished
        return "EXECUTION_FAILED" if status == "PLANNED" and is_over else status

    def words(self, run):
        """The first line of the page of a run that failed; None if no sentence of ours is there."""
        failure = run.get_step_failure_events()[0].step_failure_data
        return failure.user_failure_data and failure.user_failure_data.description

    def log(self, run, level="WARNING"):
        records = self.instance.all_logs(run.run_id)
        return [each.user_message for each in records if logging.getLevelName(each.level) == level]


FORMS = [{}, {"asset_per_gallery": True}]
PASSED = dict.fromkeys(CHECKS, "SUCCEEDED")


@pytest.fixture(params=FORMS, ids=["partitions", "own assets"])
def dagster(checked, request):
    with dg.DagsterInstance.ephemeral() as instance:
        yield Instance(checked, instance, request.param)


def test_a_source_that_breaks_leaves_every_verdict_as_it_was(dagster, checked):
    assert dagster.run("a").success
    assert dagster.run("b").success
    before = {name: dagster.shown(name) for name in "ab"}
    assert before == {"a": PASSED, "b": {**PASSED, "few_links_failed": "FAILED"}}
    for name in "ab":
        (checked.folder / f"{name}.txt").unlink()
        run = dagster.run(name)
        assert not run.success
        assert f"{name}.txt: there is no such file" in dagster.words(run)
    assert {name: dagster.shown(name) for name in "ab"} == before


def test_a_gallery_whose_first_run_fails_has_one_warning_and_spoils_no_other(dagster, checked):
    dagster.run("b")
    (checked.folder / "a.txt").unlink()
    dagster.run("a")
    assert dagster.shown("a") == {**PASSED, "is_fresh": "FAILED"}
    assert dagster.shown("b") == {**PASSED, "few_links_failed": "FAILED"}
    [only] = dagster.history("a", "is_fresh")
    evaluation = only.event.dagster_event.asset_check_evaluation_data
    assert (evaluation.severity, evaluation.description) == (WARN, "no run has cataloged this gallery yet")


def test_a_verdict_that_is_told_again_replaces_the_planned_one_and_adds_no_other(dagster, checked):
    dagster.run("a")
    (checked.folder / "a.txt").unlink()
    dagster.run("a")
    for name in CHECKS:
        told = [(each.status.value, each.run_id) for each in dagster.history("a", name)]
        assert [status for status, _ in told] == ["SUCCEEDED", "SUCCEEDED"], name
        assert len({run for _, run in told}) == 2


def test_a_gallery_that_works_again_is_judged_by_its_new_run(dagster, checked):
    dagster.run("a")
    store, stray = Store(str(checked.folder / "store")), "images/a/stray.jpg"
    store.put(stray, jpeg(99))
    (checked.folder / "a.txt").unlink()
    dagster.run("a")
    assert dagster.shown("a") == {**PASSED, "no_damaged_file_is_stored": "FAILED"}
    store.delete(stray)
    checked.list("a", 8, dead=0)
    assert dagster.run("a").success
    assert dagster.shown("a") == PASSED


def test_a_ledger_that_is_damaged_leaves_every_verdict_as_it_was(dagster, checked):
    dagster.run("a")
    Store(str(checked.folder / "store")).put(downloads_path("a"), b"not Parquet")
    run = dagster.run("a")
    assert run.get_step_failure_events()[0].step_key.endswith("images")
    assert "downloads/gallery=a/downloads.parquet" in dagster.words(run)
    assert dagster.shown("a") == PASSED


def test_a_list_that_cannot_be_stored_leaves_the_verdicts_that_do_not_need_it(dagster, checked):
    dagster.run("a")
    links = checked.folder / "store" / links_path("a")
    links.unlink()
    links.mkdir()
    run = dagster.run("a")
    assert "links/gallery=a/links.parquet" in dagster.words(run)
    of_lists = ("every_link_was_tried", "list_is_as_long_as_before")
    shown = dagster.shown("a")
    assert {name: status for name, status in shown.items() if name not in of_lists} == {
        name: status for name, status in PASSED.items() if name not in of_lists
    }


def test_a_store_that_is_gone_is_the_cause_and_the_log_says_that_no_verdict_could_be_told(dagster, checked):
    dagster.run("a")
    store = checked.folder / "store"
    shutil.rmtree(store)
    store.write_text("a file, and no folder")
    run = dagster.run("a")
    assert not run.success
    assert str(store) in dagster.words(run)
    assert any(line.startswith("what follows a failure failed, too: ") for line in dagster.log(run))


def test_the_job_checks_the_gallery_of_a_partition(dagster):
    dagster.run("a")
    dagster.run("b")
    result = dagster.check("b")
    assert result.success
    told = result.get_asset_check_evaluations()
    assert {each.asset_key for each in told} == {dagster.catalog("b")}
    assert {each.partition for each in told} == {"b" if dagster.is_partitioned else None}
    assert sorted(each.check_name for each in told) == sorted(CHECKS)
    assert dagster.shown("b")["few_links_failed"] == "FAILED"
    assert dagster.shown("a") == PASSED


def test_the_job_without_a_partition_checks_every_gallery(dagster, checked):
    dagster.run("a")
    dagster.run("b")
    Store(str(checked.folder / "store")).put("images/a/stray.jpg", jpeg(99))
    result = dagster.check()
    assert result.success
    assert dagster.shown("a") == {**PASSED, "no_damaged_file_is_stored": "FAILED"}
    assert dagster.shown("b") == {**PASSED, "few_links_failed": "FAILED"}


def test_a_check_that_is_run_by_hand_belongs_to_the_last_catalog(dagster):
    run = dagster.run("a")
    dagster.check("a")
    [newest, *_] = dagster.history("a", "files_are_intact")
    target = newest.event.dagster_event.asset_check_evaluation_data.target_materialization_data
    assert (target.run_id, newest.run_id != run.run_id) == (run.run_id, True)


def test_a_run_of_the_links_alone_that_fails_changes_no_verdict(dagster, checked):
    dagster.run("a")
    (checked.folder / "a.txt").unlink()
    links = AssetKeys.of(dagster.component.galleries, None if dagster.is_partitioned else "a").links
    job = dagster.defs.resolve_implicit_global_asset_job_def()
    run = job.execute_in_process(
        instance=dagster.instance,
        asset_selection=[links],
        partition_key="a" if dagster.is_partitioned else None,
        raise_on_error=False,
    )
    assert not run.success
    assert dagster.shown("a") == PASSED


@pytest.fixture
def partitioned(checked):
    with dg.DagsterInstance.ephemeral() as instance:
        yield Instance(checked, instance, {})


def execute_all(dagster):
    """What the button "Execute all" launches: all checks, and no partition."""
    catalog = dagster.catalog("a")
    return dg.materialize(
        [*dagster.defs.assets, *dagster.defs.asset_checks],
        selection=dg.AssetSelection.checks_for_assets(catalog),
        resources=dict(dagster.defs.resources),
        instance=dagster.instance,
        raise_on_error=False,
    )


@pytest.mark.parametrize("by", [execute_all, Instance.check], ids=["button", "job"])
def test_all_galleries_together_show_the_worst_with_a_table(partitioned, by):
    partitioned.run("a")
    partitioned.run("b")
    assert by(partitioned).success
    worst = partitioned.latest("a", "few_links_failed")
    assert (worst.passed, worst.severity) == (False, WARN)
    table = worst.metadata["galleries"].value.splitlines()
    assert table[0] == "| gallery | verdict | because |"
    assert table[2:] == [
        "| `b` | `warn` | `2 of 4 links failed` |",
        "| `a` | `passed` | `0 of 8 links failed` |",
    ]
    assert partitioned.latest("a", "is_fresh").passed
    together = [each for each in partitioned.history(None, "few_links_failed") if each.partition is None]
    evaluation = together[0].event.dagster_event.asset_check_evaluation_data
    assert (len(together), evaluation.description) == (1, "1 of 2 galleries do not pass")
    assert partitioned.shown("a") == PASSED
    assert partitioned.shown("b") == {**PASSED, "few_links_failed": "FAILED"}


def test_an_error_is_worse_than_a_warning(partitioned, checked):
    partitioned.run("a")
    partitioned.run("b")
    checked.list("a", 8, dead=2)
    partitioned.load(checks={"failed_error": 0.4})
    partitioned.run("a")
    partitioned.check()
    worst = partitioned.latest("a", "few_links_failed")
    assert worst.severity is ERROR
    assert worst.metadata["galleries"].value.splitlines()[2].startswith("| `b` | `error` |")


def test_one_catalog_that_cannot_be_read_does_not_keep_the_others_from_being_checked(partitioned, checked):
    partitioned.run("a")
    partitioned.run("b")
    Store(str(checked.folder / "store")).put(catalog_path("a"), b"not Parquet")
    assert partitioned.check().success
    assert {each.status.value for each in partitioned.history("b", "few_links_failed")[:1]} == {"FAILED"}
    worst = partitioned.latest("a", "files_are_intact")
    assert not worst.passed
    assert "catalog/gallery=a/catalog.parquet" in worst.metadata["galleries"].value


def test_a_run_of_checks_of_a_gallery_that_is_gone_says_so_in_a_sentence(dagster, checked):
    """It may have waited in a queue while the gallery was removed from the file."""
    dagster.run("a")
    dagster.load(only=["b"])
    job = dagster.defs.resolve_job_def("check_galleries")
    result = job.execute_in_process(
        instance=dagster.instance, tags={"dagster/partition": "a"}, raise_on_error=False
    )
    assert not result.success
    assert dagster.words(result) == "the gallery a is not in the galleries file any more"


@pytest.mark.parametrize("form", FORMS, ids=["partitions", "own assets"])
def test_galleries_whose_names_differ_by_dashes_and_dots_are_kept_apart(checked, form):
    names = ("a", "x-1.b", "x.1-b", "x_1_b", "x__1_b")
    for name in names[1:]:
        checked.list(name, 2, dead=2 if name == "x.1-b" else 0)
    with dg.DagsterInstance.ephemeral() as instance:
        dagster = Instance(checked, instance, {**form, "only": names})
        dg.Definitions.validate_loadable(dagster.defs)
        for name in names:
            assert dagster.run(name).success
        bad = {name for name in names if dagster.shown(name) != PASSED}
        assert bad == {"x.1-b"}
        assert dagster.check().success
        assert dagster.shown("x.1-b") == {**PASSED, "few_links_failed": "FAILED"}
