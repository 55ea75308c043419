"""Which item a pool of workers may be handed next: hosts in turn, each with its slots and its pauses."""

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Requeue(Generic[T]):
    """A worker's answer: hand this item out again, after a while.

    Args:
        item: What to hand out; may differ from what was handed out before.
        seconds: How long to wait.
        host: A host of which every item is to wait as long; empty for none.
    """

    item: T
    seconds: float
    host: str = ""


@dataclass(frozen=True, slots=True)
class Throttled(Generic[R]):
    """A worker's answer: its item is done, and a host is to be left alone for a while.

    Args:
        result: What became of the item.
        seconds: How long the others wait.
        host: Whose items they are.
    """

    result: R
    seconds: float
    host: str


class Schedule(Generic[T]):
    """Which item may be handed out next. Plain data: it has no thread, no lock and no clock.

    Hosts take turns. A host whose slots are all busy, or which is to be left alone for a while, is
    passed over, and so never stands in the way of the others.

    Args:
        slots: How many items of a host may be out at the same time.
        host_of: Names an item's host.
        workers: How many work on the items. While there are items of several hosts, none of these gets
            more than three quarters of them: a slow one would take them all.
    """

    def __init__(
        self, slots: Callable[[str], int], host_of: Callable[[T], str], workers: int = 1_000_000
    ) -> None:
        self._slots = slots
        self._shared = max(1, workers - max(1, workers // 4))
        self._host_of = host_of
        self._waiting: dict[str, deque[T]] = {}
        self._out: dict[str, int] = {}
        self._turns: deque[str] = deque()
        self._in_turn: set[str] = set()
        self._left_alone: dict[str, float] = {}
        self._delayed: list[tuple[float, int, T]] = []
        self._sequence = itertools.count()
        self._held = 0

    def __len__(self) -> int:
        """How many items are held, ready or not."""
        return self._held

    def add(self, item: T) -> None:
        """Hold an item until its turn comes."""
        host = self._host_of(item)
        self._waiting.setdefault(host, deque()).append(item)
        self._held += 1
        self._offer(host)

    def next(self, now: float) -> T | None:
        """Hand out the next item, which takes one of its host's slots; None if none may go out."""
        self._wake(now)
        if not self._turns:
            return None
        host = self._turns.popleft()
        self._in_turn.discard(host)
        item = self._waiting[host].popleft()
        self._held -= 1
        self._out[host] = self._out.get(host, 0) + 1
        self._offer(host)
        return item

    def finished(self, item: T) -> None:
        """Give back the slot of an item that was handed out."""
        host = self._host_of(item)
        self._out[host] -= 1
        self._offer(host)
        if not self._out[host] and not self._waiting.get(host):
            self._out.pop(host)
            self._waiting.pop(host, None)
            if len(self._waiting) == 1:  # the last one may have all slots now
                self._offer(next(iter(self._waiting)))

    def is_left_alone(self, item: T) -> bool:
        """Whether an item that was handed out is better not begun now."""
        return self._host_of(item) in self._left_alone

    def put_back(self, item: T) -> None:
        """Take back an item that was handed out and not begun; it comes before the others of its host."""
        host = self._host_of(item)
        self._out[host] -= 1
        self._waiting.setdefault(host, deque()).appendleft(item)
        self._held += 1
        self._offer(host)

    def again(self, later: Requeue[T], now: float) -> None:
        """Hold an item that was handed out before, until its time has come."""
        due = now + later.seconds
        self._held += 1
        heapq.heappush(self._delayed, (due, next(self._sequence), later.item))
        if later.host:
            self.leave_alone(later.host, due)

    def leave_alone(self, host: str, until: float) -> None:
        """Hand out no item of a host before that time."""
        self._left_alone[host] = max(until, self._left_alone.get(host, until))
        if host in self._in_turn:
            self._in_turn.discard(host)
            self._turns.remove(host)

    def seconds_until_due(self, now: float) -> float:
        """How long until something that waits for its time may go out; infinity if nothing does."""
        dues = [*self._left_alone.values(), *(entry[0] for entry in self._delayed[:1])]
        return max(0.0, min(dues) - now) if dues else float("inf")

    def _wake(self, now: float) -> None:
        for host in [host for host, until in self._left_alone.items() if until <= now]:
            del self._left_alone[host]
            self._offer(host)
        while self._delayed and self._delayed[0][0] <= now:
            item = heapq.heappop(self._delayed)[2]
            self._held -= 1
            self.add(item)

    def _allowed(self, host: str) -> int:
        slots = self._slots(host)
        return min(slots, self._shared) if len(self._waiting) > 1 else slots

    def _offer(self, host: str) -> None:
        """Give a host a turn if one of its items may go out."""
        if (
            host not in self._in_turn
            and host not in self._left_alone
            and self._waiting.get(host)
            and self._out.get(host, 0) < self._allowed(host)
        ):
            self._turns.append(host)
            self._in_turn.add(host)
