"""Summarize a catalog in a few numbers, reading only the columns that these need."""

from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from imgdl_pipeline.core.catalog.audit import refreshed_at
from imgdl_pipeline.core.model.outcome import Status
from imgdl_pipeline.core.model.schemas import CATALOG
from imgdl_pipeline.core.storage.layout import catalog_path
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
        refreshed_at: When the newest list in it was listed; None for an empty catalog.
    """

    links: int
    by_status: dict[str, int]
    bytes: int
    refreshed_at: datetime | None


def summarize(store: Store, gallery: str) -> CatalogSummary | None:
    """Return the numbers of a gallery's catalog, or None if there is no catalog yet.

    Raises:
        StoreError: The catalog could not be read.
    """
    catalog = store.read_table(catalog_path(gallery), _COLUMNS)
    if catalog is None:
        return None
    counted = {row["values"]: row["counts"] for row in pc.value_counts(catalog["status"]).to_pylist()}
    return CatalogSummary(
        links=catalog.num_rows,
        by_status={status.value: counted.get(status.value, 0) for status in Status},
        bytes=pc.sum(catalog["bytes"]).as_py() or 0,
        refreshed_at=refreshed_at(catalog),
    )
