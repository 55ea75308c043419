"""The sensor that notices galleries which no run refreshes, and those that never had a successful run."""

import json
from datetime import datetime, timedelta, timezone

import dagster as dg
import pytest

from imgdl_pipeline.component import ImageGalleries
from imgdl_pipeline.config.galleries import Galleries
from imgdl_pipeline.core.model.schemas import CATALOG
from imgdl_pipeline.core.storage.layout import catalog_path
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline.freshness import LOOK_S, look, stale_galleries
from imgdl_pipeline_tests.support.rows import catalog_of

MONDAY = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)
"""Noon: the daily schedule, at six in the morning, has run today and yesterday."""

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture(autouse=True)
def _no_other_store(monkeypatch):
    monkeypatch.delenv("IMGDL_STORE", raising=False)


class CountingStore(Store):
    """A store that keeps the paths of the tables that were read."""

    def __init__(self, root):
        super().__init__(root)
        self.read = []

    def read_table(self, path, schema):
        self.read.append(path)
        return super().read_table(path, schema)


@pytest.fixture
def store(tmp_path):
    return CountingStore(str(tmp_path / "store"))


def galleries_of(store, *names, schedule="0 6 * * *", **more):
    """Galleries of these names, or with these settings."""
    settings = [each if isinstance(each, dict) else {"name": each} for each in names]
    return Galleries(
        store=store.root,
        schedule=schedule,
        galleries=[{"source": {"type": "demo"}, **each} for each in settings],
        **more,
    )


def catalog(store, gallery, seen_at=None, *, url="u1"):
    """Store a gallery's catalog, whose list is from that time; an empty one without a time."""
    rows = [] if seen_at is None else [{"url": url, "last_seen": seen_at}]
    store.write_table(catalog_path(gallery), catalog_of(*rows) if rows else CATALOG.empty_table())


def sensor_of(galleries):
    return dg.build_defs_for_component(ImageGalleries(galleries)).resolve_sensor_def("gallery_freshness")


def tick(galleries, cursor=None):
    """The sensor's answer to a tick with that cursor."""
    with dg.DagsterInstance.ephemeral() as instance:
        return sensor_of(galleries)(dg.build_sensor_context(instance, cursor=cursor))


class Clock:
    """A clock that moves by some seconds whenever someone looks at it."""

    def __init__(self, step):
        self.now, self.step = 0.0, step

    def __call__(self):
        self.now += self.step
        return self.now


def test_a_catalog_is_read_once_and_again_only_when_it_was_written(store):
    galleries = galleries_of(store, "a", "b")
    catalog(store, "a", MONDAY)
    catalog(store, "b", MONDAY)
    first = look(galleries, store, {}, MONDAY)
    assert sorted(store.read) == [catalog_path("a"), catalog_path("b")]
    store.read.clear()
    second = look(galleries, store, first, MONDAY + HOUR)
    assert (second, store.read) == (first, [])
    catalog(store, "b", MONDAY + DAY)
    third = look(galleries, store, second, MONDAY + DAY)
    assert store.read == [catalog_path("b")]
    assert third["a"] == first["a"]
    assert datetime.fromisoformat(third["b"][1]) == MONDAY + DAY


def test_the_cursor_carries_what_was_seen_from_tick_to_tick(store):
    galleries = galleries_of(store, "a", "new")
    catalog(store, "a", datetime.now(timezone.utc))
    first = tick(galleries)
    seen = json.loads(first.cursor)
    assert seen["a"][0] is not None
    assert seen["new"][0] is None
    assert json.loads(tick(galleries, first.cursor).cursor) == seen


def test_a_gallery_that_is_gone_is_forgotten(store):
    catalog(store, "a", MONDAY)
    catalog(store, "gone", MONDAY)
    seen = look(galleries_of(store, "a", "gone"), store, {}, MONDAY)
    assert set(look(galleries_of(store, "a"), store, seen, MONDAY)) == {"a"}


def test_a_gallery_that_was_not_refreshed_for_two_scheduled_times_is_stale(store):
    galleries = galleries_of(store, "fresh", "late", "stale")
    catalog(store, "fresh", MONDAY - 5 * HOUR)
    catalog(store, "late", MONDAY - DAY)  # after yesterday's time, before today's
    catalog(store, "stale", MONDAY - 2 * DAY)
    seen = look(galleries, store, {}, MONDAY)
    assert list(stale_galleries(galleries, seen, MONDAY)) == ["stale"]


