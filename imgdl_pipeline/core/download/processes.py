"""A run's download processes, from the run's side: starts them, sends them links, and receives the rows.

    map(lists of items) ─→ Jobs ─→ processes, each with a Crew ─→ Row … ─→ map yields

Each host belongs to one process, which alone asks it, so its slots, pace, pauses and breaker are there. A
redirect to a host of another process comes back, and goes to its owner. A process that is killed gets a
successor, which gets the links that are not done.
"""

import itertools
import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO

from imgdl_pipeline.core.download.channel import Channel
from imgdl_pipeline.core.download.crew import Task
from imgdl_pipeline.core.download.eager_validation import EagerValidator
from imgdl_pipeline.core.download.host_queue import Requeue
from imgdl_pipeline.core.download.messages import (
    Check,
    Checked,
    Dropped,
    End,
    Ended,
    Failed,
    Jobs,
    Logged,
    Moved,
    Row,
    Slots,
    SlotsInUse,
    Start,
    Waits,
    Wanted,
)
from imgdl_pipeline.core.download.plan import Job
from imgdl_pipeline.core.download.pool import JOIN_S, WAIT_S, Done
from imgdl_pipeline.core.download.shares import HostShares
from imgdl_pipeline.core.http.robots_rules import RobotsRules
from imgdl_pipeline.core.jpeg.facts import InvalidImageError, Limits
from imgdl_pipeline.core.jpeg.workers import JpegWorkers
from imgdl_pipeline.core.model.outcome import ResourceError
from imgdl_pipeline.core.storage.host_leases import HostLeases, HostLimits, Part
from imgdl_pipeline.core.storage.ledger import Download
from imgdl_pipeline.core.storage.object_store import StoreError

logger = logging.getLogger(__name__)

LOOKAHEAD = 10_000
"""Links that all processes together hold."""

BATCH_ITEMS = 100
"""Links that are sent at a time."""

DEATHS = 3
"""Processes that may be killed during a run. One more, and memory is too short for it."""

ANSWER_S = 2.0
"""Longest wait in seconds for a process to say how many requests to a host are in flight."""

OVERDUE_S = 30.0
"""Seconds after the time limit and the last attempt's timeout in which a process must end."""

STOP_S = JOIN_S + 2.0
"""Longest wait in seconds for the processes to end after they were told to."""


