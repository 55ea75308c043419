"""Decide when a link is tried again: within a run by `Retry`, and in later runs from the ledger."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from imgdl_pipeline.core.model.outcome import RETRYABLE_STATUSES, FetchError, Reason, Status


@dataclass(frozen=True, slots=True)
class Retry:
    """Exponential backoff with full jitter, which also respects the wait that a host asks for.

    Args:
        attempts: Maximum number of attempts per link.
        first_s: Longest wait in seconds before the second attempt; it doubles for each further attempt.
        longest_s: Longest backoff in seconds, unless the host asks for more.
        longest_asked_s: Longest wait in seconds that a host may ask for and still be retried in this run.
        jitter: Returns a number from 0 to 1.
    """

    attempts: int = 4
    first_s: float = 1.0
    longest_s: float = 30.0
    longest_asked_s: float = 120.0
    jitter: Callable[[], float] = random.random

    def wait(self, error: FetchError, attempts: int, asked_s: float | None = None) -> float | None:
        """Return the seconds to wait before the next attempt, or None if there is none.

        Args:
            error: The error of the last attempt.
            attempts: The number of attempts so far.
            asked_s: The seconds that the host asks for.
        """
        if not error.retryable or attempts >= self.attempts:
            return None
        if asked_s is not None and asked_s > self.longest_asked_s:
            return None
        chosen = self.jitter() * min(self.longest_s, self.first_s * 2.0 ** (attempts - 1))
        return max(asked_s or 0.0, chosen)  # some hosts ask for 0 s, again and again


PERMANENT = (
    *(each for each in Reason if each.status is Status.INVALID),
    *(Reason.REDIRECTS, Reason.PLACEHOLDER, Reason.TOO_LARGE, Reason.OPT_OUT, Reason.REMOVED),
)
"""Reasons that are unlikely to change within a day. So are all HTTP statuses that are not retryable.

`private_address`, `scheme` and `robots` are not included, because they cost the link's host no request.
"""

_CODES = frozenset(each.value for each in PERMANENT)
_RETRYABLE_CODES = frozenset(f"http_{status}" for status in RETRYABLE_STATUSES)


def is_permanent(code: str | None) -> bool:
    """Return whether a reason's code is one that is unlikely to change within a day."""
    return code is not None and (
        code in _CODES or (code.startswith("http_") and code not in _RETRYABLE_CODES)
    )


FIRST_COOLDOWN_H = 20
"""Cooldown in hours after two runs without an image; it doubles for each further run. It is less than a day,
so that a daily run does not skip a day when it starts some minutes earlier than the day before."""

LONGEST_COOLDOWN_H = 30 * 24


def in_cooldown(ledger: pa.Table, now: datetime) -> pa.Array:
    """Return for each ledger row whether its reason is permanent and its cooldown is not over.

    Such links are not tried. After a first failure, the next run tries the link again at any time. Then come
    cooldowns of 20, 40, 80 … hours, up to 30 days.

    Args:
        ledger: A table with the schema DOWNLOADS.
        now: The time of the run.
    """
    failures = pc.fill_null(ledger["failures"], 0).to_numpy()
    hours = np.where(failures < 2, 0, FIRST_COOLDOWN_H * 2.0 ** np.clip(failures - 2, 0, 10))
    seconds = pa.array(np.minimum(hours, LONGEST_COOLDOWN_H) * 3600, pa.int64())
    since = pc.seconds_between(ledger["tried_at"], pa.scalar(now, ledger["tried_at"].type))
    codes = [code for code in pc.unique(ledger["reason"]).to_pylist() if is_permanent(code)]
    lasts = pc.is_in(ledger["reason"], value_set=pa.array(codes, pa.string()))
    return pc.and_(lasts, pc.less(since, seconds))
