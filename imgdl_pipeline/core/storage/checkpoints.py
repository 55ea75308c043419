"""Save the progress of a long step as numbered Parquet files beside its result, until the result is written.

A killed run loses only the work after its last checkpoint. Files are only added and deleted, never appended
to, because object stores support no appending.
"""

import logging
import re
import time

import pyarrow as pa

from imgdl_pipeline.core.storage.object_store import UnreadableError
from imgdl_pipeline.core.storage.store import Store

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
        self._number = max(
            (int(path.rpartition("/")[2].partition("-")[0]) for path in self._paths), default=0
        )

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self._paths)

    def tables(self) -> list[pa.Table]:
        """Return all saved tables, the oldest first, without files damaged by a power failure."""
        return [table for path in self._paths for table in self._read(path)]

    def add(self, table: pa.Table) -> None:
        """Save a table.

        Raises:
            StoreError: The table could not be stored.
        """
        self._small.append(self._write(table))
        if len(self._small) == FILES:
            self._write(pa.concat_tables(table for path in self._small for table in self._read(path)))
            self._delete(self._small)
            self._small = []

    def clear(self) -> None:
        """Delete all checkpoints, once their result is written."""
        self._delete(list(self._paths))
        self._small = []

    def _write(self, table: pa.Table) -> str:
        self._number += 1
        path = f"{self._folder}/{self._number:06d}-{time.time_ns()}.parquet"
        self._store.write_table(path, table)
        self._paths.append(path)
        return path

    def _read(self, path: str) -> list[pa.Table]:
        try:
            table = self._store.read_table(path, self._schema)
        except UnreadableError as error:
            logger.warning("a checkpoint is left out: %s", error)
            return []
        return [] if table is None else [table]

    def _delete(self, paths: list[str]) -> None:
        self._store.delete(paths)
        self._paths = [path for path in self._paths if path not in paths]
