"""Runs on several machines, as `docs/how-to/several-machines.md` sets them up, and what a kill costs.

`nox -s several_machines` installs what these tests start: PostgreSQL, Redis and Celery. Kubernetes is a web
server here, which writes down what it is asked for.
"""

import json
import os
import re
import signal
from collections import Counter
from collections.abc import Iterator

import dagster as dg
import pytest
import yaml

from imgdl_pipeline.core.model.schemas import CATALOG, DOWNLOADS
from imgdl_pipeline.core.storage.layout import catalog_path, downloads_path, images_path
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline_tests.support.pictures import jpeg
from imgdl_pipeline_tests.support.server import WebServer
from imgdl_pipeline_tests.support.several_machines import (
    PACKAGES,
    Machines,
    Process,
    block,
    celery_instance,
    deployment,
    events,
    galleries_yaml,
    installed,
    kill,
    statuses,
    wait_until,
)

INSTALLS = "nox -s several_machines installs it"
pytestmark = pytest.mark.long
needs_celery = pytest.mark.skipif(not installed(*PACKAGES), reason=INSTALLS)
needs_kubernetes = pytest.mark.skipif(not installed("dagster_k8s"), reason=INSTALLS)

PICTURE = jpeg()
SOON = {"run_monitoring": {"poll_interval_seconds": 1}}
"""Run monitoring every second, instead of every 30."""


class Pictures:
    """Galleries on the tests' server, of which some pictures wait until they are let go."""

    def __init__(self, server: WebServer, galleries: dict[str, int], *, waiting_from: int = 1000) -> None:
        self.server = server
        self.links = {
            name: [server.url(f"/{name}/{number}.jpg") for number in range(count)]
            for name, count in galleries.items()
        }
        for name, count in galleries.items():
            for number in range(count):
                route = self.wait if number >= waiting_from else self.answer
                server.routes[f"/{name}/{number}.jpg"] = route

    def answer(self, handler) -> None:
        handler.answer(200, PICTURE)

    def wait(self, handler) -> None:
        if not self.server.release.wait(0):
            self.server.release.wait(120)
        handler.answer(200, PICTURE)

    def asked(self) -> Counter[str]:
        return Counter(self.server.paths())


def rows(store: Store, path: str, schema) -> list[dict[str, object]]:
    table = store.read_table(path, schema)
    return table.to_pylist() if table is not None else []


def all_ok(store: Store, pictures: Pictures) -> bool:
    for name, urls in pictures.links.items():
        catalog = rows(store, catalog_path(name), CATALOG)
        if {(row["url"], row["status"]) for row in catalog} != {(url, "ok") for url in urls}:
            return False
    return True


def run_of(instance: dg.DagsterInstance) -> dg.DagsterRun:
    """The first run."""
    return instance.get_runs()[-1]


def pids_of_runs(instance: dg.DagsterInstance) -> list[int]:
    return [
        int(pid)
        for pid in re.findall(
            r"Started process for run \(pid: (\d+)\)", events(instance, run_of(instance).run_id)
        )
    ]


@pytest.fixture
def pictures(server) -> Pictures:
    """One gallery of which 20 pictures come at once, and 20 wait."""
    return Pictures(server, {"g": 40}, waiting_from=20)


@pytest.fixture
def machines(pictures, tmp_path) -> Iterator[tuple[Machines, dg.DagsterInstance]]:
    galleries = galleries_yaml(str(tmp_path / "store"), pictures.links, tmp_path, workers=2)
    with deployment(tmp_path, galleries, SOON) as (machines, instance):
        yield machines, instance


def reach_the_middle(machines: Machines, pictures: Pictures, store: Store) -> None:
    """Let a run begin, and store half of its gallery."""
    machines.launch("g")
    waiting = {"/g/20.jpg", "/g/21.jpg"}
    wait_until(lambda: waiting <= pictures.asked().keys(), "two pictures are waited for")
    wait_until(lambda: len(list(store.list(images_path("g")))) == 20, "half is stored")


