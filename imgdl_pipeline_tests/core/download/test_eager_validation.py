import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from imgdl_pipeline.core.download import eager_validation as early_facts
from imgdl_pipeline.core.download.eager_validation import EarlyFacts
from imgdl_pipeline.core.model.schemas import FACTS
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.storage.store import checked_path
from imgdl_pipeline_tests.support.pictures import jpeg


@pytest.fixture
def facts(store):
    facts = EarlyFacts(store, "g", DownloadSettings())
    yield facts
    facts.close()


@pytest.fixture
def checks(monkeypatch):
    """Of each check: how many ran at the same time, itself included, and its thread's priority."""
    seen, busy, validate = [], [], early_facts.validate_jpeg

    def watched(*args):
        busy.append(None)
        seen.append((len(busy), os.getpriority(os.PRIO_PROCESS, threading.get_native_id())))
        facts = validate(*args)
        busy.pop()
        return facts

    monkeypatch.setattr(early_facts, "validate_jpeg", watched)
    return seen


def checked(store):
    tables = [store.read_table(file.path, FACTS) for file in store.list(checked_path("g"))]
    return sorted(url for table in tables for url in table["url"].to_pylist())


def test_what_was_checked_is_kept_once_it_is_due(facts, store, monkeypatch):
    facts.check("a", "0", jpeg())
    facts.keep()
    assert checked(store) == []
    monkeypatch.setattr(early_facts, "CHECKPOINT_S", -1)
    facts = EarlyFacts(store, "g", DownloadSettings())
    facts.check("b", "0", jpeg())
    facts.keep()
    assert checked(store) == ["b"]


def test_what_is_left_is_kept_at_the_end(facts, store):
    facts.check("a", "0", jpeg())
    facts.close()
    assert checked(store) == ["a"]


def test_a_damaged_image_is_left_to_the_catalog(facts, store):
    facts.check("a", "0", jpeg()[:-500])
    facts.close()
    assert checked(store) == []


def test_an_image_that_takes_long_to_check_is_left_to_the_catalog(store, monkeypatch):
    monkeypatch.setattr(early_facts, "EARLY_PIXELS", 100 * 100)
    facts = EarlyFacts(store, "g", DownloadSettings())
    facts.check("small", "0", jpeg(1, (100, 100)))
    facts.check("large", "0", jpeg(1, (101, 100)))
    facts.close()
    assert checked(store) == ["small"]


def test_however_many_workers_wait_no_more_images_are_checked_at_a_time_than_there_are_cores(
    store, checks, monkeypatch
):
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    facts = EarlyFacts(store, "g", DownloadSettings())
    with ThreadPoolExecutor(8) as workers:
        list(workers.map(lambda url: facts.check(url, "0", jpeg()), "abcdefghijkl"))
    facts.close()
    assert checked(store) == list("abcdefghijkl")
    assert {at_a_time for at_a_time, _ in checks} == {1}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a priority for each thread")
def test_checks_leave_the_processor_to_the_downloads(facts, checks):
    facts.check("a", "0", jpeg())
    facts.close()
    assert [nice for _, nice in checks] == [min(19, os.getpriority(os.PRIO_PROCESS, 0) + 5)]


def test_no_thread_is_left_once_it_is_closed(facts):
    before = set(threading.enumerate())
    facts.check("a", "0", jpeg())
    assert set(threading.enumerate()) - before
    facts.close()
    assert set(threading.enumerate()) <= before
