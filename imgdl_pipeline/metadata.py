"""Build the metadata of materializations: numbers for plots, the column schema, and the file's location."""

import base64
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from imgdl_pipeline.core.catalog.build import CatalogRun
from imgdl_pipeline.core.catalog.stored import StoredCatalog
from imgdl_pipeline.core.dataset.export import DatasetRun
from imgdl_pipeline.core.download.run import DownloadRun
from imgdl_pipeline.core.listing.build import list_warnings
from imgdl_pipeline.core.listing.shards import ShardsListed
from imgdl_pipeline.core.model.outcome import Status
from imgdl_pipeline.core.model.schemas import CATALOG, DOWNLOADS, LINKS, descriptions
from imgdl_pipeline.core.model.shown import shown
from imgdl_pipeline.core.near_duplicates.groups import NearDuplicates

Metadata = dict[str, Any]


def column_schema(schema: pa.Schema) -> dg.TableSchema:
    """Convert a Parquet schema to Dagster's TableSchema."""
    described = descriptions(schema)
    return dg.TableSchema(
        columns=[
            dg.TableColumn(name, type=str(schema.field(name).type), description=described[name])
            for name in schema.names
        ]
    )


def table_metadata(rows: int, schema: pa.Schema, location: str) -> Metadata:
    """Return the row count, columns and location of a Parquet file."""
    return {
        "dagster/row_count": rows,
        "dagster/column_schema": column_schema(schema),
        "path": dg.MetadataValue.path(location),
    }


def counts(table: pa.Table) -> dict[str, int]:
    """Count rows by status (every status) and by `status/reason`, the most frequent first, ties by name."""
    by_status = {status.value: 0 for status in Status}
    by_reason: dict[str, int] = {}
    groups = table.group_by(["status", "reason"]).aggregate([([], "count_all")]).to_pylist()
    for group in sorted(groups, key=lambda group: (-group["count_all"], group["reason"] or "")):
        by_status[group["status"]] += group["count_all"]
        if group["reason"] is not None:
            by_reason[f"{group['status']}/{group['reason']}"] = group["count_all"]
    return by_status | by_reason


def links_metadata(links: pa.Table, location: str) -> Metadata:
    """Return the metadata of `gallery_links`; `links` is what `list_gallery` returns."""
    warnings = list_warnings(links)
    said = {"warnings": markdown_table(["warning"], [[words] for words in warnings])} if warnings else {}
    return {**table_metadata(links.num_rows, LINKS, location), "links": links.num_rows, **said}


SHOWN_HOSTS = 20


def shards_metadata(listed: ShardsListed, folder: str) -> Metadata:
    """Return the metadata of `gallery_list`; `folder` is where the lists of the shards are."""
    split = listed.split
    spread = split.places.spread_hosts()
    hosts = [[host, links, spread.get(host, 1)] for host, links in split.hosts.most_common(SHOWN_HOSTS)]
    warnings = [[words] for words in listed.warnings]
    return {
        "path": dg.MetadataValue.path(folder),
        "dagster/row_count": sum(split.links),
        "dagster/column_schema": column_schema(LINKS),
        "links": sum(split.links),
        "repeated": split.given - sum(split.links),
        "shards": len(split.links),
        "links_in_smallest_shard": min(split.links),
        "links_in_largest_shard": max(split.links),
        "hosts": len(split.hosts),
        "largest_hosts": markdown_table(["host", "links", "shards"], hosts),
        "seconds": round(listed.seconds, 3),
        **({"warnings": markdown_table(["warning"], warnings)} if warnings else {}),
    }


def images_metadata(run: DownloadRun, location: str) -> Metadata:
    """Return the metadata of `gallery_images`: the contents of the ledger, and what this run did."""
    failures, rows = failures_markdown(run.without_image()), run.rows("status", "reason")
    tried, fetched, counted = run.tried_rows("attempts", "elapsed_s"), run.fetched_rows("bytes"), counts(rows)
    per_second = fetched.num_rows / run.seconds if run.seconds else 0.0
    return {
        "failures": dg.MetadataValue.md(failures),
        **table_metadata(rows.num_rows, DOWNLOADS, location),
        **counted,
        "share_failed": round(share_failed(counted), 4),
        "tried": tried.num_rows,
        "fetched": fetched.num_rows,
        "waiting": run.waiting,
        "bytes": pc.sum(fetched["bytes"]).as_py() or 0,
        "images_per_second": round(per_second, 2),
        "seconds": round(run.seconds, 3),
        **_latency(tried),
    }


def share_failed(counted: dict[str, int]) -> float:
    """Return the share of failed rows in the result of `counts`; 0 if there are no rows."""
    total = sum(counted[status.value] for status in Status)
    return counted[Status.FAILED.value] / total if total else 0.0


def _latency(tried: pa.Table) -> Metadata:
    """Return percentiles of the seconds per link, over the links that were requested at all."""
    elapsed = tried.filter(pc.greater(tried["attempts"], 0))["elapsed_s"]
    if not len(elapsed):
        return {}
    p50, p95, p99 = pc.quantile(elapsed, q=[0.5, 0.95, 0.99]).to_pylist()
    return {"latency_p50_s": round(p50, 4), "latency_p95_s": round(p95, 4), "latency_p99_s": round(p99, 4)}


