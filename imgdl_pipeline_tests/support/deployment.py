"""A Dagster daemon with its code server and a queue of runs: a deployment that tests can hurt."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

ROOT = Path(__file__).parent.parent.parent
BIN = Path(sys.executable).parent
MODULE = ("-m", "imgdl_pipeline.definitions")


class Deployment:
    """The instance of dagster.example.yaml, in a folder with a galleries file.

    Args:
        folder: An empty folder.
        galleries: The galleries file's text.
        limit: How many runs the pool lets download at a time.
    """

    def __init__(self, folder: Path, galleries: str, limit: int = 1) -> None:
        self.folder = folder
        self.file = folder / "galleries.yaml"
        self.file.write_text(galleries)
        home = folder / "home"
        home.mkdir()
        example = (ROOT / "dagster.example.yaml").read_text()
        (home / "dagster.yaml").write_text(example.replace("default_limit: 2", f"default_limit: {limit}"))
        self.environ = {**os.environ, "DAGSTER_HOME": str(home), "IMGDL_CONFIG": str(self.file)}
        self.environ.pop("IMGDL_STORE", None)
        self.instance = dg.DagsterInstance.from_config(str(home))
        self.daemon: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the daemon, which starts the code server, in a process group of their own."""
        with (self.folder / "daemon.log").open("ab") as log:
            self.daemon = subprocess.Popen(
                [BIN / "dagster-daemon", "run", *MODULE],
                cwd=self.folder,
                env=self.environ,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self) -> None:
        """End the daemon, the code server and every run as a power failure does."""
        if self.daemon is not None:
            os.killpg(self.daemon.pid, signal.SIGKILL)
            self.daemon.wait()
            self.daemon = None

    def launch(self, gallery: str, run_id: str) -> None:
        """Put a run of a gallery into the queue."""
        tags = json.dumps({"dagster/partition": gallery})
        words = ["job", "launch", *MODULE, "-j", "download_galleries", "--tags", tags, "--run-id", run_id]
        subprocess.run([BIN / "dagster", *words], cwd=self.folder, env=self.environ, check=True, timeout=120)

    def status(self, run_id: str) -> dg.DagsterRunStatus | None:
        """Return the status of a run, or None if there is no such run."""
        run = self.instance.get_run_by_id(run_id)
        return run and run.status

    def pid(self, run_id: str) -> int:
        """Return the process of a run, as its sign of life tells."""
        [sign] = (self.folder / "store" / "_runs" / run_id).glob("*.json")
        return int(json.loads(sign.read_text())["pid"])


@contextmanager
def deployed(folder: Path, galleries: str) -> Iterator[Deployment]:
    """A deployment whose processes are gone at the end of the block."""
    deployment = Deployment(folder, galleries)
    deployment.start()
    try:
        yield deployment
    finally:
        deployment.kill()
        deployment.instance.dispose()


def seconds_until(is_so: Callable[[], bool], at_most: float) -> float:
    """Wait until something is so, and return for how long."""
    begun = time.monotonic()
    while not is_so():
        if time.monotonic() - begun > at_most:
            raise TimeoutError(f"still not so after {at_most:g} s")
        time.sleep(0.2)
    return time.monotonic() - begun
