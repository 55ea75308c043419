import os
from dataclasses import fields
from datetime import timedelta

import pyarrow as pa
import pytest

from imgdl_pipeline.core.model.schemas import CATALOG, DOWNLOADS
from imgdl_pipeline.core.storage.layout import catalog_path, checkpoints_path, downloads_path
from imgdl_pipeline.core.storage.lease import GalleryBusyError
from imgdl_pipeline.core.storage.ledger import Download, Ledger, download_table, latest
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline_tests.support.rows import NOW, kill, row


def test_a_download_has_the_ledgers_columns():
    assert {field.name for field in fields(Download)} == set(DOWNLOADS.names)


def test_the_last_row_of_a_link_counts_and_order_stays():
    table = download_table([row("a"), row("b"), row("a", attempts=2), row("c")])
    kept = latest(table).to_pylist()
    assert [(each["url"], each["attempts"]) for each in kept] == [("b", 1), ("a", 2), ("c", 1)]


def test_checkpoints_are_written_as_time_goes_by(store):
    now = [0.0]
    with Ledger(store, "g", clock=lambda: now[0]) as ledger:
        ledger.add(row("a"))
        assert list(store.list(checkpoints_path("g"))) == []
        now[0] = 2.5
        ledger.add(row("b"))
        assert len(list(store.list(checkpoints_path("g")))) == 1
    assert list(store.list(checkpoints_path("g"))) == []


def test_what_a_killed_run_had_checkpointed_is_not_lost(store):
    with Ledger(store, "g") as whole:
        whole.add(row("a"))
    killed = Ledger(store, "g")
    killed.__enter__()
    killed.add(row("a", attempts=2))
    killed.checkpoint()
    killed.add(row("b"))
    killed.checkpoint()
    killed.add(row("c"))
    kill(killed)
    with Ledger(store, "g") as after:
        assert after.table["url"].to_pylist() == ["a", "b"]
        assert after.table["attempts"].to_pylist() == [2, 1]
    assert list(store.list(checkpoints_path("g"))) == []
    assert store.read_table(downloads_path("g"), DOWNLOADS).num_rows == 2


def test_a_checkpoint_that_a_killed_run_did_not_get_to_delete_is_older_than_the_ledger(store):
    later = NOW + timedelta(hours=1)
    with Ledger(store, "g") as ledger:
        ledger.add(row("a", tried_at=later, attempts=2))
    store.write_table(f"{checkpoints_path('g')}/000007-1.parquet", download_table([row("a")]))
    with Ledger(store, "g") as ledger:
        assert ledger.table["attempts"].to_pylist() == [2]
        assert list(store.list(checkpoints_path("g"))) == []
        ledger.add(row("a", tried_at=later, attempts=3))
        ledger.checkpoint()
        [newest] = [file.path for file in store.list(checkpoints_path("g"))]
        assert "/000008-" in newest


def test_a_lost_ledger_is_made_again_from_the_catalog(store, caplog):
    known = {"url": "a", "status": "ok", "path": "images/g/a.jpg", "sha256": "0" * 64, "last_seen": NOW}
    store.write_table(catalog_path("g"), pa.Table.from_pylist([known], schema=CATALOG))
    with Ledger(store, "g") as ledger:
        [made] = ledger.table.to_pylist()
    assert (made["url"], made["path"], made["tried_at"]) == ("a", "images/g/a.jpg", NOW)
    assert "g: the ledger is gone; it is made again from the catalog" in caplog.text


def test_a_run_without_news_does_not_touch_the_file(store, tmp_path):
    with Ledger(store, "g") as ledger:
        ledger.add(row("a"))
    file = tmp_path / "store" / downloads_path("g")
    before = file.stat().st_mtime_ns
    with Ledger(store, "g"):
        pass
    assert file.stat().st_mtime_ns == before


def test_a_ledger_is_written_by_one_run_at_a_time(store):
    with Ledger(store, "g"), pytest.raises(GalleryBusyError), Ledger(store, "g"):
        pass


def test_a_ledger_that_cannot_be_read_lets_go_of_its_lease(store):
    store.put(downloads_path("g"), b"rubbish")
    for _ in range(2):
        with pytest.raises(StoreError, match="is not a Parquet file"), Ledger(store, "g"):
            pass


def test_the_error_that_ended_a_run_is_told_and_not_the_ledgers_that_followed(store, monkeypatch, caplog):
    def full(*_):
        raise StoreError("no space left")

    with pytest.raises(ZeroDivisionError), Ledger(store, "g") as ledger:
        ledger.add(row("a"))
        monkeypatch.setattr(store, "write_table", full)
        raise ZeroDivisionError
    assert "the ledger could not be written either: no space left" in caplog.text
    with pytest.raises(StoreError, match="no space left"), Ledger(store, "g") as ledger:
        ledger.add(row("a"))


def test_what_a_killed_writer_left_unfinished_is_swept(store, tmp_path):
    half = tmp_path / "store" / (downloads_path("g") + "#1")
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    os.utime(half, (0, 0))
    with Ledger(store, "g"):
        pass
    assert not half.exists()
