"""Assets downstream of the galleries take their tables as a parameter, in the type that it names."""

import dagster as dg
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from imgdl_pipeline.assets import AssetKeys, partitions_of
from imgdl_pipeline.component import ImageGalleries
from imgdl_pipeline.config.galleries import Galleries
from imgdl_pipeline.core.model.dataset_settings import DatasetSettings
from imgdl_pipeline.core.model.schemas import CATALOG, DOWNLOADS, LINKS
from imgdl_pipeline.core.storage.layout import catalog_path, downloads_path, links_path
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline.tables import GalleryTables
from imgdl_pipeline_tests.support.rows import catalog_of

TYPES = {
    pa.Table: lambda table: table["url"].to_pylist(),
    pd.DataFrame: lambda table: table["url"].to_list(),
    pl.DataFrame: lambda table: table["url"].to_list(),
    duckdb.DuckDBPyRelation: lambda table: [url for (url,) in table.project("url").fetchall()],
}
"""How each type's URLs are read."""


@pytest.fixture(autouse=True)
def _no_other_store(monkeypatch):
    monkeypatch.delenv("IMGDL_STORE", raising=False)


@pytest.fixture
def galleries(store):
    return galleries_in(store)


def galleries_in(store, **more):
    """Two galleries: birds has a catalog of two links, boats of one, and planes has never been run."""
    store.write_table(catalog_path("birds"), catalog_of({"url": "bird1"}, {"url": "bird2"}))
    store.write_table(catalog_path("boats"), catalog_of({"url": "boat1"}))
    names = ("birds", "boats", "planes")
    return Galleries(
        store=store.root,
        galleries=[{"name": name, "source": {"type": "demo"}} for name in names],
        **more,
    )


class Downstream:
    """Makes an asset that takes a table, and keeps what it got."""

    def __init__(self):
        self.got = []

    def asset(self, type_, upstream="gallery_catalog", **more):
        def downstream(table) -> None:
            self.got.append(table)

        if type_ is not None:
            downstream.__annotations__["table"] = type_
        key = dg.AssetKey.from_user_string(upstream)
        ins = more.pop("ins", {"table": dg.AssetIn(key)})
        return dg.asset(ins=ins, **more)(downstream)


@pytest.fixture
def downstream():
    return Downstream()


def materialize(galleries, asset, partition=None):
    """Materialize an asset downstream of the galleries; returns the run's result."""
    defs = dg.build_defs_for_component(ImageGalleries(galleries))
    return dg.materialize(
        [*defs.assets, asset],
        selection=[asset],
        partition_key=partition,
        resources=dict(defs.resources),
        raise_on_error=False,
    )


def words_of_failure(result):
    """The first line of the run page, for a step that failed."""
    [failure] = result.get_step_failure_events()
    return failure.step_failure_data.user_failure_data.description


@pytest.mark.parametrize("type_", TYPES)
def test_an_asset_with_a_partition_per_gallery_gets_its_gallerys_catalog(galleries, downstream, type_):
    asset = downstream.asset(type_, partitions_def=partitions_of(galleries))
    assert materialize(galleries, asset, "birds").success
    [table] = downstream.got
    assert isinstance(table, type_)
    assert TYPES[type_](table) == ["bird1", "bird2"]


@pytest.mark.parametrize("type_", TYPES)
def test_an_asset_without_partitions_gets_all_catalogs_as_one_table(galleries, downstream, type_):
    assert materialize(galleries, downstream.asset(type_)).success
    [table] = downstream.got
    assert isinstance(table, type_)
    assert TYPES[type_](table) == ["bird1", "bird2", "boat1"]


def test_the_one_table_names_each_rows_gallery_first(galleries, downstream):
    materialize(galleries, downstream.asset(pa.Table))
    [table] = downstream.got
    assert table.schema.names == ["gallery", *CATALOG.names]
    assert table["gallery"].to_pylist() == ["birds", "birds", "boats"]


def test_before_the_first_run_the_one_table_is_empty_and_has_its_columns(store, downstream):
    galleries = Galleries(store=store.root, galleries=[{"name": "new", "source": {"type": "demo"}}])
    assert materialize(galleries, downstream.asset(pa.Table)).success
    [table] = downstream.got
    assert (table.num_rows, table.schema.names) == (0, ["gallery", *CATALOG.names])


def test_a_parameter_without_a_type_gets_an_arrow_table(galleries, downstream):
    assert materialize(galleries, downstream.asset(None)).success
    assert isinstance(downstream.got[0], pa.Table)


