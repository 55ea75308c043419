"""The classic pool of download threads around a bounded Queue, finished: nothing hangs, nothing is lost.

    map(items) ─→ Schedule ─→ Queue ─→ DownloadWorker × N ─→ results ─→ map yields

It knows no HTTP: it is given a callable, and a function that names each item's host. What the textbook
version lacks stands here: a worker survives any exception, one slow host never holds up the others,
an item may ask to be handed out again later, memory does not grow with the list, and leaving the
`with` block ends every thread.
"""

import heapq
import itertools
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

WAIT_S = 0.5
"""Longest wait of the main thread, so that an interrupt reaches it within a second."""

JOIN_S = 2.0
"""How long leaving the pool waits for threads that abandon what they do."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Later(Generic[T]):
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
class Done(Generic[T, R]):
    """An item and what became of it: a result, or the exception that the work ended in."""

    item: T
    result: R | None = None
    error: BaseException | None = None


class Schedule(Generic[T]):
    """Which item may be handed out next. Plain data: it has no thread, no lock and no clock.

    Hosts take turns. A host whose slots are all busy, or which is to be left alone for a while, is
    passed over, and so never stands in the way of the others.

    Args:
        per_host: Items of one host that may be out at the same time.
        host_of: Names an item's host.
        workers: How many work on the items. While there are items of several hosts, none of these gets
            more than three quarters of them: a slow one would take them all.
    """

    def __init__(self, per_host: int, host_of: Callable[[T], str], workers: int = 1_000_000) -> None:
        self._per_host = per_host
        self._shared = min(per_host, max(1, workers - max(1, workers // 4)))
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

    def again(self, later: Later[T], now: float) -> None:
        """Hold an item that was handed out before, until its time has come."""
        due = now + later.seconds
        self._held += 1
        heapq.heappush(self._delayed, (due, next(self._sequence), later.item))
        if later.host:
            host = later.host
            self._left_alone[host] = max(due, self._left_alone.get(host, due))
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

    def _offer(self, host: str) -> None:
        """Give a host a turn if one of its items may go out."""
        if (
            host not in self._in_turn
            and host not in self._left_alone
            and self._waiting.get(host)
            and self._out.get(host, 0) < (self._shared if len(self._waiting) > 1 else self._per_host)
        ):
            self._turns.append(host)
            self._in_turn.add(host)


class DownloadWorker(threading.Thread, Generic[T, R]):
    """The tutorial's thread: takes an item from the queue, works on it, says that it is done.

    Args:
        pool: Whose queue it serves.
        number: For its name.
    """

    def __init__(self, pool: "DownloadPool[T, R]", number: int) -> None:
        super().__init__(name=f"DownloadWorker-{number}", daemon=True)
        self._pool = pool

    def run(self) -> None:
        """Work until the pool says to stop; no exception of the work ends the thread."""
        pool = self._pool
        while (item := pool.take()) is not None:
            try:
                outcome: R | Later[T] | Done[T, R] = pool.work(item)
            except BaseException as error:  # noqa: BLE001 -- a dead worker would leave join() waiting for ever
                outcome = Done(item, error=error)
            pool.give_back(item, outcome)


class DownloadPool(Generic[T, R]):
    """Threads that work on items, some of each host at a time.

    Use it in a `with` block: leaving it, by whatever way, sets `stop`, drops what was not begun,
    and joins all threads.

    Args:
        work: Called in a worker thread with an item. Returns a result, or `Later`. It must look at `stop`
            wherever it waits.
        workers: Threads.
        per_host: Items of one host that are worked on at the same time.
        host_of: Names an item's host.
        lookahead: Items taken from the list before they can be worked on; bounds memory.
        stop: Set when the pool is left.
    """

    # Shared mutable state: `_schedule`, `_busy` and `_stopped`, all under `_lock`; besides, two queues.

    def __init__(
        self,
        work: Callable[[T], R | Later[T]],
        *,
        workers: int = 8,
        per_host: int = 8,
        host_of: Callable[[T], str] = lambda _: "",
        lookahead: int = 10_000,
        stop: threading.Event | None = None,
    ) -> None:
        self.work = work
        self.stop = stop or threading.Event()
        self.queue: queue.Queue[T | None] = queue.Queue(maxsize=workers)
        self._lookahead = lookahead
        self._schedule = Schedule(per_host, host_of, workers)
        self._busy = 0
        self._stopped = False
        self._lock = threading.Lock()
        self._results: queue.SimpleQueue[Done[T, R]] = queue.SimpleQueue()
        self._workers = [DownloadWorker(self, number) for number in range(1, workers + 1)]

    def __repr__(self) -> str:
        with self._lock:
            queued = self.queue.qsize() + len(self._schedule)
            return f"<DownloadPool {len(self._workers)} workers, {self._busy} busy, {queued} queued>"

    def __enter__(self) -> "DownloadPool[T, R]":
        for worker in self._workers:
            worker.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop.set()
        with self._lock:
            self._stopped = True
            self._empty_queue()
            for _ in self._workers:
                self.queue.put_nowait(None)
        ends_at = time.monotonic() + JOIN_S
        for worker in self._workers:
            worker.join(max(0.0, ends_at - time.monotonic()))
        stuck = [worker.name for worker in self._workers if worker.is_alive()]
        if stuck:
            logger.warning("%s did not stop within %g s", ", ".join(stuck), JOIN_S)

    def map(self, items: Iterable[T]) -> Iterator[Done[T, R]]:
        """Work on every item; yield each as it is done, in the order in which that happens.

        Items are taken from the list as there is room for them, so it may be of any length.
        """
        pending = 0
        for item in items:
            with self._lock:
                self._schedule.add(item)
                self._fill_queue()
            pending += 1
            wait = False
            while not wait or self._is_full():
                for done in self._finished(wait=wait):
                    pending -= 1
                    yield done
                wait = True
        while pending:
            for done in self._finished(wait=True):
                pending -= 1
                yield done

    def take(self) -> T | None:
        """For a worker: the next item, or None when it is to end."""
        item = self.queue.get()
        if item is None:
            self.queue.task_done()
        else:
            with self._lock:
                self._busy += 1
        return item

    def give_back(self, item: T, outcome: R | Later[T] | Done[T, R]) -> None:
        """For a worker: an item is done, or is to be handed out again; its slot is free."""
        with self._lock:
            self._busy -= 1
            if isinstance(outcome, Later):
                self._schedule.again(outcome, time.monotonic())
            self._schedule.finished(item)
            self._fill_queue()
        if isinstance(outcome, Done):
            self._results.put(outcome)
        elif not isinstance(outcome, Later):
            self._results.put(Done(item, outcome))
        self.queue.task_done()

    def _finished(self, *, wait: bool) -> Iterator[Done[T, R]]:
        """What is done by now; with `wait`, at least one, if that happens within half a second."""
        try:
            if wait:
                yield self._results.get(timeout=self._pause())
            while True:
                yield self._results.get_nowait()
        except queue.Empty:
            with self._lock:
                self._fill_queue()

    def _is_full(self) -> bool:
        with self._lock:
            return len(self._schedule) >= self._lookahead

    def _pause(self) -> float:
        if self.queue.full():  # what is due could not go out anyway, until a worker is done
            return WAIT_S
        with self._lock:
            return min(WAIT_S, self._schedule.seconds_until_due(time.monotonic()) + 0.001)

    def _fill_queue(self) -> None:
        """Move what may be worked on now into the queue; called with the lock held."""
        while not self._stopped and not self.queue.full():
            item = self._schedule.next(time.monotonic())
            if item is None:
                return
            self.queue.put_nowait(item)

    def _empty_queue(self) -> None:
        while True:
            try:
                self.queue.get_nowait()
            except queue.Empty:
                return
            self.queue.task_done()
