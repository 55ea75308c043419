"""Audit a gallery for the asset checks: compare its catalog with its store and its schedule."""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from itertools import islice, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from cronsim import CronSim, CronSimError

from imgdl_pipeline.core.catalog.stored import StoredCatalog
from imgdl_pipeline.core.jpeg.memory_budget import MemoryBudget
from imgdl_pipeline.core.listing.build import read_links
from imgdl_pipeline.core.listing.places import Places
from imgdl_pipeline.core.model.outcome import Status
from imgdl_pipeline.core.model.schemas import CATALOG, LINKS, columns
from imgdl_pipeline.core.storage.layout import catalog_path, images_path, is_shard, whole_gallery
from imgdl_pipeline.core.storage.store import Store


@dataclass(frozen=True, slots=True)
class Trouble:
    """A stored file that differs from its catalog row."""

    url: str
    path: str
    what: str


def altered_files(catalog: StoredCatalog, sample: int | None, seed: int) -> tuple[int, list[Trouble]]:
    """Read stored files, and compare them with the catalog.

    Args:
        catalog: The catalog.
        sample: How many files to read; None for all.
        seed: Selects the sample: each seed gives another one.

    Returns:
        How many files were read, and the files that are missing or altered.
    """
    count = sum(batch.num_rows for batch in catalog.with_status(Status.OK, "path"))
    chosen = np.arange(count)
    if sample is not None and sample < count:
        chosen = np.array(sorted(random.Random(seed).sample(range(count), sample)))  # noqa: S311 -- not for a secret
    found, budget = [], MemoryBudget()
    for row in _ok_rows(catalog, chosen):
        with budget.reserve(row["bytes"]):
            data = catalog.store.get(row["path"])
            if data is None:
                found.append(Trouble(row["url"], row["path"], "missing"))
            elif hashlib.sha256(data).hexdigest() != row["sha256"]:
                found.append(Trouble(row["url"], row["path"], "altered"))
    return len(chosen), found


def _ok_rows(catalog: StoredCatalog, places: npt.NDArray[np.int64]) -> Iterator[dict[str, Any]]:
    """Yield some of the rows that are ok, by their places among these, ascending."""
    start = 0
    for batch in catalog.with_status(Status.OK, "url", "path", "sha256", "bytes"):
        first, last = np.searchsorted(places, [start, start + batch.num_rows])
        yield from batch.take(pa.array(places[first:last] - start)).to_pylist()
        start += batch.num_rows


def unknown_files(catalog: StoredCatalog) -> list[str]:
    """Return the image files that no valid catalog row refers to; damaged files must not be stored.

    After another number of shards, a shard's folder has images of other shards' rows, so nothing is unknown.
    """
    store, gallery = catalog.store, catalog.gallery
    places = Places.read(store, whole_gallery(gallery)) if is_shard(gallery) else None
    if places is not None and places.is_resharded:
        return []
    batches = (batch["path"].combine_chunks() for batch in catalog.with_status(Status.OK, "path"))
    known = pa.chunked_array(list(batches), pa.string())
    paths = store.files(images_path(gallery))["path"]
    unknown: list[str] = paths.filter(pc.invert(pc.is_in(paths, value_set=known))).to_pylist()
    return unknown


def lost_links(catalog: StoredCatalog, most: int) -> list[dict[str, Any]]:
    """Return up to `most` links that are no longer listed, with `url` and `last_seen`, the latest first."""
    known = catalog.rows("url", "last_seen")
    lost = known.filter(pc.less(known["last_seen"], pc.max(known["last_seen"])))
    rows: list[dict[str, Any]] = lost.sort_by([("last_seen", "descending"), ("url", "ascending")])[
        :most
    ].to_pylist()
    return rows


def untried_links(catalog: StoredCatalog) -> int:
    """Return the number of listed links that have no row yet, because a run's limit left them to the next.

    Raises:
        StoreError: There is no list yet, or it could not be read.
    """
    listed = read_links(catalog.store, catalog.gallery, columns(LINKS, "url"))["url"]
    is_known = pc.is_in(listed, value_set=catalog.rows("url")["url"])
    return len(listed) - (pc.sum(is_known).as_py() or 0)


def refreshed_at(catalog: pa.Table) -> datetime | None:
    """Return when the newest list in a catalog was listed, or None for an empty catalog.

    A gallery with a new list whose downloads fail every day does not count as refreshed.
    """
    newest: datetime | None = pc.max(catalog["last_seen"]).as_py()
    return newest


def last_refreshed(store: Store, gallery: str) -> datetime | None:
    """Return `refreshed_at` of a gallery or shard, reading only the column it needs; None without a catalog.

    Raises:
        StoreError: The catalog could not be read.
    """
    schema = pa.schema([CATALOG.field("last_seen")], metadata=CATALOG.metadata)
    catalog = store.read_table(catalog_path(gallery), schema)
    return None if catalog is None else refreshed_at(catalog)


LONG_AGO = datetime(2020, 1, 1, tzinfo=timezone.utc)

NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
"""Nicknames that Dagster also accepts as cron expressions."""


def is_stale(
    listed_at: datetime, schedule: str | None, now: datetime, fresh_days: float | None = None
) -> bool:
    """Return whether a gallery was last listed too long ago: before its second-to-last scheduled time.

    Args:
        listed_at: When the gallery was listed, with a time zone.
        schedule: The cron expression of its runs, in UTC; with None or an expression that never fires, the
            gallery is never stale.
        now: The current time.
        fresh_days: The number of days after which it is stale, whatever its schedule is; None for none.
    """
    if fresh_days is not None:
        return listed_at < now - timedelta(days=fresh_days)
    due = list(islice(_ticks(schedule, now, reverse=True), 2))
    return len(due) == 2 and listed_at < due[1]


JUDGED_TICKS = 400
"""How many scheduled times are looked at for the longest time between two: more than a year of days."""


@lru_cache
def fresh_for(schedule: str | None, fresh_days: float | None = None) -> timedelta | None:
    """Return for how long a gallery is fresh at least, or None if it is never stale.

    Args:
        schedule: The cron expression of its runs.
        fresh_days: The number of days, whatever its schedule is.
    """
    if fresh_days is not None:
        return timedelta(days=fresh_days)
    ticks = list(islice(_ticks(schedule, LONG_AGO), JUDGED_TICKS))
    return max((2 * (later - tick) for tick, later in pairwise(ticks)), default=None)


def _ticks(schedule: str | None, start: datetime, *, reverse: bool = False) -> Iterator[datetime]:
    """Yield the times of a cron expression; none for one that never fires."""
    try:
        yield from CronSim(NICKNAMES.get(schedule or "", schedule or ""), start, reverse=reverse)
    except CronSimError:
        return
