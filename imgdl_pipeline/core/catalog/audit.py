"""Is a gallery as it should be? Questions that checks ask, of its catalog, its store and the calendar."""

import hashlib
import random
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from cronsim import CronSim, CronSimError

from imgdl_pipeline.core.jpeg.memory_budget import MemoryBudget
from imgdl_pipeline.core.model.outcome import Status
from imgdl_pipeline.core.model.schemas import CATALOG
from imgdl_pipeline.core.storage.layout import catalog_path, images_path
from imgdl_pipeline.core.storage.store import Store


@dataclass(frozen=True, slots=True)
class Trouble:
    """A file that is not as its row says."""

    url: str
    path: str
    what: str


def _stored(catalog: pa.Table) -> pa.Table:
    is_ok = pc.equal(catalog["status"], Status.OK.value)
    return catalog.select(["url", "path", "sha256", "bytes"]).filter(is_ok)


def altered_files(
    catalog: pa.Table, store: Store, sample: int | None, seed: int
) -> tuple[int, list[Trouble]]:
    """Read stored files, and compare them with what the catalog says.

    Args:
        catalog: As CATALOG.
        store: Where the files lie.
        sample: How many are read; None for all.
        seed: Which: another sample for each seed.

    Returns:
        How many files were read, and those that are missing or altered.
    """
    stored = _stored(catalog)
    count = stored.num_rows
    if sample is not None and sample < count:
        stored = stored.take(pa.array(sorted(random.Random(seed).sample(range(count), sample))))  # noqa: S311 -- no secret
    found, budget = [], MemoryBudget()
    for row in stored.to_pylist():
        with budget.reserve(row["bytes"]):
            data = store.get(row["path"])
            if data is None:
                found.append(Trouble(row["url"], row["path"], "missing"))
            elif hashlib.sha256(data).hexdigest() != row["sha256"]:
                found.append(Trouble(row["url"], row["path"], "altered"))
    return stored.num_rows, found


def unknown_files(gallery: str, catalog: pa.Table, store: Store) -> list[str]:
    """Files among a gallery's images that no whole image of the catalog has: damaged ones are not to stay."""
    known = _stored(catalog)["path"].combine_chunks()
    paths = store.files(images_path(gallery))["path"]
    unknown: list[str] = paths.filter(pc.invert(pc.is_in(paths, value_set=known))).to_pylist()
    return unknown


def lost_links(catalog: pa.Table, most: int) -> list[dict[str, Any]]:
    """Links that were listed once and are not now, with `url` and `last_seen`, the latest first."""
    known = catalog.select(["url", "last_seen"])
    lost = known.filter(pc.less(known["last_seen"], pc.max(known["last_seen"])))
    rows: list[dict[str, Any]] = lost.sort_by([("last_seen", "descending"), ("url", "ascending")])[
        :most
    ].to_pylist()
    return rows


def refreshed_at(catalog: pa.Table) -> datetime | None:
    """When the newest list that a catalog knows was listed; None for an empty catalog.

    A gallery whose list is new and whose downloads fail every day is not refreshed.
    """
    newest: datetime | None = pc.max(catalog["last_seen"]).as_py()
    return newest


def last_refreshed(store: Store, gallery: str) -> datetime | None:
    """The same of a gallery's catalog, of which no more is read; None for one that has none.

    Raises:
        StoreError: It could not be read.
    """
    schema = pa.schema([CATALOG.field("last_seen")], metadata=CATALOG.metadata)
    catalog = store.read_table(catalog_path(gallery), schema)
    return None if catalog is None else refreshed_at(catalog)


NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
"""What Dagster takes for a cron expression, too."""


def is_stale(listed_at: datetime, schedule: str | None, now: datetime) -> bool:
    """Whether a gallery was not listed since the scheduled time before the last one.

    Args:
        listed_at: When it was listed, with a time zone.
        schedule: The cron expression of its runs, in UTC; None, or one that has no answer, for never.
        now: The time.
    """
    try:
        ticks = CronSim(NICKNAMES.get(schedule or "", schedule or ""), now, reverse=True)
        next(ticks)
        due = next(ticks)
    except (CronSimError, StopIteration):
        return False
    return listed_at < due
