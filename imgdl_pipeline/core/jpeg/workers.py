"""Decodes strangers' images in processes of their own, so that no image can harm the run.

A decoder that crashes, hangs or takes too much memory costs its own image and a worker process, never
another image and never the run.
"""

import io
import itertools
import json
import logging
import mmap
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from imgdl_pipeline.core.jpeg.facts import InvalidImageError, JpegFacts, Limits
from imgdl_pipeline.core.jpeg.memory_budget import MemoryBudget
from imgdl_pipeline.core.jpeg.protocol import CPU_S, FORK, GO, MEMORY_STATUS, REAP, WALL_S
from imgdl_pipeline.core.model.outcome import Reason, ResourceError, Status, printable

T = TypeVar("T")

logger = logging.getLogger(__name__)

SHARED_BYTES = 4 * 1024 * 1024
"""Memory that each worker shares with this process; a larger image comes as a file."""

MAX_ANSWER_BYTES = 4_000_000
"""More of an answer is not read: the process that gives it may have been taken over."""

START_S = 60.0
"""Seconds that the fork server may take to start on a machine that is busy."""

KILLS = 2
"""Times that an image is tried again whose worker was killed: that is the system's doing, or a person's."""

GRACE_S = 15.0
"""Seconds after which a worker is killed that the system should have ended."""

KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ", "OPENBLAS_CORETYPE")
"""All of the environment that the processes get: secrets are not for decoders."""

ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

Image = bytes | IO[bytes]
"""A JPEG's bytes, or an open file of them."""


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
        self._server = _ForkServer()
        self._idle: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(self.count):
            self._idle.put(None)

    def __enter__(self) -> "JpegWorkers":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

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
        request = {"job": "validate", "limits": asdict(limits), "sha256": sha256}
        return self._ask(image, request, _facts)

    def thumbnail(self, image: Image, limits: Limits, side: int) -> Thumbnail:
        """Make a picture of a JPEG of which no side has more than `side` pixels, the right way up.

        Raises:
            InvalidImageError: It cannot be decoded, or its decoder died.
            ResourceError: No worker can be started.
        """
        return self._ask(image, {"job": "thumbnail", "limits": asdict(limits), "side": side}, _thumbnail)

    def _ask(self, image: Image, request: dict[str, Any], parse: Callable[["_Answer"], T]) -> T:
        """Have a worker answer; where it dies, ask a new one, which no other image can have harmed.

        What dies in a new worker dies of this image, and not of what an earlier one has left behind.
        """
        request = {**request, **self._limits}
        worker = self._idle.get()
        try:
            for kills_left in itertools.count(KILLS, -1):
                worker = worker or self._server.fork()
                is_new = worker.is_new
                try:
                    return parse(worker.ask(image, request, self.budget))
                except _DeadError as error:
                    dead, worker = worker, None
                    how = _in_words(self._server.ended(dead), request)
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


class _DeadError(Exception):
    """A worker has died, or does not answer as it should: then it is not to be trusted with another image."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """A worker's answer, and the bytes behind it."""

    fields: dict[str, Any]
    payload: bytes


def _facts(answer: _Answer) -> JpegFacts:
    try:
        return JpegFacts.from_json(answer.fields["facts"])
    except (KeyError, TypeError, ValueError) as error:
        raise _DeadError("the answer has no facts") from error


def _thumbnail(answer: _Answer) -> Thumbnail:
    width, height = answer.fields.get("width"), answer.fields.get("height")
    if not isinstance(width, int) or not isinstance(height, int) or width < 1:
        raise _DeadError("the answer has no size")
    if len(answer.payload) != 3 * width * height:
        raise _DeadError("the answer has no picture")
    return Thumbnail(width, height, answer.payload)


class _Worker:
    """One worker process, from this side: its socket, and the memory that is shared with it."""

    def __init__(self, pid: int, connection: socket.socket, shared: mmap.mmap) -> None:
        self.pid, self.is_new = pid, True
        self._connection, self._shared = connection, shared
        self._answers = connection.makefile("rb")

    def ask(self, image: Image, request: dict[str, Any], budget: MemoryBudget) -> _Answer:
        """Send a request and return the answer.

        Raises:
            InvalidImageError: The answer says that the image is none.
            _DeadError: There is no answer.
        """
        self.is_new = False
        self._connection.settimeout(request["wall_s"] + GRACE_S)
        try:
            self._send(image, request)
            answer = self._line()
            if "reserve" in answer:
                with budget.reserve(int(answer["reserve"])):
                    self._connection.sendall(GO)
                    answer = self._line()
            size = int(answer["payload"])
            payload = self._answers.read(size) if 0 < size <= MAX_ANSWER_BYTES else b""
        except (OSError, ValueError, KeyError, TypeError) as error:  # TimeoutError is an OSError
            raise _DeadError(str(error)) from error
        if len(payload) != size:
            raise _DeadError("the answer is cut")
        if "reason" in answer:
            raise _invalid(answer)
        return _Answer(answer, payload)

    def _send(self, image: Image, request: dict[str, Any]) -> None:
        if isinstance(image, io.BytesIO):
            image = image.getvalue()
        if isinstance(image, bytes) and len(image) <= SHARED_BYTES:
            self._shared[: len(image)] = image
            self._connection.sendall(json.dumps({**request, "size": len(image)}).encode() + b"\n")
            return
        with _as_file(image) as file:
            size = os.fstat(file.fileno()).st_size
            line = json.dumps({**request, "size": size}).encode() + b"\n"
            socket.send_fds(self._connection, [line], [file.fileno()] if size else [])

    def _line(self) -> dict[str, Any]:
        line = self._answers.readline(MAX_ANSWER_BYTES)
        if not line.endswith(b"\n"):
            raise _DeadError("the worker is gone")
        answer = json.loads(line)
        if not isinstance(answer, dict):
            raise _DeadError("the answer is no object")
        return answer

    def close(self) -> None:
        with suppress(OSError):
            os.kill(self.pid, signal.SIGKILL)
        self._answers.close()
        self._connection.close()
        self._shared.close()