@needs_celery
def test_two_workers_share_the_galleries_of_a_backfill_and_a_store_in_s3(server, s3_bucket, tmp_path):
    pictures = Pictures(server, {f"g{number}": 20 for number in range(4)})
    galleries = galleries_yaml(s3_bucket, pictures.links, tmp_path)
    with deployment(tmp_path, galleries, SOON) as (machines, instance):
        with machines.worker("a"), machines.worker("b"):
            wait_until(
                lambda: all("ready." in machines.said(name) for name in "ab"), "both workers are ready"
            )
            machines.backfill(*pictures.links)
            succeeded = {(name, "SUCCESS") for name in pictures.links}
            wait_until(lambda: set(statuses(instance)) == succeeded, "all runs succeed")
        assert all("execute_job" in machines.said(name) for name in "ab")
    assert all_ok(Store(s3_bucket), pictures)
    assert set(pictures.asked().values()) == {1}


@needs_celery
def test_a_killed_workers_run_is_failed_by_the_sensor_and_tried_again_by_another_worker(
    pictures, store, tmp_path
):
    changes = {"run_monitoring": {"poll_interval_seconds": 1}}
    galleries = galleries_yaml(str(tmp_path / "store"), pictures.links, tmp_path, workers=2)
    with deployment(tmp_path, galleries, changes) as (machines, instance):
        with machines.worker("a") as worker:
            reach_the_middle(machines, pictures, store)
            kill(worker)
        pictures.server.release.set()
        with machines.worker("b"):
            done = [("g", "FAILURE"), ("g", "SUCCESS")]
            wait_until(lambda: statuses(instance) == done, "it is tried again")
        assert "The process of this run is gone" in events(instance, run_of(instance).run_id)
    assert all_ok(store, pictures)
    twice = {path for path, times in pictures.asked().items() if times > 1}
    assert twice <= {"/g/20.jpg", "/g/21.jpg"}, "only what was in flight"
    assert max(pictures.asked().values()) <= 2


@needs_celery
def test_a_run_whose_process_alone_is_killed_fails_at_the_next_poll_and_is_tried_again(
    machines, pictures, store
):
    machines, instance = machines
    with machines.worker("a"):
        reach_the_middle(machines, pictures, store)
        [pid] = pids_of_runs(instance)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: statuses(instance)[0] == ("g", "FAILURE"), "it is noticed", seconds=20)
        pictures.server.release.set()
        done = [("g", "FAILURE"), ("g", "SUCCESS")]
        wait_until(lambda: statuses(instance) == done, "it is tried again")
    assert all_ok(store, pictures)
    assert max(pictures.asked().values()) <= 2
    assert sum(pictures.asked().values()) <= 40 + 2


@needs_celery
def test_a_worker_that_is_asked_to_end_finishes_its_run(machines, pictures, store):
    machines, instance = machines
    with machines.worker("a") as worker:
        reach_the_middle(machines, pictures, store)
        worker.send_signal(signal.SIGTERM)
        wait_until(lambda: "Warm shutdown" in machines.said("a"), "it was heard")
        pictures.server.release.set()
        worker.wait(60)
    assert statuses(instance) == [("g", "SUCCESS")]
    assert max(pictures.asked().values()) == 1


def end_at_once(worker: Process, instance: dg.DagsterInstance) -> str:
    worker.send_signal(signal.SIGQUIT)
    return "FAILURE"


def terminate(worker: Process, instance: dg.DagsterInstance) -> str:
    instance.report_run_canceling(run_of(instance))
    assert instance.run_launcher.terminate(run_of(instance).run_id)
    return "CANCELED"


