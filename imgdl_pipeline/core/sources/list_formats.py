"""Read the rows of list files, one format after the other, and the links in a row."""

import json
import re
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import IO, Any, NamedTuple, TextIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from imgdl_pipeline.core.model.links import ATTRIBUTES_CHARS
from imgdl_pipeline.core.model.schemas import BATCH_ROWS
from imgdl_pipeline.core.sources.client import SourceError
from imgdl_pipeline.core.sources.json_items import JsonItemsError, json_items
from imgdl_pipeline.core.sources.separated import LineError, bounded_lines, normal, open_text, read_rows

ENDINGS = {"ndjson": "jsonl", "text": "txt", "pq": "parquet"}
"""File name endings that are other names of a format."""

MAX_COLUMNS = 2_000
"""The most columns of a list."""

LONGEST_LISTS = 5_000_000
"""The most values that the lists of one column may hold in one row group, besides one a row."""

LARGEST_VALUES = 100_000
MOST_BYTES = 50_000_000
"""The most bytes of one column in one row group: so many a value, and so many besides."""

BUFFER_BYTES = 1 << 20
"""Bytes of a Parquet file's column that are read at a time. By default, Arrow keeps all that it has read."""

NESTED_ROWS = 250
ROWS_AT_A_TIME = 1_000
"""Rows of a Parquet file that are held as objects: a small file may hold the same long text very often."""


@dataclass(frozen=True, slots=True)
class ListFile:
    """An open list file, and how it is to be read; `delimiter` and `encoding` are found out if None."""

    data: IO[bytes]
    name: str
    url_column: str
    delimiter: str | None = None
    encoding: str | None = None


class ListRow(NamedTuple):
    """A row: its values by column, and its place in the file for messages."""

    values: dict[str, Any]
    place: str


@dataclass
class Rows:
    """Finds the links in the rows of one file, and counts the rows that have none.

    Args:
        name: The file, for messages.
        url_column: The column or key that holds the link, dotted for nested values.
    """

    name: str
    url_column: str
    read: int = 0
    without_link: int = 0
    _columns: dict[str, None] = field(default_factory=dict)

    def links_of(self, row: ListRow) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield a row's links, each with the row's other values.

        Raises:
            SourceError: What stands where the link should be is neither text nor a list of texts.
        """
        self.read += 1
        value = row.values.get(self.url_column)
        if type(value) is str and value.strip():  # nearly always, and four times as fast
            del row.values[self.url_column]
            yield value, row.values
            return
        value, others = _without(row.values, self.url_column)
        urls = [url for url in self._texts(value, row.place) if url.strip()]
        if not urls:
            self.without_link += 1
            if len(self._columns) < 50:
                self._columns |= dict.fromkeys(row.values)
        for url in urls:
            yield url, others

    def summary(self) -> str:
        """Say how many rows have no link; raise if none has one.

        Raises:
            SourceError: There are rows, and no row has the column.
        """
        if self.without_link == self.read and self.url_column.partition(".")[0] not in self._columns:
            raise _no_column(self.name, self.url_column, self._columns)
        return f"{self.name}: {self.without_link} of {self.read} rows have no {self.url_column}"

    def _texts(self, value: Any, place: str) -> Iterator[str]:
        if isinstance(value, str):
            yield value
        elif isinstance(value, bytes):
            yield value.decode("utf-8", "replace")
        elif isinstance(value, list):
            for each in value:
                yield from self._texts(each, place)
        elif isinstance(value, dict):
            keys = ", ".join(repr(f"{self.url_column}.{key}") for key in value) or "none"
            raise SourceError(
                f"{place}: {self.url_column!r} is an object; name the part that holds the link, one of {keys}"
            )
        elif value is not None:
            raise SourceError(f"{place}: {self.url_column!r} is {_kind(value)}, not a link")


def _no_column(name: str, url_column: str, columns: Iterable[str]) -> SourceError:
    found = ", ".join(map(repr, columns)) or "none"
    return SourceError(f"{name}: there is no {url_column!r}, only {found}; name it in source.url_column")


def _without(values: dict[str, Any], path: str) -> tuple[Any, dict[str, Any]]:
    """Return the value at a dotted path, and the values without it; a key with dots of its own goes first."""
    if path in values:
        others = dict(values)
        return others.pop(path), others
    first, _, rest = path.partition(".")
    inner = values.get(first)
    if not rest:
        return None, values
    if isinstance(inner, dict):
        value, left = _without(inner, rest)
        return value, {**values, first: left} if left else {k: v for k, v in values.items() if k != first}
    if isinstance(inner, list):
        found = [_without(each, rest)[0] for each in inner if isinstance(each, dict)]
        return found, {key: value for key, value in values.items() if key != first}
    return None, values


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "a truth value"
    return {dict: "an object", list: "a list", str: "a text", type(None): "null"}.get(type(value), "a number")


# Text

_ID_AND_URL = re.compile(r"\s*(\S+)\s+(https?://.*)", re.IGNORECASE | re.DOTALL)


def read_txt(file: ListFile) -> Generator[ListRow, None, None]:
    """Yield one row per line: a link, or an id and a link; skip empty lines and lines that begin with #."""
    with open_text(file.data, file.encoding) as (stream, _):
        for number, line in _numbered_lines(stream, file):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            named = None if "://" in line.split(None, 1)[0] else _ID_AND_URL.match(line)
            values = {"id": named[1], file.url_column: named[2]} if named else {file.url_column: line}
            yield ListRow(values, f"{file.name}:{number}")


