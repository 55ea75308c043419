"""Read a Parquet file column by column and batch by batch, so that memory does not grow with long texts."""

from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from imgdl_pipeline.core.model.schemas import BATCH_ROWS

BUFFER_BYTES = 1 << 16
"""Bytes of a column that are read at a time. Older versions wrote row groups of a million rows."""

SMALL_ROWS = 100_000
"""Rows that are read without threads of Arrow's. One that lets go of our bytes while Python ends its process
aborts the process, which happened to one command in a hundred."""

BATCHES_HELD = 8
"""Batches after which free memory is returned to the system: else each thread keeps what it has freed."""

Upgrade = Callable[[pa.Table, pa.Schema], pa.Table]


class TableFile:
    """One of the project's Parquet files, open for reading. Use it in a `with` block.

    It is a snapshot: a file that is replaced meanwhile does not change it.

    Args:
        file: The open file.
        upgrade: Converts what was read to a selection of this version's columns.

    Raises:
        pyarrow.ArrowException, OSError: It is not a Parquet file.
    """

    def __init__(self, file: pa.NativeFile, upgrade: Upgrade) -> None:
        self._file = file
        self._parquet = pq.ParquetFile(file, buffer_size=BUFFER_BYTES, pre_buffer=False)
        self._names = set(self._parquet.schema_arrow.names)
        self._upgrade = upgrade

    def __enter__(self) -> "TableFile":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._parquet.close(force=True)
        self._file.close()

    @property
    def num_rows(self) -> int:
        """The number of rows."""
        rows: int = self._parquet.metadata.num_rows
        return rows

    @property
    def _uses_threads(self) -> bool:
        return self.num_rows > SMALL_ROWS

    @property
    def metadata(self) -> dict[bytes, bytes]:
        """The metadata of the file's schema."""
        return dict(self._parquet.schema_arrow.metadata or {})

    def read(self, schema: pa.Schema) -> pa.Table:
        """Return some or all columns, whole."""
        table = self._parquet.read(self._there(schema), use_threads=self._uses_threads)
        return self._upgrade(table, schema)

    def batches(self, schema: pa.Schema, rows: int = BATCH_ROWS) -> Iterator[pa.Table]:
        """Yield some or all columns, so many rows at a time."""
        batches = self._parquet.iter_batches(
            rows, columns=self._there(schema), use_threads=self._uses_threads
        )
        for number, batch in enumerate(batches, start=1):
            yield self._upgrade(pa.Table.from_batches([batch]), schema)
            if number % BATCHES_HELD == 0:
                pa.default_memory_pool().release_unused()

    def _there(self, schema: pa.Schema) -> list[str]:
        return [name for name in schema.names if name in self._names]


def empty_table_file(schema: pa.Schema) -> TableFile:
    """Return a file without rows, in place of one that does not exist yet."""
    sink = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), sink)
    return TableFile(pa.BufferReader(sink.getvalue()), lambda table, _: table)
