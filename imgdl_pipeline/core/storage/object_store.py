"""Read and write files by path in a local folder, S3, Google Cloud Storage or Azure, all with the same code.

A put is atomic in all of them: a reader sees the whole file or none.
"""

import io
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import obstore
import obstore.store
import pyarrow as pa

from imgdl_pipeline.core.model.shown import HIDDEN_CHARS, hide_secrets
from imgdl_pipeline.core.model.temporary import needing_room
from imgdl_pipeline.core.storage.variables import advice, wrong_variables

LISTED_FILES = 10_000
"""How many files of a listing are held as Python objects at a time."""

FILES = pa.schema([("path", pa.string()), ("bytes", pa.int64())])
"""The Arrow schema of a listing."""

CHUNK_BYTES = 1 << 20
SMALL_BYTES = 8 << 20
"""Bytes that are read at a time, and up to which the copy of a file is held in memory."""

PARTS_AT_A_TIME = 1
"""How many parts of a large file, 5 MB each, are uploaded at a time. Every worker may be storing a file, so a
low number keeps memory flat."""


RETRIES: Any = {"retry_timeout": timedelta(seconds=60)}
"""For how long the library retries a request to an object store; ten times at most."""


_used_by: dict[str, int] = {}
"""The process that has started the library's threads, which no process has that is forked from it."""


class StoreError(Exception):
    """The store could not write or read a file; the message says which, where and why."""


class UnreadableError(StoreError):
    """A file exists, but its content is not what it should be."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An entry of a listing: a file's path, its size in bytes, and when it was written."""

    path: str
    bytes: int
    modified: datetime


