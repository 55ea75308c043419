"""Limit how fast each host is asked, and adapt to hosts that answer 429 or 503.

A host's limit is the lowest of `requests_per_second`, its robots.txt's Crawl-delay, and what it has been
seen to bear: after a 429 or 503 the rate falls by a part, and with every good answer it rises a little
(additive increase, multiplicative decrease, as in RFC 5681). Without any limit, a host is not slowed.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

MARGIN = 1.05
"""The spacing of requests is longer by this factor, because they do not arrive exactly as they were sent.
So no second holds more than the limit, also as the server counts."""

LONGEST_CRAWL_DELAY_S = 10.0
"""The longest Crawl-delay that is heeded. A longer one counts as this: no host keeps a run for weeks."""

LONGEST_TURN_S = 0.25
"""Longest wait in seconds for a turn with a worker; for a longer one, the link is put back."""

SLOWEST = 0.2
"""The lowest rate in requests per second that a host is slowed to by its answers."""

UNKNOWN_RATE = 10.0
"""Requests per second to a host that refuses the first ones, before it is known what it bears."""

FALL = 0.85
STEEP_FALL = 0.7
STEEPEST_FALL = 0.5
"""The factors after a 429 or 503: steep if the rate was far too high, because it had risen fast or one came
soon after the last; steepest if nothing good came in between."""

RISE = 0.001
"""The part by which a good answer raises the rate. It doubles with every `RISE_ANSWERS` good answers in a
row, up to `STEPS` times; after several refusals in a row, it is so high at once."""

RISE_ANSWERS = 200
STEPS = 6

SOON_ANSWERS = 50
FEW_ANSWERS = 8
"""Good answers from which it can be told how many a host gives in a second."""


class TooSoon(Exception):
    """Raised if a request must wait for longer than a worker should.

    Args:
        seconds: The seconds to wait.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(f"the host's next request may be sent in {seconds:.1f} s")


