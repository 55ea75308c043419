"""Choose the rows of a dataset from a gallery's catalog, and give each its key and its caption."""

import hashlib
import json
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from imgdl_pipeline.core.dataset.where import GROUPS, WhereError, matching
from imgdl_pipeline.core.model.dataset_settings import DatasetSettings
from imgdl_pipeline.core.model.outcome import Status
from imgdl_pipeline.core.model.schemas import CATALOG, NEAR_DUPLICATES, take_column
from imgdl_pipeline.core.storage.layout import HASH_DIGITS, NEAR_DUPLICATES_PATH, catalog_path, whole_gallery
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.removed import Removed
from imgdl_pipeline.core.storage.store import Store


def chosen_rows(store: Store, gallery: str, settings: DatasetSettings, removed: Removed) -> pa.Table:
    """Return the catalog's rows, as CATALOG and in its order, whose images belong into the dataset.

    Args:
        store: The store of the gallery's files.
        gallery: The gallery's name.
        settings: The dataset's settings.
        removed: What must not be kept; a catalog may still have it.

    Raises:
        StoreError: There is no catalog, or it cannot be read.
        WhereError: The settings' condition failed.
    """
    catalog = store.read_table(catalog_path(gallery), CATALOG)
    if catalog is None:
        raise StoreError(f"{store.location(catalog_path(gallery))} does not exist: run the gallery first")
    is_ok = pc.and_(pc.equal(catalog["status"], Status.OK.value), pc.invert(removed.rows_of(catalog)))
    rows = take_rows(catalog, pc.indices_nonzero(is_ok))
    if settings.where is None:
        return rows
    try:
        return take_rows(rows, matching(_with_groups(store, gallery, rows), settings.where))
    except WhereError as error:
        raise WhereError(f"dataset.where, {settings.where!r}, {error}") from None


def take_rows(table: pa.Table, places: pa.Array) -> pa.Table:
    """Return the rows at some places, whatever the size of their texts."""
    return pa.table([take_column(each, places) for each in table.columns], schema=table.schema)


def _with_groups(store: Store, gallery: str, rows: pa.Table) -> pa.Table:
    """Return rows with `group` and `representative` if near duplicates are known.

    A picture that no other looks like is in no group, and represents itself.
    """
    near = store.read_table(NEAR_DUPLICATES_PATH, NEAR_DUPLICATES)
    if near is None:
        near = NEAR_DUPLICATES.empty_table()
    near = near.filter(pc.equal(near["gallery"], whole_gallery(gallery)))
    place = pc.index_in(rows["url"], value_set=near["url"].combine_chunks())
    group, representative = (near[name].combine_chunks().take(place) for name in GROUPS.names)
    return rows.append_column(GROUPS.field("group"), group).append_column(
        GROUPS.field("representative"), pc.fill_null(representative, fill_value=True)
    )


def key_of(url: str) -> str:
    """Return the key of a link's sample: the first 20 hex digits of the link's SHA-256."""
    return hashlib.sha256(url.encode()).hexdigest()[:HASH_DIGITS]


def caption_of(row: dict[str, Any], caption: str | None) -> str | None:
    """Return a row's caption, or None if it has none.

    Args:
        row: A row of the catalog.
        caption: A column, or `attributes`, `embedded` or `exif` and a name in it, with a dot between them.
    """
    if caption is None:
        return None
    column, _, name = caption.partition(".")
    value = row[column]
    if name and value is not None:
        value = json.loads(value).get(name)
    parts = value if isinstance(value, list) else [value]
    text = ", ".join(str(each) for each in parts if _is_text(each)).strip()
    return text.encode("utf-8", "replace").decode() or None


def _is_text(value: Any) -> bool:
    """Return whether a value is one that a person would read out."""
    return isinstance(value, (str, int, float, datetime)) and not isinstance(value, bool)
