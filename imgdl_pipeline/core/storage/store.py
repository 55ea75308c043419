"""The store: files as bytes (`ObjectStore`), and Parquet tables of this project."""

import os
import tempfile
from typing import IO

import obstore
import pyarrow as pa
import pyarrow.parquet as pq

from imgdl_pipeline.core.model.schemas import SCHEMA_VERSION, SCHEMA_VERSION_KEY
from imgdl_pipeline.core.storage.object_store import ObjectStore, StoreError, UnreadableError, first_line

_DICTIONARY_COLUMNS = ["status", "reason", "detail", "mode"]
"""Columns of few distinct values; for the others a dictionary only costs time."""


class Store(ObjectStore):
    """A store that knows the project's Parquet files, and their versions.

    Args:
        root: A folder, or `s3://bucket/prefix`, `gs://…`, `az://…`.

    Raises:
        StoreError: It cannot be opened.
    """

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
            raise StoreError(f"cannot read {self.location(path)}: {first_line(error)}") from error
        if size != file.tell():
            return False
        file.seek(0)
        return file.read() == self.get(path)
