import pytest

from imgdl_pipeline.core import early_facts
from imgdl_pipeline.core.columns import FACTS
from imgdl_pipeline.core.early_facts import EarlyFacts
from imgdl_pipeline.core.settings import DownloadSettings
from imgdl_pipeline.core.store import checked_path
from imgdl_pipeline_tests.conftest import jpeg


@pytest.fixture
def facts(store):
    return EarlyFacts(store, "g", DownloadSettings())


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
    facts.keep(now=True)
    assert checked(store) == ["a"]


def test_a_damaged_image_is_left_to_the_catalog(facts, store):
    facts.check("a", "0", jpeg()[:-500])
    facts.keep(now=True)
    assert checked(store) == []


def test_an_image_that_takes_long_to_check_is_left_to_the_catalog(store, monkeypatch):
    monkeypatch.setattr(early_facts, "EARLY_PIXELS", 100 * 100)
    facts = EarlyFacts(store, "g", DownloadSettings())
    facts.check("small", "0", jpeg(1, (100, 100)))
    facts.check("large", "0", jpeg(1, (101, 100)))
    facts.keep(now=True)
    assert checked(store) == ["small"]
