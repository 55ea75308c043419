"""Read and write this project's Parquet tables in a store, besides files as bytes (`ObjectStore`)."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from imgdl_pipeline.core.model.schemas import BATCH_ROWS, SCHEMA_VERSION, SCHEMA_VERSION_KEY
from imgdl_pipeline.core.model.temporary import needing_room, opened_temporary
from imgdl_pipeline.core.storage.object_store import ObjectStore, StoreError, UnreadableError
from imgdl_pipeline.core.storage.table_file import TableFile

_DICTIONARY_COLUMNS = ["status", "reason", "detail", "mode"]
"""Columns with few distinct values; for other columns, a dictionary only costs time."""


def parquet_writer(file: IO[bytes], schema: pa.Schema) -> pq.ParquetWriter:
    """Return a writer of one of the project's Parquet files, which is written batch by batch."""
    return pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=_DICTIONARY_COLUMNS)


def write_parquet(file: IO[bytes], table: pa.Table) -> None:
    """Write a table to a temporary file as one of the project's Parquet files.

    Raises:
        ResourceError: The file could not be written.
    """
    with needing_room():
        pq.write_table(
            table, file, row_group_size=BATCH_ROWS, compression="zstd", use_dictionary=_DICTIONARY_COLUMNS
        )


def write_batches(file: IO[bytes], schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    """Write tables of any size to a temporary file as one of the project's Parquet files.

    Row groups have `BATCH_ROWS` rows, however the rows come, so that equal rows give equal files.

    Raises:
        ResourceError: The file could not be written.
    """
    with parquet_writer(file, schema) as writer:
        waiting, rows = [schema.empty_table()], 0
        for table in tables:
            waiting.append(table)
            rows += table.num_rows
            while rows >= BATCH_ROWS:
                whole = pa.concat_tables(waiting)
                with needing_room():
                    writer.write_table(whole.slice(0, BATCH_ROWS), row_group_size=BATCH_ROWS)
                waiting, rows = [whole.slice(BATCH_ROWS)], rows - BATCH_ROWS
                del whole
                pa.default_memory_pool().release_unused()
        with needing_room():
            writer.write_table(pa.concat_tables(waiting), row_group_size=BATCH_ROWS)


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
        with self.reading(path):
            file = self.open_table(path)
            if file is None:
                return None
            with file:
                return file.read(schema)

    def open_table(self, path: str) -> TableFile | None:
        """Open one of the project's Parquet files, or return None if it does not exist yet.

        Read it inside of `reading`, which names the file in errors.

        Raises:
            StoreError: The file could not be read.
        """
        with self.reading(path):
            data = self.snapshot(path)
            if data is None:
                return None
            return TableFile(data, lambda table, schema: self._upgraded(path, table, schema))

    @contextmanager
    def reading(self, path: str) -> Iterator[None]:
        """Convert errors of Arrow to an UnreadableError that names the file."""
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            raise UnreadableError(f"{self.location(path)} is not a Parquet file: {error}") from error

    def batches(self, path: str, schema: pa.Schema) -> Iterator[pa.Table]:
        """Yield the rows of a Parquet file, a few thousand at a time; none if it does not exist.

        Raises:
            StoreError: The file could not be read, or its version is not supported.
        """
        file = self.open_table(path)
        if file is not None:
            with file, self.reading(path):
                yield from file.batches(schema)

    def metadata(self, path: str) -> dict[bytes, bytes] | None:
        """Return the schema metadata of one of the project's Parquet files, or None if there is none yet.

        Raises:
            StoreError: The file could not be read.
        """
        file = self.open_table(path)
        if file is None:
            return None
        with file:
            return file.metadata

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
        if not self.holds(path, file):
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
