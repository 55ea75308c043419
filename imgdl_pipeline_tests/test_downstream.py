import dagster as dg
import pytest

import imgdl_pipeline
from imgdl_pipeline.core.model.schemas import CATALOG
from imgdl_pipeline.core.storage.layout import catalog_path
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline_tests.support.rows import catalog_of

FILE = """\
type: imgdl_pipeline.ImageGalleries
attributes:
  store: {store}
  assets: {{key_prefix: [media]}}
  galleries:
    - {{name: birds, source: {{type: demo}}}}
    - {{name: boats, source: {{type: demo}}}}
"""


@pytest.fixture
def store(tmp_path, monkeypatch):
    """The store that a galleries file of two galleries names."""
    file = tmp_path / "galleries.yaml"
    file.write_text(FILE.format(store=tmp_path / "store"))
    monkeypatch.setenv("IMGDL_CONFIG", str(file))
    monkeypatch.delenv("IMGDL_STORE", raising=False)
    return Store(str(tmp_path / "store"))


def test_a_catalog_is_a_table_of_the_store_that_the_galleries_file_names(store):
    store.write_table(catalog_path("birds"), catalog_of({"url": "u1"}))
    for table in (imgdl_pipeline.load_catalog("birds"), imgdl_pipeline.load_catalog("birds", store.root)):
        assert table.schema.equals(CATALOG)
        assert table["url"].to_pylist() == ["u1"]


def test_a_catalog_that_is_not_there_yet_says_what_to_do(store):
    with pytest.raises(StoreError, match="materialize gallery_catalog of boats first"):
        imgdl_pipeline.load_catalog("boats")


def test_the_partitions_are_the_galleries(store):
    assert imgdl_pipeline.gallery_partitions().get_partition_keys() == ["birds", "boats"]


def test_the_keys_have_the_files_prefix(store):
    assert imgdl_pipeline.asset_keys().catalog == dg.AssetKey(["media", "gallery_catalog"])


def test_every_exported_name_is_there():
    for name in imgdl_pipeline.__all__:
        assert getattr(imgdl_pipeline, name) is not None
