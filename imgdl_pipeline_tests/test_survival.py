"""What a run survives: kills, interrupts, full disks, stores in trouble, and another run of the same gallery.

Each is done to the real thing: a process of Dagster's own command, a file system that is full, a server that
speaks S3 and fails.
"""

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import IO

import dagster as dg
import pyarrow.parquet as pq
import pytest
import requests

from imgdl_pipeline.core.catalog.build import build_catalog
from imgdl_pipeline.core.download.retry import Retry
from imgdl_pipeline.core.download.run import download_gallery
from imgdl_pipeline.core.model.links import Link, links_table
from imgdl_pipeline.core.model.schemas import CATALOG, DOWNLOADS
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.storage.layout import catalog_path, downloads_path, images_path, links_path
from imgdl_pipeline.core.storage.lease import GalleryBusyError
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline_tests.support.mortal_store import Killed, MortalStore
from imgdl_pipeline_tests.support.pictures import jpeg
from imgdl_pipeline_tests.support.server import WebServer

pytestmark = pytest.mark.long

PICTURE = jpeg()
SETTINGS = DownloadSettings(allow_addresses=("127.0.0.0/8",), robots_txt=False, attempts=2, timeout=20)


class Project:
    """A galleries file with one gallery of links to the tests' server, as a user has it."""

    def __init__(self, folder: Path, urls: list[str]) -> None:
        self.folder = folder
        self.store = Store(str(folder / "store"))
        (folder / "home").mkdir()
        (folder / "links.txt").write_text("\n".join(urls))
        (folder / "galleries.yaml").write_text(f"""\
type: imgdl_pipeline.ImageGalleries
attributes:
  store: {folder}/store
  schedule: null
  download: {{allow_addresses: [127.0.0.0/8], robots_txt: false, timeout: 60}}
  galleries:
    - name: g
      source: {{type: url_list, path: {folder}/links.txt}}
""")

    def start(self) -> subprocess.Popen[str]:
        """The contract's command, in a process group of its own."""
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "dagster", "asset", "materialize"),
                *("-m", "imgdl_pipeline.definitions", "--select", "*", "--partition", "g"),
            ],
            env={
                **os.environ,
                "IMGDL_CONFIG": str(self.folder / "galleries.yaml"),
                "DAGSTER_HOME": str(self.folder / "home"),
            },
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def finish(self) -> str:
        """Run to the end; what it said."""
        with self.start() as run:
            said, _ = run.communicate(timeout=120)
        assert run.returncode == 0, said
        return said

    def table(self, path: str) -> list[dict[str, object]]:
        file = self.folder / "store" / path
        return pq.read_table(file).to_pylist() if file.exists() else []

    def files(self) -> list[Path]:
        return [file for file in (self.folder / "store" / "images").rglob("*") if file.is_file()]


class SlowPictures:
    """Answers with pictures after a while; notes when each was asked for, and calls back."""

    def __init__(self, server: WebServer, count: int, seconds: float) -> None:
        self.server, self.seconds = server, seconds
        self.asked: list[tuple[str, float]] = []
        self.begun = threading.Event()
        self.urls = [server.url(f"/{number}.jpg") for number in range(count)]
        for number in range(count):
            server.routes[f"/{number}.jpg"] = self.answer

    def answer(self, handler) -> None:
        self.asked.append((handler.path, time.monotonic()))
        self.begun.set()
        self.server.release.wait(self.seconds)
        handler.answer(200, PICTURE)


def test_five_kills_at_random_moments_lose_nothing_but_the_last_seconds(server, tmp_path):
    pictures = SlowPictures(server, 700, seconds=0.15)
    project = Project(tmp_path, pictures.urls)
    moments = random.Random()
    for _ in range(5):
        pictures.begun.clear()
        with project.start() as run:
            assert pictures.begun.wait(60)
            time.sleep(moments.uniform(0.1, 2.4))  # what is random is the moment; nothing waits for a thread
            os.killpg(run.pid, signal.SIGKILL)
            run.communicate()
        assert all(file.read_bytes() == PICTURE for file in project.files() if "#" not in file.name)
        for path in (downloads_path("g"), catalog_path("g")):
            rows = project.table(path)
            assert all((tmp_path / "store" / str(row["path"])).exists() for row in rows if row["path"])
    project.finish()
    rows = project.table(catalog_path("g"))
    assert {row["url"] for row in rows} == set(pictures.urls)
    assert {row["status"] for row in rows} == {"ok"}
    assert {str(file.relative_to(tmp_path / "store")) for file in project.files()} == {
        row["path"] for row in rows
    }
    assert list(project.store.list("downloads/gallery=g/_checkpoints")) == []
    assert len(pictures.asked) - len(pictures.urls) <= 5 * 8, (
        "more than what was in flight is asked for again"
    )
    pictures.asked.clear()
    project.finish()
    assert pictures.asked == []