class Pace:
    """The pace of one host. It is plain data, without a clock or a lock; times are seconds of any clock.

    Args:
        limit: Requests per second that are never exceeded; infinity for no limit.
    """

    __slots__ = (
        *("_changed_at", "_gap", "_good", "_last_good", "_lowest", "_next_out", "_next_sent", "_part"),
        *("_set", "_steps", "limit", "rate"),
    )

    def __init__(self, limit: float = float("inf")) -> None:
        self.limit = self.rate = self._set = limit
        self._lowest, self._part = float("inf"), 1.0
        self._next_out = self._next_sent = 0.0
        self._changed_at = float("-inf")
        self._good = self._steps = 0
        self._last_good: float | None = None
        self._gap: float | None = None

    def lower_limit(self, limit: float) -> None:
        """Lower the limit; a higher one changes nothing."""
        self._lowest = min(self._lowest, limit)
        self._apply()

    def share(self, part: float, limit: float) -> None:
        """Replace the limit, and take only a part of it and of what the host has asked for."""
        self._part, self._set = part, limit
        self._apply()

    def _apply(self) -> None:
        is_full = self.rate == self.limit
        self.limit = min(self._set, self._lowest) * self._part
        self.rate = self.limit if is_full else min(self.rate, self.limit)

    def handed_out(self, now: float) -> float:
        """Note that a link is handed out, and return the time before which the next may not be."""
        self._next_out = max(now, self._next_out) + MARGIN / self.rate
        return self._next_out

    def wait(self, now: float) -> float:
        """Return the seconds until the next request may be sent."""
        return max(0.0, self._next_sent - now)

    def sent(self, now: float) -> None:
        """Note that a request is sent, or will be as soon as it may."""
        self._next_sent = max(now, self._next_sent) + MARGIN / self.rate

    def answered(self, now: float) -> None:
        """Note a good answer, which raises a lowered rate."""
        if self._last_good is not None:
            gap = now - self._last_good
            self._gap = gap if self._gap is None else self._gap + (gap - self._gap) / 16
        self._last_good = now
        self._good += 1
        if self.rate < self.limit:
            steps = min(STEPS, self._steps + self._good // RISE_ANSWERS)
            self.rate = min(self.limit, self.rate * (1 + RISE * 2**steps))

    def throttled(self, now: float, sent_at: float) -> None:
        """Lower the rate after a 429 or 503, unless its request was sent before the last change."""
        if sent_at < self._changed_at:
            return
        good, self._good, self._changed_at = self._good, 0, now
        if self.rate < float("inf"):
            is_far_off = good < SOON_ANSWERS or self._steps + good // RISE_ANSWERS > 2
            fall = STEEPEST_FALL if not good else STEEP_FALL if is_far_off else FALL
            self.rate = max(min(SLOWEST, self.limit), self.rate * fall)
            self._steps = 0 if good else STEPS  # nothing good: rise fast when the host is well again
        elif good >= FEW_ANSWERS and self._gap:
            self.rate = max(SLOWEST, FALL / self._gap)
        else:
            self.rate, self._steps = UNKNOWN_RATE, STEPS  # rise fast until the next refusal
        self._next_out = max(self._next_out, now + 1 / self.rate)
        self._next_sent = max(self._next_sent, now + 1 / self.rate)


class Paces:
    """The paces of all hosts of a run, for any number of threads.

    Args:
        per_second: The limit for every host; None for no limit.
        clock: Returns the time in seconds.
        part: Returns the part of the limit that is to be used of a host, until `share` says otherwise.
    """

    # Shared mutable state: the paces, all under `_lock`.

    def __init__(
        self,
        per_second: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        part: Callable[[str], float] = lambda _: 1.0,
    ) -> None:
        self._limit = float("inf") if per_second is None else per_second
        self._part = part
        self._clock = clock
        self._paces: dict[str, Pace] = {}
        self._lock = threading.Lock()

    def handed_out(self, host: str, now: float) -> float:
        """Note that a link of a host is handed out; return the time before which the next may not be."""
        with self._lock:
            return self._of(host).handed_out(now)

    def crawl_delay(self, host: str, seconds: float) -> None:
        """Heed a robots.txt's Crawl-delay, up to `LONGEST_CRAWL_DELAY_S`."""
        if seconds > 0:
            with self._lock:
                self._of(host).lower_limit(1 / min(seconds, LONGEST_CRAWL_DELAY_S))

    def share(self, host: str, part: float, per_second: float | None = None) -> None:
        """Ask a host at a part of its limits, because other runs ask it, too.

        Args:
            host: The host.
            part: The part; none is taken of 0, because there are no requests then.
            per_second: The limit of all runs together; None for the one that all hosts have.
        """
        if part > 0:
            with self._lock:
                self._of(host).share(part, self._limit if per_second is None else per_second)

    def answered(self, host: str) -> None:
        """Note a good answer of a host."""
        with self._lock:
            self._of(host).answered(self._clock())

    def throttled(self, host: str, sent_at: float) -> None:
        """Note a 429 or 503 to a request that was sent at a time of the clock."""
        with self._lock:
            self._of(host).throttled(self._clock(), sent_at)

    def release(self, host: str) -> None:
        """Hand out the links of a host that was given up without waiting, because it is not asked."""
        with self._lock:
            self._paces[host] = Pace()

    def turn(self, host: str) -> "Turn":
        """Return the turn of a host's next request."""
        return Turn(self, host)

    def check(self, host: str) -> None:
        """Check that a host's next request may be sent soon.

        Raises:
            TooSoon: It may not.
        """
        with self._lock:
            wait = self._of(host).wait(self._clock())
        if wait > LONGEST_TURN_S:
            raise TooSoon(wait)

    def take(self, host: str) -> float:
        """Take a host's next turn; return the seconds to wait for it.

        Raises:
            TooSoon: It would be a long wait; the turn is not taken.
        """
        with self._lock:
            pace, now = self._of(host), self._clock()
            wait = pace.wait(now)
            if wait <= LONGEST_TURN_S:
                pace.sent(now)
        if wait > LONGEST_TURN_S:
            raise TooSoon(wait)
        return wait

    def _of(self, host: str) -> Pace:
        pace = self._paces.get(host)
        if pace is None:
            pace = self._paces[host] = Pace(self._limit * self._part(host))
        return pace


@dataclass(frozen=True, slots=True)
class Turn:
    """The turn of one request to a host."""

    paces: Paces
    host: str

    def check(self) -> None:
        """Check that the request may be sent soon, before a connection is opened; raises like `Paces`."""
        self.paces.check(self.host)

    def take(self) -> float:
        """Take the turn when the connection is open; return the seconds to wait, or raise like `Paces`."""
        return self.paces.take(self.host)
