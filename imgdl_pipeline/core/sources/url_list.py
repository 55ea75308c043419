"""Read files of links: txt, csv, tsv, json, jsonl and parquet, each plain or .gz, local or remote.

Files are read as streams, so a list may be larger than memory (except json, which is parsed as a whole). A
broken list is an error with its file and line; rows with an empty link are skipped and counted.
"""

import csv
import glob
import gzip
import json
import logging
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Any, Literal

import obstore
import obstore.store
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from imgdl_pipeline.core.http.urls import without_userinfo
from imgdl_pipeline.core.model.links import BATCH_ROWS, Link
from imgdl_pipeline.core.model.settings import SourceSettings
from imgdl_pipeline.core.sources.client import SourceClient, SourceError

logger = logging.getLogger(__name__)

LONGEST_CELL = 10_000_000
"""The most characters of a CSV cell; Python's default limit is 131,072."""

_ENDINGS = {"ndjson": "jsonl", "text": "txt", "pq": "parquet"}
"""File name endings that are other names of a format."""


class UrlListSource(SourceSettings):
    """A file of links."""

    type: Literal["url_list"]
    path: str = Field(min_length=1, description="a path, a glob, or an http(s)/s3/gs/az URL")
    format: Literal["txt", "csv", "tsv", "json", "jsonl", "parquet"] | None = Field(
        None, description="null: by the path's ending, with or without .gz"
    )
    url_column: str = Field("url", min_length=1, description="the column or key that holds the link")
    asset: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_]+(/[A-Za-z0-9_]+)*$",
        description="key of the Dagster asset that writes the file, e.g. shop/products",
    )


@dataclass(frozen=True, slots=True)
class _File:
    """A local or remote list file: its name, for messages and for its format, and a function to open it."""

    name: str
    open: Callable[[], AbstractContextManager[IO[bytes]]]


def list_links(source: UrlListSource, client: SourceClient) -> Iterator[Link]:
    """Yield the links of every file that `path` names, in the order of the file names.

    Raises:
        SourceError: There is no such file, or a file is broken; the message names the file, line and problem.
    """
    for file in _files(source.path, client):
        yield from _links(file, source)


def _links(file: _File, source: UrlListSource) -> Iterator[Link]:
    format_ = source.format or _format_of(file.name)
    empty = 0
    with file.open() as raw, _decompressed(raw, file.name) as data:
        for row in _READERS[format_](data, file.name, source.url_column):
            url = row.pop(source.url_column, None)
            if url is None or not str(url).strip():
                empty += 1
                continue
            yield Link.from_text(str(url), row)
    if empty:
        logger.warning("%s: %d rows have no %s", file.name, empty, source.url_column)


def _format_of(name: str) -> str:
    path = re.sub(r"[?#].*$", "", name) if "://" in name else name
    ending = re.sub(r"\.gz$", "", path.lower()).rpartition(".")[2]
    format_ = _ENDINGS.get(ending, ending)
    if format_ not in _READERS:
        raise SourceError(
            f"{name}: its ending names none of {', '.join(_READERS)}; say which in source.format"
        )
    return format_


# Finding and opening files


def _files(path: str, client: SourceClient) -> list[_File]:
    if path.startswith(("http://", "https://")):
        return [_File(without_userinfo(path), lambda: _on_the_web(path, client))]
    if "://" in path:
        return _objects(path)
    return _local_files(path)


@contextmanager
def _on_the_web(url: str, client: SourceClient) -> Iterator[IO[bytes]]:
    with client.document(url, limit=None) as document:
        yield document.file


def _local_files(path: str) -> list[_File]:
    absolute = str(Path(path).expanduser().absolute())
    names = [absolute] if Path(absolute).is_file() else sorted(glob.glob(absolute, recursive=True))  # noqa: PTH207 -- Path.glob takes no absolute pattern
    files = [_File(name, _opener(name)) for name in names if Path(name).is_file()]
    if not files:
        raise SourceError(f"{absolute}: there is no such file, and no file matches")
    return files


def _opener(name: str) -> Callable[[], IO[bytes]]:
    return lambda: Path(name).open("rb")


def _objects(url: str) -> list[_File]:
    """Return files in an object store: a single one, or those that a glob matches."""
    match = re.match(r"(\w+://[^/]+)/(.+)", url)
    if not match:
        raise SourceError(f"{url}: give a bucket and a path, as in s3://bucket/lists/links.csv")
    bucket, key = match.groups()
    try:
        store = obstore.store.from_url(bucket)
        keys = _matching_keys(store, key) if re.search(r"[*?\[]", key) else [key]
    except (obstore.exceptions.BaseError, OSError, ValueError) as error:
        raise SourceError(f"{url}: {str(error).partition(chr(10))[0]}") from error
    if not keys:
        raise SourceError(f"{url}: nothing matches")
    return [_File(f"{bucket}/{each}", _object_opener(store, bucket, each)) for each in keys]


def _matching_keys(store: Any, pattern: str) -> list[str]:
    folder = re.split(r"[*?\[]", pattern)[0].rpartition("/")[0]
    entries = (entry for chunk in obstore.list(store, prefix=folder or None) for entry in chunk)
    return sorted(entry["path"] for entry in entries if fnmatchcase(entry["path"], pattern))


