"""Choose and prepare the rows of a gallery's page: what is filtered by, and what is shown of each row.

All text is strangers' text: it is cut, and secrets in it are hidden, because pages are handed on.
"""

import json
import math
from datetime import datetime
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from imgdl_pipeline.core.model.schemas import CATALOG, NEAR_DUPLICATES, columns, descriptions
from imgdl_pipeline.core.model.shown import hide_secrets
from imgdl_pipeline.core.storage.arrange import NOWHERE, arranged
from imgdl_pipeline.core.storage.layout import NEAR_DUPLICATES_PATH, whole_gallery
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline.core.storage.table_file import TableFile

TEXT_CHARS = 2_000
"""The most characters that are shown of a value."""

READ_CHARS = 10_000
"""The characters of a value in which secrets are looked for before it is cut."""

NAME_CHARS = 120
CUT = "…"
"""What ends a text that was cut, and stands for a secret: the page makes no link of a URL that has it."""

NearDuplicates = dict[str, dict[str, Any]]
"""By url: the image's sha256, and the columns of NEAR_DUPLICATES that the page shows."""

GROUPED = ("group", "distance", "representative")


def newest_rows(catalog: TableFile, limit: int) -> pa.Table:
    """Return up to `limit` rows, the newest first: by when an image came, or else its link was first seen."""
    order = _newest_first(catalog.read(columns(CATALOG, "fetched_at", "first_seen")), limit)
    places = np.full(catalog.num_rows, NOWHERE, np.int64)
    places[order.to_numpy()] = np.arange(len(order))
    pieces = arranged(catalog.batches(CATALOG), places, len(order), CATALOG)
    return pa.concat_tables([CATALOG.empty_table(), *pieces])


def newer_rows(some: pa.Table | None, others: pa.Table, limit: int) -> pa.Table:
    """Return the newest rows of two results of `newest_rows`, of which the first one may not be there yet."""
    if some is None:
        return others
    both = pa.concat_tables([some, others])
    return both.take(_newest_first(both, limit))


def _newest_first(times: pa.Table, limit: int) -> pa.Array:
    when = pa.table(
        {
            "at": pc.coalesce(times["fetched_at"], times["first_seen"]),
            "place": pa.array(range(times.num_rows), pa.int64()),
        }
    )
    return pc.sort_indices(when, sort_keys=[("at", "descending"), ("place", "ascending")])[:limit]


def near_duplicates(store: Store, gallery: str) -> NearDuplicates:
    """Return the images of a gallery, or of a shard's gallery, that have company.

    There are none if near duplicates were never looked for.

    Raises:
        StoreError: The table could not be read.
    """
    table = store.read_table(NEAR_DUPLICATES_PATH, NEAR_DUPLICATES)
    if table is None:
        return {}
    mine = table.filter(pc.equal(table["gallery"], whole_gallery(gallery))).select(
        ["url", "sha256", *GROUPED]
    )
    return {row["url"]: row for row in mine.to_pylist()}


def _group(row: dict[str, Any], known: NearDuplicates) -> dict[str, Any]:
    """Return what is known of a row's group; nothing if its image has changed since."""
    found = known.get(row["url"])
    if found is None or found["sha256"] != row["sha256"]:
        return {}
    return {name: found[name] for name in GROUPED}


def index_of(rows: pa.Table, known: NearDuplicates, *, links: int, block_rows: int) -> dict[str, Any]:
    """Return what the page filters and sorts by: lists with a value for each row, in the rows' order.

    Args:
        rows: The rows of the page.
        known: The near duplicates.
        links: The number of rows in the whole catalog.
        block_rows: The number of rows in each block of the page.
    """
    needed = ("url", "sha256", "attributes")
    some = rows.select(needed).to_pylist()
    listed = pc.max(rows["last_seen"]).as_py()
    return {
        "links": links,
        "rows": rows.num_rows,
        "block": block_rows,
        "listed": None if listed is None else listed.isoformat(),
        "columns": {**descriptions(CATALOG), **_group_columns()},
        "url": [shown_text(row["url"]) for row in some],
        "name": [_name(row) for row in some],
        **{name: coded(rows[name].to_pylist()) for name in ("status", "reason", "license_id")},
        "host": coded([_host(row["url"]) for row in some]),
        **{name: rows[name].to_pylist() for name in ("width", "height", "bytes")},
        "group": [_group(row, known).get("group") for row in some],
    }


def _group_columns() -> dict[str, str]:
    described = descriptions(NEAR_DUPLICATES)
    return {name: described[name] for name in GROUPED}


def coded(values: list[str | None]) -> dict[str, Any]:
    """Return values as their distinct ones and, for each, its place among them; -1 for none."""
    places: dict[str, int] = {}
    rows = [-1 if each is None else places.setdefault(each, len(places)) for each in values]
    return {"values": [shown_text(each) for each in places], "rows": rows}


def _host(url: str) -> str | None:
    """Return a URL's host, also of schemes that are refused; None if it has none."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _name(row: dict[str, Any]) -> str:
    """Return what a person calls an image: its title, or else the last part of its URL."""
    try:
        title = json.loads(row["attributes"] or "{}").get("title")
    except (ValueError, AttributeError):
        title = None
    if isinstance(title, str) and title.strip():
        return shown_text(title.strip(), NAME_CHARS)
    try:
        path = urlsplit(row["url"]).path.rstrip("/")
    except ValueError:
        path = ""
    return shown_text(unquote(path.rpartition("/")[2]) or row["url"], NAME_CHARS)


def shown_row(row: dict[str, Any], known: NearDuplicates) -> dict[str, Any]:
    """Return a row's values as JSON can hold them, without the url, which the index has, and nulls."""
    values = {**row, **_group(row, known)}
    return {name: _shown(value) for name, value in values.items() if value is not None and name != "url"}


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return shown_text(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def shown_text(text: str, chars: int = TEXT_CHARS) -> str:
    """Return a stranger's text without secrets, and cut; unlike `shown`, with its lines and spaces."""
    safe = hide_secrets(text[:READ_CHARS])
    return safe if len(safe) <= chars and len(text) <= READ_CHARS else safe[:chars] + CUT