def test_a_gallery_that_never_succeeded_is_stale_after_two_scheduled_times(store):
    galleries = galleries_of(store, "new")
    seen, stale_at = {}, None
    for hours in range(72):
        now = MONDAY + hours * HOUR
        seen = look(galleries, store, seen, now)
        if stale_galleries(galleries, seen, now):
            stale_at = now
            break
    assert seen["new"] == (None, MONDAY.isoformat()), "the time at which it was seen first"
    assert MONDAY + DAY < stale_at <= MONDAY + 2 * DAY, "Tuesday and Wednesday morning were missed"
    assert store.read == []


def test_a_gallery_that_succeeds_at_last_is_fresh_again(store):
    galleries = galleries_of(store, "new")
    before = {"new": (None, (MONDAY - 9 * DAY).isoformat())}
    assert list(stale_galleries(galleries, before, MONDAY)) == ["new"]
    catalog(store, "new", MONDAY)
    assert stale_galleries(galleries, look(galleries, store, before, MONDAY), MONDAY) == {}


def test_a_gallery_that_is_added_later_is_judged_from_then_on(store):
    catalog(store, "a", MONDAY)
    seen = look(galleries_of(store, "a"), store, {}, MONDAY - 9 * DAY)
    galleries = galleries_of(store, "a", "added")
    seen = look(galleries, store, seen, MONDAY)
    assert stale_galleries(galleries, seen, MONDAY) == {}
    assert seen["added"] == (None, MONDAY.isoformat())


def test_a_gallery_whose_files_were_deleted_starts_anew(store):
    galleries = galleries_of(store, "a")
    catalog(store, "a", MONDAY - 9 * DAY)
    seen = look(galleries, store, {}, MONDAY)
    store.delete(catalog_path("a"))
    assert look(galleries, store, seen, MONDAY)["a"] == (None, MONDAY.isoformat())


@pytest.mark.parametrize(("fresh_days", "stale"), [(1, ["a"]), (3, []), (0.5, ["a"])])
def test_fresh_days_count_whatever_the_schedule_is(store, fresh_days, stale):
    catalog(store, "a", MONDAY - 2 * DAY)
    for schedule in (None, "0 6 * * *", "* * * * *"):
        galleries = galleries_of(store, "a", schedule=schedule, checks={"fresh_days": fresh_days})
        seen = look(galleries, store, {}, MONDAY)
        assert list(stale_galleries(galleries, seen, MONDAY)) == stale


def test_a_gallery_has_fresh_days_of_its_own(store):
    galleries = galleries_of(
        store, "daily", {"name": "archive", "checks": {"fresh_days": 365}}, {"name": "news"}
    )
    for name in ("daily", "archive", "news"):
        catalog(store, name, MONDAY - 30 * DAY)
    seen = look(galleries, store, {}, MONDAY)
    assert list(stale_galleries(galleries, seen, MONDAY)) == ["daily", "news"]


def test_fresh_days_hold_for_a_gallery_that_never_succeeded(store):
    galleries = galleries_of(store, "new", schedule=None, checks={"fresh_days": 2})
    before = look(galleries, store, {}, MONDAY)
    assert stale_galleries(galleries, look(galleries, store, before, MONDAY + DAY), MONDAY + DAY) == {}
    later = MONDAY + 2 * DAY + HOUR
    assert list(stale_galleries(galleries, look(galleries, store, before, later), later)) == ["new"]


def test_a_gallery_is_judged_by_its_own_schedule(store):
    galleries = galleries_of(
        store,
        "daily",
        {"name": "weekly", "schedule": "0 6 * * 1"},
        {"name": "hourly", "schedule": "0 * * * *"},
        {"name": "by_hand", "schedule": None},
    )
    for name, age in {"daily": DAY, "weekly": 3 * DAY, "hourly": 3 * HOUR, "by_hand": 900 * DAY}.items():
        catalog(store, name, MONDAY - age)
    seen = look(galleries, store, {}, MONDAY)
    assert list(stale_galleries(galleries, seen, MONDAY)) == ["hourly"]
    assert list(stale_galleries(galleries, seen, MONDAY + 14 * DAY)) == ["daily", "weekly", "hourly"]


def test_an_empty_catalog_counts_from_when_it_was_written(store):
    galleries = galleries_of(store, "a")
    catalog(store, "a")
    modified, refreshed = look(galleries, store, {}, MONDAY)["a"]
    assert modified == refreshed


def test_reading_stops_after_a_while_and_the_next_tick_goes_on(store):
    names = [f"g{number}" for number in range(10)]
    galleries = galleries_of(store, *names)
    for name in names:
        catalog(store, name, MONDAY)
    seen, reads = {}, []
    while len(seen) < len(names):
        store.read.clear()
        seen = look(galleries, store, seen, MONDAY, clock=Clock(LOOK_S / 4))
        reads.append(list(store.read))
    # the clock is looked at once to begin with, and once before each catalog
    assert [len(each) for each in reads] == [3, 3, 3, 1]
    assert [path for each in reads for path in each] == [catalog_path(name) for name in names]
    assert {at for _, at in seen.values()} == {MONDAY.isoformat()}


