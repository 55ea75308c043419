"""Load the tables of galleries for assets downstream, in the type that their parameter names."""

from collections.abc import Callable
from typing import Any

import dagster as dg
import pyarrow as pa

from imgdl_pipeline.assets import GALLERY_METADATA, STAGE_METADATA, open_store
from imgdl_pipeline.config.galleries import Galleries
from imgdl_pipeline.core.model.schemas import CATALOG, DOWNLOADS, LINKS
from imgdl_pipeline.core.model.shown import hide_secrets
from imgdl_pipeline.core.storage.layout import catalog_path, downloads_path, links_path
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.store import Store

TABLES: dict[str, tuple[Callable[[str], str], pa.Schema]] = {
    "links": (links_path, LINKS),
    "images": (downloads_path, DOWNLOADS),
    "catalog": (catalog_path, CATALOG),
}
"""The path and columns of each stage's table."""


def table_of(stage: str, gallery: str, store: Store) -> pa.Table:
    """Return a gallery's table: its link list, its ledger or its catalog.

    Raises:
        StoreError: There is no such table yet, or it cannot be read.
    """
    path, schema = TABLES[stage]
    table = store.read_table(path(gallery), schema)
    if table is None:
        raise StoreError(
            f"{store.location(path(gallery))} does not exist: materialize gallery_{stage} of {gallery} first"
        )
    return table


def _polars(table: pa.Table) -> Any:
    import polars as pl

    return pl.from_arrow(table)


def _duckdb(table: pa.Table) -> Any:
    import duckdb

    return duckdb.connect().from_arrow(table)  # the relation keeps its connection and the table


_AS: dict[tuple[str, str], Callable[[pa.Table], Any]] = {
    ("pyarrow", "Table"): lambda table: table,
    ("pandas", "DataFrame"): lambda table: table.to_pandas(),
    ("polars", "DataFrame"): _polars,
    ("duckdb", "DuckDBPyRelation"): _duckdb,
}
"""How a table is converted, by the package and name of the type, so that no library is imported in vain."""


class GalleryTables(dg.IOManager):
    """An I/O manager that loads a gallery's table where an asset takes one of our assets as a parameter.

    The parameter's type says what it gets: `pyarrow.Table`, `pandas.DataFrame`, `polars.DataFrame` or
    `duckdb.DuckDBPyRelation`. An asset with a partition per gallery gets the table of its gallery. An asset
    without partitions gets the tables of all galleries as one, with the gallery's name in the column
    `gallery`; galleries that have no table yet are left out.

    Args:
        galleries: The settings of the galleries file.
    """

    def __init__(self, galleries: Galleries) -> None:
        self._galleries = galleries

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:  # noqa: ARG002
        """Refuse to store anything."""
        raise dg.Failure(
            f"{context.asset_key.to_user_string()}: the I/O manager of the galleries only loads tables; "
            "give the asset another one",
            allow_retries=False,
        )

    def load_input(self, context: dg.InputContext) -> Any:
        """Load what a parameter asks for.

        Raises:
            dagster.Failure: The type is unknown, there is no table, or the store cannot be read.
        """
        convert = _converter(context)
        try:
            return convert(self._table(context))
        except StoreError as error:
            raise dg.Failure(hide_secrets(str(error))) from None

    def _table(self, context: dg.InputContext) -> pa.Table:
        store = open_store(self._galleries)
        stage, gallery = _asset_of(context)
        if gallery is not None:
            return table_of(stage, gallery, store)
        names = context.asset_partition_keys if context.has_asset_partitions else []
        if context.has_partition_key and len(names) == 1:
            return table_of(stage, self._name_of(names[0]), store)
        path, schema = TABLES[stage]
        wanted = [self._name_of(name) for name in names] or [each.name for each in self._galleries.galleries]
        found = [(name, store.read_table(path(name), schema)) for name in wanted]
        tables = [
            table.add_column(0, "gallery", pa.repeat(pa.scalar(name), table.num_rows))
            for name, table in found
            if table is not None
        ]
        empty = schema.empty_table().add_column(0, "gallery", pa.array([], pa.string()))
        return pa.concat_tables([empty, *tables])

    def _name_of(self, partition: str) -> str:
        """Return the name of a partition's gallery or shard; one that is not in the file has files, too."""
        try:
            return self._galleries.gallery(partition).name
        except KeyError:
            return partition


def _asset_of(context: dg.InputContext) -> tuple[str, str | None]:
    """Return the stage of the asset to load, and the gallery whose own it is.

    Raises:
        dagster.Failure: It has no table of a gallery.
    """
    upstream, path = context.upstream_output, context.asset_key.path
    metadata = (upstream.definition_metadata or {}) if upstream else {}
    if metadata.get(STAGE_METADATA) in TABLES:
        gallery = metadata.get(GALLERY_METADATA)
        return str(metadata[STAGE_METADATA]), None if gallery is None else str(gallery)
    if path[-1] in TABLES and len(path) > 1:  # known by its key alone, in another code location
        return path[-1], path[-2]
    stage = path[-1].removeprefix("gallery_")
    if stage not in TABLES:
        known = ", ".join(f"gallery_{name}" for name in TABLES)
        raise dg.Failure(f"{context.asset_key.to_user_string()} is no table of a gallery; those are {known}")
    return stage, None


def _converter(context: dg.InputContext) -> Callable[[pa.Table], Any]:
    type_ = context.dagster_type.typing_type
    if type_ is Any:
        return _AS["pyarrow", "Table"]
    package = str(getattr(type_, "__module__", "")).partition(".")[0].lstrip("_")
    found = _AS.get((package, getattr(type_, "__name__", "")))
    if found is None:
        known = ", ".join(".".join(each) for each in _AS)
        raise dg.Failure(f"{context.name}: cannot be loaded as {type_!r}; allowed are {known}")
    return found