def _invalid(answer: dict[str, Any]) -> InvalidImageError:
    """Return the error of an answer; its words are a stranger's."""
    detail = printable(str(answer.get("detail")))
    if answer.get("unexpected"):
        logger.error("an error of our own: %s", detail)
    reasons = (each for each in Reason if each.value == answer["reason"] and each.status is Status.INVALID)
    return InvalidImageError(next(reasons, Reason.CORRUPT), detail)


@contextmanager
def _as_file(image: Image) -> Iterator[IO[bytes]]:
    """Give an image as a file that has a descriptor."""
    if not isinstance(image, bytes):
        yield image
        return
    with tempfile.TemporaryFile() as file:
        file.write(image)
        file.flush()
        yield file


class _ForkServer:
    """The process that forks the workers, started when it is first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._workers: set[_Worker] = set()
        self._is_closed = False

    def fork(self) -> _Worker:
        """Return a new worker.

        Raises:
            ResourceError: It cannot be started.
        """
        shared_fd = _shared_memory()
        try:
            shared = mmap.mmap(shared_fd, SHARED_BYTES)
            with self._lock:
                control = self._started()
                socket.send_fds(control, [FORK], [shared_fd])
                answer, descriptors, _, _ = socket.recv_fds(control, 4, 1)
                if not descriptors:
                    raise ResourceError("the process that forks decoders is gone")
                worker = _Worker(int.from_bytes(answer, "big"), socket.socket(fileno=descriptors[0]), shared)
                self._workers.add(worker)
                return worker
        except OSError as error:
            raise ResourceError(f"no process can be started to decode images: {error}") from error
        finally:
            os.close(shared_fd)

    def ended(self, worker: _Worker) -> int:
        """Kill a worker if it still runs, and return how it ended, as `waitpid` has it."""
        worker.close()
        with self._lock:
            self._workers.discard(worker)
            if self._control is None:
                return signal.SIGKILL
            try:
                self._control.sendall(REAP + worker.pid.to_bytes(4, "big"))
                return int.from_bytes(self._control.recv(4), "big")
            except OSError:
                self._stop()  # the server is gone, and its workers with it; the next fork starts one
                return signal.SIGKILL

    def close(self) -> None:
        """End the server and all workers."""
        with self._lock:
            self._is_closed = True
            for worker in self._workers:
                with suppress(OSError):
                    os.kill(worker.pid, signal.SIGKILL)
            self._stop()

    def _stop(self) -> None:
        """End the server; the caller holds the lock. Workers end when they see that it is gone."""
        process, control, self._process, self._control = self._process, self._control, None, None
        if process is not None and control is not None:
            control.close()
            process.kill()
            process.wait()

    def _started(self) -> socket.socket:
        """Return the server's socket; the caller holds the lock."""
        if self._is_closed:
            raise ResourceError("the workers are closed")
        if self._control is None:
            self._process, self._control = _start_server()
        return self._control


def _start_server() -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start the fork server with a clean environment, and wait until it is ready.

    Raises:
        ResourceError: It does not start; says what it printed.
    """
    ours, theirs = socket.socketpair()
    package = str(Path(__file__).parents[3])  # an editable install may have it on no path
    code = (
        f"import sys; sys.path[:] = {[package, *sys.path]!r}; "
        f"from imgdl_pipeline.core.jpeg.worker import main; main({theirs.fileno()})"
    )
    environment = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    with tempfile.TemporaryFile() as printed, theirs:
        process = subprocess.Popen(  # noqa: S603 -- this program, with code of ours
            [sys.executable, "-I", "-S", "-c", code],
            env=environment | ONE_THREAD,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=printed,
        )
        theirs.close()
        ours.settimeout(START_S)
        try:
            is_ready = ours.recv(1) == GO
        except OSError:
            is_ready = False
        if not is_ready:
            ours.close()
            process.kill()
            process.wait()
            printed.seek(0)
            lines = printed.read().decode(errors="replace").strip().splitlines() or ["it printed nothing"]
            raise ResourceError(f"the process that decodes images does not start: {lines[-1]}")
    return process, ours


def _shared_memory() -> int:
    """Return a descriptor of `SHARED_BYTES` of memory that has no name."""
    if sys.platform == "linux":
        descriptor = os.memfd_create("image")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, SHARED_BYTES)
    return descriptor


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
