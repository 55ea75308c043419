import os
import select
import subprocess
import sys
import threading
from datetime import datetime, timezone
from pathlib import Path

import pytest

from imgdl_pipeline.core.download.messages import Slots, Wanted
from imgdl_pipeline.core.download.process import _RemoteLeases
from imgdl_pipeline.core.model.links import Link, links_table
from imgdl_pipeline.core.storage.host_leases import HostLimits, Part, since_boot
from imgdl_pipeline.core.storage.layout import links_path
from imgdl_pipeline_tests.support.server import HostsServer

RUN = """
import sys
from imgdl_pipeline.core.download.run import download_gallery
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.storage.store import Store

settings = DownloadSettings(allow_addresses=("127.0.0.0/8",), robots_txt=False, workers=8, processes=2)
download_gallery("g", Store(sys.argv[1]), settings, checks_early=False)
"""


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="only Linux tells when another's child has ended")
def test_when_the_run_is_killed_its_processes_end_by_themselves(store):
    asked = threading.Semaphore(0)

    def hang(handler):
        asked.release()
        handler.server.release.wait(60)

    with HostsServer() as hosts:
        hosts.forward = hang
        links = [Link(hosts.url(f"/{number}.jpg", 1 + number % 10)) for number in range(120)]
        store.write_table(links_path("g"), links_table(links, datetime.now(timezone.utc)))
        with subprocess.Popen([sys.executable, "-c", RUN, store.root]) as run:
            for _ in range(8):
                assert asked.acquire(timeout=60)
            tasks = Path(f"/proc/{run.pid}/task").glob("*/children")
            handles = [os.pidfd_open(int(pid)) for task in tasks for pid in task.read_text().split()]
            run.kill()
        assert len(handles) >= 2
        for handle in handles:
            assert select.select([handle], [], [], 30)[0], "it goes on without its run"
            os.close(handle)


class Sent(list):
    """Keeps what is sent to the run."""

    def send(self, message):
        self.append(message)


def test_a_process_has_the_slots_that_the_run_has_said_and_says_once_each_time_that_it_wants_them():
    sent = Sent()
    leases = _RemoteLeases(sent)
    assert (leases.slots("h.org:443"), sent) == (None, [])
    leases.share("h.org:443")
    assert (leases.slots("h.org:443"), leases.slots("h.org:443")) == (0, 0)
    assert sent == [Wanted("h.org:443")]
    leases.heard(Slots("h.org:443", Part(3, HostLimits(8)), since_boot() + 60))
    assert (leases.slots("h.org:443"), leases.slots("h.org:443")) == (3, 3)
    assert sent == [Wanted("h.org:443")] * 2
    leases.heard(Slots("h.org:443", Part(3, HostLimits(8)), since_boot() - 1))
    assert leases.slots("h.org:443") == 0, "the run has said nothing for too long"