def catalog_metadata(run: CatalogRun, stored: StoredCatalog, location: str, sheet: bytes | None) -> Metadata:
    """Return the metadata of `gallery_catalog`.

    Args:
        run: The run.
        stored: The catalog.
        location: Where the catalog is stored.
        sheet: A JPEG of its newest images.
    """
    failures = failures_markdown(stored.without_image())
    names = (batch["duplicate_of"] for batch in stored.batches("duplicate_of"))
    duplicates = sum(len(each) - each.null_count for each in names)
    catalog = stored.rows("status", "reason", "bytes", "attempts", "elapsed_s")
    counted = counts(catalog)
    return {
        **({"contact_sheet": dg.MetadataValue.md(picture_markdown(sheet))} if sheet else {}),
        "failures": dg.MetadataValue.md(failures),
        **table_metadata(catalog.num_rows, CATALOG, location),
        **counted,
        "new": run.new,
        "share_failed": round(share_failed(counted), 4),
        "duplicates": duplicates,
        "bytes": pc.sum(catalog["bytes"]).as_py() or 0,
        "checked": run.checked,
        "images_per_second": round(run.checked / run.seconds, 2) if run.seconds else 0.0,
        "seconds": round(run.seconds, 3),
        **_latency(catalog),
    }


def dataset_metadata(run: DatasetRun, location: str) -> Metadata:
    """Return the metadata of `gallery_dataset`: what is in it, and what this run wrote."""
    settings = run.manifest.settings
    licences = [[license_id or "none known", count] for license_id, count in run.licenses.most_common(20)]
    return {
        "path": dg.MetadataValue.path(location),
        "dagster/row_count": run.images,
        "format": settings.format,
        "images": run.images,
        "bytes": run.bytes,
        "files": len(run.manifest.files),
        "written": run.written,
        "missing": len(run.missing),
        "licences": markdown_table(["licence", "images"], licences),
        "settings": dg.MetadataValue.json(settings.model_dump(mode="json")),
        "seconds": round(run.seconds, 3),
    }


def near_duplicates_metadata(found: NearDuplicates, location: str, sheet: bytes | None) -> Metadata:
    """Return the metadata of `near_duplicates`; `sheet` is a JPEG with a row for each large group."""
    return {
        **(
            {"largest_groups": dg.MetadataValue.md(picture_markdown(sheet, "the largest groups"))}
            if sheet
            else {}
        ),
        "groups_by_size": markdown_table(
            ["group", "images", "representative"],
            [[each.number, each.images, each.members[0].url] for each in found.largest],
        ),
        "path": dg.MetadataValue.path(location),
        "dagster/row_count": found.grouped,
        "images": found.images,
        "groups": found.groups,
        "grouped": found.grouped,
        "searched": found.searched,
        "seconds": round(found.seconds, 3),
    }


def format_counts(table: pa.Table) -> str:
    """Return the counts of rows by status and reason, in one line for a log."""
    return ", ".join(f"{count} {name}" for name, count in counts(table).items() if count) or "none"


def picture_markdown(jpeg: bytes, alt: str = "the newest images") -> str:
    """Return a picture as inline Markdown, because the UI shows no pictures from a disk."""
    return f"![{alt}](data:image/jpeg;base64,{base64.b64encode(jpeg).decode()})"


WORST_HOSTS = 10


def failures_markdown(table: pa.Table, none: str = "Every link has its image.") -> str:
    """Return tables of links without an image: by reason, and the ten worst hosts; `none` if all have one."""
    without = table.filter(pc.not_equal(table["status"], Status.OK.value))
    if not without.num_rows:
        return none
    by_reason = without.group_by(["status", "reason"], use_threads=False)
    reasons = by_reason.aggregate([([], "count_all"), ("detail", "first"), ("url", "first")]).to_pylist()
    reasons.sort(key=lambda row: (-row["count_all"], row["reason"]))
    hosts = pc.extract_regex(without["url"], r"^\w+://(?P<host>[^/?#]*)").combine_chunks()
    counted = pc.value_counts(pc.fill_null(pc.struct_field(hosts, "host"), "no host")).to_pylist()
    counted.sort(key=lambda row: (-row["counts"], row["values"]))
    return "\n\n".join(
        [
            _markdown(
                ["reason", "links", "for example", "of"],
                [
                    [
                        f"{row['status']}/{row['reason']}",
                        row["count_all"],
                        row["detail_first"],
                        row["url_first"],
                    ]
                    for row in reasons
                ],
            ),
            _markdown(
                ["host", "links without an image"],
                [[row["values"], row["counts"]] for row in counted[:WORST_HOSTS]],
            ),
        ]
    )


def markdown_table(header: list[str], rows: list[list[Any]]) -> dg.MarkdownMetadataValue:
    """Return a table as Markdown for the UI."""
    return dg.MetadataValue.md(_markdown(header, rows) if rows else "none")


def _markdown(header: list[str], rows: list[list[Any]]) -> str:
    lines = [header, ["---"] * len(header), *([_cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


SHOWN_CHARS = 160


def _cell(value: Any) -> str:
    """Return a table cell. Text is untrusted: as code, it cannot become a link, a picture or another cell."""
    if isinstance(value, int):
        return str(value)
    plain = shown(str(value or ""), SHOWN_CHARS)
    text = " ".join(plain.replace("`", "'").replace("|", "¦").split())
    return f"`{text}`" if text else ""
