"""Summarize a catalog in a few numbers, reading only the columns that these need."""

from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from imgdl_pipeline.core.catalog.audit import refreshed_at
from imgdl_pipeline.core.model.outcome import Status
from imgdl_pipeline.core.model.schemas import CATALOG
from imgdl_pipeline.core.storage.parts import catalogs_of
from imgdl_pipeline.core.storage.store import Store

_COLUMNS = pa.schema(
    [CATALOG.field(name) for name in ("status", "bytes", "last_seen")], metadata=CATALOG.metadata
)


@dataclass(frozen=True, slots=True)
class CatalogSummary:
    """The numbers of a catalog.

    Args:
        links: The number of rows.
        by_status: The number of rows with each status.
        bytes: The size of all stored images.
        refreshed_at: When the newest list in it was listed, and with shards, that of the oldest shard; None
            for an empty catalog.
    """

    links: int
    by_status: dict[str, int]
    bytes: int
    refreshed_at: datetime | None


def summarize(store: Store, gallery: str) -> CatalogSummary | None:
    """Return the numbers of a gallery's catalog, or of all of its shards' together; None without any.

    Raises:
        StoreError: A catalog could not be read.
        ReshardError: The gallery is between two numbers of shards.
    """
    found = [_summarized(catalog) for catalog in catalogs_of(store, gallery, _COLUMNS)]
    if not found:
        return None
    times = [each.refreshed_at for each in found if each.refreshed_at is not None]
    return CatalogSummary(
        links=sum(each.links for each in found),
        by_status={status.value: sum(each.by_status[status.value] for each in found) for status in Status},
        bytes=sum(each.bytes for each in found),
        refreshed_at=min(times, default=None),
    )


def _summarized(catalog: pa.Table) -> CatalogSummary:
    counted = {row["values"]: row["counts"] for row in pc.value_counts(catalog["status"]).to_pylist()}
    return CatalogSummary(
        links=catalog.num_rows,
        by_status={status.value: counted.get(status.value, 0) for status in Status},
        bytes=pc.sum(catalog["bytes"]).as_py() or 0,
        refreshed_at=refreshed_at(catalog),
    )
