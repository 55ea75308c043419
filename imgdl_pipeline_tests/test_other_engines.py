"""The recipes of "Run shards with Ray, Spark or processes" run, as they are written, against a server.

Ray and Spark are large, so `nox -s engines` installs them and runs these tests.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest

from imgdl_pipeline.core.dataset.manifest import Manifest
from imgdl_pipeline.core.model.schemas import CATALOG, columns
from imgdl_pipeline.core.storage.layout import catalog_path, host_leases_path, shard_name
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline.shards import shards_with_work
from imgdl_pipeline_tests.support.in_flight import InFlight
from imgdl_pipeline_tests.support.pictures import jpeg
from imgdl_pipeline_tests.support.server import WebHandler, WebServer

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/how-to/other-engines.md").read_text()
BIN = Path(sys.executable).parent
SHARDS, LINKS, PER_HOST = 4, 48, 2
"""The links are of one host, which is spread over all shards; the tasks share two slots of it."""

ALLOWED = "allow_addresses: [127.0.0.0/8]"
TOLD = f"{LINKS} of {LINKS + 1} links have an image"


def block(language: str, words: str) -> str:
    """The page's only code block of a language that contains some words."""
    found = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    [only] = [each for each in found if words in each]
    return only


class Laion:
    """The page's gallery in a folder, with a server for its images."""

    def __init__(self, folder: Path, server: WebServer) -> None:
        self.folder, self.server, self.store = folder, server, Store(str(folder / "store"))
        self.killed: int | None = None
        self.counting, picture = InFlight(), jpeg()
        paths = [f"/{number}.jpg" for number in range(LINKS)]
        for path in paths:
            server.routes[path] = self.counting.route(picture)
        (folder / "links.txt").write_text("\n".join(map(server.url, [*paths, "/dead.jpg"])))
        (folder / "laion.yaml").write_text(self._file())
        self.host = f"127.0.0.1:{server.server_port}"

    @staticmethod
    def _file() -> str:
        """The page's galleries file, for the tests' server and with fewer shards."""
        text = block("yaml", "type: imgdl_pipeline.ShardedGallery")
        for words, own in {
            "shards: 256": f"shards: {SHARDS}",
            "s3://bucket/laion": "store",
            "links.parquet": "links.txt",
            "{per_host: 4}": f"{{per_host: {PER_HOST}, attempts: 1, robots_txt: false, {ALLOWED}}}",
        }.items():
            assert text.count(words) == 1
            text = text.replace(words, own)
        return text

    def run(self, *command: str | Path, **environ: str) -> str:
        """Run a command in the folder; return what it prints."""
        done = subprocess.run(
            [*map(str, command)],
            cwd=self.folder,
            env={
                **os.environ,
                "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
                "PYTHONPATH": str(ROOT),
                **environ,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def list(self) -> None:
        """List the links, as the page says."""
        script = block("python", "list_shards(")
        assert self.run(sys.executable, "-c", script) == f"{LINKS + 1} links in {SHARDS} shards\n"

    def script(self, words: str) -> Path:
        """Write the page's script that contains some words; return its file."""
        file = self.folder / "script.py"
        file.write_text(f"{block('python', 'def shard(')}\n\n{block('python', words)}")
        return file

    def kill_a_task(self) -> None:
        """Kill the process of one task once some images are there."""
        lock, answer = threading.Lock(), self.server.routes["/20.jpg"]

        def kill(handler: WebHandler) -> None:
            with lock:
                if not self.killed:
                    leases = (self.folder / "store").glob("downloads/gallery=laion/_leases.*/*.json")
                    held = (json.loads(each.read_text()) for each in leases)
                    self.killed = next(each["pid"] for each in held if "pid" in each)
                    os.kill(self.killed, signal.SIGKILL)
            answer(handler)

        self.server.routes["/20.jpg"] = kill

    def check(self) -> None:
        """All is there, the host was never asked for more at a time than it allows, and nothing is left.

        A task that was killed leaves the requests that it had in flight, and its successor repeats them.
        """
        names = [shard_name("laion", number) for number in range(SHARDS)]
        schema = columns(CATALOG, "status", "path")
        catalog = pa.concat_tables(self.store.read_table(catalog_path(name), schema) for name in names)
        assert catalog["status"].to_pylist().count("ok") == LINKS
        assert catalog.num_rows == LINKS + 1
        assert all(
            (self.folder / "store" / path).exists() for path in catalog["path"].drop_null().to_pylist()
        )
        manifests = [Manifest.read(self.store, name) for name in names]
        assert sum(manifest.images for manifest in manifests) == LINKS
        repeated = PER_HOST if self.killed else 0
        assert LINKS <= self.counting.total <= LINKS + repeated
        assert PER_HOST <= self.counting.most <= PER_HOST + repeated
        assert not list(self.store.list(host_leases_path(self.host)))


@pytest.fixture
def laion(tmp_path: Path, server: WebServer) -> Laion:
    return Laion(tmp_path, server)


def test_processes_run_the_shards_as_the_page_says(laion):
    laion.list()
    script = laion.script("ProcessPoolExecutor(")
    assert laion.run(sys.executable, script) == f"{TOLD}\n"
    laion.check()
    assert laion.run(sys.executable, script) == "0 of 0 links have an image\n", "none has work any more"


def test_xargs_runs_the_shards_as_the_page_says_and_dagster_has_the_runs(laion, tmp_path):
    """Four programs at once make the tables of a new instance."""
    laion.list()
    home = str(tmp_path / "home")
    laion.run("sh", "-c", block("sh", "xargs").replace("255", str(SHARDS - 1)), DAGSTER_HOME=home)
    laion.check()
    with dg.DagsterInstance.from_config(home) as instance:
        runs = instance.get_runs()
    assert {run.tags["dagster/partition"] for run in runs} == {f"{number:04d}" for number in range(SHARDS)}
    assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}


def test_dagster_lists_the_links_for_other_engines_as_the_page_says(laion):
    laion.run("sh", "-c", block("sh", "asset materialize"))
    assert sorted(shards_with_work(laion.store, "laion")) == list(range(SHARDS))


RAY = {"RAY_raylet_start_wait_time_s": "240", "RAY_USAGE_STATS_ENABLED": "0"}
"""Ray waits for its own processes on a busy machine, and reports to nobody."""

with_and_without_a_kill = pytest.mark.parametrize("is_killed", [False, True], ids=["undisturbed", "killed"])


@pytest.mark.long
@pytest.mark.skipif(find_spec("ray") is None, reason="nox -s engines installs Ray")
@with_and_without_a_kill
def test_ray_runs_the_shards_as_the_page_says(laion, is_killed):
    laion.list()
    if is_killed:
        laion.kill_a_task()
    script = laion.script("ray.init()")
    script.write_text(script.read_text().replace("ray.init()", f"ray.init(num_cpus={2 * SHARDS})"))
    assert f"{TOLD}\n" in laion.run(sys.executable, script, **RAY)
    laion.check()
    assert bool(laion.killed) is is_killed


def java_home() -> str | None:
    """Where this machine's Java is."""
    java = shutil.which("java")
    return os.environ.get("JAVA_HOME") or (str(Path(java).resolve().parent.parent) if java else None)


@pytest.mark.long
@pytest.mark.skipif(find_spec("pyspark") is None, reason="nox -s engines installs Spark")
@pytest.mark.skipif(java_home() is None, reason="no Java is installed: apt-get install default-jre-headless")
@with_and_without_a_kill
def test_spark_runs_the_shards_as_the_page_says(laion, is_killed):
    laion.list()
    if is_killed:
        laion.kill_a_task()
    [command] = re.findall(r"`(spark-submit [^`]*)`", PAGE)
    local = ("--master", f"local[{2 * SHARDS},4]", laion.script("SparkSession"))
    told = laion.run(*shlex.split(command), *local, JAVA_HOME=java_home(), PYSPARK_PYTHON=sys.executable)
    assert f"{TOLD}\n" in told
    laion.check()
    assert bool(laion.killed) is is_killed
