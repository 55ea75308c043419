import pyarrow as pa
import pytest

from imgdl_pipeline.core.model.schemas import DOWNLOADS
from imgdl_pipeline.core.storage import checkpoints as module
from imgdl_pipeline.core.storage.checkpoints import Checkpoints
from imgdl_pipeline.core.storage.ledger import download_table
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline_tests.support.rows import row


@pytest.fixture(params=["disk", "s3"])
def anywhere(request, store):
    return store if request.param == "disk" else Store(request.getfixturevalue("s3_bucket"))


def opened(store):
    return Checkpoints(store, "f/_checkpoints", DOWNLOADS)


def urls(checkpoints):
    return pa.concat_tables([DOWNLOADS.empty_table(), *checkpoints.tables()])["url"].to_pylist()


def test_what_was_kept_is_there_for_whoever_comes_next_and_gone_once_it_is_cleared(anywhere):
    first = opened(anywhere)
    for url in "abc":
        first.add(download_table([row(url)]))
    second = opened(anywhere)
    assert (urls(second), len(second)) == (["a", "b", "c"], 3)
    second.add(download_table([row("d")]))
    assert urls(second) == ["a", "b", "c", "d"]
    second.clear()
    assert urls(opened(anywhere)) == []
    assert list(anywhere.list("f")) == []


def test_many_small_files_become_one(anywhere, monkeypatch):
    monkeypatch.setattr(module, "FILES", 5)
    kept = opened(anywhere)
    for number in range(23):
        kept.add(download_table([row(str(number))]))
    assert len(list(anywhere.list("f"))) == len(kept) == 4 + 3
    assert urls(opened(anywhere)) == urls(kept) == [str(number) for number in range(23)]


def test_a_damaged_file_and_a_foreign_one_cost_nothing_but_themselves(store, caplog):
    opened(store).add(download_table([row("a")]))
    store.put("f/_checkpoints/000002-2.parquet", b"")
    store.put("f/_checkpoints/.DS_Store", b"rubbish")
    assert urls(opened(store)) == ["a"]
    assert "a checkpoint is left out: " in caplog.text
    opened(store).clear()
    assert [file.path for file in store.list("f")] == ["f/_checkpoints/.DS_Store"]