@pytest.mark.parametrize(
    ("stage", "path", "schema"), [("links", links_path, LINKS), ("images", downloads_path, DOWNLOADS)]
)
def test_the_link_list_and_the_ledger_are_loaded_the_same_way(
    store, galleries, downstream, stage, path, schema
):
    store.write_table(path("birds"), pa.Table.from_pylist([{"url": "bird9"}], schema=schema))
    asset = downstream.asset(pa.Table, f"gallery_{stage}", partitions_def=partitions_of(galleries))
    assert materialize(galleries, asset, "birds").success
    [table] = downstream.got
    assert table.schema.names == schema.names
    assert table["url"].to_pylist() == ["bird9"]


@pytest.mark.parametrize("type_", TYPES)
def test_a_gallerys_own_catalog_is_loaded_without_a_partition(store, downstream, type_):
    galleries = galleries_in(store, asset_per_gallery=True, assets={"key_prefix": ["media"]})
    assert materialize(galleries, downstream.asset(type_, "media/gallery/boats/catalog")).success
    assert TYPES[type_](downstream.got[0]) == ["boat1"]


def test_an_asset_takes_the_catalogs_of_two_galleries_with_their_own_assets(store):
    galleries = galleries_in(store, asset_per_gallery=True)
    got = []

    @dg.asset(
        ins={name: dg.AssetIn(AssetKeys.of(galleries, name).catalog) for name in ("birds", "boats")},
    )
    def both(birds: pd.DataFrame, boats: pl.DataFrame) -> None:
        got.append((birds["url"].to_list(), boats["url"].to_list()))

    assert materialize(galleries, both).success
    assert got == [(["bird1", "bird2"], ["boat1"])]


def elsewhere(galleries, asset, spec, partition=None):
    """Materialize an asset in a code location that knows of the galleries by a spec and their file only."""
    return dg.materialize(
        [spec.with_io_manager_key("gallery_tables"), asset],
        selection=[asset],
        partition_key=partition,
        resources={"gallery_tables": GalleryTables(galleries)},
        raise_on_error=False,
    )


def test_another_code_location_loads_a_gallerys_catalog(galleries, downstream):
    partitions = partitions_of(galleries)
    spec = dg.AssetSpec("gallery_catalog", partitions_def=partitions)
    asset = downstream.asset(pl.DataFrame, partitions_def=partitions)
    assert elsewhere(galleries, asset, spec, "birds").success
    assert downstream.got[0]["url"].to_list() == ["bird1", "bird2"]


def test_another_code_location_loads_all_catalogs(galleries, downstream):
    spec = dg.AssetSpec("gallery_catalog", partitions_def=partitions_of(galleries))
    assert elsewhere(galleries, downstream.asset(pd.DataFrame), spec).success
    assert downstream.got[0]["gallery"].to_list() == ["birds", "birds", "boats"]


def test_another_code_location_loads_a_gallerys_own_catalog(store, downstream):
    galleries = galleries_in(store, asset_per_gallery=True)
    key = AssetKeys.of(galleries, "boats").catalog
    asset = downstream.asset(pa.Table, key.to_user_string())
    assert elsewhere(galleries, asset, dg.AssetSpec(key)).success
    assert TYPES[pa.Table](downstream.got[0]) == ["boat1"]


def test_the_downstream_asset_follows_the_catalog_in_the_graph(galleries, downstream):
    asset = downstream.asset(pa.Table)
    defs = dg.Definitions.merge(
        dg.build_defs_for_component(ImageGalleries(galleries)), dg.Definitions(assets=[asset])
    )
    graph = defs.resolve_asset_graph()
    assert graph.get(asset.key).parent_keys == {dg.AssetKey("gallery_catalog")}


def test_a_week_of_another_partitioning_gets_all_galleries(galleries, downstream):
    weeks = dg.StaticPartitionsDefinition(["2026-W47", "2026-W48"])
    ins = {"table": dg.AssetIn("gallery_catalog", partition_mapping=dg.AllPartitionMapping())}
    asset = downstream.asset(pa.Table, partitions_def=weeks, ins=ins)
    assert materialize(galleries, asset, "2026-W47").success
    assert TYPES[pa.Table](downstream.got[0]) == ["bird1", "bird2", "boat1"]


def test_an_asset_that_maps_to_one_gallery_gets_its_catalog_alone(galleries, downstream):
    mapping = dg.SpecificPartitionsPartitionMapping(["boats"])
    asset = downstream.asset(
        pa.Table, ins={"table": dg.AssetIn("gallery_catalog", partition_mapping=mapping)}
    )
    assert materialize(galleries, asset).success
    assert TYPES[pa.Table](downstream.got[0]) == ["boat1"]


