"""When a link is tried again: within a run, as a value; and by later runs, from the ledger."""

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
    """Exponential backoff with full jitter, and the host's own word where it gave one.

    Args:
        attempts: How often a link is asked for at most.
        first_s: The longest wait before the second attempt, in seconds; it doubles for each one after it.
        longest_s: The longest wait of all that we choose ourselves.
        longest_asked_s: A host that asks for a longer wait than this is not waited for in this run.
        jitter: Gives a number from 0 to 1.
    """

    attempts: int = 4
    first_s: float = 1.0
    longest_s: float = 30.0
    longest_asked_s: float = 120.0
    jitter: Callable[[], float] = random.random

    def wait(self, error: FetchError, attempts: int, asked_s: float | None = None) -> float | None:
        """Seconds to wait before the next attempt, or None when there is none.

        Args:
            error: What the last attempt ended in.
            attempts: How many there were.
            asked_s: What the host asks for.
        """
        if not error.retryable or attempts >= self.attempts:
            return None
        if asked_s is not None and asked_s > self.longest_asked_s:
            return None
        chosen = self.jitter() * min(self.longest_s, self.first_s * 2.0 ** (attempts - 1))
        return max(asked_s or 0.0, chosen)  # some hosts ask for 0 s, again and again


PERMANENT = (
    *(each for each in Reason if each.status is Status.INVALID),
    *(Reason.REDIRECTS, Reason.PLACEHOLDER, Reason.TOO_LARGE, Reason.OPT_OUT),
)
"""Reasons that tomorrow will hardly change; so are all HTTP statuses that do not pass.

Not among them: `private_address`, `scheme` and `robots`, which cost the link's host no request for it.
"""

_CODES = frozenset(each.value for each in PERMANENT)
_RETRYABLE_CODES = frozenset(f"http_{status}" for status in RETRYABLE_STATUSES)


def is_permanent(code: str | None) -> bool:
    """Whether a reason's code is one that tomorrow will hardly change."""
    return code is not None and (
        code in _CODES or (code.startswith("http_") and code not in _RETRYABLE_CODES)
    )


FIRST_COOLDOWN_H = 20
"""After two runs without an image; it doubles for each one more. Less than a day, so that a daily run that
starts some minutes earlier than yesterday's does not skip a day."""

LONGEST_COOLDOWN_H = 30 * 24


def in_cooldown(ledger: pa.Table, now: datetime) -> pa.Array:
    """Which rows of a ledger are not tried at this time: their reason is lasting, and their pause not over.

    A first failure is tried again by the next run, whenever that is; then come pauses of 20, 40, 80 …
    hours, and at last of 30 days.

    Args:
        ledger: As DOWNLOADS.
        now: The time of the run.
    """
    failures = pc.fill_null(ledger["failures"], 0).to_numpy()
    hours = np.where(failures < 2, 0, FIRST_COOLDOWN_H * 2.0 ** np.clip(failures - 2, 0, 10))
    seconds = pa.array(np.minimum(hours, LONGEST_COOLDOWN_H) * 3600, pa.int64())
    since = pc.seconds_between(ledger["tried_at"], pa.scalar(now, ledger["tried_at"].type))
    codes = [code for code in pc.unique(ledger["reason"]).to_pylist() if is_permanent(code)]
    lasts = pc.is_in(ledger["reason"], value_set=pa.array(codes, pa.string()))
    return pc.and_(lasts, pc.less(since, seconds))
