import os
import select
import subprocess
import sys
import threading
from datetime import datetime, timezone
from pathlib import Path

import pytest

from imgdl_pipeline.core.model.links import Link, links_table
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
