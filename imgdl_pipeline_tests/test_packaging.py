import re
import subprocess
import sys
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

import imgdl_pipeline

ROOT = Path(__file__).parent.parent


def test_the_core_does_not_bring_dagster_along():
    script = (
        "import sys, imgdl_pipeline, imgdl_pipeline.shards, imgdl_pipeline.sources\n"
        "assert not [name for name in sys.modules if name.partition('.')[0] == 'dagster']"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_component_stands_on_the_root_and_discovery_finds_it():
    assert "ImageGalleries" in dir(imgdl_pipeline)
    assert imgdl_pipeline.ImageGalleries.__name__ == "ImageGalleries"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = imgdl_pipeline.nothing


def test_dagsters_tools_find_the_package_by_its_entry_point():
    [found] = entry_points(group="dagster_dg_cli.registry_modules", name="imgdl_pipeline")
    assert found.value == "imgdl_pipeline"


def test_the_installed_version_is_the_packages():
    assert version("imgdl-pipeline") == imgdl_pipeline.__version__


def test_the_lock_file_has_versions_and_hashes_and_names_no_host():
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock
    packages = re.findall(r"^\S+==\S+.*(?:\n    --hash=sha256:[0-9a-f]{64}.*)+", lock, re.MULTILINE)
    assert len(packages) == len(re.findall(r"^\S", lock, re.MULTILINE))


def test_the_wheel_has_the_parts_of_a_gallerys_page():
    wheel = {each.distribution_path for each in WheelBuilder(str(ROOT)).recurse_included_files()}
    parts = {f"imgdl_pipeline/core/view/template/page.{kind}" for kind in ("html", "css", "js")}
    assert parts <= wheel


def test_every_dependency_is_in_the_lock_file():
    lock = set(re.findall(r"^([a-z0-9-]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    named = re.findall(r'^    "([A-Za-z0-9-]+)', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    packages = {name.lower() for name in named} - {"imgdl-pipeline"}
    assert {"dagster", "requests", "pillow"} <= packages & lock


HOST = """
import csv, gc, os, pkgutil, signal, sys, threading, warnings
import dagster, lxml.etree, numpy, obstore, PIL.Image, pyarrow, pydantic, requests  # what they do is theirs
import dagster.components

def state():
    return {
        "environment": dict(os.environ),
        "frozen objects": gc.get_freeze_count(),
        "warning filters": list(warnings.filters),
        "csv limit": csv.field_size_limit(),
        "pixels": PIL.Image.MAX_IMAGE_PIXELS,
        "memory pool": pyarrow.default_memory_pool().backend_name,
        "signal handlers": [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)],
        "threads": threading.active_count(),
        "recursion": sys.getrecursionlimit(),
        "path": list(sys.path),
    }

csv.field_size_limit(99)
PIL.Image.MAX_IMAGE_PIXELS = 77
before = state()
import imgdl_pipeline
modules = [each.name for each in pkgutil.walk_packages(imgdl_pipeline.__path__, "imgdl_pipeline.")]
for name in modules:
    if not name.endswith("__main__"):
        __import__(name)
assert len(modules) > 60
print([key for key, value in state().items() if value != before[key]])
"""


def test_importing_any_module_changes_nothing_in_the_host_process():
    run = subprocess.run([sys.executable, "-c", HOST], capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "[]", run.stdout + run.stderr


def test_imports_point_one_way():
    run = subprocess.run(
        [Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout


TARGET_OF_A_VERDICT = "from dagster._core.definitions.asset_checks.asset_check_evaluation import ("
"""Without it, Dagster shows no verdict at its partition; it has no public name."""


def test_nothing_of_dagster_that_is_not_public_is_used():
    for file in (ROOT / "imgdl_pipeline").rglob("*.py"):
        for line in file.read_text().splitlines():
            if re.match(r"\s*(from|import) dagster", line):
                is_exception = (file.name, line) == ("checks.py", TARGET_OF_A_VERDICT)
                is_public = line == "import dagster as dg" or line.startswith(
                    "from dagster.components import "
                )
                assert is_exception or is_public, file


def test_tests_import_from_support_and_from_no_other_test():
    tests = ROOT / "imgdl_pipeline_tests"
    imported = re.compile(r"^\s*(?:from|import) imgdl_pipeline_tests(?!\.support\b)\S*", re.MULTILINE)
    allowed = {"test_survival.py"}  # its child processes run the same file
    found = {
        path.name: imported.findall(path.read_text())
        for path in tests.rglob("*.py")
        if path.name not in allowed and imported.search(path.read_text())
    }
    assert found == {}
