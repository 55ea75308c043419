"""When a link is tried again, as a value."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from imgdl_pipeline.core.outcome import FetchError


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
        if not error.passing or attempts >= self.attempts:
            return None
        if asked_s is not None:
            return asked_s if asked_s <= self.longest_asked_s else None
        return self.jitter() * min(self.longest_s, self.first_s * 2.0 ** (attempts - 1))
