"""Is a gallery as it should be? Questions that checks ask, of its catalog, its store and the calendar."""

import hashlib
import random
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc
from cronsim import CronSim, CronSimError

from imgdl_pipeline.core.outcome import Status
from imgdl_pipeline.core.store import Store, images_path
from imgdl_pipeline.core.validation import turn


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
    found = []
    for row in stored.to_pylist():
        with turn(row["bytes"]):
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


@dataclass(frozen=True, slots=True)
class Listing:
    """How many links a list had, and the list before it."""

    now: int
    before: int

    @property
    def lost(self) -> float:
        """The share of the earlier list that this one is shorter by; 0 where it is not."""
        return max(0.0, 1 - self.now / self.before) if self.before else 0.0


def listing(catalog: pa.Table) -> Listing:
    """The lengths of the last two lists, by when each link was first and last seen."""
    last_seen, first_seen = catalog["last_seen"], catalog["first_seen"]
    newest = pc.max(last_seen)
    is_listed = pc.equal(last_seen, newest)
    earlier = pc.max(last_seen.filter(pc.invert(is_listed)))
    now = pc.sum(is_listed).as_py() or 0
    if not earlier.is_valid:  # no link has ever left the list
        return Listing(now, now)
    was_listed = pc.and_(pc.greater_equal(last_seen, earlier), pc.less_equal(first_seen, earlier))
    return Listing(now, pc.sum(was_listed).as_py() or 0)


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
