"""Where files lie: a local folder, S3, Google Cloud Storage or Azure, all by the same code.

A put is atomic on every one of them: a reader sees the whole file or none. The contract's paths are
made here and nowhere else.
"""

import hashlib
import io
import os
import re
import tempfile
import time
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, unquote_to_bytes, urlsplit

import obstore
import obstore.store
import pyarrow as pa
import pyarrow.parquet as pq

from imgdl_pipeline.core.model.schemas import SCHEMA_VERSION, SCHEMA_VERSION_KEY

STEM_CHARS = 80
HASH_DIGITS = 20
"""Of the link's SHA-256: 80 bits, so that even a billion links never meet."""


LISTED_FILES = 10_000
"""Files of a listing that are held as objects at a time."""

FILES = pa.schema([("path", pa.string()), ("bytes", pa.int64())])
"""A listing as Arrow has it."""

PARTS_AT_A_TIME = 1
"""Of a large file, 5 MB each: every worker may be storing one, and memory is to stay flat."""


RETRIES: Any = {"retry_timeout": timedelta(seconds=60)}
"""Of a request to an object store: how long its library tries it again, ten times at most."""


class StoreError(Exception):
    """The store did not take or give a file; says which, where and why."""


class UnreadableError(StoreError):
    """A file is there, but it is not what it should be."""


def image_path(gallery: str, url: str) -> str:
    """Where the image of a link lies, relative to the store's root.

    `images/<gallery>/<2 hex digits>/<stem>-<20 hex digits>.jpg`: the stem is the link's own, for a
    person's eyes; the digits are of the link's SHA-256 and alone make the name distinct, also where
    upper and lower case are the same. 256 folders keep a million files listable.
    """
    digest = hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()
    return f"images/{gallery}/{digest[:2]}/{_stem(url)}-{digest[:HASH_DIGITS]}.jpg"


_IMAGE_PATH = re.compile(rf"images/[^/]+/[0-9a-f]{{2}}/[^/]+-[0-9a-f]{{{HASH_DIGITS}}}\.jpg")


def is_image_path(path: str) -> bool:
    """Whether a path is such as `image_path` makes."""
    return _IMAGE_PATH.fullmatch(path) is not None


def _stem(url: str) -> str:
    """The last part of the link's path, as 1 to 80 of `A-Z a-z 0-9 _ . -`."""
    try:
        path = urlsplit(url).path
    except ValueError:  # a host like "[" is no URL at all, yet its row needs no name either
        path = ""
    name = unquote_to_bytes(path.rstrip("/").rpartition("/")[2]).decode("utf-8", "replace")
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    stem = re.sub(r"\.jpe?g$", "", ascii_name, flags=re.IGNORECASE)
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", stem).strip("._-")[:STEM_CHARS].rstrip("._-") or "image"


def images_path(gallery: str) -> str:
    """The folder of a gallery's images."""
    return f"images/{gallery}"


def links_path(gallery: str) -> str:
    """Where a gallery's link list lies."""
    return f"links/gallery={gallery}/links.parquet"


def validators_path(gallery: str) -> str:
    """Where the ETags of a gallery's list lie; readers of Parquet folders skip names with an underscore."""
    return f"links/gallery={gallery}/_validators.json"


def downloads_path(gallery: str) -> str:
    """Where a gallery's ledger lies."""
    return f"downloads/gallery={gallery}/downloads.parquet"


def checkpoints_path(gallery: str) -> str:
    """The folder of the ledger's checkpoints; readers of Parquet folders skip names with an underscore."""
    return f"downloads/gallery={gallery}/_checkpoints"


def checked_path(gallery: str) -> str:
    """The folder of what the catalog has checked so far, until it is written."""
    return f"catalog/gallery={gallery}/_checkpoints"


def unseen_links_path(gallery: str) -> str:
    """The folder of links that left the list before a catalog had them."""
    return f"links/gallery={gallery}/_unseen"


def contact_sheets_path(gallery: str) -> str:
    """The folder of a gallery's contact sheet; readers of Parquet folders skip names with an underscore."""
    return f"catalog/gallery={gallery}/_contact_sheet"


def leases_path(gallery: str) -> str:
    """The folder of the leases of runs at work; see `lease.py`."""
    return f"downloads/gallery={gallery}/_leases"