class ObjectStore:
    """Files under one root.

    Args:
        root: A folder (relative to the current directory, created if missing), or `s3://bucket/prefix`,
            `gs://…`, `az://…`, whose keys and endpoints come from the same environment variables that their
            own tools use (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL …).

    Raises:
        StoreError: The store cannot be opened.
    """

    def __init__(self, root: str) -> None:
        self.root = str(Path(root).absolute()) if "://" not in root else root.rstrip("/")
        self._folder = _local_folder(root)
        self._opened = _open(root)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.root}>"

    def __reduce__(self) -> tuple[type, tuple[str]]:
        """Open the store again where it is unpickled, with the environment's credentials there."""
        return type(self), (self.root,)

    @property
    def _objects(self) -> Any:
        """What the library has opened, for whoever may use its threads.

        Raises:
            StoreError: This process was forked from one that has used a store: it would wait for ever.
        """
        if _used_by.setdefault("pid", os.getpid()) != os.getpid():
            raise StoreError(
                f"{self.root} cannot be used in a process that was forked from one that has used a store; "
                'start processes by the method "spawn" or "forkserver"'
            )
        return self._opened

    @property
    def is_local(self) -> bool:
        """Whether the files are on a disk of this machine."""
        return self._folder is not None

    def local_path(self, path: str) -> Path | None:
        """Return where a file is on this machine's disk, or None in an object store."""
        return None if self._folder is None else self._folder / path

    def location(self, path: str) -> str:
        """Return a path including the store's root, for a person or DuckDB to open."""
        return f"{self.root}/{path}"

    def words_of(self, error: Exception) -> str:
        """Return what an error of the library says, in one line, and which variable explains it."""
        return _words_of(self.root, error)

    def put(self, path: str, data: bytes | IO[bytes]) -> None:
        """Store a file, whole or not at all.

        Raises:
            StoreError: The file was not stored.
        """
        try:
            obstore.put(self._objects, path, data, max_concurrency=PARTS_AT_A_TIME)
        except (OSError, obstore.exceptions.BaseError) as error:
            raise StoreError(f"cannot store {self.location(path)}: {self.words_of(error)}") from error

    def create(self, path: str, data: bytes) -> bool:
        """Store a file unless it exists; if several callers try at the same time, only one succeeds.

        Raises:
            StoreError: The file was not stored, for another reason.
        """
        if self._folder is not None:
            return self._create_on_disk(self._folder / path, data)
        try:
            obstore.put(self._objects, path, data, mode="create")
        except (obstore.exceptions.AlreadyExistsError, FileExistsError):
            return False
        except (OSError, obstore.exceptions.BaseError) as error:
            raise StoreError(f"cannot store {self.location(path)}: {self.words_of(error)}") from error
        return True

    def _create_on_disk(self, file: Path, data: bytes) -> bool:
        """Create a file with all of its bytes at once, by a hard link where the file system has them."""
        whole = file.with_name(f"{file.name}#{time.time_ns()}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            whole.write_bytes(data)
            try:
                os.link(whole, file)
            except FileExistsError:
                return False
            except OSError:  # no hard links: the file is there first, then its bytes
                return _written_anew(file, data)
            finally:
                whole.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"cannot store {file}: {error.strerror}") from error
        return True

    def get(self, path: str) -> bytes | None:
        """Return a file's bytes, or None if there is no such file.

        Raises:
            StoreError: The file could not be read.
        """
        data = self._get(path)
        return None if data is None else bytes(data)

    def open(self, path: str) -> IO[bytes] | None:
        """Open a file for reading, or return None if there is none; off a local disk, open a copy in memory.

        Raises:
            StoreError: The file could not be read.
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

    def snapshot(self, path: str) -> pa.NativeFile | None:
        """Open a file for Arrow to read, or return None if there is none; off a local disk, open a copy.

        What is read does not change when the file is replaced. A large copy is a temporary file.

        Raises:
            StoreError: The file could not be read.
            ResourceError: The copy could not be written.
        """
        try:
            if self._folder is not None:
                return pa.OSFile(str(self._folder / path))
            answer = obstore.get(self._objects, path)
            if answer.meta["size"] <= SMALL_BYTES:
                return pa.BufferReader(pa.py_buffer(answer.bytes()))
            with needing_room(), tempfile.NamedTemporaryFile() as copy:
                for chunk in answer.stream(min_chunk_size=CHUNK_BYTES):
                    copy.write(chunk)
                copy.flush()
                return pa.OSFile(copy.name)
        except FileNotFoundError:
            return None
        except (OSError, obstore.exceptions.BaseError) as error:
            raise StoreError(f"cannot read {self.location(path)}: {self.words_of(error)}") from error

    def holds(self, path: str, file: IO[bytes]) -> bool:
        """Return whether a stored file has exactly the bytes of another one, comparing them piece by piece.

        Raises:
            StoreError: The file could not be read.
        """
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        try:
            if obstore.head(self._objects, path)["size"] != size:
                return False
            stored = obstore.get(self._objects, path).stream(min_chunk_size=CHUNK_BYTES)
            return all(file.read(len(chunk)) == bytes(chunk) for chunk in stored)
        except FileNotFoundError:
            return False
        except (OSError, obstore.exceptions.BaseError) as error:
            raise StoreError(f"cannot read {self.location(path)}: {self.words_of(error)}") from error

    def _get(self, path: str) -> obstore.Bytes | None:
        """Return a file's bytes like `get`, but without a copy."""
        try:
            return obstore.get(self._objects, path).bytes()
        except FileNotFoundError:
            return None
        except (OSError, obstore.exceptions.BaseError) as error:
            raise StoreError(f"cannot read {self.location(path)}: {self.words_of(error)}") from error

    def delete(self, paths: list[str]) -> None:
        """Delete files; missing files are not an error.

        Raises:
            StoreError: A file could not be deleted.
        """
        try:
            obstore.delete(self._objects, paths)
        except FileNotFoundError:
            if len(paths) > 1:  # a local disk stops at the first missing file
                for path in paths:
                    self.delete([path])
        except (OSError, obstore.exceptions.BaseError) as error:
            raise StoreError(f"cannot delete in {self.root}: {self.words_of(error)}") from error

    def move(self, path: str, to: str) -> None:
        """Give a file another path, replacing what is there; do nothing if the file does not exist.

        Raises:
            StoreError: The file could not be moved.
        """
        try:
            obstore.rename(self._objects, path, to)
        except FileNotFoundError:
            return
        except (OSError, obstore.exceptions.BaseError) as error:
            raise StoreError(f"cannot move {self.location(path)}: {self.words_of(error)}") from error

    def delete_folder(self, folder: str) -> None:
        """Delete everything below a folder, and the folder itself; raises like `delete` and `list`."""
        files = self.list(folder)
        while batch := [file.path for file in islice(files, LISTED_FILES)]:
            self.delete(batch)
        if self._folder is not None:
            shutil.rmtree(self._folder / folder, ignore_errors=True)

    def folders(self, folder: str) -> Iterator[str]:
        """Yield the paths of the folders directly inside a folder; raises like `list`."""
        try:
            yield from obstore.list_with_delimiter(self._objects, prefix=folder)["common_prefixes"]
        except FileNotFoundError:
            return
        except (OSError, obstore.exceptions.BaseError) as error:
            raise StoreError(f"cannot list {self.location(folder)}: {self.words_of(error)}") from error

    def sweep(self, folder: str, older_than_s: float = 0.0, *, mark: str = "") -> None:
        """Delete unfinished files below a folder that killed writers left behind.

        The caller makes sure that nobody is writing there, or passes an age that no active writer reaches.

        Only a local disk has such files: `name.jpg#1` becomes `name.jpg` once it is complete. An object store
        hides the parts of an unfinished upload until its own lifecycle rules delete them.

        Args:
            folder: The folder.
            older_than_s: The age in seconds.
            mark: Delete only files whose path in the folder contains this.
        """
        if self._folder is None:
            return
        before = time.time() - older_than_s
        for file in self._folder.joinpath(folder).rglob("*#*"):
            with suppress(FileNotFoundError):
                is_ours = mark in str(file.relative_to(self._folder / folder))
                if is_ours and re.fullmatch(r".*#\d+", file.name) and file.stat().st_mtime <= before:
                    file.unlink()

    def list(self, folder: str) -> Iterator[StoredFile]:
        """Yield every file below a folder, in no particular order.

        Raises:
            StoreError: The listing failed.
        """
        try:
            for chunk in obstore.list(self._objects, prefix=folder, chunk_size=1000):
                for entry in chunk:
                    yield StoredFile(entry["path"], entry["size"], entry["last_modified"])
        except (OSError, obstore.exceptions.BaseError) as error:
            raise StoreError(f"cannot list {self.location(folder)}: {self.words_of(error)}") from error

    def files(self, folder: str) -> pa.Table:
        """Return every file below a folder as an Arrow table of `path` and `bytes`; raises like `list`."""
        files = self.list(folder)
        batches = []
        while batch := list(islice(files, LISTED_FILES)):
            columns = [[file.path for file in batch], [file.bytes for file in batch]]
            batches.append(pa.RecordBatch.from_arrays(list(map(pa.array, columns)), schema=FILES))
        return pa.Table.from_batches(batches, schema=FILES)


