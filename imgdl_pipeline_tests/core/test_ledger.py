from dataclasses import fields
from datetime import datetime, timezone

from imgdl_pipeline.core.columns import DOWNLOADS
from imgdl_pipeline.core.ledger import Download, Ledger, download_table, latest
from imgdl_pipeline.core.store import checkpoints_path, downloads_path

NOW = datetime(2026, 11, 22, tzinfo=timezone.utc)


def row(url, **changes):
    return Download(
        **{"url": url, "status": "ok", "tried_at": NOW, "attempts": 1, "elapsed_s": 0.1, **changes}
    )


def test_a_download_has_the_ledgers_columns():
    assert {field.name for field in fields(Download)} == set(DOWNLOADS.names)


def test_the_last_row_of_a_link_counts_and_order_stays():
    table = download_table([row("a"), row("b"), row("a", attempts=2), row("c")])
    kept = latest(table).to_pylist()
    assert [(each["url"], each["attempts"]) for each in kept] == [("b", 1), ("a", 2), ("c", 1)]


def test_checkpoints_are_written_as_time_goes_by(store):
    now = [0.0]
    ledger = Ledger(store, "g", clock=lambda: now[0])
    ledger.add(row("a"))
    assert list(store.list(checkpoints_path("g"))) == []
    now[0] = 6.0
    ledger.add(row("b"))
    assert len(list(store.list(checkpoints_path("g")))) == 1


def test_what_a_killed_run_had_checkpointed_is_not_lost(store):
    with Ledger(store, "g") as whole:
        whole.add(row("a"))
    killed = Ledger(store, "g")
    killed.add(row("a", attempts=2))
    killed.checkpoint()
    killed.add(row("b"))
    killed.checkpoint()
    killed.add(row("c"))
    with Ledger(store, "g") as after:
        assert after.table["url"].to_pylist() == ["a", "b"]
        assert after.table["attempts"].to_pylist() == [2, 1]
    assert list(store.list(checkpoints_path("g"))) == []
    assert store.read_table(downloads_path("g"), DOWNLOADS).num_rows == 2


def test_a_run_without_news_does_not_touch_the_file(store, tmp_path):
    with Ledger(store, "g") as ledger:
        ledger.add(row("a"))
    file = tmp_path / "store" / downloads_path("g")
    before = file.stat().st_mtime_ns
    with Ledger(store, "g"):
        pass
    assert file.stat().st_mtime_ns == before
