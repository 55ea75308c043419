"""Several download processes of one run, which are real ones, at a server that is real, too."""

import logging
import signal
import threading
from collections import Counter
from datetime import datetime, timezone

import pytest

from imgdl_pipeline.core.download import processes
from imgdl_pipeline.core.download.retry import Retry
from imgdl_pipeline.core.download.run import download_gallery
from imgdl_pipeline.core.model.links import Link, links_table
from imgdl_pipeline.core.model.outcome import ResourceError
from imgdl_pipeline.core.model.schemas import DOWNLOADS, FACTS
from imgdl_pipeline.core.storage.checkpoints import Checkpoints
from imgdl_pipeline.core.storage.layout import checked_path, downloads_path, images_path, links_path
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline_tests.support.pictures import jpeg
from imgdl_pipeline_tests.support.server import HostsServer

PICTURE = jpeg()
LINKS = 120
HOSTS = 10
FEW = {f"/{number}.jpg" for number in range(4)}
"""Of some links the paths; they are at hosts of both processes."""


@pytest.fixture
def hosts():
    with HostsServer() as running:
        running.forward = counted
        yield running


@pytest.fixture
def children(monkeypatch):
    """The processes that were started, in order."""
    started, start = [], processes._started

    def recorded(descriptor):
        started.append(start(descriptor))
        return started[-1]

    monkeypatch.setattr(processes, "_started", recorded)
    return started


def counted(handler):
    with handler.server.counted(handler):
        handler.answer(200, PICTURE)


def urls_of(hosts, count=LINKS):
    return [hosts.url(f"/{number}.jpg", 1 + number % HOSTS) for number in range(count)]


def listed(store, links):
    store.write_table(links_path("g"), links_table(links, datetime.now(timezone.utc)))


def download(store, settings, jpegs, processes=2, workers=16, **more):
    settings = settings.overridden_by({"processes": processes, "workers": workers})
    return download_gallery("g", store, settings, jpegs=jpegs, **{"retry": Retry(4, 0.0), **more})


def statuses(run):
    return Counter(run.tried["status"].to_pylist())


def test_every_link_has_its_row_its_image_and_its_facts_and_secrets_are_in_no_argument(
    store, hosts, loopback, jpegs, children
):
    links = [Link(url, request_headers={"X-Token": "sesame"}) for url in urls_of(hosts)]
    listed(store, [*links, Link(hosts.url("/robots.txt", 3), request_headers={})])
    hosts.forward = lambda handler: (
        handler.answer(404, b"") if handler.path == "/robots.txt" else counted(handler)
    )
    told = []
    run = download(store, loopback, jpegs, on_progress=told.append)
    assert statuses(run) == {"ok": LINKS, "failed": 1}
    assert {store.get(path) for path in run.tried["path"].drop_null().to_pylist()} == {PICTURE}
    assert told[-1].done == told[-1].total == LINKS + 1
    facts = Checkpoints(store, checked_path("g"), FACTS)
    assert sum(table.num_rows for table in facts.batches()) == LINKS
    assert Counter(headers.get("X-Token") for _, headers in hosts.requests) == {"sesame": LINKS, None: 1}
    assert [child.returncode for child in children] == [0, 0]
    assert not any("sesame" in argument for child in children for argument in child.args)


def test_redirects_from_two_processes_to_one_host_keep_to_its_slots(store, hosts, loopback, jpegs):
    target = f"127.0.0.200:{hosts.server_port}"
    enough = threading.Event()

    def redirect(handler):
        if handler.headers["Host"] != target:
            handler.answer(302, b"", Location=f"http://{target}{handler.path}")
            return
        with hosts.counted(handler):
            if hosts.most[target] < 3:
                enough.wait(0.02)  # it is never set: a slow host
            handler.answer(200, PICTURE)

    hosts.forward = redirect
    listed(store, map(Link, urls_of(hosts)))
    run = download(store, loopback.overridden_by({"per_host": 3}), jpegs)
    assert statuses(run) == {"ok": LINKS}
    assert hosts.most[target] == 3


@pytest.mark.long
def test_a_redirect_to_a_host_that_fails_comes_back_and_begins_at_its_own_host(store, hosts, loopback, jpegs):
    target, failed = f"127.0.0.200:{hosts.server_port}", set()

    def answer(handler):
        if handler.headers["Host"] != target and handler.path in FEW:
            handler.answer(302, b"", Location=f"http://{target}{handler.path}")
        elif handler.path in FEW and handler.path not in failed:
            failed.add(handler.path)
            handler.answer(500, b"")
        else:
            handler.answer(200, PICTURE)

    hosts.forward = answer
    listed(store, map(Link, urls_of(hosts)))
    run = download(store, loopback.overridden_by({"attempts": 4}), jpegs)
    assert statuses(run) == {"ok": LINKS}
    assert sum(attempts == 2 for attempts in run.tried["attempts"].to_pylist()) == len(FEW)
    assert Counter(hosts.paths()) == {path: 4 if path in FEW else 1 for path in hosts.paths()}


def test_the_links_of_a_process_that_is_killed_are_worked_on_by_another_one(
    store, hosts, loopback, jpegs, children, caplog
):
    def answer(handler):
        if len(hosts.paths()) == 30:
            children[0].kill()
        counted(handler)

    hosts.forward = answer
    listed(store, map(Link, urls_of(hosts)))
    with caplog.at_level(logging.WARNING):
        run = download(store, loopback, jpegs)
    assert statuses(run) == {"ok": LINKS}
    assert [child.returncode for child in children] == [-signal.SIGKILL, 0, 0]
    assert (
        "g: a download process was killed (as the system does when memory runs out); another" in caplog.text
    )


