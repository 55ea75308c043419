from imgdl_pipeline.core.catalog.stored import StoredCatalog, open_catalog
from imgdl_pipeline.core.model.outcome import Status
from imgdl_pipeline.core.model.schemas import BATCH_ROWS, CATALOG
from imgdl_pipeline.core.storage.layout import catalog_path
from imgdl_pipeline_tests.support.rows import catalog_of

DEAD = {"url": "dead", "status": "failed", "reason": "http_404", "detail": "gone"}


def stored(store, *rows):
    store.write_table(catalog_path("g"), catalog_of(*rows))
    return StoredCatalog(store, "g")


def test_some_columns_are_read_whole_or_batch_by_batch(store):
    catalog = stored(store, *({"url": str(number)} for number in range(BATCH_ROWS + 1)))
    assert catalog.rows("url").schema.names == ["url"]
    assert [batch.num_rows for batch in catalog.batches("url", "path")] == [BATCH_ROWS, 1]


def test_rows_are_read_by_their_status(store):
    catalog = stored(store, {"url": "a"}, DEAD, {"url": "b"})
    [batch] = catalog.with_status(Status.OK, "url")
    assert batch.to_pydict() == {"url": ["a", "b"]}
    [batch] = catalog.with_status(Status.FAILED, "status")
    assert batch.to_pydict() == {"status": ["failed"]}
    assert catalog.without_image().to_pylist() == [DEAD]


def test_a_catalog_that_does_not_exist_yet_has_no_rows(store):
    catalog = StoredCatalog(store, "g")
    assert catalog.rows(*CATALOG.names).equals(CATALOG.empty_table())
    assert list(catalog.batches("url")) == []
    assert catalog.without_image().num_rows == 0


def test_an_open_catalog_stays_as_it_was_when_it_was_opened(store):
    assert open_catalog(store, "g") is None
    stored(store, {"url": "a"}, DEAD)
    with open_catalog(store, "g") as catalog:
        stored(store, {"url": "b"})
        assert catalog.rows("url").to_pydict() == {"url": ["a", "dead"]}
        assert [batch.num_rows for batch in catalog.batches("url")] == [2]
        assert catalog.without_image().to_pylist() == [DEAD]
