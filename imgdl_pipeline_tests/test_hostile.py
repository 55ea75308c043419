"""The hostile web, all of it at once: each case has its outcome, and nothing else happens."""

import threading
import time

import pytest

from imgdl_pipeline.core.store import Store
from imgdl_pipeline_tests.hostile import cases, run


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