def _numbered_lines(stream: TextIO, file: ListFile) -> Iterator[tuple[int, str]]:
    try:
        yield from enumerate(bounded_lines(stream), start=1)
    except LineError as error:
        raise SourceError(f"{file.name}:{error}") from None


def read_separated(file: ListFile) -> Generator[ListRow, None, None]:
    """Yield the rows of a table with a header."""
    with closing(read_rows(file.data, file.url_column, file.delimiter, file.encoding)) as rows:
        try:
            header = next(rows, None)
            columns = _columns(header.cells if header else [], file)
            for line, cells in rows:
                place = f"{file.name}:{line}"
                whole = cells if len(cells) == len(columns) else _fitted(cells, len(columns), place)
                named = zip(columns, whole, strict=True)
                yield ListRow({name: cell for name, cell in named if name is not None}, place)
        except LineError as error:
            raise SourceError(f"{file.name}:{error}") from None


def _fitted(cells: list[str], width: int, place: str) -> list[str]:
    """Return a row with as many cells as the header has; only empty cells may be missing or too many."""
    if any(cell.strip() for cell in cells[width:]) or len(cells) < width:
        raise SourceError(f"{place}: {len(cells)} cells, and the header has {width}")
    return cells[:width]


def _columns(cells: list[str], file: ListFile) -> list[str | None]:
    """Return the columns' names; the url column may be written in another case. A column without one is None.

    Raises:
        SourceError: Two columns have the same name, there are too many, or the url column is missing.
    """
    if len(cells) > MAX_COLUMNS:
        raise SourceError(f"{file.name}: there are more than {MAX_COLUMNS} columns (MAX_COLUMNS)")
    names: list[str | None] = []
    places: dict[str, int] = {}
    for place, cell in enumerate(cells, start=1):
        name = cell.strip()
        earlier = places.setdefault(normal(name), place) if name else place
        if earlier != place:
            raise SourceError(
                f"{file.name}: columns {earlier} and {place} have the same name, "
                f"{cells[earlier - 1].strip()!r} and {name!r}; rename one of them"
            )
        is_url = normal(name) == normal(file.url_column)
        names.append(file.url_column if is_url else name or None)
    if file.url_column not in names:
        raise _no_column(file.name, file.url_column, filter(None, names))
    return names


# JSON


