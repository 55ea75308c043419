"""Decide which stored images are asked for again: the longer one has not changed, the less often."""

import math
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from imgdl_pipeline.core.model.settings import AgeGradedRecheck

Days = NDArray[np.float64]

GROWTH = 0.5
"""Share of the time for which an image is known to be unchanged, after which it is asked for again."""

SPREAD = 0.1
"""An image may be asked for earlier by up to this share of its interval, so that few are due on one day."""

SLACK_DAYS = 1 / 24
"""By how much a daily run may be later than the day before."""


def is_due(
    ledger: pa.Table, is_stored: pa.Array, recheck: float | AgeGradedRecheck, now: datetime
) -> pa.Array:
    """Return for each row whether its image is to be asked for again.

    Args:
        ledger: A table with the schema DOWNLOADS.
        is_stored: For each row, whether it has an image.
        recheck: A number of days, or the settings of rechecks by age.
        now: The time of the run.
    """
    if not isinstance(recheck, AgeGradedRecheck):
        before = pa.scalar(now - timedelta(days=recheck), ledger["tried_at"].type)
        return pc.and_(is_stored, pc.less(ledger["tried_at"], before))
    stored = np.flatnonzero(np.asarray(is_stored))
    rows = ledger.select(["fetched_at", "tried_at", "checked_at"]).take(pa.array(stored))
    tried = _days(rows["tried_at"], now)
    checked = _days(pc.coalesce(rows["checked_at"], rows["tried_at"]), now)
    fetched = _days(pc.coalesce(rows["fetched_at"], rows["tried_at"]), now)
    is_failing = tried < checked  # its last answers were not definite
    age = np.where(is_failing, checked - tried, fetched - checked)
    asked_today = int(((tried < 1 - SLACK_DAYS) & (fetched > tried)).sum())
    budget = max(0, math.ceil(recheck.max_share * ledger.num_rows) - asked_today)
    due = np.zeros(ledger.num_rows, bool)
    due[stored[chosen(age, tried, recheck.new, recheck.stable - SLACK_DAYS, budget)]] = True
    return pa.array(due)


def _days(times: pa.ChunkedArray, now: datetime) -> Days:
    """Return how long ago each time was, in days."""
    microseconds = pc.subtract(pa.scalar(now, times.type), times).cast(pa.int64()).to_numpy()
    days: Days = np.maximum(microseconds / 86_400e6, 0.0)
    return days


def intervals(age_unchanged_days: Days, new: float, stable: float) -> Days:
    """Return the days between two questions: half of the age, but at least `new` and at most `stable`.

    Args:
        age_unchanged_days: From when the bytes came to when they were last found unchanged.
        new: Days until an image that has just come or changed is asked for again.
        stable: Days after which every image is asked for again.
    """
    grown: Days = np.clip(age_unchanged_days * GROWTH, new, stable)
    return grown


def chosen(
    age_unchanged_days: Days,
    since_asked_days: Days,
    new: float,
    stable: float,
    budget: int,
    period: float = 1.0,
) -> NDArray[np.int64]:
    """Return the positions of the images to ask for now, at most `budget` of them, the longest overdue first.

    So many of those that were asked the longest ago come before all others that none will ever be older than
    `stable` days if each later run has the same budget. If that is impossible, as when no run was made for
    months, the budget still holds, and all of it goes to those that were asked the longest ago.

    Args:
        age_unchanged_days: As for `intervals`.
        since_asked_days: Days since each image was last asked for.
        new: As for `intervals`.
        stable: As for `intervals`.
        budget: How many may be asked for in this run.
        period: Days from this run to the next one.
    """
    count = len(since_asked_days)
    wait = intervals(age_unchanged_days, new, stable) * (1 - SPREAD * _scattered(since_asked_days))
    overdue = since_asked_days - wait
    oldest = np.argsort(-since_asked_days, kind="stable")
    runs_left = np.floor((stable - since_asked_days[oldest]) / period).clip(0)  # later runs in time
    late = (np.arange(1, count + 1) - budget * runs_left).max(initial=0)
    must = int(np.clip(late, 0, min(budget, count)))
    may = overdue >= 0
    may[oldest[:must]] = False
    candidates = np.flatnonzero(may)
    places = min(budget - must, len(candidates))
    longest_overdue = candidates[np.argsort(-overdue[candidates], kind="stable")[:places]]
    positions: NDArray[np.int64] = np.concatenate([oldest[:must], longest_overdue])
    return positions


def _scattered(days: Days) -> Days:
    """Return numbers from 0 to 1 that depend on the given times only, so that a plan can be repeated."""
    scattered: Days = np.modf(np.abs(days) * 86_400 * 0.6180339887498949)[0]
    return scattered