def iter_until(word: str, lines: IO[str]) -> Iterator[str]:
    for line in lines:
        yield line
        if word in line:
            return
    raise AssertionError(f"{word} was never said")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_run_within_5_seconds_and_the_ledger_is_written(server, tmp_path, number):
    reached = threading.Semaphore(0)

    def answer(handler):
        handler.answer(200, PICTURE)
        reached.release()

    def hang(handler):
        reached.release()
        server.release.wait(60)

    server.routes |= {f"/{number}.jpg": answer for number in range(40)} | {"/hanging.jpg": hang}
    project = Project(tmp_path, [server.url(path) for path in server.routes])
    with project.start() as run:
        assert all(reached.acquire(timeout=60) for _ in server.routes)
        signalled = time.monotonic()
        run.send_signal(number)
        said = list(iter_until("RUN_FAILURE", run.stdout))  # which Dagster writes when all else is done
        assert time.monotonic() - signalled < 5
        rows = project.table(downloads_path("g"))
        said.append(run.communicate(timeout=60)[0])
    assert run.returncode != 0
    assert "did not stop" not in "".join(said)
    assert sum(row["status"] == "ok" for row in rows) >= 40 - 8, said  # up to eight were on their way
    with dg.DagsterInstance.from_config(str(tmp_path / "home")) as instance:
        assert [each.status for each in instance.get_runs()] == [dg.DagsterRunStatus.FAILURE]
    server.serve("/hanging.jpg", PICTURE)
    project.finish()
    assert {row["status"] for row in project.table(catalog_path("g"))} == {"ok"}


def listed(store: Store, urls: list[str]) -> None:
    store.write_table(links_path("g"), links_table(map(Link, urls), datetime.now(timezone.utc)))


def test_two_runs_of_one_gallery_at_the_same_time_are_one_run_and_a_clear_refusal(server, store):
    begun = threading.Event()

    def answer(handler):
        begun.set()
        server.release.wait(10)
        handler.answer(200, PICTURE)

    server.routes["/a.jpg"] = answer
    listed(store, [server.url("/a.jpg")])
    first = threading.Thread(target=download_gallery, args=("g", store, SETTINGS))
    first.start()
    assert begun.wait(10)
    for second in (download_gallery, build_catalog):
        with pytest.raises(GalleryBusyError, match="another run is at work on g: process"):
            second("g", store, SETTINGS)
    server.release.set()
    first.join(30)
    assert server.paths() == ["/a.jpg"]
    assert build_catalog("g", store, SETTINGS).catalog["status"].to_pylist() == ["ok"]


IN_A_NAMESPACE = """
import subprocess, sys
from imgdl_pipeline.core.catalog.build import build_catalog
from imgdl_pipeline.core.storage.checkpoints import CHECKPOINT_S
from imgdl_pipeline.core.model.schemas import CATALOG, DOWNLOADS
from imgdl_pipeline.core.download.run import download_gallery
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline_tests.test_survival import SETTINGS, listed

folder, before, during, after, *urls = sys.argv[1:]
def mount(how):
    for _ in range(200):  # while a file is being written, the disk cannot turn read-only
        done = subprocess.run(["mount", "-o", *how.split(), folder], capture_output=True, text=True)
        if "busy" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr

mount(before)
store, said = Store(folder + "/store"), []
listed(store, urls)
trouble = lambda progress: progress.done == 10 and during and mount(during)
try:
    download_gallery("g", store, SETTINGS, on_progress=trouble)
except StoreError as error:
    said.append(str(error))
mount(after)
download_gallery("g", store, SETTINGS)
catalog = build_catalog("g", store, SETTINGS).catalog
print(said, sorted(set(catalog["status"].to_pylist())), catalog.num_rows, sep="|")
"""