def read_json(file: ListFile) -> Generator[ListRow, None, None]:
    """Yield the rows of a JSON list of links or objects, or of an object that holds such a list."""
    with_links: set[str] = set()
    with open_text(file.data, file.encoding) as (stream, _):
        try:
            for number, (name, item) in enumerate(json_items(stream)):
                place = f"{file.name}: item {number}"
                is_link = isinstance(item, dict) or (isinstance(item, str) and "://" in item)
                if name and not is_link:  # another list of the object
                    continue
                row = _row(item, file, place)
                if name and _without(row.values, file.url_column)[0] is not None:
                    with_links.add(name)
                if len(with_links) > 1:
                    both = " and ".join(map(repr, sorted(with_links)))
                    raise SourceError(f"{place}: both {both} are lists with {file.url_column!r}")
                yield row
        except JsonItemsError as error:
            raise SourceError(f"{file.name}:{error}") from None


def read_jsonl(file: ListFile) -> Generator[ListRow, None, None]:
    """Yield one row per line, which is a link or an object with a link; skip empty lines."""
    with open_text(file.data, file.encoding) as (stream, _):
        for number, line in _numbered_lines(stream, file):
            if line.strip():
                place = f"{file.name}:{number}"
                yield _row(_parsed_line(line, place), file, place)


def _parsed_line(line: str, place: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        words = error.msg if isinstance(error, json.JSONDecodeError) else "not valid JSON"
        raise SourceError(f"{place}: {words}") from None


def _row(item: Any, file: ListFile, place: str) -> ListRow:
    if isinstance(item, str):
        return ListRow({file.url_column: item}, place)
    if not isinstance(item, dict):
        raise SourceError(f"{place}: a link or an object is expected, not {_kind(item)}")
    return ListRow(item, place)


# Parquet


def read_parquet(file: ListFile) -> Generator[ListRow, None, None]:
    """Yield the rows of a Parquet file, without its binary columns, which are not read.

    One odd value becomes text or null, and costs nothing else.
    """
    try:
        parquet = pq.ParquetFile(
            file.data, read_dictionary=_text_columns(file), pre_buffer=False, buffer_size=BUFFER_BYTES
        )
        leaves = _kept_leaves(parquet, file)
        batch_rows = NESTED_ROWS if any("." in leaf for leaf in leaves) else BATCH_ROWS
        number = 0
        for batch in parquet.iter_batches(batch_size=batch_rows, columns=leaves):
            names, cut = batch.schema.names, [_cut(column) for column in batch.columns]
            for start in range(0, batch.num_rows, ROWS_AT_A_TIME):
                columns = [_values(column.slice(start, ROWS_AT_A_TIME)) for column in cut]
                for cells in zip_longest(*columns):
                    number += 1
                    yield ListRow(dict(zip(names, cells, strict=True)), f"{file.name}: row {number}")
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{file.name}: not valid Parquet: {error}") from None


def _text_columns(file: ListFile) -> list[str]:
    """Return the columns of text, which are read as dictionaries: equal values are held once."""
    schema = pq.read_schema(file.data)
    file.data.seek(0)
    return [field.name for field in schema if _is_text(field.type)]


def _is_text(type_: pa.DataType) -> bool:
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_))


def _kept_leaves(parquet: pq.ParquetFile, file: ListFile) -> list[str]:
    """Return the paths of the values to read: all but binary ones, unless they hold the link."""
    schema = parquet.schema_arrow
    if len(schema.names) > MAX_COLUMNS:
        raise SourceError(f"{file.name}: there are more than {MAX_COLUMNS} columns (MAX_COLUMNS)")
    twice = next((name for name in schema.names if schema.names.count(name) > 1), None)
    if twice is not None:
        raise SourceError(f"{file.name}: two columns have the same name, {twice!r}; rename one of them")
    if file.url_column not in schema.names and file.url_column.partition(".")[0] not in schema.names:
        raise _no_column(file.name, file.url_column, schema.names)
    _check_type(schema, file)
    columns = [parquet.schema.column(place) for place in range(len(parquet.schema))]
    kept = [
        place
        for place, each in enumerate(columns)
        if not _is_binary(each) or _names_link(each.path, file.url_column)
    ]
    _check_sizes(parquet, kept, file)
    return [columns[place].path for place in kept]


