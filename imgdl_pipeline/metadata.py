"""What a materialization says of itself: numbers that plot, the column schema, and where the file lies."""

from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from imgdl_pipeline.core.catalog import CatalogRun
from imgdl_pipeline.core.columns import CATALOG, DOWNLOADS, LINKS, descriptions
from imgdl_pipeline.core.downloads import DownloadRun
from imgdl_pipeline.core.outcome import Status

Metadata = dict[str, Any]


def column_schema(schema: pa.Schema) -> dg.TableSchema:
    """A Parquet schema as Dagster shows it."""
    described = descriptions(schema)
    return dg.TableSchema(
        columns=[
            dg.TableColumn(name, type=str(schema.field(name).type), description=described[name])
            for name in schema.names
        ]
    )


def table_metadata(table: pa.Table, schema: pa.Schema, location: str) -> Metadata:
    """Rows, columns and place of a Parquet file."""
    return {
        "dagster/row_count": table.num_rows,
        "dagster/column_schema": column_schema(schema),
        "path": dg.MetadataValue.path(location),
    }


def counts(table: pa.Table) -> dict[str, int]:
    """Rows by status, each status named, and by `status/reason`, the frequent ones first, equals by name."""
    by_status = {status.value: 0 for status in Status}
    by_reason: dict[str, int] = {}
    groups = table.group_by(["status", "reason"]).aggregate([([], "count_all")]).to_pylist()
    for group in sorted(groups, key=lambda group: (-group["count_all"], group["reason"] or "")):
        by_status[group["status"]] += group["count_all"]
        if group["reason"] is not None:
            by_reason[f"{group['status']}/{group['reason']}"] = group["count_all"]
    return by_status | by_reason


def links_metadata(links: pa.Table, location: str) -> Metadata:
    """Of `gallery_links`."""
    return {**table_metadata(links, LINKS, location), "links": links.num_rows}


def images_metadata(run: DownloadRun, location: str) -> Metadata:
    """Of `gallery_images`: what the ledger holds, and what this run did."""
    fetched = run.fetched
    per_second = fetched.num_rows / run.seconds if run.seconds else 0.0
    return {
        **table_metadata(run.ledger, DOWNLOADS, location),
        **counts(run.ledger),
        "tried": run.tried.num_rows,
        "fetched": fetched.num_rows,
        "bytes": pc.sum(fetched["bytes"]).as_py() or 0,
        "images_per_second": round(per_second, 2),
        "seconds": round(run.seconds, 3),
        **_latency(run.tried),
    }


def _latency(tried: pa.Table) -> Metadata:
    """Percentiles of the seconds that a link took, over those that were asked for at all."""
    elapsed = tried.filter(pc.greater(tried["attempts"], 0))["elapsed_s"]
    if not len(elapsed):
        return {}
    p50, p95, p99 = pc.quantile(elapsed, q=[0.5, 0.95, 0.99]).to_pylist()
    return {"latency_p50_s": round(p50, 4), "latency_p95_s": round(p95, 4), "latency_p99_s": round(p99, 4)}


def catalog_metadata(run: CatalogRun, location: str) -> Metadata:
    """Of `gallery_catalog`."""
    catalog = run.catalog
    counted = counts(catalog)
    failed = counted[Status.FAILED.value]
    return {
        **table_metadata(catalog, CATALOG, location),
        **counted,
        "share_failed": round(failed / catalog.num_rows, 4) if catalog.num_rows else 0.0,
        "duplicates": catalog.num_rows - catalog["duplicate_of"].null_count,
        "bytes": pc.sum(catalog["bytes"]).as_py() or 0,
        "checked": run.checked,
        "images_per_second": round(run.checked / run.seconds, 2) if run.seconds else 0.0,
        "seconds": round(run.seconds, 3),
    }