CAN_MOUNT = subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not CAN_MOUNT, reason="this system lets nobody but root mount anything")
@pytest.mark.parametrize(
    ("before", "during", "after", "cause"),
    [
        ("size=600k -t tmpfs none", "", "remount,size=50m", "No space left on device"),
        ("size=50m -t tmpfs none", "remount,ro", "remount,rw", "Read-only file system"),
    ],
    ids=["a full disk", "a disk that turns read-only"],
)
def test_a_disk_in_trouble_fails_the_run_with_its_cause_and_the_next_run_completes_it(
    server, tmp_path, before, during, after, cause
):
    urls = [server.serve(f"/{number}.jpg", jpeg(number, (640, 480))) for number in range(60)]
    run = subprocess.run(
        ["unshare", "-rm", sys.executable, "-c", IN_A_NAMESPACE, tmp_path, before, during, after, *urls],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    said, statuses, rows = run.stdout.strip().split("|")
    assert cause in said
    assert said.startswith("['cannot store")
    assert (statuses, rows) == ("['ok']", "60")


@contextmanager
def failing_half_the_time(s3_url: str):
    """An S3 server of which every second answer is a failure."""
    turns, lock, session = [0], threading.Lock(), requests.Session()
    with WebServer() as front:

        def forward(handler) -> None:
            with lock:
                turns[0] += 1
                fails = turns[0] % 2 == 0
            body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
            if fails:
                handler.answer(503, b"<Error><Code>SlowDown</Code></Error>", "application/xml")
                return
            answer = session.request(
                handler.command, s3_url + handler.path, headers=dict(handler.headers), data=body, timeout=30
            )
            handler.send_response(answer.status_code)
            for name, value in answer.headers.items():
                if name.lower() not in (
                    "transfer-encoding",
                    "connection",
                    "date",
                    "server",
                    "content-length",
                ):
                    handler.send_header(name, value)
            length = answer.headers["Content-Length"] if handler.command == "HEAD" else len(answer.content)
            handler.send_header("Content-Length", str(length))
            handler.end_headers()
            handler.wfile.write(answer.content)

        front.forward = forward
        yield front.url("").rstrip("/")
        assert turns[0] > 50


def test_an_s3_server_that_fails_half_the_time_gets_everything_in_the_end(
    server, s3_server, s3_bucket, monkeypatch
):
    with failing_half_the_time(s3_server) as flaky:
        monkeypatch.setenv("AWS_ENDPOINT_URL", flaky)
        store = Store(s3_bucket)
        listed(store, [server.serve(f"/{number}.jpg", PICTURE) for number in range(30)])
        download_gallery("g", store, SETTINGS, retry=Retry(attempts=1))
        statuses = build_catalog("g", store, SETTINGS).catalog["status"].to_pylist()
    assert statuses == ["ok"] * 30


def test_an_s3_server_that_turns_read_only_fails_the_run_with_its_cause(
    server, s3_server, s3_bucket, monkeypatch
):
    urls = [server.serve(f"/{number}.jpg", PICTURE) for number in range(30)]
    store = Store(s3_bucket)
    listed(store, urls)
    with WebServer() as front:
        front.forward = lambda handler: handler.answer(403, b"<Error><Code>AccessDenied</Code></Error>")
        monkeypatch.setenv("AWS_ENDPOINT_URL", front.url("").rstrip("/"))
        with pytest.raises(Exception, match="AccessDenied"):
            download_gallery("g", Store(s3_bucket), SETTINGS)
    assert download_gallery("g", store, SETTINGS).ledger["status"].to_pylist() == ["ok"] * 30


def test_what_a_killed_writer_left_is_cleaned_up_and_nothing_else(server, store, tmp_path):
    kept, gone = server.serve("/kept.jpg", PICTURE), server.serve("/gone.jpg", jpeg(2))
    listed(store, [kept, gone])
    download_gallery("g", store, SETTINGS)
    root = tmp_path / "store"
    staged = root / images_path("g") / "00" / "half-00000000000000000000.jpg#1"
    orphan = root / images_path("g") / "00" / "orphan-00000000000000000000.jpg"
    staged.parent.mkdir(exist_ok=True)
    for file in (staged, orphan):
        file.write_bytes(PICTURE)
    listed(store, [kept])
    rows = download_gallery("g", store, SETTINGS).ledger.to_pylist()
    assert not staged.exists()
    assert not orphan.exists()
    assert all(store.get(row["path"]) for row in rows)
    assert len(rows) == 2


def run_once(store: Store, settings: DownloadSettings) -> None:
    download_gallery("g", store, settings, retry=Retry(attempts=1))
    build_catalog("g", store, settings)


@pytest.mark.parametrize("is_first", [True, False], ids=["a first run", "a run that asks for all again"])
def test_a_run_that_is_killed_before_any_of_its_writes_is_carried_on(server, tmp_path, is_first, monkeypatch):
    """Whichever write is the first that does not happen: two runs later, all is as if nothing had been."""
    for module in ("storage.ledger", "catalog.build"):
        monkeypatch.setattr(f"imgdl_pipeline.core.{module}.CHECKPOINT_S", 0.0)
    pictures = [jpeg(number) for number in range(5)]
    good = [server.serve(f"/{number}.jpg", pictures[number], ETag='"v1"') for number in range(3)]
    damaged = server.serve("/damaged.jpg", pictures[3][:-500])
    settings = SETTINGS.overridden_by({"workers": 1, "recheck": 0.000001})
    died = 0
    for writes in range(1000):
        root = str(tmp_path / str(writes))
        listed(Store(root), [*good, damaged, server.url("/dead.jpg")])
        server.serve("/0.jpg", pictures[0], ETag='"v1"')
        if not is_first:
            run_once(Store(root), settings)
            server.serve("/0.jpg", pictures[4], ETag='"v2"')
        try:
            run_once(MortalStore(root, writes), settings)
        except Killed:
            died += 1
        else:
            break
        for _ in range(2):
            run_once(Store(root), settings)
        assert_sound(Store(root), len(good))
    assert died > 10


def assert_sound(store: Store, images: int) -> None:
    """Ledger, catalog and files tell the same, and nothing is left over."""
    stored = {file.path for file in store.list(images_path("g"))}
    for path, schema in ((downloads_path("g"), DOWNLOADS), (catalog_path("g"), CATALOG)):
        rows = store.read_table(path, schema).to_pylist()
        assert len(rows) == images + 2
        known = {row["path"]: row["sha256"] for row in rows if row["status"] == "ok"}
        assert set(known) == stored
        assert len(known) == images
        assert all(hashlib.sha256(store.get(path)).hexdigest() == known[path] for path in known)
    assert not [file for file in store.list("") if "_checkpoints" in file.path]