def _object_opener(store: Any, bucket: str, key: str) -> Callable[[], IO[bytes]]:
    def open_() -> IO[bytes]:
        file = tempfile.TemporaryFile()
        try:
            for chunk in obstore.get(store, key).stream():
                file.write(chunk)
        except (obstore.exceptions.BaseError, OSError) as error:
            file.close()
            raise SourceError(f"{bucket}/{key}: {str(error).partition(chr(10))[0]}") from error
        file.seek(0)
        return file

    return open_


def _decompressed(raw: IO[bytes], name: str) -> IO[bytes]:
    """Return the file, decompressed if it is gzip; its first bytes decide, not its name."""
    is_gzip = raw.read(2) == b"\x1f\x8b"
    raw.seek(0)
    if not is_gzip:
        return raw
    file = tempfile.TemporaryFile()
    try:
        with gzip.open(raw) as unzipped:
            shutil.copyfileobj(unzipped, file)
    except (OSError, EOFError) as error:
        file.close()
        raise SourceError(f"{name}: damaged gzip: {error}") from error
    file.seek(0)
    return file


# The formats: each reader yields rows that hold the link under the name of the url column


def _lines(data: IO[bytes], name: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(data, start=1):
        try:
            yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise SourceError(f"{name}:{number}: not UTF-8: {error.reason}") from error


def _read_txt(data: IO[bytes], name: str, url_column: str) -> Iterator[dict[str, Any]]:
    """Yield one row per line; skip empty lines and lines that begin with #."""
    for _, line in _lines(data, name):
        if line.strip() and not line.lstrip().startswith("#"):
            yield {url_column: line}


def _read_csv(data: IO[bytes], name: str, url_column: str) -> Iterator[dict[str, Any]]:
    return _read_separated(data, name, url_column, ",")


def _read_tsv(data: IO[bytes], name: str, url_column: str) -> Iterator[dict[str, Any]]:
    return _read_separated(data, name, url_column, "\t")


def _read_separated(data: IO[bytes], name: str, url_column: str, delimiter: str) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CELL))  # process-wide, so never lower it
    reader = csv.reader((line for _, line in _lines(data, name)), delimiter=delimiter, strict=True)
    try:
        columns = next(reader, [])
        _require_column(url_column, columns, name)
        for cells in reader:
            if cells and len(cells) != len(columns):
                raise SourceError(
                    f"{name}:{reader.line_num}: {len(cells)} cells, and the header has {len(columns)}"
                )
            if cells:
                yield dict(zip(columns, cells, strict=True))
    except csv.Error as error:
        raise SourceError(f"{name}:{reader.line_num}: {error}") from error


def _read_json(data: IO[bytes], name: str, url_column: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a JSON list of links, or of objects with one link each."""
    try:
        items = json.load(data)
    except json.JSONDecodeError as error:
        raise SourceError(f"{name}:{error.lineno}: {error.msg}") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise SourceError(f"{name}: not valid JSON: {error}") from error
    if not isinstance(items, list):
        raise SourceError(f"{name}: a list of links is expected, not {_kind(items)}")
    for number, item in enumerate(items):
        yield _row(item, url_column, f"{name}: item {number}")


def _read_jsonl(data: IO[bytes], name: str, url_column: str) -> Iterator[dict[str, Any]]:
    """Yield one row per line, which is a link or an object with a link; skip empty lines."""
    for number, line in _lines(data, name):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            words = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
            raise SourceError(f"{name}:{number}: {words}") from error
        yield _row(item, url_column, f"{name}:{number}")


def _row(item: Any, url_column: str, place: str) -> dict[str, Any]:
    if isinstance(item, str):
        return {url_column: item}
    if not isinstance(item, dict):
        raise SourceError(f"{place}: a link or an object is expected, not {_kind(item)}")
    if url_column not in item:
        _require_column(url_column, list(item), place)
    return dict(item)


def _kind(value: Any) -> str:
    return {dict: "an object", list: "a list", str: "a text", type(None): "null"}.get(
        type(value), "a number or a truth value"
    )


def _read_parquet(data: IO[bytes], name: str, url_column: str) -> Iterator[dict[str, Any]]:
    try:
        file = pq.ParquetFile(data)
        _require_column(url_column, file.schema_arrow.names, name)
        for batch in file.iter_batches(batch_size=BATCH_ROWS):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{name}: not valid Parquet: {error}") from error


def _require_column(url_column: str, columns: list[str], place: str) -> None:
    if url_column not in columns:
        found = ", ".join(map(repr, columns)) or "none"
        raise SourceError(f"{place}: there is no {url_column!r}, only {found}; name it in source.url_column")


_READERS: dict[str, Callable[[IO[bytes], str, str], Iterator[dict[str, Any]]]] = {
    "txt": _read_txt,
    "csv": _read_csv,
    "tsv": _read_tsv,
    "json": _read_json,
    "jsonl": _read_jsonl,
    "parquet": _read_parquet,
}
