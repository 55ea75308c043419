"""Give up hosts that cannot be reached, that ask for long pauses, or that give nothing for too long."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from imgdl_pipeline.core.model.outcome import FetchError, Reason, UnreachableError

FAILURES_IN_A_ROW = 32
"""Consecutive failed connections before a host is given up: four rounds of eight, with pauses between."""

LONG_PAUSES = 3
"""Links that must be answered with too long a pause, with nothing good between, before the host is given up.
One answer does not speak for a host."""


@dataclass(slots=True)
class _Host:
    """What is known of a host that has not given a good answer since it was first asked, or last gave one.

    Args:
        since: When the host's patience began, moved forward by the time in which no link waited for it.
        busy_until: When its last attempt ended, or when the wait after it ends.
        asking: Number of attempts in progress.
        failures: Consecutive failed connections.
        troubles: Attempts without a definite answer since the last one.
        paused: URLs of the links that were answered with too long a pause.
        last: The error of the last attempt.
    """

    since: float
    busy_until: float
    asking: int = 0
    failures: int = 0
    troubles: int = 0
    paused: set[str] = field(default_factory=set)
    last: FetchError | None = None


class CircuitBreaker:
    """Gives up hosts in trouble for one run; the next run uses a new breaker and tries their links again.

    Args:
        patience_s: Seconds that a host may be asked without one good answer: an image, or another definite
            answer such as a 404. Time in which nobody asks it does not count.
        failures: Consecutive failed connections before a host is given up.
        clock: Returns the time in seconds.
    """

    # Shared mutable state: the hosts in trouble and those that were given up, both under `_lock`.

    def __init__(
        self,
        patience_s: float = 300.0,
        failures: int = FAILURES_IN_A_ROW,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._patience_s = patience_s
        self._failures = failures
        self._clock = clock
        self._hosts: dict[str, _Host] = {}
        self._given_up: dict[str, FetchError] = {}
        self._lock = threading.Lock()

    def begin(self, host: str) -> FetchError | None:
        """Note that an attempt begins; return the error instead if the host is given up."""
        with self._lock:
            if host in self._given_up:
                return self._given_up[host]
            now = self._clock()
            known = self._hosts.setdefault(host, _Host(now, now))
            if not known.asking:
                known.since += max(0.0, now - known.busy_until)
                known.busy_until = max(known.busy_until, now)
            if known.last is not None and now - known.since >= self._patience_s:
                return self._out_of_patience(host, known.last)
            known.asking += 1
            return None

    def answered(self, host: str) -> None:
        """Note the end of an attempt with a definite answer, after which nothing speaks against the host."""
        with self._lock:
            known = self._hosts.get(host)
            if known is None:
                return
            known.asking -= 1
            if not known.asking:
                del self._hosts[host]
                return
            known.since = known.busy_until = self._clock()
            known.failures, known.troubles, known.last = 0, 0, None
            known.paused.clear()

    def failed(self, host: str, url: str, error: FetchError, wait_s: float, *, is_long: bool = False) -> int:
        """Note the end of an attempt without a definite answer, and give the host up if it was one too many.

        Args:
            host: The host.
            url: The link.
            error: The reason, after which another attempt may succeed.
            wait_s: Seconds that the link will wait for its next attempt.
            is_long: Whether the host asked for too long a pause.

        Returns:
            The number of attempts at the host without a definite answer since the last one.
        """
        with self._lock:
            known = self._hosts.get(host)
            if known is None:
                return 0
            known.asking -= 1
            known.troubles += 1
            known.busy_until = max(known.busy_until, self._clock() + wait_s)
            known.last = error
            if isinstance(error, UnreachableError):
                known.failures += 1
            elif error.http_status is not None:
                known.failures = 0
            if is_long:
                known.paused.add(url)
            if known.failures >= self._failures:
                words = f"{known.failures} connections to {host} failed in a row in this run"
                self._give_up(host, FetchError(Reason.CONNECTION, words))
            elif len(known.paused) >= LONG_PAUSES:
                words = f"the host asked {len(known.paused)} links for a pause longer than this run waits"
                self._give_up(host, _in_words(error, words))
            elif self._clock() - known.since >= self._patience_s:
                self._out_of_patience(host, error)
            return known.troubles

    def released(self, host: str) -> None:
        """Note the end of an attempt that was put back without an answer."""
        with self._lock:
            known = self._hosts.get(host)
            if known is not None:
                known.asking -= 1
                known.busy_until = max(known.busy_until, self._clock())

    def waits(self, host: str, until: float) -> None:
        """Note that a host's links wait for its pace until a time of the clock, which costs its patience."""
        with self._lock:
            known = self._hosts.get(host)
            if known is not None:
                known.busy_until = max(known.busy_until, until)

    def patience_left(self, host: str) -> float:
        """Return the seconds after which a host is given up unless it gives a good answer before."""
        with self._lock:
            known = self._hosts.get(host)
            return self._patience_s if known is None else known.since + self._patience_s - self._clock()

    def _out_of_patience(self, host: str, error: FetchError) -> FetchError:
        words = f"in {self._patience_s:g} s (host_patience), the host gave no image and no definite answer"
        return self._give_up(host, _in_words(error, f"{words}, at last: {error.detail}"))

    def _give_up(self, host: str, refusal: FetchError) -> FetchError:
        self._hosts.pop(host, None)
        return self._given_up.setdefault(host, refusal)


def _in_words(error: FetchError, words: str) -> FetchError:
    return FetchError(error.reason, words, http_status=error.http_status)
