"""Run download threads around a bounded Queue, without hanging and without losing results.

    map(items) ─→ Schedule ─→ Queue ─→ DownloadWorker × N ─→ results ─→ map yields

The pool does not depend on HTTP: it takes a callable, and a function that returns each item's host. It adds
what textbook versions lack: a worker survives any exception, a slow host never blocks the others, an item
can be requeued, memory does not grow with the list, and leaving the `with` block ends every thread.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, TypeVar

from imgdl_pipeline.core.download.host_queue import Requeue, Schedule, Throttled
from imgdl_pipeline.core.download.switching import fewer_switches

logger = logging.getLogger(__name__)

WAIT_S = 0.5
"""Longest wait of the main thread in seconds, so that an interrupt reaches it within a second."""

JOIN_S = 2.0
"""Maximum seconds that leaving the pool waits for its threads to stop."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Done(Generic[T, R]):
    """An item and its result, or the exception that its work raised; or an item dropped at the time limit."""

    item: T
    result: R | None = None
    error: BaseException | None = None
    is_dropped: bool = False


class DownloadWorker(threading.Thread, Generic[T, R]):
    """A thread that takes items from the queue, works on them, and returns the results to the pool.

    Args:
        pool: The pool whose queue the worker serves.
        number: The number in the thread's name.
    """

    def __init__(self, pool: "DownloadPool[T, R]", number: int) -> None:
        super().__init__(name=f"DownloadWorker-{number}", daemon=True)
        self._pool = pool

    def run(self) -> None:
        """Work until the pool stops; no exception of the work ends the thread."""
        pool = self._pool
        while (item := pool.take()) is not None:
            try:
                outcome: R | Requeue[T] | Throttled[R] | Done[T, R] = pool.work(item)
            except BaseException as error:  # noqa: BLE001 -- a dead worker would leave join() waiting for ever
                outcome = Done(item, error=error)
            pool.give_back(item, outcome)


