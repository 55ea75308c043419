"""Runs whose process is gone: that they are found, and soon, and that no live one is taken for one."""

import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import dagster as dg
import pytest

from imgdl_pipeline.config.galleries import Galleries
from imgdl_pipeline.core.storage.lease import this_process
from imgdl_pipeline.lost_runs import EVERY_S, LOOKS, Seen, build_lost_runs_sensor, look
from imgdl_pipeline_tests.support.deployment import deployed, seconds_until

HERE = this_process()
ELSEWHERE = {**HERE, "host": "elsewhere"}


@pytest.fixture
def looking(store, tmp_path):
    """An instance with a run that is under way, and a sensor that looks at it every 20 seconds."""
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        yield Looking(instance, store)


class Looking:
    def __init__(self, instance, store):
        self.instance, self.store, self.now, self.cursor, self.renewals = instance, store, 1000.0, None, 0
        self.sensor = build_lost_runs_sensor(
            Galleries(store=store.root, galleries=[{"name": "g", "source": {"type": "demo"}}]),
            "lost_runs",
            lambda: self.now,
        )

        @dg.op
        def wait():
            pass

        @dg.job
        def waiting():
            wait()

        self.job = waiting

    def begin(self):
        """A run that Dagster takes for one that is under way."""
        run = self.instance.create_run_for_job(self.job, status=dg.DagsterRunStatus.STARTED)
        return run.run_id

    def sign(self, run, process, step="gallery_images", name="1"):
        """Write a sign of life, as another process does every 10 seconds."""
        self.renewals += 1
        text = json.dumps({**process, "run": run, "step": step})
        self.store.put(f"_runs/{run}/{name}.json", text.encode())

    def look(self, times=1, every=EVERY_S):
        for _ in range(times):
            with dg.build_sensor_context(instance=self.instance, cursor=self.cursor) as context:
                self.cursor = self.sensor(context).cursor
            self.now += every

    def status(self, run):
        return self.instance.get_run_by_id(run).status


def dead_process():
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    return {**HERE, "pid": ended.pid}


def test_a_run_whose_process_is_gone_from_this_machine_is_failed_at_the_second_look(looking):
    run = looking.begin()
    looking.sign(run, dead_process())
    looking.look()
    assert looking.status(run) is dg.DagsterRunStatus.STARTED
    looking.look()
    assert looking.status(run) is dg.DagsterRunStatus.FAILURE
    [event] = looking.instance.all_logs(run, of_type=dg.DagsterEventType.RUN_FAILURE)
    assert "The process of this run is gone" in event.message
    assert "in the step gallery_images" in event.message
    assert list(looking.store.list("_runs")) == []


def test_a_run_that_is_being_stopped_is_canceled(looking):
    run = looking.begin()
    looking.instance.report_run_canceling(looking.instance.get_run_by_id(run))
    looking.sign(run, dead_process())
    looking.look(2)
    assert looking.status(run) is dg.DagsterRunStatus.CANCELED


def test_a_run_of_another_machine_is_failed_once_it_was_not_renewed_for_a_minute(looking):
    run = looking.begin()
    looking.sign(run, ELSEWHERE)
    looking.look(LOOKS - 1)
    assert looking.status(run) is dg.DagsterRunStatus.STARTED
    looking.look()
    assert looking.status(run) is dg.DagsterRunStatus.FAILURE


def test_a_run_that_renews_its_sign_of_life_is_left_alone(looking):
    run = looking.begin()
    for _ in range(3 * LOOKS):
        looking.sign(run, ELSEWHERE)
        looking.look()
    assert looking.status(run) is dg.DagsterRunStatus.STARTED


def test_a_run_without_a_sign_of_life_is_left_alone(looking):
    run = looking.begin()
    looking.look(3 * LOOKS)
    assert looking.status(run) is dg.DagsterRunStatus.STARTED


def test_a_process_that_is_only_paused_is_left_alone(looking):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as paused:
        started = {"process_started": process_start(paused.pid)}
        os.kill(paused.pid, signal.SIGSTOP)
        run = looking.begin()
        looking.sign(run, {**HERE, "pid": paused.pid, **started})
        looking.look(3 * LOOKS)
        assert looking.status(run) is dg.DagsterRunStatus.STARTED
        os.kill(paused.pid, signal.SIGCONT)
        paused.communicate(b"\n")


