"""Where files lie: a local folder, S3, Google Cloud Storage or Azure, all by the same code.

A put is atomic on every one of them: a reader sees the whole file or none. The contract's paths are
made here and nowhere else.
"""

import hashlib
import re
import tempfile
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote_to_bytes, urlsplit

import obstore
import obstore.store
import pyarrow as pa
import pyarrow.parquet as pq

from imgdl_pipeline.core.columns import SCHEMA_VERSION, SCHEMA_VERSION_KEY

STEM_CHARS = 80
HASH_DIGITS = 20
"""Of the link's SHA-256: 80 bits, so that even a billion links never meet."""


class StoreError(Exception):
    """The store did not take or give a file; says which, where and why."""


def image_path(gallery: str, url: str) -> str:
    """Where the image of a link lies, relative to the store's root.

    `images/<gallery>/<2 hex digits>/<stem>-<20 hex digits>.jpg`: the stem is the link's own, for a
    person's eyes; the digits are of the link's SHA-256 and alone make the name distinct, also where
    upper and lower case are the same. 256 folders keep a million files listable.
    """
    digest = hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()
    return f"images/{gallery}/{digest[:2]}/{_stem(url)}-{digest[:HASH_DIGITS]}.jpg"


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


def downloads_path(gallery: str) -> str:
    """Where a gallery's ledger lies."""
    return f"downloads/gallery={gallery}/downloads.parquet"


def checkpoints_path(gallery: str) -> str:
    """The folder of the ledger's checkpoints; readers of Parquet folders skip names with an underscore."""
    return f"downloads/gallery={gallery}/_checkpoints"


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
            obstore.put(self._objects, path, data)
        except (OSError, obstore.exceptions.BaseError) as error:
            raise StoreError(f"cannot store {self.location(path)}: {_first_line(error)}") from error

    def get(self, path: str) -> bytes | None:
        """A file's bytes, or None where there is no such file.

        Raises:
            StoreError: It could not be read.
        """
        try:
            return bytes(obstore.get(self._objects, path).bytes())
        except FileNotFoundError:
            return None
        except (OSError, obstore.exceptions.BaseError) as error:
            raise StoreError(f"cannot read {self.location(path)}: {_first_line(error)}") from error

    def delete(self, paths: list[str]) -> None:
        """Delete files; those that are not there are no error.

        Raises:
            StoreError: One could not be deleted.
        """
        for path in paths:
            try:
                obstore.delete(self._objects, path)
            except FileNotFoundError:
                continue
            except (OSError, obstore.exceptions.BaseError) as error:
                raise StoreError(f"cannot delete {self.location(path)}: {_first_line(error)}") from error

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

    def read_table(self, path: str, schema: pa.Schema) -> pa.Table | None:
        """A Parquet file of ours, or None where there is none yet.

        Raises:
            StoreError: It could not be read, or a newer version of this package wrote it.
        """
        data = self.get(path)
        if data is None:
            return None
        try:
            table = pq.read_table(pa.BufferReader(data))
        except pa.ArrowException as error:
            raise StoreError(f"{self.location(path)} is no Parquet file: {error}") from error
        version = int((table.schema.metadata or {}).get(SCHEMA_VERSION_KEY, b"0"))
        if version != SCHEMA_VERSION:
            raise StoreError(
                f"{self.location(path)} has schema version {version}, and this version of "
                f"imgdl_pipeline reads {SCHEMA_VERSION}"
            )
        return table.select(schema.names).cast(schema)

    def write_table(self, path: str, table: pa.Table) -> None:
        """Write a Parquet file, whole or not at all.

        Raises:
            StoreError: It was not stored.
        """
        with tempfile.TemporaryFile() as file:
            pq.write_table(table, file, compression="zstd", use_dictionary=_DICTIONARY_COLUMNS)
            file.seek(0)
            self.put(path, file)


_DICTIONARY_COLUMNS = ["status", "reason", "detail", "mode"]
"""Columns of few distinct values; for the others a dictionary only costs time."""


def _open(root: str) -> Any:
    try:
        if "://" not in root:
            return obstore.store.LocalStore(Path(root).absolute(), mkdir=True)
        return obstore.store.from_url(root)
    except (OSError, ValueError, obstore.exceptions.BaseError) as error:
        raise StoreError(f"cannot open the store {root}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    """What a person needs of an object store's error, which goes on for pages."""
    return str(error).partition("\n")[0] or type(error).__name__