class DownloadPool(Generic[T, R]):
    """A pool of threads that work on items, with a limited number per host at a time.

    Use it in a `with` block. Leaving the block, also by an exception, sets `stop`, drops the items that were
    not started, and joins all threads.

    Args:
        work: Called in a worker thread with an item. Returns a result, a `Throttled` with one, or `Requeue`.
            It must check `stop` wherever it waits.
        workers: The number of threads.
        slots: Returns how many items of a host may be worked on at the same time.
        host_of: Returns the name of an item's host.
        lookahead: Maximum number of items held before they are worked on; bounds memory.
        stop: Event that is set when the pool is left, or to end `map` early.
        paced: Limits how fast a host's items are worked on; see `Schedule`.
        until: The time, by the monotonic clock, after which no more items are begun.
        on_wait: Called twice a second while there are no results, in the thread that takes the results, with
            the number of items being worked on.
    """

    # Shared mutable state: `_schedule`, `_busy` and `_stopped`, all under `_lock`, and the two queues.

    def __init__(
        self,
        work: Callable[[T], R | Requeue[T] | Throttled[R]],
        *,
        workers: int = 8,
        slots: Callable[[str], int] = lambda _: 8,
        host_of: Callable[[T], str] = lambda _: "",
        lookahead: int = 10_000,
        stop: threading.Event | None = None,
        paced: Callable[[str, float], float] = lambda _, now: now,
        until: float = float("inf"),
        on_wait: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.work = work
        self.stop = stop or threading.Event()
        self.queue: queue.Queue[T | None] = queue.Queue(maxsize=workers)
        self._lookahead = lookahead
        self._on_wait = on_wait
        self._schedule = Schedule(slots, host_of, workers, paced)
        self._until = until
        self._busy = 0
        self._stopped = False
        self._lock = threading.Lock()
        self._results: queue.SimpleQueue[Done[T, R] | None] = queue.SimpleQueue()
        self._switching = fewer_switches()
        self._workers = [DownloadWorker(self, number) for number in range(1, workers + 1)]

    def __repr__(self) -> str:
        with self._lock:
            queued = self.queue.qsize() + len(self._schedule)
            return f"<DownloadPool {len(self._workers)} workers, {self._busy} busy, {queued} queued>"

    def __enter__(self) -> "DownloadPool[T, R]":
        self._switching.__enter__()
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
        self._switching.__exit__(None, None, None)
        stuck = [worker.name for worker in self._workers if worker.is_alive()]
        if stuck:
            logger.warning("%s did not stop within %g s", ", ".join(stuck), JOIN_S)

    def map(self, items: Iterable[T | Requeue[T] | None]) -> Iterator[Done[T, R]]:
        """Work on every item, and yield the items in the order in which they finish.

        Items are taken from `items` only when there is room for them, so it may be of any length. After
        `until`, no more are taken, those that were not begun are yielded as dropped, and those that are being
        worked on end, without another try. When `stop` is set, it ends.

        Args:
            items: The items; a `Requeue` for one that is worked on after a delay; None if there is none now,
                but may be one later, after `wake`.
        """
        pending = 0
        for item in items:
            if self._is_over() or self.stop.is_set():
                break
            if item is not None:
                self._add(item)
                pending += 1
            wait = item is None
            is_first = True
            while is_first or (self._is_full() and not self._is_over()):
                for done in self._finished(wait=wait):
                    pending -= 1
                    yield done
                is_first, wait = False, True
        while pending and not self.stop.is_set():
            for done in self._dropped() if self._is_over() else ():
                pending -= 1
                yield done
            for done in self._finished(wait=pending > 0):
                pending -= 1
                yield done

    def wake(self) -> None:
        """Let `map` take its next item now, because it may have waited for one."""
        self._results.put(None)

    def _add(self, item: T | Requeue[T]) -> None:
        with self._lock:
            if isinstance(item, Requeue) and item.seconds:
                self._schedule.again(item, time.monotonic())
            else:
                self._schedule.add(item.item if isinstance(item, Requeue) else item)
            self._fill_queue()

    def _is_over(self) -> bool:
        return time.monotonic() >= self._until

    def _dropped(self) -> list[Done[T, R]]:
        """Drop the items that are not being worked on."""
        with self._lock:
            return [Done(item, is_dropped=True) for item in [*self._empty_queue(), *self._schedule.clear()]]

    def remains(self) -> Iterator[R]:
        """Yield the results that were not yielded by `map` because the pool was left early."""
        while True:
            try:
                done = self._results.get_nowait()
            except queue.Empty:
                return
            if done is not None and done.result is not None:
                yield done.result

    def busy_with(self, host: str) -> int:
        """Return how many items of a host are queued or being worked on."""
        with self._lock:
            return self._schedule.busy(host)

    def slots_changed(self, host: str) -> bool:
        """Work on more items of a host if it has more slots now than before; return whether any wait."""
        with self._lock:
            are_waiting = self._schedule.slots_changed(host)
            self._fill_queue()
        return are_waiting

    def take(self) -> T | None:
        """Return a worker's next item, or None if the worker must end."""
        while True:
            item = self.queue.get()
            if item is None:
                self.queue.task_done()
                return None
            with self._lock:
                if not (self._schedule.is_left_alone(item) or self._is_over()):
                    self._busy += 1
                    return item
                self._schedule.put_back(item)  # since it was queued, its host has asked for a pause
                self._fill_queue()
            self.queue.task_done()

    def give_back(self, item: T, outcome: R | Requeue[T] | Throttled[R] | Done[T, R]) -> None:
        """Accept a worker's outcome: release the item's slot, and requeue the item or keep the result."""
        with self._lock:
            self._busy -= 1
            if isinstance(outcome, Requeue):
                self._schedule.again(outcome, time.monotonic())
            elif isinstance(outcome, Throttled):
                self._schedule.leave_alone(outcome.host, time.monotonic() + outcome.seconds)
                outcome = outcome.result
            self._schedule.finished(item)
            self._fill_queue()
        if isinstance(outcome, Done):
            self._results.put(outcome)
        elif not isinstance(outcome, Requeue):
            self._results.put(Done(item, outcome))
        self.queue.task_done()

    def _finished(self, *, wait: bool) -> Iterator[Done[T, R]]:
        """Yield the items that are done; with `wait`, wait up to half a second for the first one."""
        is_idle = wait
        try:
            done = self._results.get(timeout=self._pause() if wait else 0)
            is_idle = False
            while True:
                if done is not None:
                    yield done
                done = self._results.get_nowait()
        except queue.Empty:
            with self._lock:
                self._fill_queue()
                busy = self._busy
            if is_idle:
                self._on_wait(busy)

    def _is_full(self) -> bool:
        with self._lock:
            return len(self._schedule) >= self._lookahead

    def _pause(self) -> float:
        if self.queue.full():  # no item can be queued until a worker is done
            return WAIT_S
        with self._lock:
            return min(WAIT_S, self._schedule.seconds_until_due(time.monotonic()) + 0.001)

    def _fill_queue(self) -> None:
        """Move the items that are ready into the queue; called with the lock held."""
        while not self._stopped and not self.queue.full():
            now = time.monotonic()
            item = self._schedule.next(now) if now < self._until else None
            if item is None:
                return
            self.queue.put_nowait(item)

    def _empty_queue(self) -> list[T]:
        """Take back the items that no worker has taken; called with the lock held."""
        taken: list[T] = []
        while True:
            try:
                item = self.queue.get_nowait()
            except queue.Empty:
                return taken
            self.queue.task_done()
            if item is not None:
                self._schedule.finished(item)
                taken.append(item)