@pytest.mark.long
def test_a_run_whose_processes_are_killed_again_and_again_says_so_and_keeps_what_it_has(
    store, hosts, loopback, jpegs, children, monkeypatch
):
    monkeypatch.setattr(processes, "DEATHS", 1)

    def answer(handler):
        if handler.path == "/7.jpg":
            children[-1].kill()
            children[0].kill()
            hosts.release.wait(30)
        counted(handler)

    hosts.forward = answer
    listed(store, map(Link, urls_of(hosts)))
    with pytest.raises(ResourceError, match=r"^2 download processes of this run have ended too early"):
        download(store, loopback, jpegs)
    assert {child.poll() for child in children} <= {0, -signal.SIGKILL}
    kept = store.read_table(downloads_path("g"), DOWNLOADS)
    assert set(kept["status"].to_pylist()) <= {"ok"}


def test_a_store_that_fails_in_a_process_ends_the_run_with_its_own_error(
    store, hosts, loopback, jpegs, children
):
    listed(store, map(Link, urls_of(hosts)))
    store.put("images/g", b"a file where the folder should be")
    with pytest.raises(StoreError, match="cannot store"):
        download(store, loopback, jpegs)
    assert None not in [child.poll() for child in children]


def test_an_interrupted_run_keeps_what_was_done_and_leaves_no_process(
    store, hosts, loopback, jpegs, children
):
    def interrupt(progress):
        if progress.done == 20:
            raise KeyboardInterrupt

    listed(store, map(Link, urls_of(hosts)))
    with pytest.raises(KeyboardInterrupt):
        download(store, loopback, jpegs, on_progress=interrupt)
    assert [child.returncode for child in children] == [0, 0]
    kept = store.read_table(downloads_path("g"), DOWNLOADS)["url"].to_pylist()
    assert 20 <= len(kept) <= LINKS
    hosts.requests.clear()
    assert download(store, loopback, jpegs).ledger.num_rows == LINKS
    assert len(hosts.paths()) == LINKS - len(kept)


@pytest.mark.long
def test_what_robots_txt_says_of_use_is_noted_and_the_limit_of_links_is_kept(store, hosts, loopback, jpegs):
    def answer(handler):
        if handler.path == "/robots.txt":
            handler.answer(200, b"User-agent: *\nContent-Usage: train-ai=n\nAllow: /\n", "text/plain")
        else:
            counted(handler)

    listed(store, map(Link, urls_of(hosts)))
    first = download(store, loopback, jpegs, limit=110)
    assert (first.waiting, statuses(first)) == (LINKS - 110, {"ok": 110})
    hosts.forward = answer
    settings = loopback.overridden_by({"robots_txt": True})
    run = download(store, settings.overridden_by({"recheck": 1e-9}), jpegs)
    assert set(run.ledger["reason"].to_pylist()) == {"opt_out"}
    assert Counter(hosts.paths())["/robots.txt"] == HOSTS
    assert not store.files(images_path("g")).num_rows


@pytest.mark.long
def test_after_the_time_limit_no_process_begins_a_link_and_the_rest_waits(store, hosts, loopback, jpegs):
    def answer(handler):
        handler.server.release.wait(0.05)
        counted(handler)

    hosts.forward = answer
    listed(store, map(Link, urls_of(hosts, 4000)))
    run = download(store, loopback.overridden_by({"time_limit": 4.0, "per_host": 1}), jpegs)
    assert run.waiting > 0
    assert run.waiting + run.tried.num_rows == 4000
    assert set(statuses(run)) <= {"ok"}


@pytest.mark.parametrize(("processes", "workers", "started"), [(3, 1, 0), (2, 3, 2)])
def test_the_workers_are_divided_and_there_are_no_more_processes_than_workers(
    store, hosts, loopback, jpegs, children, processes, workers, started
):
    in_flight, most, lock = [0], [0], threading.Lock()

    def answer(handler):
        with lock:
            in_flight[0] += 1
            most[0] = max(most[0], in_flight[0])
        handler.server.release.wait(0.002)
        with lock:
            in_flight[0] -= 1
        counted(handler)

    hosts.forward = answer
    listed(store, map(Link, urls_of(hosts)))
    assert statuses(download(store, loopback, jpegs, processes, workers)) == {"ok": LINKS}
    assert (len(children), most[0] <= workers) == (started, True)


@pytest.mark.long
def test_a_process_that_is_suspended_does_not_keep_the_run_beyond_its_time_limit(
    store, hosts, loopback, jpegs, children, monkeypatch, caplog
):
    monkeypatch.setattr(processes, "OVERDUE_S", 0.5)
    seen = []

    def answer(handler):
        if len(hosts.paths()) == 30:
            children[0].send_signal(signal.SIGSTOP)
        counted(handler)

    hosts.forward = answer
    listed(store, map(Link, urls_of(hosts)))
    settings = loopback.overridden_by({"time_limit": 3.0, "timeout": 1.0})
    run = download(store, settings, jpegs, on_progress=seen.append)
    assert run.waiting > 0
    assert run.waiting + run.tried.num_rows == LINKS
    assert "a download process does not end" in caplog.text
    assert sum(each.busy > 0 for each in seen) or len(seen) > run.tried.num_rows, "progress is reported"
