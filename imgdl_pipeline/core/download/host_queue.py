"""Choose the next item for a pool of workers: hosts take turns, each with its own slots and pauses."""

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Requeue(Generic[T]):
    """A worker's request to hand out an item again after a delay.

    Args:
        item: The item to hand out; may differ from the one that was handed out before.
        seconds: The delay in seconds.
        host: A host whose items must all wait as long; empty for none.
    """

    item: T
    seconds: float
    host: str = ""


@dataclass(frozen=True, slots=True)
class Throttled(Generic[R_co]):
    """A worker's result for a finished item, with a pause for a host.

    Args:
        result: The result of the item.
        seconds: The pause in seconds.
        host: The host whose remaining items must wait.
    """

    result: R_co
    seconds: float
    host: str


TURN_ITEMS = 16
"""The most items of a host that are handed out in a row, each when the one before it is finished."""


def _unpaced(host: str, now: float) -> float:  # noqa: ARG001
    return now


class Schedule(Generic[T]):
    """Chooses which item is handed out next. It is plain data, without threads, locks or a clock.

    Hosts take turns. A host whose slots are all busy, which is in a pause, or whose next request would come
    too soon, is skipped and so never blocks the others. When an item is finished, its host's next one comes
    first, up to `TURN_ITEMS` times: its connection is still open then.

    Args:
        slots: Returns how many items of a host may be handed out at the same time.
        host_of: Returns the name of an item's host.
        workers: The number of workers. While there are items of several hosts, each host gets at most
            three quarters of the workers, because a slow host would otherwise occupy all of them.
        paced: Called with a host and the time when one of its items is handed out. Returns the time before
            which the next may not be.
    """

    def __init__(
        self,
        slots: Callable[[str], int],
        host_of: Callable[[T], str],
        workers: int = 1_000_000,
        paced: Callable[[str, float], float] = _unpaced,
    ) -> None:
        self._slots = slots
        self._shared = max(1, workers - max(1, workers // 4))
        self._host_of = host_of
        self._paced = paced
        self._waiting: dict[str, deque[T]] = {}
        self._out: dict[str, int] = {}
        self._turns: deque[str] = deque()
        self._in_turn: set[str] = set()
        self._going_on: deque[str] = deque()
        self._in_a_row: dict[str, int] = {}
        self._left_alone: set[str] = set()
        self._asleep: dict[str, float] = {}
        self._wakes: list[tuple[float, str]] = []
        self._delayed: list[tuple[float, int, T]] = []
        self._sequence = itertools.count()
        self._held = 0

    def __len__(self) -> int:
        """Return the number of items held, ready or not."""
        return self._held

    def add(self, item: T) -> None:
        """Hold an item until its turn comes."""
        host = self._host_of(item)
        self._waiting.setdefault(host, deque()).append(item)
        self._held += 1
        self._offer(host)

    def next(self, now: float) -> T | None:
        """Return the next item, which takes one of its host's slots, or None if no item is ready."""
        self._wake(now)
        host = self._next_host()
        if host is None:
            return None
        item = self._waiting[host].popleft()
        self._held -= 1
        self._out[host] = self._out.get(host, 0) + 1
        due = self._paced(host, now)
        if due > now:
            self._sleep(host, due)
        self._offer(host)
        return item

    def _next_host(self) -> str | None:
        while self._going_on:
            host = self._going_on.popleft()
            if self._is_ready(host):
                return host
        while self._turns:
            host = self._turns.popleft()
            self._in_turn.discard(host)
            if self._is_ready(host):
                return host
        return None

    def finished(self, item: T) -> None:
        """Release the slot of an item that was handed out."""
        host = self._host_of(item)
        self._out[host] -= 1
        self._in_a_row[host] = (self._in_a_row.get(host, 0) + 1) % TURN_ITEMS
        if self._in_a_row[host] and self._is_ready(host):
            self._going_on.append(host)
        self._offer(host)
        if not self._out[host] and not self._waiting.get(host):
            self._out.pop(host)
            self._waiting.pop(host, None)
            self._in_a_row.pop(host, None)
            if len(self._waiting) == 1:  # the last host may use all of its slots now
                self._offer(next(iter(self._waiting)))

    def busy(self, host: str) -> int:
        """Return how many items of a host are handed out."""
        return self._out.get(host, 0)

    def slots_changed(self, host: str) -> bool:
        """Give a host a turn if it has more slots now than before; return whether items wait for it."""
        self._offer(host)
        return bool(self._waiting.get(host))

    def is_left_alone(self, item: T) -> bool:
        """Return whether an item that was handed out must wait, because its host is in a pause."""
        return self._host_of(item) in self._left_alone

    def put_back(self, item: T) -> None:
        """Take back an item that was handed out but not started, ahead of its host's other items."""
        host = self._host_of(item)
        self._out[host] -= 1
        self._waiting.setdefault(host, deque()).appendleft(item)
        self._held += 1
        self._offer(host)

    def again(self, later: Requeue[T], now: float) -> None:
        """Hold an item that was handed out before, until its delay has passed."""
        due = now + later.seconds
        self._held += 1
        heapq.heappush(self._delayed, (due, next(self._sequence), later.item))
        if later.host:
            self.leave_alone(later.host, due)

    def leave_alone(self, host: str, until: float) -> None:
        """Pause a host: hand out none of its items before a given time, also those handed out already."""
        self._left_alone.add(host)
        self._sleep(host, until)

    def clear(self) -> list[T]:
        """Give up all items that are held, and return them."""
        dropped = [item for items in self._waiting.values() for item in items]
        dropped += [entry[2] for entry in self._delayed]
        self._waiting = {host: deque() for host in self._out}
        self._turns.clear()
        self._going_on.clear()
        self._in_turn.clear()
        self._delayed.clear()
        self._held = 0
        return dropped

    def seconds_until_due(self, now: float) -> float:
        """Return the seconds until the next pause or delay ends; infinity if there is none."""
        dues = [self._wakes[0][0]] if self._wakes else []
        dues += [self._delayed[0][0]] if self._delayed else []
        return max(0.0, min(dues) - now) if dues else float("inf")

    def _sleep(self, host: str, until: float) -> None:
        if until > self._asleep.get(host, float("-inf")):
            self._asleep[host] = until
            heapq.heappush(self._wakes, (until, host))
        if host in self._in_turn:
            self._in_turn.discard(host)
            self._turns.remove(host)

    def _wake(self, now: float) -> None:
        while self._wakes and self._wakes[0][0] <= now:
            until, host = heapq.heappop(self._wakes)
            if self._asleep.get(host) == until:  # else it sleeps for longer
                del self._asleep[host]
                self._left_alone.discard(host)
                self._offer(host)
        while self._delayed and self._delayed[0][0] <= now:
            item = heapq.heappop(self._delayed)[2]
            self._held -= 1
            self.add(item)

    def _allowed(self, host: str) -> int:
        slots = self._slots(host)
        return min(slots, self._shared) if len(self._waiting) > 1 else slots

    def _is_ready(self, host: str) -> bool:
        return (
            host not in self._asleep
            and bool(self._waiting.get(host))
            and self._out.get(host, 0) < self._allowed(host)
        )

    def _offer(self, host: str) -> None:
        """Give a host a turn if one of its items may be handed out."""
        if host not in self._in_turn and self._is_ready(host):
            self._turns.append(host)
            self._in_turn.add(host)
