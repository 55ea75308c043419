"""Rows of the ledger and the catalog, with what a test wants of them."""

from datetime import datetime, timezone

import pyarrow as pa
import pyarrow.parquet as pq

from imgdl_pipeline.core.model.schemas import CATALOG
from imgdl_pipeline.core.storage.lease import _held
from imgdl_pipeline.core.storage.ledger import Download
from imgdl_pipeline.core.storage.table_file import TableFile

NOW = datetime(2026, 11, 22, tzinfo=timezone.utc)


def row(url, **changes):
    return Download(
        **{"url": url, "status": "ok", "tried_at": NOW, "attempts": 1, "elapsed_s": 0.1, **changes}
    )


def kill(ledger):
    """Let a ledger's lease be as that of a process that is gone."""
    ledger._lease._released.set()
    _held.discard(ledger._lease._identity)


def file_of(table):
    """A table as an open Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return TableFile(pa.BufferReader(sink.getvalue()), lambda batch, schema: batch.select(schema.names))


def catalog_of(*rows):
    """A catalog of ok rows, each with what is said of it."""
    return pa.Table.from_pylist([{"status": "ok", **row} for row in rows], schema=CATALOG)