def process_start(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def test_after_a_machine_slept_the_looks_are_counted_anew(looking):
    run = looking.begin()
    looking.sign(run, ELSEWHERE)
    for _ in range(5):
        looking.look(LOOKS - 1)
        looking.now += 8 * 3600
    assert looking.status(run) is dg.DagsterRunStatus.STARTED


def test_the_clocks_of_other_machines_do_not_matter(looking):
    run = looking.begin()
    looking.now = 10.0**10
    for _ in range(3 * LOOKS):
        looking.sign(run, ELSEWHERE)
        looking.look()
    assert looking.status(run) is dg.DagsterRunStatus.STARTED


def test_looks_that_follow_each_other_too_fast_count_as_one():
    seen = look({"p": "t"}, {}, 0, 100)
    for now in (101, 102, 103, 104):
        seen = look({"p": "t"}, seen, now - 1, now)
    assert seen == {"p": Seen("t", 1)}


def test_a_clock_that_was_set_back_begins_anew():
    assert look({"p": "t"}, {"p": Seen("t", 3)}, 200, 100) == {"p": Seen("t", 1)}


def test_a_run_of_which_one_step_lives_is_left_alone(looking):
    run = looking.begin()
    looking.sign(run, dead_process())
    for _ in range(3 * LOOKS):
        looking.sign(run, ELSEWHERE, "another_step", "2")
        looking.look()
    assert looking.status(run) is dg.DagsterRunStatus.STARTED


def test_what_a_step_that_dagster_knows_to_have_ended_left_behind_says_nothing(looking):
    """The process of a step was killed, its executor noticed, and waits to try it again."""

    @dg.op
    def broken():
        raise ValueError

    @dg.job
    def breaking():
        broken()

    result = breaking.execute_in_process(instance=looking.instance, raise_on_error=False)
    run = result.run_id
    looking.instance.report_engine_event("goes on", looking.instance.get_run_by_id(run))
    looking.instance.run_storage.handle_run_event(run, started_again(run))
    looking.sign(run, dead_process(), "broken")
    looking.look(3 * LOOKS)
    assert looking.status(run) is dg.DagsterRunStatus.STARTED


def started_again(run):
    return dg.DagsterEvent(event_type_value=dg.DagsterEventType.RUN_START.value, job_name="breaking")


def test_what_a_run_that_ended_left_behind_is_deleted(looking):
    run, other = looking.begin(), looking.begin()
    looking.instance.report_run_failed(looking.instance.get_run_by_id(run))
    looking.sign(run, ELSEWHERE)
    looking.sign("of-another-instance", ELSEWHERE)
    looking.look(LOOKS)
    assert [file.path.split("/")[1] for file in looking.store.list("_runs")] == ["of-another-instance"]
    assert looking.status(other) is dg.DagsterRunStatus.STARTED


GALLERIES = """\
type: imgdl_pipeline.ImageGalleries
attributes:
  store: {folder}/store
  schedule: null
  download: {{allow_addresses: [127.0.0.0/8], robots_txt: false, timeout: 250}}
  galleries:
    - {{name: a, source: {{type: url_list, path: {folder}/a.txt}}}}
    - {{name: b, source: {{type: url_list, path: {folder}/b.txt}}}}
"""


@pytest.mark.long
@pytest.mark.parametrize("what", ["the run", "everything"])
def test_a_killed_run_gives_its_place_to_the_next_one_within_two_minutes(what, server, tmp_path):
    answering, asked = threading.Event(), threading.Event()

    def never(handler):
        asked.set()
        answering.wait(300)

    for name in ("a", "b"):
        server.routes[f"/{name}.jpg"] = never
        (tmp_path / f"{name}.txt").write_text(server.url(f"/{name}.jpg"))
    first, second = str(uuid.uuid4()), str(uuid.uuid4())
    try:
        with deployed(tmp_path, GALLERIES.format(folder=tmp_path)) as deployment:
            deployment.launch("a", first)
            assert asked.wait(90)
            deployment.launch("b", second)
            seconds_until(lambda: deployment.status(second) is dg.DagsterRunStatus.QUEUED, 30)
            if what == "the run":
                os.kill(deployment.pid(first), signal.SIGKILL)
            else:
                deployment.kill()
                deployment.start()
            seconds_until(lambda: deployment.status(second) is dg.DagsterRunStatus.STARTED, 120)
            assert deployment.status(first) is dg.DagsterRunStatus.FAILURE
    finally:
        answering.set()
