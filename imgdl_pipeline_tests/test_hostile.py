"""The hostile web, all of it at once: each case has its outcome, and nothing else happens."""

import json
import subprocess
import sys
import threading
import time

import pytest

from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline_tests.support.hostile import OK_HEAD, answer, bomb, cases, forever, resized, run
from imgdl_pipeline_tests.support.pictures import jpeg


@pytest.fixture(scope="module")
def hostile_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    started = time.monotonic()
    outcomes, visited = run(Store(str(folder)))
    return {case.name: (outcome, row) for case, outcome, row in outcomes}, visited, folder, started


def test_there_are_many_cases_and_each_has_a_name_of_its_own():
    names = [case.name for case in cases()]
    assert len(names) == len(set(names)) >= 80


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_each_case_has_the_outcome_it_should(hostile_run, case):
    outcome, row = hostile_run[0][case.name]
    assert outcome == case.expected, row["detail"]


def test_every_link_has_its_row(hostile_run):
    assert set(hostile_run[0]) == {case.name for case in cases()}


def test_a_refused_address_saw_not_one_packet(hostile_run):
    assert hostile_run[1] is False


def test_every_file_lies_in_its_gallerys_folder_and_is_one_of_the_ok(hostile_run):
    outcomes, _, folder, _ = hostile_run
    files = {str(file.relative_to(folder)) for file in (folder / "images").rglob("*") if file.is_file()}
    assert files == {row["path"] for _, row in outcomes.values() if row["path"]}
    assert len(files) == sum(outcome == "ok" for outcome, _ in outcomes.values())


def test_no_thread_is_left_behind(hostile_run):
    assert not [
        each for each in threading.enumerate() if each.name.startswith(("DownloadWorker", "validate"))
    ]


def test_no_secret_of_a_link_is_in_its_detail(hostile_run):
    assert not [row["detail"] for _, row in hostile_run[0].values() if "me:pw" in (row["detail"] or "")]


def test_peak_memory_stays_under_600_mb_whatever_the_servers_send(server, tmp_path):
    """Of all processes together, with the default settings: 8 workers, 50 MB a file, 300 MB to decode one."""
    large = jpeg(1) + bytes(49_000_000)
    just_decoded = jpeg(2, (7040, 7040), progressive=True, subsampling=0, quality=20)
    bodies = {
        "large": large,
        "progressive": just_decoded,
        "progressive-bomb": resized(just_decoded, 13_000, 13_000),
        "bomb": bomb(13_000, 13_000),
        "strip": jpeg(3, (64, 65_500), quality=20),
    }
    routes = {name: answer(body) for name, body in bodies.items()} | FLOODS
    urls = {}
    for name, route in routes.items():
        for number in range(8):
            server.routes[f"/{name}{number}.jpg"] = route
            urls[server.url(f"/{name}{number}.jpg")] = name
    told = subprocess.run(
        [sys.executable, "-m", "imgdl_pipeline_tests.support.peak_memory", str(tmp_path / "store"), *urls],
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    run = json.loads(told.stdout)
    outcomes = {name: {run["outcomes"][url] for url in urls if urls[url] == name} for name in routes}
    assert outcomes == {
        "large": {"ok"},
        "progressive": {"ok"},
        "progressive-bomb": {"too_much_memory"},
        "bomb": {"corrupt"},
        "strip": {"ok"},
        "flood": {"too_large"},
        "headers": {"connection"},
        "head": {"connection"},
    }
    assert run["peak_mb"] < 600


FLOODS = {
    "flood": forever(OK_HEAD + b"\r\n\xff\xd8\xff", b"x" * 65536),
    "headers": forever(OK_HEAD, b"X-Y: " + b"z" * 60_000 + b"\r\n"),
    "head": lambda handler: handler.send_raw(OK_HEAD + (b"X-Y: " + b"z" * 60_000 + b"\r\n") * 98 + b"\r\n"),
}