@needs_celery
@pytest.mark.parametrize("how", [end_at_once, terminate])
def test_a_run_that_is_ended_writes_its_ledger_and_the_next_run_carries_on(machines, pictures, store, how):
    machines, instance = machines
    with machines.worker("a") as worker:
        reach_the_middle(machines, pictures, store)
        status = how(worker, instance)
        wait_until(lambda: statuses(instance)[0] == ("g", status), "it ends")
        wait_until(lambda: len(rows(store, downloads_path("g"), DOWNLOADS)) >= 20, "its ledger is written")
        pictures.server.release.set()
    with machines.worker("b"):
        machines.launch("g")
        wait_until(lambda: set(statuses(instance)[1:]) == {("g", "SUCCESS")}, "the next run carries on")
    assert all_ok(store, pictures)
    assert sum(pictures.asked().values()) <= 40 + 2


@needs_celery
def test_a_run_that_waits_in_celerys_queue_for_too_long_fails_and_fetches_nothing_later(server, tmp_path):
    pictures = Pictures(server, {"g": 4})
    changes = {
        "run_monitoring": {"poll_interval_seconds": 1, "start_timeout_seconds": 2},
        "run_retries": {"enabled": False},
    }
    galleries = galleries_yaml(str(tmp_path / "store"), pictures.links, tmp_path)
    with deployment(tmp_path, galleries, changes) as (machines, instance):
        machines.launch("g")
        wait_until(lambda: statuses(instance) == [("g", "FAILURE")], "it waits too long")
        assert "taking longer than 2 seconds to start" in events(instance, run_of(instance).run_id)
        with machines.worker("a"):
            late = "Ignoring a run worker that started after the run had already finished"
            wait_until(lambda: late in events(instance, run_of(instance).run_id), "the task is taken")
    assert not pictures.asked()


KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "here",
    "clusters": [{"name": "here", "cluster": {"server": "FILLED IN"}}],
    "users": [{"name": "nobody", "user": {}}],
    "contexts": [{"name": "here", "context": {"cluster": "here", "user": "nobody"}}],
}


@needs_kubernetes
def test_the_launcher_for_kubernetes_asks_for_the_job_that_the_page_configures(server, tmp_path):
    jobs = []

    def create(handler) -> None:
        assert handler.path == "/apis/batch/v1/namespaces/dagster/jobs"
        jobs.append(json.loads(handler.rfile.read(int(handler.headers["Content-Length"]))))
        handler.answer(201, json.dumps(jobs[-1]).encode(), "application/json")

    server.forward = create
    launcher = yaml.safe_load(block("K8sRunLauncher"))["run_launcher"]
    kubeconfig = tmp_path / "kubeconfig.yaml"
    KUBECONFIG["clusters"][0]["cluster"]["server"] = server.url("").rstrip("/")
    kubeconfig.write_text(yaml.safe_dump(KUBECONFIG))
    launcher["config"] |= {"load_incluster_config": False, "kubeconfig_file": str(kubeconfig)}
    instance = celery_instance() | {"run_launcher": launcher}
    del instance["storage"]  # PostgreSQL is Celery's tests' matter
    galleries = galleries_yaml(str(tmp_path / "store"), {"g": [server.url("/a.jpg")]}, tmp_path)
    machines = Machines(tmp_path, galleries, instance, {})
    with machines.daemon():
        machines.launch("g")
        wait_until(lambda: jobs, "a Job is asked for")
    [job] = jobs
    pod = job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["args"][:3] == ["dagster", "api", "execute_run"]
    assert container["image"] == "registry.example.com/imgdl-pipeline:1"
    assert container["resources"] == {
        "requests": {"cpu": "1", "memory": "1Gi"},
        "limits": {"memory": "2Gi"},
    }
    assert {"name": "DAGSTER_HOME", "value": "/opt/dagster/dagster_home"} in container["env"]
    assert container["envFrom"] == [
        {"configMapRef": {"name": "imgdl-environment"}},
        {"secretRef": {"name": "imgdl-secrets"}},
    ]
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    assert mounts["galleries"] == "/etc/imgdl"
    assert [each["configMap"]["name"] for each in pod["volumes"]] == ["imgdl-galleries"]
    assert "InstanceRef" in container["args"][3], "the instance travels in the arguments"
    assert pod["terminationGracePeriodSeconds"] == 30
    assert pod["serviceAccountName"] == "dagster"
