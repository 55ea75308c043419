"""Read files of links: txt, csv, tsv, json, jsonl and parquet, each plain or .gz, local or remote.

Files are read as streams, so a list may be larger than memory. A broken list is an error with its file and
line; rows without a link are passed over and counted. The formats are read in `list_formats`.
"""

import glob
import gzip
import io
import re
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Any, Literal
from urllib.parse import unquote

import obstore
import obstore.store
from pydantic import Field, field_validator

from imgdl_pipeline.core.model.links import Link
from imgdl_pipeline.core.model.settings import SourceSettings
from imgdl_pipeline.core.model.shown import hide_secrets
from imgdl_pipeline.core.model.temporary import discard, needing_room, opened_temporary, temporary_file
from imgdl_pipeline.core.sources.client import SourceClient, SourceError
from imgdl_pipeline.core.sources.list_formats import ENDINGS, READERS, ListFile, Rows

LIST_BYTES = 10_000_000_000
"""The longest list file, decompressed."""


class UrlListSource(SourceSettings):
    """A file of links."""

    type: Literal["url_list"]
    path: str = Field(min_length=1, description="a path, a folder, a glob, or an http(s)/s3/gs/az URL")
    format: Literal["txt", "csv", "tsv", "json", "jsonl", "parquet"] | None = Field(
        None, description="null: by the path's ending, with or without .gz"
    )
    url_column: str = Field(
        "url",
        min_length=1,
        description="the column or key that holds the link, dotted for nested values, as in image.url",
    )
    delimiter: str | None = Field(
        None, min_length=1, max_length=1, description="between the cells of a csv or tsv; null: found out"
    )
    encoding: str | None = Field(None, description="of a text file, such as utf-8 or cp1252; null: found out")
    asset: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_]+(/[A-Za-z0-9_]+)*$",
        description="key of the Dagster asset that writes the file, e.g. shop/products",
    )

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, value: str | None) -> str | None:
        try:
            if value is not None:
                "".encode(value)
        except LookupError:
            raise ValueError(f"{value!r} is no encoding; utf-8, utf-16 and cp1252 are, for example") from None
        return value


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
    for url, attributes in list_rows(source, client):
        yield Link.from_text(url, attributes)


def list_rows(source: UrlListSource, client: SourceClient) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the text of each link as it stands in its row, and the row's other values; raises the same."""
    for file in _files(source.path, client):
        yield from _rows(file, source, client)


def _rows(file: _File, source: UrlListSource, client: SourceClient) -> Iterator[tuple[str, dict[str, Any]]]:
    format_ = source.format or _format_of(file.name)
    rows = Rows(file.name, source.url_column)
    with file.open() as raw, _decompressed(raw, file.name, is_sought=format_ == "parquet") as data:
        listed = ListFile(data, file.name, source.url_column, source.delimiter, source.encoding)
        try:
            with closing(READERS[format_](listed)) as read:
                for row in read:
                    yield from rows.links_of(row)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise SourceError(f"{file.name}: damaged gzip: {error}") from None
    client.entries += rows.read
    if rows.without_link:
        client.warn(rows.summary())


def _format_of(name: str) -> str:
    format_ = _ending(name)
    if format_ not in READERS:
        raise SourceError(
            f"{name}: its ending names none of {', '.join(READERS)}; say which in source.format"
        )
    return format_


def _ending(name: str) -> str:
    path = re.sub(r"[?#].*$", "", name) if "://" in name else name
    _, dot, ending = re.sub(r"\.gz$", "", path.lower()).rpartition("/")[2].rpartition(".")
    return ENDINGS.get(ending, ending) if dot else ""


# Finding and opening files


def _files(path: str, client: SourceClient) -> list[_File]:
    if path.startswith(("http://", "https://")):
        return [_File(hide_secrets(path), lambda: _on_the_web(path, client))]
    if not client.trusts_source:
        raise SourceError(f"{path}: a list that someone else's table names must be an http or https URL")
    if "://" in path:
        return _objects(path)
    return _local_files(path)


@contextmanager
def _on_the_web(url: str, client: SourceClient) -> Iterator[IO[bytes]]:
    with client.document(url, limit=LIST_BYTES) as document:
        yield document.file


