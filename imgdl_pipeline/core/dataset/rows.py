"""Choose the rows of a dataset from a gallery's catalog, and give each its key and its caption.

The rows stay in the catalog's file. In memory is one byte for each, and the columns that someone is reading.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from imgdl_pipeline.core.dataset.where import GROUPS, Rows, WhereError, matching
from imgdl_pipeline.core.model.dataset_settings import DatasetSettings
from imgdl_pipeline.core.model.outcome import Status
from imgdl_pipeline.core.model.schemas import CATALOG, NEAR_DUPLICATES, columns, filter_table
from imgdl_pipeline.core.storage.arrange import Places, arranged
from imgdl_pipeline.core.storage.layout import HASH_DIGITS, NEAR_DUPLICATES_PATH, catalog_path, whole_gallery
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.removed import Removed
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline.core.storage.table_file import TableFile

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class CatalogRows:
    """Some rows of an open catalog, in its order, which are read as far as they are wanted.

    Args:
        file: The catalog.
        is_member: Which of its rows these are.
        reading: Opens a block for reading the file, which converts errors.
    """

    file: TableFile
    is_member: Mask
    reading: Callable[[], AbstractContextManager[None]] = nullcontext

    @property
    def num_rows(self) -> int:
        """The number of these rows."""
        return int(self.is_member.sum())

    def batches(self, names: Sequence[str] = CATALOG.names) -> Iterator[pa.Table]:
        """Yield some or all columns, a few thousand rows at a time.

        Raises:
            StoreError: The catalog could not be read.
        """
        start = 0
        with self.reading():
            for batch in self.file.batches(columns(CATALOG, *names)):
                here = self.is_member[start : start + batch.num_rows]
                start += batch.num_rows
                yield filter_table(batch, pa.array(here))

    def column(self, name: str) -> pa.Array:
        """Return a column, whole; raises like `batches`."""
        chunks = [chunk for batch in self.batches([name]) for chunk in batch[name].chunks]
        return pa.chunked_array(chunks, CATALOG.field(name).type).combine_chunks()

    def filter(self, is_kept: Mask) -> "CatalogRows":
        """Return those of these rows for which a mask is true."""
        is_member = self.is_member.copy()
        is_member[self.is_member] = is_kept
        return replace(self, is_member=is_member)

    def arranged(self, places: Places, names: Sequence[str] = CATALOG.names) -> Iterator[pa.Table]:
        """Yield these rows in another order, a few thousand at a time; raises like `batches`.

        Args:
            places: Each row's place in that order.
            names: The columns.
        """
        return arranged(self.batches(names), places, self.num_rows, columns(CATALOG, *names))


@contextmanager
def chosen_rows(
    store: Store, gallery: str, settings: DatasetSettings, removed: Removed
) -> Iterator[CatalogRows]:
    """Open a catalog, and give its rows whose images belong into the dataset, for the length of a block.

    Args:
        store: The store of the gallery's files.
        gallery: The gallery's name.
        settings: The dataset's settings.
        removed: What must not be kept; a catalog may still have it.

    Raises:
        StoreError: There is no catalog, or it cannot be read.
        WhereError: The settings' condition failed.
    """
    path = catalog_path(gallery)
    file = store.open_table(path)
    if file is None:
        raise StoreError(f"{store.location(path)} does not exist: run the gallery first")
    with file:
        rows = CatalogRows(file, np.ones(file.num_rows, bool), partial(store.reading, path))
        rows = rows.filter(_are_ok(rows, removed))
        if settings.where is not None:
            rows = _for_which_holds(rows, store, gallery, settings.where)
        yield rows


def _are_ok(rows: CatalogRows, removed: Removed) -> Mask:
    found = [np.empty(0, bool)]
    for batch in rows.batches(["status", *(["url", "sha256", "phash"] if removed else [])]):
        is_ok = pc.equal(batch["status"], Status.OK.value)
        if removed:
            is_ok = pc.and_(is_ok, pc.invert(removed.rows_of(batch)))
        found.append(is_ok.to_numpy())
    return np.concatenate(found)


def _for_which_holds(rows: CatalogRows, store: Store, gallery: str, where: str) -> CatalogRows:
    """Return the rows for which a condition holds.

    Raises:
        StoreError: The catalog cannot be read.
        WhereError: The condition failed.
    """

    def batches(names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        of_groups = [name for name in names if name in GROUPS.names]
        groups, start = _groups(rows, store, gallery) if of_groups else GROUPS.empty_table(), 0
        own = [name for name in names if name in CATALOG.names]
        for batch in rows.batches(own or ["status"]):
            for name in of_groups:
                column = groups[name].slice(start, batch.num_rows)
                batch = batch.append_column(GROUPS.field(name), column)
            start += batch.num_rows
            yield from batch.select(names).to_batches()

    try:
        places = matching(Rows(pa.schema([*CATALOG, *GROUPS]), batches), where)
    except WhereError as error:
        raise WhereError(f"dataset.where, {where!r}, {error}") from None
    is_kept = np.zeros(rows.num_rows, bool)
    is_kept[places] = True
    return rows.filter(is_kept)


def _groups(rows: CatalogRows, store: Store, gallery: str) -> pa.Table:
    """Return `group` and `representative` of each row, as far as near duplicates are known.

    A picture that no other looks like is in no group, and represents itself.
    """
    wanted, own = columns(NEAR_DUPLICATES, "gallery", "url", *GROUPS.names), whole_gallery(gallery)
    batches = store.batches(NEAR_DUPLICATES_PATH, wanted)
    mine = [batch.filter(pc.equal(batch["gallery"], own)) for batch in batches]
    near = pa.concat_tables([wanted.empty_table(), *mine])
    place = pc.index_in(rows.column("url"), value_set=near["url"].combine_chunks())
    group, representative = (near[name].combine_chunks().take(place) for name in GROUPS.names)
    return pa.table([group, pc.fill_null(representative, fill_value=True)], schema=GROUPS)


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
