"""Choose rows of a catalog by DuckDB SQL.

DuckDB comes with the extra `datasets`. It is given one table and nothing else: no file, no extension, no
network.
"""

import re
import secrets
from typing import TYPE_CHECKING

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
    columns = pa.schema([*CATALOG, *(GROUPS if with_groups else ())])
    matching(columns.empty_table(), where)


def uses_groups(where: str | None) -> bool:
    """Return whether a condition that can be used needs `group` or `representative`."""
    try:
        if where is not None:
            check_where(where, with_groups=False)
    except WhereError:
        return True
    return False


def matching(table: pa.Table, where: str) -> pa.Array:
    """Return the places of the rows for which a condition holds, ascending.

    Args:
        table: The columns that the condition may use.
        where: DuckDB SQL, of type BOOLEAN.

    Raises:
        WhereError: The condition cannot be used, or failed.
    """
    try:
        import duckdb
    except ImportError:
        raise WhereError(f"needs DuckDB: {INSTALL}") from None
    place = f"place_{secrets.token_hex(8)}"  # no condition can use it
    numbered = table.append_column(place, pa.array(range(table.num_rows), pa.int64()))
    try:
        with _connected() as connection:
            connection.register("catalog", numbered)
            connection.execute("SET enable_external_access=false; SET lock_configuration=true")
            rows = connection.view("catalog")
            types = [str(each) for each in rows.project(where).types]
            if types != ["BOOLEAN"]:
                raise WhereError(f"must be a condition, such as width >= 256; it is {' and '.join(types)}")
            return rows.filter(where).order(place).project(place).arrow().read_all()[place]
    except duckdb.Error as error:
        raise WhereError(_in_words(error, where)) from None


def _connected() -> "duckdb.DuckDBPyConnection":
    import duckdb

    connection = duckdb.connect(
        ":memory:", config={"autoinstall_known_extensions": False, "autoload_known_extensions": False}
    )
    connection.execute("SET python_enable_replacements=false; SET TimeZone='UTC'")
    return connection


def _in_words(error: Exception, where: str) -> str:
    """Return DuckDB's message on one line, without the query that is made of the condition."""
    message = str(error).partition("\n\nLINE ")[0]
    hint = '; write "group" with its quotes: SQL has a word like it' if _BARE_GROUP.search(where) else ""
    return f"is no DuckDB SQL over the catalog's columns: {'; '.join(message.splitlines())}{hint}"


_BARE_GROUP = re.compile(r'(?<!")\bgroup\b(?!")(?!\s+by\b)', re.IGNORECASE)