def _local_files(path: str) -> list[_File]:
    absolute = Path(path).expanduser().absolute()
    if absolute.is_dir():
        names = [str(each) for each in sorted(absolute.iterdir()) if _is_list(each)]
        if not names:
            raise SourceError(f"{absolute}: no file in this folder is one of {', '.join(READERS)}")
    elif absolute.is_file():
        names = [str(absolute)]
    else:
        names = sorted(glob.glob(str(absolute), recursive=True))  # noqa: PTH207 -- Path.glob takes no absolute pattern
    files = [_File(name, _opener(name)) for name in names if Path(name).is_file()]
    if not files:
        raise SourceError(f"{absolute}: there is no such file, and no file matches")
    return files


def _is_list(file: Path) -> bool:
    """Return whether a file of a folder is a list: hidden files are none."""
    return not file.name.startswith(".") and _ending(file.name) in READERS


def _opener(name: str) -> Callable[[], IO[bytes]]:
    return lambda: Path(name).open("rb")


def _objects(url: str) -> list[_File]:
    """Return files in an object store: a single one, or those that a glob matches."""
    match = re.match(r"(\w+://[^/]+)/(.+)", url)
    if not match:
        raise SourceError(f"{url}: give a bucket and a path, as in s3://bucket/lists/links.csv")
    bucket, key = match[1], _key(match[2])
    try:
        store = obstore.store.from_url(bucket)
        keys = _matching_keys(store, key) if re.search(r"[*?\[]", key) else [key]
    except (obstore.exceptions.BaseError, OSError, ValueError) as error:
        raise SourceError(f"{url}: {str(error).partition(chr(10))[0]}") from None
    if not keys:
        raise SourceError(f"{url}: nothing matches")
    return [_File(f"{bucket}/{each}", _object_opener(store, bucket, each)) for each in keys]


def _key(path: str) -> str:
    """Return the key for a URL's path, read as the store's own URL is: with its escapes and dots resolved."""
    return "/".join(segment for segment in unquote(path).split("/") if segment != ".")


def _matching_keys(store: Any, pattern: str) -> list[str]:
    folder = re.split(r"[*?\[]", pattern)[0].rpartition("/")[0]
    entries = (entry for chunk in obstore.list(store, prefix=folder or None) for entry in chunk)
    return sorted(entry["path"] for entry in entries if fnmatchcase(entry["path"], pattern))


def _object_opener(store: Any, bucket: str, key: str) -> Callable[[], IO[bytes]]:
    def open_() -> IO[bytes]:
        file = temporary_file()
        try:
            for chunk in obstore.get(store, key).stream():
                with needing_room():
                    file.write(chunk)
                _check_length(f"{bucket}/{key}", file.tell())
            with needing_room():
                file.seek(0)
        except (obstore.exceptions.BaseError, OSError) as error:
            discard(file)
            raise SourceError(f"{bucket}/{key}: {str(error).partition(chr(10))[0]}") from None
        except BaseException:
            discard(file)
            raise
        return file

    return open_


def _check_length(name: str, size: int) -> None:
    if size > LIST_BYTES:
        raise SourceError(f"{name}: the file is longer than {LIST_BYTES} bytes (LIST_BYTES)")


@contextmanager
def _decompressed(raw: IO[bytes], name: str, *, is_sought: bool) -> Iterator[IO[bytes]]:
    """Open the file, decompressed if it is gzip; its first bytes decide, not its name.

    It can be read from its start again. Only a format that needs to seek elsewhere takes a temporary file.
    """
    is_gzip = raw.read(2) == b"\x1f\x8b"
    raw.seek(0)
    if not is_gzip:
        yield raw
        return
    unzipped: Any = io.BufferedReader(_Bounded(gzip.GzipFile(fileobj=raw), name))
    try:
        is_twice = unzipped.peek(2)[:2] == b"\x1f\x8b"
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise SourceError(f"{name}: damaged gzip: {error}") from None
    if is_twice:
        raise SourceError(f"{name}: the file is compressed twice")
    if not is_sought:
        yield unzipped
        return
    with opened_temporary() as file:
        try:
            shutil.copyfileobj(unzipped, _Writer(file))
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise SourceError(f"{name}: damaged gzip: {error}") from None
        with needing_room():
            file.seek(0)
        yield file


class _Writer:
    """A temporary file whose disk is named when it is full."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, data: bytes) -> int:
        with needing_room():
            return self._file.write(data)


class _Bounded(io.RawIOBase):
    """A decompressed file of `LIST_BYTES` at most."""

    def __init__(self, file: gzip.GzipFile, name: str) -> None:
        self._file = file
        self._name = name
        self._read = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._read = 0
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self._read += len(data)
        _check_length(self._name, self._read)
        return len(data)
