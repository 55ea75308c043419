"""What many tests need: a web server, a store, pictures, and settings that let them meet."""

import fcntl
import itertools
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from hypothesis import settings as hypothesis_settings

from imgdl_pipeline.core.download.fetch import Fetcher
from imgdl_pipeline.core.jpeg.workers import JpegWorkers
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline_tests.support.server import WebServer

pytest.register_assert_rewrite("imgdl_pipeline_tests.support.datasets")  # before anything imports it

hypothesis_settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis_settings.load_profile("repeatable")


@pytest.fixture
def server() -> Iterator[WebServer]:
    with WebServer() as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture(params=["a folder", "S3"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store on the disk, and then one in a bucket."""
    if request.param == "S3":
        return Store(request.getfixturevalue("s3_bucket"))
    return Store(str(tmp_path / "store"))


@pytest.fixture
def loopback() -> DownloadSettings:
    """Settings for the tests' server: its address is allowed, and failures come soon."""
    return DownloadSettings(allow_addresses=("127.0.0.0/8",), timeout=5, attempts=1, robots_txt=False)


@pytest.fixture
def fetcher(loopback: DownloadSettings) -> Iterator[Fetcher]:
    with Fetcher(loopback, threading.Event()) as opened:
        yield opened


@pytest.fixture(scope="session")
def jpegs() -> Iterator[JpegWorkers]:
    """Processes that decode, shared by tests that do not care whose they are."""
    with JpegWorkers(2) as workers:
        yield workers


@pytest.fixture
def demo_port() -> Iterator[None]:
    """The demo gallery's port, for one test at a time, whatever process it runs in."""
    with (Path(tempfile.gettempdir()) / "imgdl_pipeline_demo_port.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """A server that speaks S3, on a free loopback port."""
    from moto.server import ThreadedMotoServer

    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    yield f"http://{host}:{port}"
    moto.stop()


@pytest.fixture
def s3_bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket of its own, as `s3://name`; the environment says how to reach it."""
    bucket = f"bucket-{next(_bucket_numbers)}"
    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }.items():
        monkeypatch.setenv(name, value)
    requests.put(f"{s3_server}/{bucket}", timeout=10).raise_for_status()
    return f"s3://{bucket}"


_bucket_numbers = itertools.count()
