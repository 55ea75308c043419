"""A circuit breaker for hosts that cannot be connected to."""

import threading

from imgdl_pipeline.core.outcome import FetchError, Reason

FAILURES = 32
"""Connections that fail in a row before a host is given up: four rounds of eight, with pauses between."""


class CircuitBreaker:
    """Counts failed connections by host, and lets none through to a host that was given up.

    A host is given up for one run: the next run makes a new breaker, and tries its links again.

    Args:
        failures: How many in a row it takes.
    """

    # Shared mutable state: one dict of counts, under `_lock`.

    def __init__(self, failures: int = FAILURES) -> None:
        self._failures = failures
        self._in_a_row: dict[str, int] = {}
        self._lock = threading.Lock()

    def refusal(self, host: str) -> FetchError | None:
        """Why a host is not asked again in this run, or None for one that was not given up."""
        if self._in_a_row.get(host, 0) < self._failures:
            return None
        return FetchError(
            Reason.CONNECTION,
            f"not tried: {self._failures} connections to {host} failed in a row in this run",
        )

    def failed(self, host: str) -> None:
        """A connection failed."""
        with self._lock:
            self._in_a_row[host] = self._in_a_row.get(host, 0) + 1

    def succeeded(self, host: str) -> None:
        """A host answered: what failed before counts no more. One that was given up stays so."""
        with self._lock:
            if self._in_a_row.get(host, 0) < self._failures:
                self._in_a_row.pop(host, None)
