from datetime import datetime, timedelta, timezone

import pytest

from imgdl_pipeline.core.catalog.summary import CatalogSummary, summarize
from imgdl_pipeline.core.model.schemas import CATALOG
from imgdl_pipeline.core.storage.layout import catalog_path
from imgdl_pipeline.core.storage.object_store import UnreadableError
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline_tests.support.rows import catalog_of
from imgdl_pipeline_tests.support.shards import sharded

MONDAY = datetime(2026, 11, 16, 6, tzinfo=timezone.utc)
NONE = {"ok": 0, "invalid": 0, "failed": 0, "refused": 0}


def test_a_gallery_without_a_catalog_has_no_summary(store):
    assert summarize(store, "g") is None


def test_an_empty_catalog_was_never_refreshed_and_has_every_status_none_of_the_time(store):
    store.write_table(catalog_path("g"), CATALOG.empty_table())
    assert summarize(store, "g") == CatalogSummary(0, NONE, 0, None)


def test_links_are_counted_by_status_and_images_by_their_bytes(store):
    rows = [
        {"url": "a", "bytes": 10, "last_seen": MONDAY},
        {"url": "b", "bytes": 5, "last_seen": MONDAY + timedelta(days=1)},
        {"url": "c", "status": "failed", "last_seen": MONDAY},
        {"url": "d", "status": "refused", "last_seen": MONDAY},
    ]
    store.write_table(catalog_path("g"), catalog_of(*rows))
    counted = {**NONE, "ok": 2, "failed": 1, "refused": 1}
    assert summarize(store, "g") == CatalogSummary(4, counted, 15, MONDAY + timedelta(days=1))


def test_a_catalog_without_any_image_has_no_bytes(store):
    store.write_table(catalog_path("g"), catalog_of({"url": "a", "status": "invalid", "last_seen": MONDAY}))
    assert summarize(store, "g").bytes == 0


def test_only_the_columns_that_are_counted_are_read(store, monkeypatch):
    store.write_table(catalog_path("g"), catalog_of({"url": "a", "bytes": 1, "last_seen": MONDAY}))
    asked = []
    read = store.read_table
    monkeypatch.setattr(
        store, "read_table", lambda path, schema: asked.append(schema.names) or read(path, schema)
    )
    assert summarize(store, "g").links == 1
    assert asked == [["status", "bytes", "last_seen"]]


def test_a_catalog_that_is_damaged_is_an_error_that_names_it(store):
    store.put(catalog_path("g"), b"not Parquet")
    with pytest.raises(UnreadableError, match=r"catalog/gallery=g/catalog\.parquet is not a Parquet file"):
        summarize(store, "g")


def test_it_works_on_s3(s3_bucket):
    store = Store(s3_bucket)
    assert summarize(store, "g") is None
    store.write_table(catalog_path("g"), catalog_of({"url": "a", "bytes": 7, "last_seen": MONDAY}))
    assert summarize(store, "g") == CatalogSummary(1, {**NONE, "ok": 1}, 7, MONDAY)


def test_the_shards_of_a_gallery_are_counted_together_and_each_alone(store):
    shards = sharded(store)
    for number, name in enumerate(shards):
        rows = [{"url": f"{name}{each}", "bytes": 7} for each in range(number + 1)]
        at = MONDAY + timedelta(days=number)
        failed = {"url": f"{name} failed", "status": "failed"}
        table = catalog_of(*({**each, "last_seen": at} for each in [*rows, failed]))
        store.write_table(catalog_path(name), table)
    assert summarize(store, "g") == CatalogSummary(9, {**NONE, "ok": 6, "failed": 3}, 42, MONDAY)
    assert summarize(store, "g/0001") == CatalogSummary(
        3, {**NONE, "ok": 2, "failed": 1}, 14, MONDAY + timedelta(days=1)
    )
    assert summarize(store, "g/0007") is None
