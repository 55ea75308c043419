"""Read and write this project's Parquet tables in a store, besides files as bytes (`ObjectStore`)."""

import io
import os
from typing import IO

import obstore
import pyarrow as pa
import pyarrow.parquet as pq

from imgdl_pipeline.core.model.schemas import SCHEMA_VERSION, SCHEMA_VERSION_KEY
from imgdl_pipeline.core.model.temporary import needing_room, opened_temporary
from imgdl_pipeline.core.storage.object_store import ObjectStore, StoreError, UnreadableError

_DICTIONARY_COLUMNS = ["status", "reason", "detail", "mode"]
"""Columns with few distinct values; for other columns, a dictionary only costs time."""


SMALL_ROWS = 100_000
"""Rows that are read without threads of Arrow's. One that lets go of our bytes while Python ends its process
aborts the process, which happened to one command in a hundred."""


def parquet_writer(file: IO[bytes], schema: pa.Schema) -> pq.ParquetWriter:
    """Return a writer of one of the project's Parquet files, which is written batch by batch."""
    return pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=_DICTIONARY_COLUMNS)


def write_parquet(file: IO[bytes], table: pa.Table) -> None:
    """Write a table to a temporary file as one of the project's Parquet files.

    Raises:
        ResourceError: The file could not be written.
    """
    with needing_room():
        pq.write_table(table, file, compression="zstd", use_dictionary=_DICTIONARY_COLUMNS)


class Store(ObjectStore):
    """A store that reads and writes the project's Parquet files, and checks their schema versions.

    Args:
        root: A folder, or `s3://bucket/prefix`, `gs://…`, `az://…`.

    Raises:
        StoreError: The store cannot be opened.
    """

    def read_table(self, path: str, schema: pa.Schema) -> pa.Table | None:
        """Read one of the project's Parquet files, or return None if it does not exist yet.

        Args:
            path: The file's path.
            schema: The columns to read: some or all of the file's.

        Raises:
            StoreError: The file could not be read, or its version is not supported.
        """
        data = self._get(path)
        if data is None:
            return None
        try:
            file = pq.ParquetFile(pa.BufferReader(pa.py_buffer(data)))
            there = set(file.schema_arrow.names)
            columns = [name for name in schema.names if name in there]
            table = file.read(columns, use_threads=file.metadata.num_rows > SMALL_ROWS)
        except (pa.ArrowException, OSError) as error:
            raise UnreadableError(f"{self.location(path)} is not a Parquet file: {error}") from error
        return self._upgraded(path, table, schema)

    def metadata(self, path: str) -> dict[bytes, bytes] | None:
        """Return the schema metadata of one of the project's Parquet files, or None if there is none yet.

        Raises:
            StoreError: The file could not be read.
        """
        data = self._get(path)
        if data is None:
            return None
        try:
            known: dict[bytes, bytes] = dict(
                pq.read_schema(pa.BufferReader(pa.py_buffer(data))).metadata or {}
            )
        except (pa.ArrowException, OSError) as error:
            raise UnreadableError(f"{self.location(path)} is not a Parquet file: {error}") from error
        return known

    def _upgraded(self, path: str, table: pa.Table, schema: pa.Schema) -> pa.Table:
        """Convert a table to this version's schema; columns that an older file lacks become null."""
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
        """Write a Parquet file, whole or not at all; do not touch an existing file with the same bytes.

        Raises:
            StoreError: The file was not stored.
        """
        with opened_temporary() as file:
            write_parquet(file, table)
            self.write_file(path, file)

    def write_file(self, path: str, file: IO[bytes]) -> None:
        """Store a file, whole or not at all; do not touch an existing file with the same bytes.

        Raises:
            StoreError: The file was not stored.
        """
        file.seek(0, io.SEEK_END)
        if not self._holds(path, file):
            file.seek(0)
            self.put(path, file)
            self._make_durable(path)

    def _make_durable(self, path: str) -> None:
        """Sync a file to disk, so that it survives a power failure; an object store does so by itself."""
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
        """Return whether a stored file has exactly these bytes."""
        try:
            size = obstore.head(self._objects, path)["size"]
        except FileNotFoundError:
            return False
        except (OSError, obstore.exceptions.BaseError) as error:
            raise StoreError(f"cannot read {self.location(path)}: {self.words_of(error)}") from error
        if size != file.tell():
            return False
        file.seek(0)
        return file.read() == self.get(path)