def _written_anew(file: Path, data: bytes) -> bool:
    """Create a file, and return whether it did not exist; for a moment, a reader may see it empty."""
    try:
        with file.open("xb") as new:
            new.write(data)
    except FileExistsError:
        return False
    return True


def _local_folder(root: str) -> Path | None:
    """Return the folder of a store on a local disk, or None for an object store."""
    if root.startswith("file://"):
        return Path(unquote(urlsplit(root).path))
    return None if "://" in root else Path(root).absolute()


def _open(root: str) -> Any:
    try:
        if "://" not in root:
            return obstore.store.LocalStore(Path(root).absolute(), mkdir=True)
        if wrong := wrong_variables(root, os.environ):
            raise StoreError(f"cannot open the store {root}: {'; '.join(wrong)}")
        return obstore.store.from_url(root, retry_config=RETRIES)
    except (OSError, ValueError, obstore.exceptions.BaseError) as error:
        raise StoreError(f"cannot open the store {root}: {_words_of(root, error)}") from error


def _words_of(root: str, error: Exception) -> str:
    """Return what an object store's error says in its first line, and which variables explain it.

    The full text is several pages long. Its URLs may have signatures.
    """
    text = hide_secrets(str(error)[:HIDDEN_CHARS])
    line = text.partition("\n")[0].partition(": <?xml")[0] or type(error).__name__
    hint = advice(root, text, os.environ)
    return f"{line} ({hint})" if hint else line
