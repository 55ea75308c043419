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
from functools import partial
from typing import Any, TypeVar

from imgdl_pipeline.core.jpeg.facts import InvalidImageError, JpegFacts, Limits
from imgdl_pipeline.core.jpeg.fork_server import ForkServer
from imgdl_pipeline.core.jpeg.header import (
    JPEG_START,
    BadHeaderError,
    CutHeaderError,
    UnsupportedJpegError,
    read_header,
)
from imgdl_pipeline.core.jpeg.memory_budget import MemoryBudget
from imgdl_pipeline.core.jpeg.protocol import CPU_S, MEMORY_STATUS, WALL_S
from imgdl_pipeline.core.jpeg.worker_client import Answer, Image, Worker, WorkerDiedError, WrongAnswerError
from imgdl_pipeline.core.model.dataset_settings import ResizeSettings
from imgdl_pipeline.core.model.outcome import Reason, ResourceError

T = TypeVar("T")

Opener = Callable[[], AbstractContextManager[Image]]

SAMPLE = bytes.fromhex(
    "ffd8ffe000104a46494600010100000100010000ffdb004300ffffffffffffffffffffffffffffffffffffffffffffff"
    "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffc0000b080008"
    "000801011100ffc40014000100000000000000000000000000000000ffc4001410010000000000000000000000000000"
    "0000ffda0008010100003f003fffd9"
)
"""A picture of 8 × 8 gray pixels."""

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


METADATA_BYTES = 5_000_000
"""Of a resized JPEG, what is not its picture at most: a colour profile, EXIF, XMP and tables."""

MAX_BYTES_PER_PIXEL = 6
"""Of a resized JPEG: noise at quality 100 and 4:4:4 takes four."""


