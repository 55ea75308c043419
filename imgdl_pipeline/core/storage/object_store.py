"""Files by path, in a local folder, S3, Google Cloud Storage or Azure, all through the same code.

A put is atomic on every one of them: a reader sees the whole file or none.
"""

import io
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import obstore
import obstore.store
import pyarrow as pa

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


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file as a listing has it: its path, and its size in bytes."""

    path: str
    bytes: int


class ObjectStore:
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
        return f"<{type(self).__name__} {self.root}>"

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
            raise StoreError(f"cannot store {self.location(path)}: {first_line(error)}") from error

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
            raise StoreError(f"cannot store {self.location(path)}: {first_line(error)}") from error
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
            raise StoreError(f"cannot read {self.location(path)}: {first_line(error)}") from error

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
            raise StoreError(f"cannot delete in {self.root}: {first_line(error)}") from error

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
            raise StoreError(f"cannot list {self.location(folder)}: {first_line(error)}") from error

    def files(self, folder: str) -> pa.Table:
        """Every file below a folder, as Arrow has them: `path` and `bytes`; raises as `list` does."""
        files = self.list(folder)
        batches = []
        while batch := list(islice(files, LISTED_FILES)):
            columns = [[file.path for file in batch], [file.bytes for file in batch]]
            batches.append(pa.RecordBatch.from_arrays(list(map(pa.array, columns)), schema=FILES))
        return pa.Table.from_batches(batches, schema=FILES).combine_chunks()


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
        raise StoreError(f"cannot open the store {root}: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """What a person needs of an object store's error, which goes on for pages."""
    return str(error).partition("\n")[0] or type(error).__name__
