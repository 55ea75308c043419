"""One decoding process, from the run's side: sends it images, and receives its answers."""

import fcntl
import io
import json
import logging
import mmap
import os
import secrets
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from imgdl_pipeline.core.jpeg.facts import InvalidImageError
from imgdl_pipeline.core.jpeg.memory_budget import MemoryBudget
from imgdl_pipeline.core.jpeg.protocol import GO
from imgdl_pipeline.core.model.outcome import Reason, Status
from imgdl_pipeline.core.model.shown import one_line

logger = logging.getLogger(__name__)

RECEIVED_BYTES = 65_536

MAX_ANSWER_BYTES = 4_000_000
"""More of an answer is not read: the process that gives it may have been taken over. A request may say that
there may be more behind the answer's line: its `max_answer`."""

Image = bytes | IO[bytes]
"""A JPEG's bytes, or an open file of them."""


class WorkerDiedError(Exception):
    """A worker has died, or does not answer."""


class WrongAnswerError(WorkerDiedError):
    """A worker does not answer as it should: it is not to be trusted with another image."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A worker's answer, and the bytes behind it."""

    fields: dict[str, Any]
    payload: bytes


class Worker:
    """One worker process, from this side: its socket, and the memory that is shared with it."""

    def __init__(self, pid: int, connection: socket.socket, shared: mmap.mmap, wait_s: float) -> None:
        self.pid, self.is_new = pid, True
        self._connection, self._shared = connection, shared
        self._wait_s = wait_s
        _limit_waiting(connection, wait_s)

    def ask(self, image: Image, request: dict[str, Any], budget: MemoryBudget) -> Answer:
        """Send a request and return the answer.

        Raises:
            InvalidImageError: The answer says that the image is not valid.
            WorkerDiedError: There is no answer, or one that makes no sense.
        """
        self.is_new = False
        number = secrets.token_hex(8)
        try:
            self._send(image, {**request, "id": number})
            answer = self._receive(number, request)
            if "reserve" in answer.fields:
                with budget.reserve(int(answer.fields["reserve"])):
                    self._connection.sendall(GO)
                    answer = self._receive(number, request)
        except (WorkerDiedError, InvalidImageError):
            raise
        except OSError as error:  # a time-out is one, too
            raise WorkerDiedError(str(error)) from error
        except Exception as error:
            raise WrongAnswerError(str(error)) from error
        if "reason" in answer.fields:
            raise _invalid(answer.fields)
        return answer

    def _send(self, image: Image, request: dict[str, Any]) -> None:
        if isinstance(image, io.BytesIO):
            image = image.getvalue()
        if isinstance(image, bytes) and len(image) <= len(self._shared):
            self._shared[: len(image)] = image
            self._connection.sendall(json.dumps({**request, "size": len(image)}).encode() + b"\n")
            return
        with _as_file(image) as file, _read_only(file) as descriptor:
            size = os.fstat(descriptor).st_size
            line = json.dumps({**request, "size": size}).encode() + b"\n"
            socket.send_fds(self._connection, [line], [descriptor] if size else [])

    def _receive(self, number: str, request: dict[str, Any]) -> Answer:
        """Receive a line, and as many bytes behind it as it says, and no more."""
        ends_at = time.monotonic() + self._wait_s
        received, end = b"", -1
        while end < 0:
            if len(received) > MAX_ANSWER_BYTES:
                raise WrongAnswerError("the answer has no end")
            received += self._part(ends_at)
            end = received.find(b"\n")
        fields = json.loads(received[:end])
        if not isinstance(fields, dict) or fields.get("id") != number:
            raise WrongAnswerError("it is not the answer to this question")
        size = int(fields.get("payload", 0))
        if size > request.get("max_answer", MAX_ANSWER_BYTES):
            raise WrongAnswerError("the answer has no end")
        parts = [received[end + 1 :]]
        missing = size - len(parts[0])
        while missing > 0:
            parts.append(self._part(ends_at))
            missing -= len(parts[-1])
        if missing < 0:
            raise WrongAnswerError("there is more behind the answer")
        return Answer(fields, b"".join(parts))

    def _part(self, ends_at: float) -> bytes:
        part = self._connection.recv(RECEIVED_BYTES)
        if not part:
            raise WorkerDiedError("the answer is cut")
        if time.monotonic() > ends_at:
            raise WrongAnswerError("the answer has no end")
        return part

    def close(self) -> None:
        """Close this side; the process ends when it sees that."""
        self._connection.close()
        self._shared.close()


def _invalid(answer: dict[str, Any]) -> InvalidImageError:
    """Return the error of an answer; its words are a stranger's."""
    detail = one_line(str(answer.get("detail")))
    if answer.get("unexpected"):
        logger.error("an internal error: %s", detail)
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


@contextmanager
def _read_only(file: IO[bytes]) -> Iterator[int]:
    """Give a descriptor of a file that nobody can write through; a worker may have been taken over."""
    is_read_only = fcntl.fcntl(file.fileno(), fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    if is_read_only or sys.platform != "linux":
        yield file.fileno()
        return
    descriptor = os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _limit_waiting(connection: socket.socket, seconds: float) -> None:
    """Let the system end a wait: Python's own time-outs cost a system call more for each one."""
    limit = struct.pack("@ll", int(seconds), 0)
    for direction in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        connection.setsockopt(socket.SOL_SOCKET, direction, limit)
