"""Save the progress of a long step as numbered Parquet files beside its result, until the result is written.

A killed run loses only the work after its last checkpoint. Files are only added and deleted, never appended
to, because object stores support no appending.
"""

import logging
import re
import time
from collections.abc import Iterator

import pyarrow as pa

from imgdl_pipeline.core.model.temporary import opened_temporary
from imgdl_pipeline.core.storage.object_store import UnreadableError
from imgdl_pipeline.core.storage.store import Store, write_batches

logger = logging.getLogger(__name__)

CHECKPOINT_S = 2.0
"""Seconds between two checkpoints."""

FILES = 100
"""How many small files are merged into one; otherwise a run of days would leave tens of thousands."""

_NAME = re.compile(r"(\d+)-\d+\.parquet")


class Checkpoints:
    """The checkpoints of one step of one gallery.

    Args:
        store: The store that holds the checkpoints.
        folder: The folder of the checkpoints.
        schema: The schema of their tables.

    Raises:
        StoreError: The checkpoints could not be listed.
    """

    def __init__(self, store: Store, folder: str, schema: pa.Schema) -> None:
        self._store = store
        self._folder = folder
        self._schema = schema
        names = (file.path for file in store.list(folder))
        self._paths = sorted(path for path in names if _NAME.fullmatch(path.rpartition("/")[2]))
        self._small: list[str] = []
        self._damaged: set[str] = set()
        self._number = max(
            (int(path.rpartition("/")[2].partition("-")[0]) for path in self._paths), default=0
        )

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self._paths)

    def tables(self, schema: pa.Schema | None = None) -> Iterator[pa.Table]:
        """Yield all saved tables, the oldest first, without files damaged by a power failure.

        Args:
            schema: The columns to return; None for all. All are read, to find out what is damaged.
        """
        names = (schema or self._schema).names
        for path in self._readable():
            try:
                rows = [batch.select(names) for batch in self._store.batches(path, self._schema)]
            except UnreadableError as error:
                logger.warning("a checkpoint is left out: %s", error)
                self._damaged.add(path)
                continue
            yield pa.concat_tables([(schema or self._schema).empty_table(), *rows])

    def batches(self) -> Iterator[pa.Table]:
        """Yield the rows of all saved tables, a few thousand at a time.

        Raises:
            UnreadableError: A file is damaged that `tables` has not found to be so.
        """
        for path in self._readable():
            yield from self._store.batches(path, self._schema)

    def _readable(self) -> list[str]:
        return [path for path in self._paths if path not in self._damaged]

    def add(self, table: pa.Table) -> None:
        """Save a table.

        Raises:
            StoreError: The table could not be stored.
        """
        self._small.append(self._write(table))
        if len(self._small) == FILES:
            with opened_temporary() as file:
                write_batches(file, self._schema, self._small_rows())
                path = self._next_path()
                self._store.write_file(path, file)
            self._paths.append(path)
            self._delete(self._small)
            self._small = []

    def clear(self) -> None:
        """Delete all checkpoints, once their result is written."""
        self._delete(list(self._paths))
        self._small = []

    def _write(self, table: pa.Table) -> str:
        path = self._next_path()
        self._store.write_table(path, table)
        self._paths.append(path)
        return path

    def _small_rows(self) -> Iterator[pa.Table]:
        for path in self._small:
            yield from self._store.batches(path, self._schema)

    def _next_path(self) -> str:
        self._number += 1
        return f"{self._folder}/{self._number:06d}-{time.time_ns()}.parquet"

    def _delete(self, paths: list[str]) -> None:
        self._store.delete(paths)
        self._paths = [path for path in self._paths if path not in paths]
