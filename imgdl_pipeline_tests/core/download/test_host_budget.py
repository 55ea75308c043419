"""Two processes that ask one host never have more requests in flight than one may have."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime, timezone

import pytest

from imgdl_pipeline.core.download.host_budget import HostBudget, limits_of
from imgdl_pipeline.core.download.plan import LARGE_HOST_LINKS
from imgdl_pipeline.core.download.run import NOT_SPREAD
from imgdl_pipeline.core.http.pace import Paces
from imgdl_pipeline.core.model.links import Link, links_table
from imgdl_pipeline.core.model.schemas import DOWNLOADS
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.storage.host_leases import HostLeases
from imgdl_pipeline.core.storage.layout import downloads_path, host_leases_path, links_path
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline_tests.support.pictures import jpeg
from imgdl_pipeline_tests.support.server import HostsServer

LINKS = 150

RUN = """
import json
import sys
from imgdl_pipeline.core.download import run
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.storage import host_leases
from imgdl_pipeline.core.storage.store import Store

host_leases.HostLeases.__init__.__kwdefaults__.update(renew_s=0.2, lapse_s=3.0)
more = json.loads(sys.argv[3]) if sys.argv[3:] else {}
settings = DownloadSettings(
    allow_addresses=("127.0.0.0/8",), robots_txt=False, workers=8, per_host=4, **more
)
run.download_gallery(sys.argv[2], Store(sys.argv[1]), settings, checks_early=False)
"""


@pytest.mark.parametrize("place", ["disk", "s3"])
def test_two_processes_together_keep_to_the_slots_of_a_host(request, tmp_path, server, place):
    root = request.getfixturevalue("s3_bucket") if place == "s3" else str(tmp_path / "store")
    store, lock, galleries = Store(root), threading.Lock(), ("a", "b")
    in_flight, most, together = {"a": 0, "b": 0}, [0], [0]
    picture, answer_later = jpeg(), threading.Event()

    def route(handler):
        gallery = handler.path[1]
        with lock:
            in_flight[gallery] += 1
            most[0] = max(most[0], sum(in_flight.values()))
            together[0] += all(in_flight.values())
        answer_later.wait(0.03)  # it is never set: a slow host
        with lock:
            in_flight[gallery] -= 1
        handler.answer(200, picture, Content_Type="image/jpeg")

    for gallery in galleries:
        urls = [server.url(f"/{gallery}/{number}.jpg") for number in range(LINKS)]
        for number in range(LINKS):
            server.routes[f"/{gallery}/{number}.jpg"] = route
        store.write_table(links_path(gallery), links_table(map(Link, urls), datetime.now(timezone.utc)))
    runs = [
        subprocess.Popen([sys.executable, "-c", RUN, root, gallery], env=dict(os.environ))
        for gallery in galleries
    ]
    assert [run.wait(120) for run in runs] == [0, 0]
    for gallery in galleries:
        statuses = store.read_table(downloads_path(gallery), DOWNLOADS)["status"].to_pylist()
        assert statuses == ["ok"] * LINKS
    assert most[0] == 4
    assert together[0] > 0


# In one process


class Hosts(HostBudget):
    """A budget with its leases."""

    def __init__(self, store, spread=NOT_SPREAD):
        settings = DownloadSettings(per_host=4)
        self.leases = HostLeases(store, limits_of(settings), ())
        super().__init__(self.leases, settings, Paces(), spread)

    def of(self, busy, changed):
        def on_renewal(host, part):
            self.renewed(host, part)
            return changed(host)

        self.leases.busy, self.leases.on_renewal = busy, on_renewal
        return self.leases


def declared(store, host):
    files = [file.path for file in store.list(host_leases_path(host))]
    return [json.loads(store.get(path))["slots"] for path in files]


class Changes:
    """Waits for hosts to get slots."""

    def __init__(self):
        self.changed = threading.Event()

    def __call__(self, host):
        self.changed.set()
        return True


def test_a_host_with_few_links_is_not_shared(store):
    hosts = Hosts(store, spread={"s.org:443": 3})
    with hosts.of(lambda _: 0, lambda _: True):
        assert (hosts.slots("h.org:443"), hosts.slots("s.org:443")) == (4, 1)
    assert list(store.list("hosts")) == []


def test_a_host_that_many_links_lead_to_is_shared_from_then_on(store):
    hosts, changes, host = Hosts(store), Changes(), "cdn.org:443"
    paced = hosts.counting(lambda _, now: now)
    with hosts.of(lambda _: 3, changes):
        for _ in range(LARGE_HOST_LINKS - 1):
            assert (paced(host, 1.0), hosts.slots(host)) == (1.0, 4)
        paced(host, 1.0)
        hosts.slots(host)
        assert changes.changed.wait(10)
        assert (hosts.slots(host), declared(store, host)) == (4, [4])


def test_a_host_whose_owner_allows_few_requests_is_shared_at_its_first_link(store):
    hosts, changes, host = Hosts(store), Changes(), "upload.wikimedia.org"
    with hosts.of(lambda _: 0, changes):
        assert hosts.slots(host) == 0
        assert changes.changed.wait(10)
        assert (hosts.slots(host), declared(store, host)) == (2, [2])
        other = Hosts(store)
        with other.of(lambda _: 0, Changes()):
            other.slots(host)
            other.leases.renew()
            assert other.slots(host) == 0
    assert declared(store, host) == []


# Several processes


class Counted:
    """A server's slow answers, with the time of each request and how many are in flight, by gallery."""

    def __init__(self, server, seconds, galleries="ab"):
        self.server, self.seconds = server, seconds
        self.lock, self.never, self.picture = threading.Lock(), threading.Event(), jpeg()
        self.in_flight = dict.fromkeys(galleries, 0)
        self.times: dict[str, list[float]] = {gallery: [] for gallery in galleries}
        self.most, self.changed = 0, threading.Condition(self.lock)

    def __call__(self, handler):
        gallery = handler.path[1]
        with self.lock:
            self.in_flight[gallery] += 1
            self.times[gallery].append(time.monotonic())
            self.most = max(self.most, sum(self.in_flight.values()))
            self.changed.notify_all()
        self.never.wait(self.seconds)
        with self.lock:
            self.in_flight[gallery] -= 1
        handler.answer(200, self.picture, Content_Type="image/jpeg")

    def wait_for(self, condition):
        with self.lock:
            assert self.changed.wait_for(condition, 60)

    def list(self, store, gallery, links):
        urls = [self.server.url(f"/{gallery}/{number}.jpg") for number in range(links)]
        self.server.routes.update(
            dict.fromkeys((f"/{gallery}/{number}.jpg" for number in range(links)), self)
        )
        store.write_table(links_path(gallery), links_table(map(Link, urls), datetime.now(timezone.utc)))