def catalog_path(gallery: str) -> str:
    """Where a gallery's catalog lies."""
    return f"catalog/gallery={gallery}/catalog.parquet"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file as a listing has it: its path, and its size in bytes."""

    path: str
    bytes: int


class Store:
    """Files under one root.

    Args:
        root: A folder (relative to the current directory, made where it is missing), or
            `s3://bucket/prefix`, `gs://…`, `az://…`, whose keys and endpoints come from the environment
            as their own tools read them (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL …).

    Raises:
        StoreError: It cannot be opened.
    """

    def __init__(self, root: str) -> None:
        self.root = str(Path(root).absolute()) if "://" not in root else root.rstrip("/")
        self._folder = _local_folder(root)
        self._objects = _open(root)

    def __repr__(self) -> str:
        return f"<Store {self.root}>"

    def location(self, path: str) -> str:
        """A path with the store's root before it: what a person or DuckDB opens."""
        return f"{self.root}/{path}"

    def put(self, path: str, data: bytes | IO[bytes]) -> None:
        """Store a file, whole or not at all.

        Raises:
            StoreError: It was not stored.
        """
        try:
            obstore.put(self._objects, path, data, max_concurrency=PARTS_AT_A_TIME)
        except (OSError, obstore.exceptions.BaseError) as error:
            raise StoreError(f"cannot store {self.location(path)}: {_first_line(error)}") from error

    def create(self, path: str, data: bytes) -> bool:
        """Store a file unless there is one; of several who try at the same time, one succeeds.

        Raises:
            StoreError: It was not stored, for another reason.
        """
        try:
            obstore.put(self._objects, path, data, mode="create")
        except (obstore.exceptions.AlreadyExistsError, FileExistsError):
            return False
        except (OSError, obstore.exceptions.BaseError) as error:
            raise StoreError(f"cannot store {self.location(path)}: {_first_line(error)}") from error
        return True

    def get(self, path: str) -> bytes | None:
        """A file's bytes, or None where there is no such file.

        Raises:
            StoreError: It could not be read.
        """
        data = self._get(path)
        return None if data is None else bytes(data)

    def open(self, path: str) -> IO[bytes] | None:
        """Open a file for reading; None where there is none. On a disk it is the file itself, else a copy.

        Raises:
            StoreError: It could not be read.
        """
        if self._folder is None:
            data = self.get(path)
            return None if data is None else io.BytesIO(data)
        try:
            return (self._folder / path).open("rb")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"cannot read {self.location(path)}: {error.strerror}") from error

    def _get(self, path: str) -> obstore.Bytes | None:
        """As `get`, but without a copy."""
        try:
            return obstore.get(self._objects, path).bytes()
        except FileNotFoundError:
            return None
        except (OSError, obstore.exceptions.BaseError) as error:
            raise StoreError(f"cannot read {self.location(path)}: {_first_line(error)}") from error

    def delete(self, paths: list[str]) -> None:
        """Delete files; those that are not there are no error.

        Raises:
            StoreError: One could not be deleted.
        """
        try:
            obstore.delete(self._objects, paths)
        except FileNotFoundError:
            if len(paths) > 1:  # a disk stops at the first that is not there
                for path in paths:
                    self.delete([path])
        except (OSError, obstore.exceptions.BaseError) as error:
            raise StoreError(f"cannot delete in {self.root}: {_first_line(error)}") from error

    def sweep(self, folder: str, older_than_s: float = 0.0) -> None:
        """Delete what writers that were killed left unfinished below a folder.

        Whoever calls it makes sure that nobody is writing there, or gives an age that no writer reaches.

        Only a local disk has such files: `name.jpg#1` becomes `name.jpg` once it is whole. An object store
        keeps the parts of an unfinished upload to itself, until its own rules for such parts delete them.
        """
        if self._folder is None:
            return
        before = time.time() - older_than_s
        for file in self._folder.joinpath(folder).rglob("*#*"):
            with suppress(FileNotFoundError):
                if re.fullmatch(r".*#\d+", file.name) and file.stat().st_mtime <= before:
                    file.unlink()

    def list(self, folder: str) -> Iterator[StoredFile]:
        """Every file below a folder, in no particular order.

        Raises:
            StoreError: The listing failed.
        """
        try:
            for chunk in obstore.list(self._objects, prefix=folder, chunk_size=1000):
                for entry in chunk:
                    yield StoredFile(entry["path"], entry["size"])
        except (OSError, obstore.exceptions.BaseError) as error:
            raise StoreError(f"cannot list {self.location(folder)}: {_first_line(error)}") from error

    def files(self, folder: str) -> pa.Table:
        """Every file below a folder, as Arrow has them: `path` and `bytes`; raises as `list` does."""
        files = self.list(folder)
        batches = []
        while batch := list(islice(files, LISTED_FILES)):
            columns = [[file.path for file in batch], [file.bytes for file in batch]]
            batches.append(pa.RecordBatch.from_arrays(list(map(pa.array, columns)), schema=FILES))
        return pa.Table.from_batches(batches, schema=FILES).combine_chunks()

    def read_table(self, path: str, schema: pa.Schema) -> pa.Table | None:
        """A Parquet file of ours, or None where there is none yet.

        Args:
            path: Where it lies.
            schema: What is wanted of it: some or all of its columns.

        Raises:
            StoreError: It could not be read, or it is not of a version that can be read.
        """
        data = self._get(path)
        if data is None:
            return None
        try:
            file = pq.ParquetFile(pa.BufferReader(pa.py_buffer(data)))
            there = set(file.schema_arrow.names)
            table = file.read([name for name in schema.names if name in there])
        except (pa.ArrowException, OSError) as error:
            raise UnreadableError(f"{self.location(path)} is no Parquet file: {error}") from error
        return self._upgraded(path, table, schema)

    def metadata(self, path: str) -> dict[bytes, bytes] | None:
        """What a Parquet file of ours says of itself beside its columns; None where there is none yet.

        Raises:
            StoreError: It could not be read.
        """
        data = self._get(path)
        if data is None:
            return None
        try:
            known: dict[bytes, bytes] = dict(
                pq.read_schema(pa.BufferReader(pa.py_buffer(data))).metadata or {}
            )
        except (pa.ArrowException, OSError) as error:
            raise UnreadableError(f"{self.location(path)} is no Parquet file: {error}") from error
        return known

    def _upgraded(self, path: str, table: pa.Table, schema: pa.Schema) -> pa.Table:
        """The table as this version has it: columns that came later are null in an older file."""
        version = (table.schema.metadata or {}).get(SCHEMA_VERSION_KEY, b"").decode()
        if not version.isdecimal():
            raise StoreError(
                f"{self.location(path)} was not written by imgdl_pipeline: it has no schema version"
            )
        if int(version) > SCHEMA_VERSION:
            raise StoreError(
                f"{self.location(path)} has schema version {version}, and this imgdl_pipeline reads up to "
                f"{SCHEMA_VERSION}: a newer version wrote it, so update"
            )
        missing = [name for name in schema.names if name not in table.schema.names]
        if missing and int(version) == SCHEMA_VERSION:
            raise StoreError(f"{self.location(path)} has no column {missing[0]}")
        for name in missing:
            table = table.append_column(schema.field(name), pa.nulls(table.num_rows, schema.field(name).type))
        return table.select(schema.names).cast(schema)

    def write_table(self, path: str, table: pa.Table) -> None:
        """Write a Parquet file, whole or not at all; one that is there with the same bytes stays untouched.

        Raises:
            StoreError: It was not stored.
        """
        with tempfile.TemporaryFile() as file:
            try:
                pq.write_table(table, file, compression="zstd", use_dictionary=_DICTIONARY_COLUMNS)
            except OSError as error:
                raise StoreError(f"cannot write a temporary file for {path}: {error}") from error
            if not self._holds(path, file):
                file.seek(0)
                self.put(path, file)
                self._make_durable(path)

    def _make_durable(self, path: str) -> None:
        """Let a file outlive a power failure; an object store does so by itself."""
        if self._folder is None:
            return
        file = self._folder / path
        try:
            for each in (file, file.parent):
                descriptor = os.open(each, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
        except OSError as error:
            raise StoreError(f"cannot store {self.location(path)}: {error.strerror}") from error

    def _holds(self, path: str, file: IO[bytes]) -> bool:
        """Whether a stored file has these very bytes."""
        try:
            size = obstore.head(self._objects, path)["size"]
        except FileNotFoundError:
            return False
        except (OSError, obstore.exceptions.BaseError) as error:
            raise StoreError(f"cannot read {self.location(path)}: {_first_line(error)}") from error
        if size != file.tell():
            return False
        file.seek(0)
        return file.read() == self.get(path)


_DICTIONARY_COLUMNS = ["status", "reason", "detail", "mode"]
"""Columns of few distinct values; for the others a dictionary only costs time."""


def _local_folder(root: str) -> Path | None:
    """The folder of a store on a local disk, else None."""
    if root.startswith("file://"):
        return Path(unquote(urlsplit(root).path))
    return None if "://" in root else Path(root).absolute()


def _open(root: str) -> Any:
    try:
        if "://" not in root:
            return obstore.store.LocalStore(Path(root).absolute(), mkdir=True)
        return obstore.store.from_url(root, retry_config=RETRIES)
    except (OSError, ValueError, obstore.exceptions.BaseError) as error:
        raise StoreError(f"cannot open the store {root}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    """What a person needs of an object store's error, which goes on for pages."""
    return str(error).partition("\n")[0] or type(error).__name__
