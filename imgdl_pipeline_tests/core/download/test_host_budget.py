"""Two processes that ask one host never have more requests in flight than one may have."""

import os
import subprocess
import sys
import threading
from datetime import datetime, timezone

import pytest

from imgdl_pipeline.core.model.links import Link, links_table
from imgdl_pipeline.core.model.schemas import DOWNLOADS
from imgdl_pipeline.core.storage.layout import downloads_path, links_path
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline_tests.support.pictures import jpeg
from imgdl_pipeline_tests.support.server import HostsServer

LINKS = 150

RUN = """
import sys
from imgdl_pipeline.core.download import run
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.storage import host_leases
from imgdl_pipeline.core.storage.store import Store

host_leases.HostLeases.__init__.__kwdefaults__["renew_s"] = 0.2
settings = DownloadSettings(
    allow_addresses=("127.0.0.0/8",), robots_txt=False, workers=8, per_host=4, processes=int(sys.argv[3])
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
        subprocess.Popen([sys.executable, "-c", RUN, root, gallery, "1"], env=dict(os.environ))
        for gallery in galleries
    ]
    assert [run.wait(120) for run in runs] == [0, 0]
    for gallery in galleries:
        statuses = store.read_table(downloads_path(gallery), DOWNLOADS)["status"].to_pylist()
        assert statuses == ["ok"] * LINKS
    assert most[0] == 4
    assert together[0] > 0


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
            subprocess.Popen([sys.executable, "-c", RUN, store.root, gallery, "2"]) for gallery in ("a", "b")
        ]
        assert [run.wait(120) for run in runs] == [0, 0]
        assert set(hosts.most.values()) == {4}
    for gallery in ("a", "b"):
        statuses = store.read_table(downloads_path(gallery), DOWNLOADS)["status"].to_pylist()
        assert statuses == ["ok"] * 2 * LINKS