def _check_sizes(parquet: pq.ParquetFile, kept: list[int], file: ListFile) -> None:
    """Check that no part of the file is much larger in memory than it looks.

    Raises:
        SourceError: A column's part is; the message names the column.
    """
    for number in range(parquet.metadata.num_row_groups):
        group = parquet.metadata.row_group(number)
        for place in kept:
            column = group.column(place)
            is_long = column.num_values > LONGEST_LISTS + group.num_rows
            most_bytes = LARGEST_VALUES * column.num_values + MOST_BYTES
            if is_long or column.total_uncompressed_size > most_bytes:
                raise SourceError(
                    f"{file.name}: column {column.path_in_schema!r} holds {column.num_values} values of "
                    f"{column.total_uncompressed_size} bytes in {group.num_rows} rows, which is too much"
                )


def _check_type(schema: pa.Schema, file: ListFile) -> None:
    """Check that the url column can hold links.

    Raises:
        SourceError: It cannot; the message names the columns that can.
    """
    if file.url_column not in schema.names:
        return
    type_ = schema.field(file.url_column).type
    if not _may_hold_links(type_):
        would_do = [field.name for field in schema if _may_hold_links(field.type)]
        raise SourceError(
            f"{file.name}: column {file.url_column!r} is of type {type_}, which holds no links; "
            f"these would do: {', '.join(map(repr, would_do)) or 'none'}"
        )


def _may_hold_links(type_: pa.DataType) -> bool:
    if pa.types.is_dictionary(type_):
        return _may_hold_links(type_.value_type)
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        return _may_hold_links(type_.value_type) or pa.types.is_struct(type_.value_type)
    text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    return any(is_(type_) for is_ in text) or pa.types.is_null(type_)


def _is_binary(column: Any) -> bool:
    is_bytes = column.physical_type in ("BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY", "INT96")
    return is_bytes and column.logical_type.type == "NONE" and column.converted_type == "NONE"


def _names_link(path: str, url_column: str) -> bool:
    plain = re.sub(r"\.list\.(element|item)|\.bag\.array_element", "", path)
    return plain == url_column


def _values(column: pa.Array) -> list[Any]:
    """Return a column's values as Python objects; what Python cannot hold becomes text or null."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
    try:
        values: list[Any] = column.to_pylist()
    except _ODD:
        return [_value(column, place) for place in range(len(column))]
    return values


_ODD = (ValueError, OverflowError, ImportError, LookupError, pa.ArrowException)
"""What pyarrow raises for values that Python cannot hold."""


def _cut(column: pa.Array) -> pa.Array:
    """Return a column whose texts are cut to what a link may have; bytes that are not UTF-8 are replaced.

    It stays a dictionary if its texts together would be large.
    """
    if not pa.types.is_dictionary(column.type):
        return column
    try:
        texts = pc.utf8_slice_codeunits(column.dictionary, 0, ATTRIBUTES_CHARS + 1)
    except _ODD:
        plain = column.dictionary.cast(pa.large_binary()).to_pylist()
        ends = (each and each[: 4 * ATTRIBUTES_CHARS] for each in plain)
        texts = pa.array([None if each is None else each.decode("utf-8", "replace") for each in ends])
    cut = pa.DictionaryArray.from_arrays(column.indices, texts)
    longest = pc.max(pc.binary_length(texts)).as_py() or 0
    return cut if longest * len(column) > MOST_BYTES else cut.dictionary_decode()


def _value(column: pa.Array, place: int) -> Any:
    try:
        return column[place].as_py()
    except _ODD:
        to = pa.large_binary() if _is_text(column.type) else pa.string()
        try:
            value = column.slice(place, 1).cast(to)[0].as_py()
        except _ODD:
            return None
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


READERS: dict[str, Callable[[ListFile], Generator[ListRow, None, None]]] = {
    "txt": read_txt,
    "csv": read_separated,
    "tsv": read_separated,
    "json": read_json,
    "jsonl": read_jsonl,
    "parquet": read_parquet,
}