@pytest.mark.parametrize("type_", [dict, list[int], pa.RecordBatch, pd.DataFrame | None])
def test_a_type_that_no_table_has_is_a_sentence(galleries, downstream, type_):
    result = materialize(galleries, downstream.asset(type_))
    assert not result.success
    assert downstream.got == []
    words = words_of_failure(result)
    assert words.startswith("table: cannot be loaded as ")
    assert words.endswith(
        "; allowed are pyarrow.Table, pandas.DataFrame, polars.DataFrame, duckdb.DuckDBPyRelation"
    )


def test_a_gallery_without_a_catalog_is_a_sentence_that_says_what_to_do(store, galleries, downstream):
    result = materialize(
        galleries, downstream.asset(pa.Table, partitions_def=partitions_of(galleries)), "planes"
    )
    place = store.location(catalog_path("planes"))
    words = f"{place} does not exist: materialize gallery_catalog of planes first"
    assert words_of_failure(result) == words


def test_a_gallerys_own_catalog_that_is_missing_is_a_sentence(store, downstream):
    galleries = galleries_in(store, asset_per_gallery=True)
    result = materialize(galleries, downstream.asset(pa.Table, "gallery/planes/catalog"))
    assert words_of_failure(result).startswith(f"{store.location(catalog_path('planes'))} does not exist: ")


def test_a_file_that_is_no_parquet_is_a_sentence_that_names_it(store, galleries, downstream):
    store.put(catalog_path("birds"), b"not Parquet")
    result = materialize(
        galleries, downstream.asset(pa.Table, partitions_def=partitions_of(galleries)), "birds"
    )
    assert "catalog/gallery=birds/catalog.parquet" in words_of_failure(result)


def test_the_manager_stores_nothing_and_says_so(galleries):
    @dg.asset(io_manager_key="gallery_tables")
    def mine() -> int:
        return 1

    assert words_of_failure(materialize(galleries, mine)) == (
        "mine: the I/O manager of the galleries only loads tables; give the asset another one"
    )


def test_the_environment_names_another_store(tmp_path, galleries, downstream, monkeypatch):
    Store(str(tmp_path / "other")).write_table(catalog_path("birds"), catalog_of({"url": "owl"}))
    monkeypatch.setenv("IMGDL_STORE", str(tmp_path / "other"))
    materialize(galleries, downstream.asset(pa.Table, partitions_def=partitions_of(galleries)), "birds")
    assert TYPES[pa.Table](downstream.got[0]) == ["owl"]


def test_two_files_in_one_code_location_load_from_their_own_stores(tmp_path, downstream):
    each = {}
    for name in ("shop", "press"):
        each[name] = galleries_in(Store(str(tmp_path / name)), assets={"key_prefix": [name]})
    Store(each["press"].store).write_table(catalog_path("birds"), catalog_of({"url": "press bird"}))
    merged = [dg.build_defs_for_component(ImageGalleries(galleries)) for galleries in each.values()]
    asset = downstream.asset(pa.Table, "press/gallery_catalog", partitions_def=partitions_of(each["press"]))
    resources = {key: value for defs in merged for key, value in defs.resources.items()}
    assets = [asset for defs in merged for asset in defs.assets]
    result = dg.materialize([*assets, asset], selection=[asset], partition_key="birds", resources=resources)
    assert result.success
    assert TYPES[pa.Table](downstream.got[0]) == ["press bird"]


def test_a_dataset_is_no_table_and_says_so(store, downstream):
    dataset = {"name": "birds", "source": {"type": "demo"}, "dataset": {"format": "parquet"}}
    galleries = Galleries(store=store.root, galleries=[dataset])
    asset = downstream.asset(
        pa.Table, upstream="gallery_dataset", partitions_def=partitions_of(galleries)
    )  # fmt: skip
    words = words_of_failure(materialize(galleries, asset, "birds"))
    assert words == (
        "gallery_dataset is no table of a gallery; those are gallery_links, gallery_images, gallery_catalog"
    )


@pytest.mark.parametrize("own", [False, True], ids=["partitions", "own assets"])
def test_tables_are_loaded_where_galleries_have_datasets_and_near_duplicates(store, downstream, own):
    galleries = galleries_in(store, asset_per_gallery=own, near_duplicates={"distance": 2})
    with_dataset = {
        "galleries": tuple(
            each.model_copy(update={"dataset": DatasetSettings(format="parquet")})
            for each in galleries.galleries
        )
    }
    asset = downstream.asset(pa.Table, "gallery/birds/catalog" if own else "gallery_catalog")
    assert materialize(galleries.model_copy(update=with_dataset), asset).success
    assert downstream.got[0]["url"].to_pylist()[:2] == ["bird1", "bird2"]
