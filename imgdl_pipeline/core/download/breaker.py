"""A circuit breaker for hosts that cannot be connected to, or do not want to be asked."""

import threading

from imgdl_pipeline.core.model.outcome import FetchError, Reason

FAILURES_IN_A_ROW = 32
"""Connections that fail in a row before a host is given up: four rounds of eight, with pauses between."""


class CircuitBreaker:
    """Counts failed connections by host, and knows which hosts were given up.

    A host is given up for one run: the next run makes a new breaker, and tries its links again.

    Args:
        failures: How many in a row it takes.
    """

    # Shared mutable state: the counts and the hosts that were given up, both under `_lock`.

    def __init__(self, failures: int = FAILURES_IN_A_ROW) -> None:
        self._failures = failures
        self._in_a_row: dict[str, int] = {}
        self._given_up: dict[str, FetchError] = {}
        self._lock = threading.Lock()

    def refusal(self, host: str) -> FetchError | None:
        """Why a host is not asked again in this run, or None for one that was not given up."""
        return self._given_up.get(host)

    def give_up(self, host: str, refusal: FetchError) -> None:
        """Ask a host no more in this run."""
        with self._lock:
            self._given_up.setdefault(host, refusal)

    def failed(self, host: str) -> None:
        """A connection failed."""
        with self._lock:
            count = self._in_a_row[host] = self._in_a_row.get(host, 0) + 1
        if count >= self._failures:
            words = f"not tried: {count} connections to {host} failed in a row in this run"
            self.give_up(host, FetchError(Reason.CONNECTION, words))

    def succeeded(self, host: str) -> None:
        """A host answered: what failed before counts no more. One that was given up stays so."""
        with self._lock:
            self._in_a_row.pop(host, None)