@pytest.fixture
def start(tmp_path):
    started = []

    def begin(gallery, **settings):
        words = [sys.executable, "-c", RUN, str(tmp_path / "store"), gallery, json.dumps(settings)]
        started.append(subprocess.Popen(words))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait(10)


def most_in(times, seconds):
    times = sorted(times)
    return max(sum(first <= each < first + seconds for each in times) for first in times)


def test_two_processes_together_keep_to_the_rate_of_a_host(tmp_path, server, start):
    store, counted, rate = Store(str(tmp_path / "store")), Counted(server, 0.01), 60
    counted.list(store, "a", 240)
    counted.list(store, "b", 120)
    first = start("a", requests_per_second=rate)
    counted.wait_for(lambda: len(counted.times["a"]) >= 60)
    second = start("b", requests_per_second=rate)
    assert [second.wait(120), first.wait(120)] == [0, 0]
    times = counted.times["a"] + counted.times["b"]
    assert len(times) == 360
    assert most_in(times, 1.0) <= rate + 1, "each run begins a second of its own"
    assert most_in(times, 3.0) <= 3 * rate


def test_the_slots_of_a_killed_process_are_used_by_the_other_at_once(tmp_path, server, start):
    store, counted = Store(str(tmp_path / "store")), Counted(server, 0.05)
    counted.list(store, "a", 2_000)
    counted.list(store, "b", 400)
    first = start("a")
    counted.wait_for(lambda: counted.in_flight["a"] == 4)
    second = start("b")
    counted.wait_for(lambda: all(counted.in_flight.values()))
    first.kill()  # and its parent, this process, does not ask how it ended
    counted.wait_for(lambda: counted.in_flight["b"] == 4)
    assert second.wait(120) == 0
    assert counted.most <= 4 + 2, "a killed run's last requests are still being answered"


@pytest.mark.long
def test_a_process_that_was_asleep_sends_no_more_than_it_was_about_to(tmp_path, server, start):
    store, counted = Store(str(tmp_path / "store")), Counted(server, 0.05)
    counted.list(store, "a", 800)
    counted.list(store, "b", 800)
    first, second = start("a"), start("b")
    counted.wait_for(lambda: all(counted.in_flight.values()))
    first.send_signal(signal.SIGSTOP)
    counted.wait_for(lambda: counted.in_flight["b"] == 4)  # the lapse is 3 seconds here
    first.send_signal(signal.SIGCONT)
    assert [first.wait(120), second.wait(120)] == [0, 0]
    assert counted.most <= 4 + 2
    assert {len(times) for times in counted.times.values()} == {800}


@pytest.mark.long
def test_ten_processes_for_four_slots_are_all_done_at_last(tmp_path, server, start):
    galleries = "abcdefghij"
    store, counted = Store(str(tmp_path / "store")), Counted(server, 0.01, galleries)
    for gallery in galleries:
        counted.list(store, gallery, 120)
    runs = [start(gallery) for gallery in galleries]
    assert {run.wait(300) for run in runs} == {0}
    assert counted.most <= 4


@pytest.mark.long
def test_two_runs_of_two_processes_each_keep_to_the_slots_of_every_host(store):
    picture, answer_later = jpeg(), threading.Event()

    def route(handler):
        with handler.server.counted(handler):
            answer_later.wait(0.03)  # it is never set: a slow host
            handler.answer(200, picture)

    with HostsServer() as hosts:
        hosts.forward = route
        urls = [hosts.url(f"/{number}.jpg", 1 + number % 2) for number in range(2 * LINKS)]
        for gallery in ("a", "b"):
            store.write_table(links_path(gallery), links_table(map(Link, urls), datetime.now(timezone.utc)))
        runs = [
            subprocess.Popen([sys.executable, "-c", RUN, store.root, gallery, '{"processes": 2}'])
            for gallery in ("a", "b")
        ]
        assert [run.wait(120) for run in runs] == [0, 0]
        assert set(hosts.most.values()) == {4}
    for gallery in ("a", "b"):
        statuses = store.read_table(downloads_path(gallery), DOWNLOADS)["status"].to_pylist()
        assert statuses == ["ok"] * 2 * LINKS
