"""Decodes strangers' images in processes of their own, so that no image can harm the run.

A decoder that crashes, hangs or takes too much memory costs its own image and a worker process, never
another image and never the run.
"""

import itertools
import os
import queue
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from imgdl_pipeline.core.jpeg.facts import InvalidImageError, JpegFacts, Limits
from imgdl_pipeline.core.jpeg.fork_server import ForkServer
from imgdl_pipeline.core.jpeg.memory_budget import MemoryBudget
from imgdl_pipeline.core.jpeg.protocol import CPU_S, MEMORY_STATUS, WALL_S
from imgdl_pipeline.core.jpeg.worker_client import Answer, Image, Worker, WorkerDiedError, WrongAnswerError
from imgdl_pipeline.core.model.outcome import Reason

T = TypeVar("T")

KILLS = 2
"""Times that an image is tried again whose worker was killed: that is the system's doing, or a person's."""

GRACE_S = 15.0
"""Seconds after which a worker is killed that the system should have ended."""


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small picture: RGB bytes, row by row."""

    width: int
    height: int
    pixels: bytes


class JpegWorkers:
    """Worker processes that decode, one image at a time each; started when they are first needed.

    Use it in a `with` block: leaving it ends the processes. Threads share it. Its state is a queue of workers
    that have nothing to do, and the fork server with the one lock of its socket.

    Args:
        count: Workers at most; None for one per core.
        cpu_s: Seconds of the processor that one image may take.
        wall_s: Seconds by the clock that it may take: a decoder that waits uses no processor.
    """

    def __init__(self, count: int | None = None, *, cpu_s: float = CPU_S, wall_s: float = WALL_S) -> None:
        self.count = count or available_cores()
        self.budget = MemoryBudget()
        self._limits = {"cpu_s": cpu_s, "wall_s": wall_s}
        self._server = ForkServer()
        self._idle: queue.LifoQueue[Worker | None] = queue.LifoQueue()
        for _ in range(self.count):
            self._idle.put(None)

    def __enter__(self) -> "JpegWorkers":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the process that forks the workers, without waiting for it: they are needed soon."""
        self._server.start()

    def close(self) -> None:
        """End the processes, also those that are decoding: whoever waits for one gets an error."""
        self._server.close()
        idle = []
        with suppress(queue.Empty):
            while True:
                idle.append(self._idle.get_nowait())
        for worker in idle:
            if worker is not None:
                worker.close()
            self._idle.put(None)

    def validate(self, image: Image, limits: Limits, sha256: str | None = None) -> JpegFacts:
        """Check a file from its first byte to its last.

        Args:
            image: The file.
            limits: What is decoded at all.
            sha256: What its bytes must have, as 64 hex digits; None for anything.

        Raises:
            InvalidImageError: It is no whole, valid JPEG, or its decoder died.
            ResourceError: No worker can be started.
        """
        request = {"job": "validate", "limits": limits.asdict(), "sha256": sha256}
        return self._ask(image, request, _facts)

    def thumbnail(self, image: Image, limits: Limits, side: int) -> Thumbnail:
        """Make a picture of a JPEG of which no side has more than `side` pixels, the right way up.

        Raises:
            InvalidImageError: It cannot be decoded, or its decoder died.
            ResourceError: No worker can be started.
        """
        return self._ask(image, {"job": "thumbnail", "limits": limits.asdict(), "side": side}, _thumbnail)

    def _ask(self, image: Image, request: dict[str, Any], parse: Callable[[Answer], T]) -> T:
        """Have a worker answer; where it dies, ask a new one, which no other image can have harmed.

        What dies in a new worker dies of this image, and not of what an earlier one has left behind.
        """
        request = {**request, **self._limits}
        worker = self._idle.get()
        try:
            for kills_left in itertools.count(KILLS, -1):
                worker = worker or self._server.fork(self._limits["wall_s"] + GRACE_S)
                is_new = worker.is_new
                try:
                    return parse(worker.ask(image, request, self.budget))
                except WorkerDiedError as error:
                    dead, worker = worker, None
                    how = _in_words(self._server.ended(dead), request)
                    if isinstance(error, WrongAnswerError):
                        how = "gave no answer that makes sense"
                    if is_new and (how != KILLED or not kills_left):
                        raise InvalidImageError(Reason.CORRUPT, f"its decoder {how}") from error
                except InvalidImageError:
                    raise
                except BaseException:  # interrupted in the middle of an answer
                    dead, worker = worker, None
                    self._server.ended(dead)
                    raise
            raise AssertionError("unreachable")
        finally:
            self._idle.put(worker)


def opened(jpegs: JpegWorkers | None) -> AbstractContextManager[JpegWorkers]:
    """Give the workers that there are, or new ones for the length of a `with` block."""
    return nullcontext(jpegs) if jpegs else JpegWorkers()


def available_cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _facts(answer: Answer) -> JpegFacts:
    try:
        return JpegFacts.from_json(answer.fields["facts"])
    except (KeyError, TypeError, ValueError) as error:
        raise WrongAnswerError("the answer has no facts") from error


def _thumbnail(answer: Answer) -> Thumbnail:
    width, height = answer.fields.get("width"), answer.fields.get("height")
    if not isinstance(width, int) or not isinstance(height, int) or width < 1:
        raise WrongAnswerError("the answer has no size")
    if len(answer.payload) != 3 * width * height:
        raise WrongAnswerError("the answer has no picture")
    return Thumbnail(width, height, answer.payload)


KILLED = "was killed, as the system does when memory runs out"


def _in_words(status: int, request: dict[str, Any]) -> str:
    """Return how a process ended, by the status that `waitpid` gives."""
    if not os.WIFSIGNALED(status):
        is_memory = os.WEXITSTATUS(status) == MEMORY_STATUS
        return "used too much memory" if is_memory else f"ended with status {os.WEXITSTATUS(status)}"
    number = os.WTERMSIG(status)
    known: dict[int, str] = {
        signal.SIGXCPU: f"was stopped after {request['cpu_s']:g} s of the processor",
        signal.SIGALRM: f"was stopped after {request['wall_s']:g} s",
        signal.SIGKILL: KILLED,
    }
    names = {each.value: each.name for each in signal.Signals}
    return known.get(number) or f"crashed: {names.get(number, f'signal {number}')}"
