"""Stop sending requests to hosts that cannot be reached, or that ask for too long a pause."""

import threading

from imgdl_pipeline.core.model.outcome import FetchError, Reason

FAILURES_IN_A_ROW = 32
"""Consecutive failed connections before a host is given up: four rounds of eight, with pauses between."""


class CircuitBreaker:
    """Counts failed connections per host, and gives up hosts that fail too often in a row.

    A host is given up for one run only: the next run uses a new breaker and tries the host's links again.

    Args:
        failures: Consecutive failures before a host is given up.
    """

    # Shared mutable state: the counts and the hosts that were given up, both under `_lock`.

    def __init__(self, failures: int = FAILURES_IN_A_ROW) -> None:
        self._failures = failures
        self._in_a_row: dict[str, int] = {}
        self._given_up: dict[str, FetchError] = {}
        self._lock = threading.Lock()

    def refusal(self, host: str) -> FetchError | None:
        """Return the error for links of a host that was given up in this run, or None for other hosts."""
        return self._given_up.get(host)

    def give_up(self, host: str, refusal: FetchError) -> None:
        """Refuse all further requests to a host in this run."""
        with self._lock:
            self._given_up.setdefault(host, refusal)

    def failed(self, host: str) -> None:
        """Count a failed connection to a host, and give the host up after too many in a row."""
        with self._lock:
            count = self._in_a_row[host] = self._in_a_row.get(host, 0) + 1
        if count >= self._failures:
            words = f"not tried: {count} connections to {host} failed in a row in this run"
            self.give_up(host, FetchError(Reason.CONNECTION, words))

    def succeeded(self, host: str) -> None:
        """Reset a host's failure count after a response. A host that was given up remains given up."""
        with self._lock:
            self._in_a_row.pop(host, None)