class DownloadProcesses:
    """The download processes of a run. Use it in a `with` block; leaving it ends them.

    Args:
        task: What the run is about.
        shares: Which process works on which hosts.
        leases: The slots of hosts that are shared with other runs.
        jpegs: The processes that validate images.
        eager: Keeps the results of new images' validation; None if the catalog validates them.
        on_wait: Called with the number of links in progress while none is done.
    """

    # Shared mutable state: the queue of messages, the answers by question, and, under `_lock`, the children
    # and the parts of hosts. The lock also keeps two messages about a host's slots in order.

    def __init__(
        self,
        task: Task,
        shares: HostShares,
        leases: HostLeases,
        jpegs: JpegWorkers,
        eager: EagerValidator | None,
        on_wait: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._task, self._shares, self._leases = task, shares, leases
        self._jpegs, self._eager, self._limits = jpegs, eager, Limits.of(task.settings)
        self._on_wait = on_wait
        self._lookahead = max(BATCH_ITEMS, LOOKAHEAD // shares.processes)
        self._children: list[_Child] = []
        self._sources: list[Iterator[Job]] = []
        self._inbox: queue.SimpleQueue[tuple[_Child, object]] = queue.SimpleQueue()
        self._checkers = ThreadPoolExecutor(jpegs.count + 1, thread_name_prefix="imgdl-check")
        self._lock = threading.Lock()
        self._parts: dict[str, Part] = {}
        self._questions = itertools.count()
        self._answers: dict[int, queue.SimpleQueue[int]] = {}
        self._deaths: Counter[str] = Counter()
        self._usage: dict[str, RobotsRules] = {}
        self._told_at = time.monotonic()

    def __repr__(self) -> str:
        links = ", ".join(f"{len(child.jobs)} links" for child in self._children)
        return f"<DownloadProcesses {links or 'none'}>"

    def __enter__(self) -> "DownloadProcesses":
        try:
            for number in range(self._shares.processes):
                self._start(number)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Tell the processes to stop, and wait until they are gone; `remains` has what they still sent."""
        try:
            for child in self._children:
                child.channel.end()
            ends_at = time.monotonic() + STOP_S
            for child in self._children:
                child.reader.join(max(0.0, ends_at - time.monotonic()))
        finally:
            for child in self._children:
                child.close()
            self._checkers.shutdown(wait=False)

    def map(self, items: Sequence[Iterator[Job]]) -> Iterator[Done[Job, Download]]:
        """Work on every link, and yield the links in the order in which they are done.

        Args:
            items: The links of each process. They are taken only when there is room for them.
        """
        self._sources = list(items)
        for child in self._children:
            self._feed(child)
        while not self._is_done():
            try:
                child, message = self._inbox.get(timeout=WAIT_S)
            except queue.Empty:
                self._tell_waiting()
                yield from self._overdue()
                continue
            yield from self._handled(child, message)
            self._feed(self._children[child.number])
        yield from self._ended()

    def remains(self) -> Iterator[Download]:
        """Yield the rows that were not yielded by `map` because the processes were stopped early."""
        while True:
            try:
                _, message = self._inbox.get_nowait()
            except queue.Empty:
                return
            if isinstance(message, Row):
                yield message.row

    def usage(self) -> dict[str, RobotsRules]:
        """Return what the hosts' robots.txt files say about the use of their images, by origin."""
        return self._usage

    def busy_with(self, host: str) -> int:
        """Return how many requests to a shared host may be in flight now, at most.

        The process that asks the host heeds the run's slots of it before it answers.
        """
        question = next(self._questions)
        answers = self._answers[question] = queue.SimpleQueue()
        child = self._tell_slots(host, question)
        try:
            return answers.get(timeout=ANSWER_S) if child is not None and child.is_alive else 0
        except queue.Empty:
            return self._task.settings.slots(host)
        finally:
            del self._answers[question]

    def renewed(self, host: str, part: Part) -> bool:
        """Tell the process of a host which part of it the run has now; the process says when it wants it."""
        with self._lock:
            self._parts[host] = part
        self._tell_slots(host)
        return False

    def _tell_slots(self, host: str, question: int | None = None) -> "_Child | None":
        """Tell the process of a host its slots, and return the process; None if it is not there yet."""
        number, leases = self._shares.owner(host), self._leases
        with self._lock:
            if number >= len(self._children):
                return None
            child, part = self._children[number], self._parts.get(host)
            slots, until = leases.held(host)
            limits = part.limits if part else HostLimits(self._task.settings.slots(host))
            child.send(Slots(host, Part(slots, limits), until, question))
            return child

    def _start(self, number: int) -> "_Child":
        """Start a process, which takes the place of the one before it with its number."""
        child = _Child(number, self._received)
        level = logging.getLogger("imgdl_pipeline").getEffectiveLevel()
        child.send(Start(self._task_of(number), self._shares, number, self._eager is not None, level))
        with self._lock:
            self._children[number : number + 1] = [child]
            hosts = [host for host in self._parts if self._shares.owner(host) == number]
        for host in hosts:
            self._tell_slots(host)
        return child

    def _task_of(self, number: int) -> Task:
        """Return the task with a process's part of the workers."""
        settings = self._task.settings
        workers, more = divmod(settings.workers, self._shares.processes)
        own = settings.model_copy(update={"workers": workers + (number < more)})
        return replace(self._task, settings=own)

    def _feed(self, child: "_Child") -> None:
        """Send a process more links while there is room for them."""
        while len(child.jobs) <= self._lookahead - BATCH_ITEMS and not self._is_over():
            jobs = list(itertools.islice(self._sources[child.number], BATCH_ITEMS))
            if not jobs:
                return
            child.work_on([Requeue(job, 0.0) for job in jobs])

    def _is_over(self) -> bool:
        return time.monotonic() >= self._task.until

    def _is_done(self) -> bool:
        """Return whether no process has links; after each of their messages, they are given what there is."""
        return not any(child.jobs for child in self._children)

    def _handled(self, child: "_Child", message: object) -> Iterator[Done[Job, Download]]:
        if isinstance(message, Row):
            job = child.jobs.pop(message.row.url, None)
            if job is not None:
                self._told_at = time.monotonic()
                yield Done(job, message.row)
        elif isinstance(message, Moved):
            child.jobs.pop(message.job.url, None)
            yield from self._moved(message)
        elif isinstance(message, Dropped):
            child.jobs.pop(message.job.url, None)
            yield Done(message.job, is_dropped=True)
        elif isinstance(message, Waits):
            self._waited(child, message.busy)
        elif isinstance(message, Failed):
            raise message.error
        elif message is None:
            yield from self._gone(child)

    def _moved(self, message: Moved) -> Iterator[Done[Job, Download]]:
        if self._is_over():
            yield Done(message.job, is_dropped=True)
        else:
            owner = self._children[self._shares.owner(message.job.host)]
            owner.work_on([Requeue(message.job, message.seconds)])

    def _overdue(self) -> Iterator[Done[Job, Download]]:
        """End processes that still have links long after the time limit, as one that was suspended."""
        if time.monotonic() < self._task.until + self._task.settings.timeout + OVERDUE_S:
            return
        for child in self._children:
            if child.jobs:
                jobs, child.jobs = child.jobs, {}
                logger.warning(
                    "a download process does not end; its %d links wait for the next run", len(jobs)
                )
                child.close()
                yield from (Done(job, is_dropped=True) for job in jobs.values())

    def _waited(self, child: "_Child", busy: int) -> None:
        child.busy = busy
        self._tell_waiting()

    def _tell_waiting(self) -> None:
        now = time.monotonic()
        if now - self._told_at >= WAIT_S:
            self._told_at = now
            self._on_wait(sum(each.busy for each in self._children))

    def _gone(self, child: "_Child") -> Iterator[Done[Job, Download]]:
        """Give the links of a process that has ended to a successor, unless the time is over."""
        jobs, child.jobs = child.jobs, {}
        if child.is_ended or self._is_over():
            yield from (Done(job, is_dropped=True) for job in jobs.values())
            return
        how = child.how_it_ended()
        self._deaths[how] += 1
        if self._deaths.total() > DEATHS:
            words = ", ".join(f"{times} {how}" for how, times in self._deaths.items())
            raise ResourceError(
                f"{self._deaths.total()} download processes of this run have ended too early ({words}); what "
                "was downloaded is kept; a run needs less memory with fewer processes or workers"
            )
        logger.warning(
            "%s: a download process %s; another one goes on with its %d links",
            self._task.gallery,
            how,
            len(jobs),
        )
        child.close()
        successor = self._start(child.number)
        waiting = [Requeue(job, 0.0) for job in jobs.values()]
        for first in range(0, len(waiting), BATCH_ITEMS):
            successor.work_on(waiting[first : first + BATCH_ITEMS])

    def _ended(self) -> Iterator[Done[Job, Download]]:
        """Let the processes end by themselves, and hear what they say at last."""
        for child in self._children:
            child.send(End())
        for child in self._children:
            child.reader.join(STOP_S)
        while True:
            try:
                child, message = self._inbox.get_nowait()
            except queue.Empty:
                return
            if message is not None:
                yield from self._handled(child, message)

    def _received(self, child: "_Child", message: object, descriptor: int | None) -> None:
        """Handle a message in the thread that has received it."""
        if isinstance(message, Check) and descriptor is not None:
            self._checkers.submit(self._check, child, message, os.fdopen(descriptor, "rb"))
        elif isinstance(message, SlotsInUse):
            answers = self._answers.get(message.question)
            if answers is not None:
                answers.put(message.busy)
        elif isinstance(message, Wanted):
            self._want(message.host)
        elif isinstance(message, Logged):
            logging.getLogger(message.name).log(message.level, "%s", message.text)
        else:
            if isinstance(message, Ended):
                self._usage.update(message.usage)
            self._inbox.put((child, message))

    def _want(self, host: str) -> None:
        if self._leases.slots(host) is None:
            self._leases.share(host)
            self._leases.slots(host)

    def _check(self, child: "_Child", check: Check, image: IO[bytes]) -> None:
        error: Exception | None = None
        with image:
            try:
                if check.sha256 is None or self._eager is None:
                    self._jpegs.validate(image, self._limits)
                else:
                    self._eager.check(check.url, check.sha256, image)
            except (InvalidImageError, ResourceError, StoreError) as expected:
                error = expected
            except Exception as unexpected:
                logger.exception("%s: an internal error", check.url)
                error = RuntimeError(f"{type(unexpected).__name__}: {unexpected}")
        child.send(Checked(check.question, error))


class _Child:
    """One download process, from this side.

    Args:
        number: Its number.
        on_message: Called with it, each of its messages and the descriptor that came along, in a thread of
            its own; with None as the last message.
    """

    def __init__(self, number: int, on_message: Callable[["_Child", object, int | None], None]) -> None:
        self.number, self.jobs, self.busy, self.is_ended = number, dict[str, Job](), 0, False
        self._on_message = on_message
        ours, theirs = socket.socketpair()
        self.channel = Channel(ours)
        with theirs:
            try:
                self._popen = _started(theirs.fileno())
            except OSError as error:
                ours.close()
                raise ResourceError(f"no download process can be started: {error}") from error
        self.reader = threading.Thread(target=self._read, name=f"imgdl-process-{number}", daemon=True)
        self.reader.start()

    @property
    def is_alive(self) -> bool:
        """Whether it may be at work."""
        return self.reader.is_alive()

    def work_on(self, items: list[Requeue[Job]]) -> None:
        """Send links, and remember them until they are done."""
        self.jobs.update((each.item.url, each.item) for each in items)
        self.send(Jobs(items))

    def send(self, message: object) -> None:
        """Send a message; if the process is gone, its reader says so."""
        with suppress(OSError):
            self.channel.send(message)

    def how_it_ended(self) -> str:
        """Return how the process ended, in words."""
        status = self._popen.wait()
        if status == -signal.SIGKILL:
            return "was killed (as the system does when memory runs out)"
        names = {each.value: each.name for each in signal.Signals}
        return f"was ended by {names.get(-status, -status)}" if status < 0 else f"ended with status {status}"

    def close(self) -> None:
        """End the process if it is still there, and everything that belongs to it."""
        self._popen.kill()
        self._popen.wait()
        self.reader.join()
        self.channel.close()

    def _read(self) -> None:
        while True:
            try:
                message, descriptor = self.channel.receive()
            except EOFError:
                self._on_message(self, None, None)
                return
            self.is_ended = self.is_ended or isinstance(message, Ended | Failed)
            self._on_message(self, message, descriptor)


def _started(descriptor: int) -> "subprocess.Popen[bytes]":
    """Start a download process. What it is to do, and all secrets, come through its channel."""
    package = str(Path(__file__).parents[3])  # an editable install may have it on no path
    code = (
        f"import sys; sys.path[:] = {[package, *sys.path]!r}; "
        f"from imgdl_pipeline.core.download.process import main; main({descriptor})"
    )
    return subprocess.Popen(  # noqa: S603 -- this program, with code of ours
        [sys.executable, "-I", "-c", code],
        env={"ARROW_DEFAULT_MEMORY_POOL": "system", **os.environ},
        pass_fds=[descriptor],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