def test_what_there_is_no_time_to_read_again_stays_as_it_was_known_until_it_is_read(store):
    galleries = galleries_of(store, "a")
    catalog(store, "a", MONDAY)
    before = look(galleries, store, {}, MONDAY)
    catalog(store, "a", MONDAY + DAY)
    hurried = look(galleries, store, before, MONDAY + DAY, clock=Clock(LOOK_S + 1))
    assert hurried == before
    assert look(galleries, store, hurried, MONDAY + DAY)["a"][1] == (MONDAY + DAY).isoformat()


def test_a_gallery_that_was_not_read_yet_is_not_called_stale(store):
    galleries = galleries_of(store, "a")
    catalog(store, "a", MONDAY - 9 * DAY)
    seen = look(galleries, store, {}, MONDAY, clock=Clock(LOOK_S + 1))
    assert (seen, stale_galleries(galleries, seen, MONDAY)) == ({}, {})


def test_a_stale_gallery_has_its_checks_requested_once_for_each_time_it_was_refreshed(store):
    galleries = galleries_of(store, "a", "b", schedule="* * * * *")
    long_ago = MONDAY - 9 * DAY
    catalog(store, "a", long_ago)
    cursor = json.dumps({"b": [None, long_ago.isoformat()]})
    first = tick(galleries, cursor)
    again = tick(galleries, first.cursor)
    assert [(each.run_key, each.partition_key) for each in first.run_requests] == [
        (f"a {long_ago.isoformat()}", "a"),
        (f"b {long_ago.isoformat()}", "b"),
    ]
    assert [each.run_key for each in again.run_requests] == [each.run_key for each in first.run_requests]
    catalog(store, "a", long_ago + DAY)
    assert tick(galleries, again.cursor).run_requests[0].run_key == f"a {(long_ago + DAY).isoformat()}"


@pytest.mark.parametrize("asset_per_gallery", [False, True])
def test_the_requested_run_of_a_gallery_that_never_succeeded_warns(store, asset_per_gallery):
    galleries = galleries_of(store, "new", schedule="* * * * *", asset_per_gallery=asset_per_gallery)
    defs = dg.build_defs_for_component(ImageGalleries(galleries))
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(instance, cursor=json.dumps({"new": [None, MONDAY.isoformat()]}))
        [request] = defs.resolve_sensor_def("gallery_freshness")(context).run_requests
        job = defs.resolve_job_def("check_galleries")
        result = job.execute_in_process(partition_key=request.partition_key, instance=instance)
    failed = [each for each in result.get_asset_check_evaluations() if not each.passed]
    assert [(each.check_name, each.severity) for each in failed] == [("is_fresh", dg.AssetCheckSeverity.WARN)]
    assert failed[0].description == "no run has cataloged this gallery yet"


def test_when_no_gallery_is_stale_the_sensor_says_how_many_there_are(store):
    for name in ("a", "b"):
        catalog(store, name, datetime.now(timezone.utc))
    answer = tick(galleries_of(store, "a", "b", "new"))
    assert answer.run_requests == []
    assert answer.skip_reason.skip_message == "none of 3 galleries is stale"


def test_one_catalog_that_cannot_be_read_does_not_hide_the_others(store):
    galleries = galleries_of(store, "broken", "stale")
    store.put(catalog_path("broken"), b"not Parquet")
    catalog(store, "stale", MONDAY - 9 * DAY)
    seen = look(galleries, store, {}, MONDAY)
    assert "stale" in stale_galleries(galleries, seen, MONDAY)


def test_without_a_schedule_or_fresh_days_no_gallery_is_stale(store):
    galleries = galleries_of(store, "a", "new", schedule=None)
    catalog(store, "a", MONDAY - 900 * DAY)
    seen = look(galleries, store, {}, MONDAY - 900 * DAY)
    assert stale_galleries(galleries, seen, MONDAY) == {}


@pytest.mark.parametrize("status", ["RUNNING", "STOPPED"])
def test_the_sensor_has_the_schedules_status(store, status):
    sensor = sensor_of(galleries_of(store, "a", schedule_status=status))
    assert sensor.default_status is dg.DefaultSensorStatus[status]
    assert sensor.minimum_interval_seconds == 3600


def test_names_with_dashes_and_dots_are_found_by_their_files(store):
    names = ("a-b", "a.b", "a_b", "2026.11-x")
    galleries = galleries_of(store, *names)
    for name in names:
        catalog(store, name, MONDAY)
    assert {at for _, at in look(galleries, store, {}, MONDAY).values()} == {MONDAY.isoformat()}
