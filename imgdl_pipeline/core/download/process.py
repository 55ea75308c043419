"""One of a run's download processes, from its own side.

It works on the links that the run sends, and sends back their rows. It writes images to the store, and
nothing else: ledger, checkpoints and validation are the run's. When the run is gone, it ends.
"""

import itertools
import logging
import os
import queue
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any, NoReturn

from imgdl_pipeline.core.download.channel import Channel
from imgdl_pipeline.core.download.crew import Crew
from imgdl_pipeline.core.download.host_queue import Requeue, Throttled
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
from imgdl_pipeline.core.download.pool import Done
from imgdl_pipeline.core.download.work import Outcome, row_of_error
from imgdl_pipeline.core.http.deadline import Cancelled
from imgdl_pipeline.core.jpeg.facts import Limits
from imgdl_pipeline.core.jpeg.worker_client import Image
from imgdl_pipeline.core.model.outcome import ResourceError
from imgdl_pipeline.core.storage.host_leases import HostLimits, Part, since_boot
from imgdl_pipeline.core.storage.ledger import Download
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.removed import RemovedNow
from imgdl_pipeline.core.storage.store import Store


def main(descriptor: int) -> NoReturn:
    """Work until the run says that all is done, or is gone.

    Args:
        descriptor: The process's end of its channel.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to all processes, but the run decides
        signal.signal(number, signal.SIG_IGN)
    channel = Channel(socket.socket(fileno=descriptor))
    try:
        start, _ = channel.receive()
        _report(channel, start.log_level)
        channel.send(_last_message(start, channel))
    except (ConnectionError, EOFError):  # the run is gone, and nobody is left to be told
        os._exit(1)
    os._exit(0)


def _last_message(start: Start, channel: Channel) -> Ended | Failed:
    try:
        return Ended(_Process(start, channel).work())
    except (StoreError, ResourceError) as error:
        return Failed(error)


class _Process:
    """The process at work: a crew, and a thread that receives messages."""

    # Shared mutable state: `_items`, a queue.

    def __init__(self, start: Start, channel: Channel) -> None:
        self._shares, self._number, self._channel = start.shares, start.number, channel
        self._leases = _RemoteLeases(channel)
        self._items: queue.SimpleQueue[Requeue[Job] | None] = queue.SimpleQueue()
        self._checks = _RemoteChecks(channel)
        store = Store(start.task.root)
        self._crew: Crew[Download | Moved] = Crew(
            start.task,
            store,
            RemovedNow(store),
            self._checks,
            self._checks if start.checks_early else None,
            leases=self._leases,
            route=self._route,
            part=self._part,
            on_wait=lambda busy: channel.send(Waits(busy)),
        )

    def work(self) -> dict[str, Any]:
        """Work on all items, and return what robots.txt files say about the use of images."""
        threading.Thread(target=self._receive, name="imgdl-receive", daemon=True).start()
        try:
            with self._crew:
                for done in self._crew.map([self._received()]):
                    if self._crew.stop.is_set():  # errors are of the end then
                        self._send_result(done.result)
                    else:
                        self._send(done)
        finally:
            for result in self._crew.remains():
                self._send_result(result)
        return self._crew.usage()

    def _send(self, done: Done[Job, Download | Moved]) -> None:
        if done.is_dropped:
            self._channel.send(Dropped(done.item))
        else:
            self._send_result(done.result or row_of_error(done.item, done.error))

    def _send_result(self, result: Download | Moved | None) -> None:
        if result is not None:
            self._channel.send(Row(result) if isinstance(result, Download) else result)

    def _received(self) -> Iterator[Requeue[Job] | None]:
        """Yield the items that were received, and None while there is none."""
        while not self._crew.stop.is_set():
            try:
                item = self._items.get_nowait()
            except queue.Empty:
                yield None
                continue
            if item is None:
                return
            yield item

    def _receive(self) -> None:
        try:
            while True:
                message, _ = self._channel.receive()
                self._handle(message)
        except (ConnectionError, EOFError):  # the run is stopped, or gone
            self._crew.stop.set()
            self._checks.close()
            self._crew.wake()

    def _handle(self, message: object) -> None:
        if isinstance(message, Jobs):
            for item in message.items:
                self._items.put(item)
            self._crew.wake()
        elif isinstance(message, End):
            self._items.put(None)
            self._crew.wake()
        elif isinstance(message, Checked):
            self._checks.answered(message)
        elif isinstance(message, Slots):
            self._leases.heard(message)
            self._crew.renewed(message.host, message.part)
            if message.question is not None:
                busy = self._crew.busy_with(message.host)
                self._channel.send(SlotsInUse(message.question, busy))

    def _part(self, host: str) -> float:
        """Return the part of a host's pace: of other processes' hosts, only robots.txt redirects there."""
        return 1.0 if self._shares.owner(host) == self._number else 1 / self._shares.processes

    def _route(self, outcome: Outcome[Download]) -> Outcome[Download | Moved]:
        """Let a link go on at another process if that has its next host."""
        if not isinstance(outcome, Requeue) or self._shares.owner(outcome.item.host) == self._number:
            return outcome
        moved = Moved(outcome.item, outcome.seconds)
        return Throttled(moved, outcome.seconds, outcome.host) if outcome.host else moved


class _RemoteLeases:
    """The slots of shared hosts, as the run has said.

    Args:
        channel: Where the run hears which hosts are wanted.
    """

    # Shared mutable state: `_known`, which the receiving thread changes, and `_wanted`, both without a lock:
    # each change is one step.

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._known: dict[str, Slots] = {}
        self._wanted: set[str] = set()

    def slots(self, host: str) -> int | None:
        """Return the slots of a host that is wanted now; None for a host that is not shared."""
        known = self._known.get(host)
        if known is None:
            return None
        self._want(host)
        return known.part.slots if since_boot() < known.until else 0

    def share(self, host: str) -> None:
        """Share a host from now on: it has no slots until the run says so."""
        self._known.setdefault(host, Slots(host, Part(0, HostLimits(1)), float("-inf")))
        self._want(host)

    def heard(self, message: Slots) -> None:
        """Heed what the run says about a host."""
        self._known[message.host] = message
        self._wanted.discard(message.host)

    def _want(self, host: str) -> None:
        """Say that a host is wanted, once for each time that the run speaks of it."""
        if host not in self._wanted:
            self._wanted.add(host)
            self._channel.send(Wanted(host))


class _RemoteChecks:
    """Has images validated by the run's workers, and waits for them.

    Args:
        channel: Where they are sent.
    """

    # Shared mutable state: the questions that are not answered yet, under `_lock`.

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._waiting: dict[int, queue.SimpleQueue[Checked]] = {}
        self._is_closed = False

    def validate(self, image: Image, limits: Limits) -> None:  # noqa: ARG002 -- the run has the same ones
        """Validate an image.

        Raises:
            InvalidImageError, ResourceError, StoreError: As the run's workers.
            Cancelled: The run is ending.
        """
        self._ask("", None, image)

    def check(self, url: str, sha256: str, image: Image) -> None:
        """Validate an image; the run keeps the result. At the run's end, it is left to the catalog."""
        try:
            self._ask(url, sha256, image)
        except Cancelled:
            return

    def answered(self, answer: Checked) -> None:
        """Give an answer to the thread that waits for it."""
        with self._lock:
            waiting = self._waiting.pop(answer.question, None)
        if waiting is not None:
            waiting.put(answer)

    def close(self) -> None:
        """Let all threads go on that wait for an answer."""
        with self._lock:
            self._is_closed = True
            waiting, self._waiting = self._waiting, {}
        for question, each in waiting.items():
            each.put(Checked(question, Cancelled()))

    def _ask(self, url: str, sha256: str | None, image: Image) -> None:
        answers: queue.SimpleQueue[Checked] = queue.SimpleQueue()
        with self._lock:
            if self._is_closed:
                raise Cancelled
            question = next(self._numbers)
            self._waiting[question] = answers
        with _as_descriptor(image) as descriptor:
            self._channel.send(Check(question, url, sha256), descriptor)
        answer = answers.get()
        if answer.error is not None:
            raise answer.error


@contextmanager
def _as_descriptor(image: Image) -> Iterator[int]:
    """Give the descriptor of a file with an image."""
    if isinstance(image, BytesIO):
        image = image.getvalue()
    if not isinstance(image, bytes):
        yield image.fileno()
        return
    with _new_file() as file:
        file.write(image)
        file.flush()
        yield file.fileno()


def _new_file() -> Any:
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("image"), "r+b")
    return tempfile.TemporaryFile()


def _report(channel: Channel, level: int) -> None:
    """Let what this process has to report reach the run's log."""
    logger = logging.getLogger("imgdl_pipeline")
    logger.setLevel(level)
    logger.propagate = False
    logger.addHandler(_ToTheRun(channel))


class _ToTheRun(logging.Handler):
    """Sends log records to the run.

    Args:
        channel: Where to.
    """

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record, unless the run is gone."""
        try:
            self._channel.send(Logged(record.name, record.levelno, self.format(record)))
        except OSError:
            return
