"""Choose rows of a catalog by DuckDB SQL.

DuckDB comes with the extra `datasets`. It is given one stream of rows and nothing else: no file, no
extension, no network.
"""

import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from imgdl_pipeline.core.model.schemas import CATALOG, NEAR_DUPLICATES

if TYPE_CHECKING:
    import duckdb

GROUPS = pa.schema([NEAR_DUPLICATES.field("group"), NEAR_DUPLICATES.field("representative")])
"""The columns that a condition may use besides the catalog's where near duplicates are looked for."""

INSTALL = "pip install 'imgdl-pipeline[datasets]'"


class WhereError(ValueError):
    """A condition is no DuckDB SQL over the columns that there are, or fails; the message says where."""


def check_where(where: str, *, with_groups: bool) -> None:
    """Make sure that a condition can be used, without any data.

    Args:
        where: DuckDB SQL over the catalog's columns.
        with_groups: Whether it may use `group` and `representative`.

    Raises:
        WhereError: It cannot.
    """
    _check(pa.schema([*CATALOG, *(GROUPS if with_groups else ())]), where)


def uses_groups(where: str | None) -> bool:
    """Return whether a condition that can be used needs `group` or `representative`."""
    try:
        if where is not None:
            check_where(where, with_groups=False)
    except WhereError:
        return True
    return False


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows that a condition chooses from. They are read anew for each part of it that wants them.

    Args:
        schema: The columns that the condition may use.
        batches: Yields all rows, with the columns of the given names.
    """

    schema: pa.Schema
    batches: Callable[[Sequence[str]], Iterator[pa.RecordBatch]]

    @staticmethod
    def of(table: pa.Table) -> "Rows":
        """Return the rows of a table."""
        return Rows(table.schema, lambda names: iter(table.select(list(names)).to_batches()))


def matching(rows: Rows, where: str) -> npt.NDArray[np.int64]:
    """Return the places of the rows for which a condition holds, ascending.

    Args:
        rows: The rows; what reading them raises is raised.
        where: DuckDB SQL, of type BOOLEAN.

    Raises:
        WhereError: The condition cannot be used, or failed.
    """
    _check(rows.schema, where)
    stream = _Numbered(rows, _used(rows.schema, where))
    try:
        return _places(stream, where)
    except WhereError:
        if stream.failure is not None:
            raise stream.failure from None
        raise


def _check(schema: pa.Schema, where: str) -> None:
    """Raise WhereError if a condition is none, or is none over these columns."""
    _places(_Numbered(Rows.of(schema.empty_table()), schema.names), where)


class _Numbered:
    """Rows and their places, as a stream of Arrow's, of which DuckDB opens as many as it needs."""

    def __init__(self, rows: Rows, names: Sequence[str]) -> None:
        self._rows = rows
        self._names = names
        self.place = f"place_{secrets.token_hex(8)}"  # no condition can use it
        self._schema = pa.schema([*(rows.schema.field(name) for name in names), (self.place, pa.int64())])
        self.failure: Exception | None = None
        """What reading the rows raised; DuckDB knows only its words."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        reader = pa.RecordBatchReader.from_batches(self._schema, self._batches())
        return reader.__arrow_c_stream__(requested_schema)

    def table(self) -> pa.Table:
        """Return the rows as a table in memory."""
        return pa.Table.from_batches(self._batches(), schema=self._schema)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        start = 0
        try:
            for batch in self._rows.batches(self._names):
                places = pa.array(np.arange(start, start + batch.num_rows))
                start += batch.num_rows
                yield pa.RecordBatch.from_arrays([*batch.columns, places], schema=self._schema)
        except Exception as error:
            self.failure = error
            raise


def _reads_once(where: str) -> bool:
    """Return whether a stream will do for a condition: before version 2, DuckDB opens it only once."""
    import duckdb

    return "catalog" not in where.lower() or int(duckdb.__version__.partition(".")[0]) >= 2


_MEANS_ALL = ("*", "#", "catalog", "columns")
"""What a condition has in it that may use columns without their names."""


def _used(schema: pa.Schema, where: str) -> list[str]:
    """Return the columns that a condition may use: long texts that it does not are not read."""
    text = where.lower()
    if any(each in text for each in _MEANS_ALL):
        return list(schema.names)
    return [name for name in schema.names if name in text] or list(schema.names[:1])


def _places(rows: _Numbered, where: str) -> npt.NDArray[np.int64]:
    try:
        import duckdb
    except ImportError:
        raise WhereError(f"needs DuckDB: {INSTALL}") from None
    try:
        with _connected() as connection:
            connection.register("catalog", rows if _reads_once(where) else rows.table())
            connection.execute("SET enable_external_access=false; SET lock_configuration=true")
            catalog = connection.view("catalog")
            types = [str(each) for each in catalog.project(where).types]
            if types != ["BOOLEAN"]:
                raise WhereError(f"must be a condition, such as width >= 256; it is {' and '.join(types)}")
            found = catalog.filter(where).order(rows.place).project(rows.place).fetchnumpy()
            return np.asarray(found[rows.place], np.int64)
    except duckdb.Error as error:
        raise WhereError(_in_words(error, where)) from None


def _connected() -> "duckdb.DuckDBPyConnection":
    import duckdb

    connection = duckdb.connect(
        ":memory:", config={"autoinstall_known_extensions": False, "autoload_known_extensions": False}
    )
    connection.execute(
        "SET python_enable_replacements=false; SET TimeZone='UTC'; SET enable_progress_bar=false"
    )
    return connection


def _in_words(error: Exception, where: str) -> str:
    """Return DuckDB's message on one line, without the query that is made of the condition."""
    message = str(error).partition("\n\nLINE ")[0]
    hint = '; write "group" with its quotes: SQL has a word like it' if _BARE_GROUP.search(where) else ""
    return f"is no DuckDB SQL over the catalog's columns: {'; '.join(message.splitlines())}{hint}"


_BARE_GROUP = re.compile(r'(?<!")\bgroup\b(?!")(?!\s+by\b)', re.IGNORECASE)