@dataclass(frozen=True, slots=True)
class Resized:
    """A JPEG of another size than the stored one: upright, in RGB or gray."""

    width: int
    height: int
    data: bytes


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
        self._pid = os.getpid()
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
            image: The file; it stays open.
            limits: What is decoded at all.
            sha256: What its bytes must have, as 64 hex digits; None for anything.

        Raises:
            InvalidImageError: It is no whole, valid JPEG, or its decoder died.
            ResourceError: No worker can be started.
        """
        return self.validate_stored(lambda: nullcontext(image), 0, limits, sha256)

    def validate_stored(
        self, open_image: Opener, size: int, limits: Limits, sha256: str | None = None
    ) -> JpegFacts:
        """Check a file, as `validate` does, that is opened once there are a worker and memory for it.

        Args:
            open_image: Opens the file for a `with` block; may raise InvalidImageError.
            size: Bytes of memory that it takes once it is open; 0 for a file on a disk.
            limits: What is decoded at all.
            sha256: What its bytes must have.

        Raises:
            InvalidImageError, ResourceError: As `validate`; and whatever `open_image` raises.
        """
        request = {"job": "validate", "limits": limits.asdict(), "sha256": sha256}
        return self._ask(open_image, size, request, _facts)

    def thumbnail(self, open_image: Opener, size: int, limits: Limits, side: int) -> Thumbnail:
        """Make a picture of a JPEG of which no side has more than `side` pixels, the right way up.

        Raises:
            InvalidImageError, ResourceError: As `validate_stored`.
        """
        request = {"job": "thumbnail", "limits": limits.asdict(), "side": side}
        return self._ask(open_image, size, request, _thumbnail)

    def resize(
        self,
        open_image: Opener,
        size: int,
        limits: Limits,
        settings: ResizeSettings,
        sha256: str | None = None,
    ) -> Resized:
        """Make a JPEG of another size from a stored one, as `core/jpeg/resize.py` says.

        Args:
            open_image: Opens the file, as for `validate_stored`.
            size: Bytes of memory that it takes once it is open; 0 for a file on a disk.
            limits: What is decoded at all.
            settings: Size, colours, metadata and encoding.
            sha256: What the stored file's bytes must have.

        Raises:
            InvalidImageError, ResourceError: As `validate_stored`.
        """
        request = {
            "job": "resize",
            "limits": limits.asdict(),
            "sha256": sha256,
            "resize": settings.model_dump(),
            "max_answer": METADATA_BYTES + MAX_BYTES_PER_PIXEL * settings.side**2,
        }
        return self._ask(open_image, size, request, partial(_resized, side=settings.side))

    def _ask(self, open_image: Opener, size: int, request: dict[str, Any], parse: Callable[[Answer], T]) -> T:
        """Have a worker answer; where it dies, ask a new one, which no other image can have harmed.

        What dies in a new worker dies of this image, and not of what an earlier one has left behind. A thread
        that holds memory has a worker already: in the other order, two threads could wait for each other.
        """
        if os.getpid() != self._pid:
            raise ResourceError("decoding processes cannot be shared with a process that was forked later")
        request = {**request, **self._limits}
        worker = self._idle.get()
        try:
            with self.budget.reserve(size), open_image() as image:
                for kills_left in itertools.count(KILLS, -1):
                    worker = worker or self._server.fork(self._limits["wall_s"] + GRACE_S)
                    is_new = worker.is_new
                    try:
                        return parse(worker.ask(image, request, self.budget))
                    except WorkerDiedError as error:
                        dead, worker = worker, None
                        status = self._server.ended(dead)
                        how = _in_words(status, error, request)
                        if is_new and how.startswith(EXITED):
                            self._check_that_decoding_works(how)
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

    def _check_that_decoding_works(self, how: str) -> None:
        """Have a new worker decode a picture that is known to be whole.

        A worker that exits by itself has met an error of this program, or of the system: a sandbox that is
        too strict, or files that an update has replaced. That must not make every image corrupt.

        Raises:
            ResourceError: The picture is not decoded either.
        """
        worker = self._server.fork(self._limits["wall_s"] + GRACE_S)
        limits = Limits(max_pixels=64, max_decode_bytes=1)
        try:
            worker.ask(SAMPLE, {"job": "validate", "limits": limits.asdict(), **self._limits}, self.budget)
        except (WorkerDiedError, InvalidImageError) as error:
            raise ResourceError(f"no picture can be decoded: a decoding process {how}") from error
        finally:
            self._server.ended(worker)


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


def _resized(answer: Answer, side: int) -> Resized:
    """Return the JPEG of an answer, whose header is read here: no decoder has a part in that."""
    size = answer.fields.get("width"), answer.fields.get("height")
    try:
        if bytes(answer.payload[: len(JPEG_START)]) != JPEG_START:
            raise WrongAnswerError("the answer is no JPEG")
        header = read_header(answer.payload)
    except (CutHeaderError, BadHeaderError, UnsupportedJpegError) as error:
        raise WrongAnswerError("the answer is no JPEG") from error
    if (header.width, header.height) != size or max(header.width, header.height) > side:
        raise WrongAnswerError("the answer has another size than it says, or than was asked for")
    return Resized(header.width, header.height, answer.payload)


KILLED = "was killed, as the system does when memory runs out"


EXITED = "ended with status"


def _in_words(status: int, error: WorkerDiedError, request: dict[str, Any]) -> str:
    """Return how a process ended, by the status that `waitpid` gives."""
    if isinstance(error, WrongAnswerError):
        return "gave no answer that makes sense"
    if not os.WIFSIGNALED(status):
        is_memory = os.WEXITSTATUS(status) == MEMORY_STATUS
        return "used too much memory" if is_memory else f"{EXITED} {os.WEXITSTATUS(status)}"
    number = os.WTERMSIG(status)
    known: dict[int, str] = {
        signal.SIGXCPU: f"was stopped after {request['cpu_s']:g} s of the processor",
        signal.SIGALRM: f"was stopped after {request['wall_s']:g} s",
        signal.SIGKILL: KILLED,
    }
    names = {each.value: each.name for each in signal.Signals}
    return known.get(number) or f"crashed: {names.get(number, f'signal {number}')}"
