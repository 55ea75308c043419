"""The processes in which strangers' images are decoded: a fork server, and the workers that it forks.

`workers.py` starts the server with a clean environment and talks to it and to its workers over sockets. The
server sees no image. It imports everything once, so that a worker is there within milliseconds, also after
another one has died. A worker answers one request at a time, and gives up all that decoding does not need
before its first one.
"""

import functools
import gc
import hashlib
import io
import json
import mmap
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from PIL import Image, ImageCms

from imgdl_pipeline.core.jpeg import libjpeg
from imgdl_pipeline.core.jpeg.decode import NoMemoryError
from imgdl_pipeline.core.jpeg.embedded import orientation_of
from imgdl_pipeline.core.jpeg.facts import InvalidImageError, Limits
from imgdl_pipeline.core.jpeg.header import Buffer, JpegHeader, read_header
from imgdl_pipeline.core.jpeg.memory_budget import LARGE_BYTES
from imgdl_pipeline.core.jpeg.protocol import (
    BASE_BYTES,
    FORK,
    GO,
    MAX_REQUEST_BYTES,
    MEMORY_STATUS,
    REAP,
)
from imgdl_pipeline.core.jpeg.resize import Resize, decoded_size, resized
from imgdl_pipeline.core.jpeg.sandbox import address_space, give_up_privileges, limit_memory_and_time
from imgdl_pipeline.core.jpeg.thumbnail import thumbnail
from imgdl_pipeline.core.jpeg.validate import judge_header, validate_jpeg
from imgdl_pipeline.core.model.outcome import Reason

DETAIL_CHARS = 500

NICENESS = 5
"""How much less of the processor checks ask for than downloads do, as `nice` counts it."""

MOST_RESIDENT_BYTES = 1_000_000_000
"""Memory at which a worker ends itself on a system that does not limit address space."""

PIXEL_BYTES = 4
"""Of memory that Pillow has for a pixel, whatever its mode is."""

COPIES = 4
"""Pictures of the new size that there may be at once: scaled, turned, converted, and padded or encoded."""

MANY_PIXELS = 16_000_000
"""Where a picture is resized at more pixels than that, it waits until it is the only large one."""

Answer = tuple[dict[str, Any], bytes]
Reserve = Callable[[int], None]


def main(control_fd: int) -> None:
    """Be the fork server, until the other end of its socket is closed."""
    control = socket.socket(fileno=control_fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes; the run decides
    os.nice(NICENESS)
    _warm_up()
    gc.freeze()
    control.sendall(GO)
    while True:
        request, descriptors, _, _ = socket.recv_fds(control, 5, 1)
        if request[:1] == FORK:
            _fork(control, descriptors[0])
        elif request[:1] == REAP:
            pid = int.from_bytes(request[1:], "big")
            os.kill(pid, signal.SIGKILL)  # a child that was not waited for yet: the number is its own
            _, status = os.waitpid(pid, 0)
            control.sendall(status.to_bytes(4, "big"))
        else:
            os._exit(0)


def _fork(control: socket.socket, shared_fd: int) -> None:
    """Fork a worker with a socket of its own, and send the other end of that and the worker's number."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        control.close()
        ours.close()
        try:
            serve(theirs, shared_fd)
        finally:
            os._exit(1)
    socket.send_fds(control, [pid.to_bytes(4, "big")], [ours.fileno()])
    for each in (ours, theirs):
        each.close()
    os.close(shared_fd)


def serve(requests: socket.socket, shared_fd: int) -> None:
    """Be a worker, until the other end of the socket is closed."""
    shared = memoryview(mmap.mmap(shared_fd, 0))
    os.close(shared_fd)
    give_up_privileges()
    if sys.platform != "linux":
        threading.Thread(target=_watch_memory, daemon=True).start()
    _decode_sample(_sample())
    at_rest = address_space()
    while True:
        line, descriptors, _, _ = socket.recv_fds(requests, MAX_REQUEST_BYTES, 1)
        if not line:
            os._exit(0)
        request = json.loads(line)
        limit_memory_and_time(at_rest + memory_for(request), request["cpu_s"])
        signal.setitimer(signal.ITIMER_REAL, request["wall_s"])  # ends a process that does not handle it
        with _bytes_of(request, shared, descriptors) as data:
            answer, payload = answered(request, data, partial(_reserve, requests, request))
        signal.setitimer(signal.ITIMER_REAL, 0)
        _send(requests, {**answer, "id": request["id"], "payload": len(payload)}, payload)
        if libjpeg.is_spent():
            os._exit(0)


def _reserve(requests: socket.socket, request: dict[str, Any], size: int) -> None:
    """Wait until an image that takes so many bytes may be decoded."""
    signal.setitimer(signal.ITIMER_REAL, 0)  # other images' time is not this one's
    _send(requests, {"reserve": size, "id": request["id"]})
    if not requests.recv(1):
        os._exit(0)
    signal.setitimer(signal.ITIMER_REAL, request["wall_s"])


def _send(requests: socket.socket, answer: dict[str, Any], payload: bytes = b"") -> None:
    line = json.dumps(answer, ensure_ascii=False).encode("utf-8", "replace")
    requests.sendall(line + b"\n" + payload)


@contextmanager
def _bytes_of(request: dict[str, Any], shared: memoryview, descriptors: list[int]) -> Iterator[Buffer]:
    """Give the image's bytes without a copy: from shared memory, or from the file that came along."""
    if not descriptors:
        yield shared[: request["size"]]
        return
    try:
        with (
            mmap.mmap(descriptors[0], request["size"], access=mmap.ACCESS_READ) as mapped,
            memoryview(mapped) as view,
        ):
            yield view
    finally:
        os.close(descriptors[0])


def answered(request: dict[str, Any], data: Buffer, reserve: Reserve) -> Answer:
    """Do what a request asks for.

    Args:
        request: `job` is one of `_JOBS`; `limits`; the `sha256` that the bytes must have.
        data: The image.
        reserve: Waits until an image that takes so many bytes may be decoded.

    Returns:
        The answer: `facts`, or `reason` and `detail`, or the size of the picture that is its payload.
    """
    limits = Limits(**request["limits"])
    try:
        _check_digest(data, request.get("sha256"))
        header = judge_header(data, limits)
        size = max(len(data), header.decode_bytes, _pixel_bytes(request, header))
        if size > LARGE_BYTES:
            reserve(size)
        return _JOBS[request["job"]](request, data, header)
    except InvalidImageError as error:
        return {"reason": error.reason.value, "detail": error.detail}, b""
    except (MemoryError, NoMemoryError):
        detail = f"its decoder needs more than {memory_for(request)} bytes"
        return {"reason": "corrupt", "detail": detail}, b""
    except Exception as error:  # noqa: BLE001 -- strangers' bytes: Pillow raises nearly anything on them
        detail = f"its decoder fails: {type(error).__name__}: {error}"[:DETAIL_CHARS]
        return {"reason": "corrupt", "detail": detail, "unexpected": True}, b""


def memory_for(request: dict[str, Any]) -> int:
    """Return the bytes of address space that a worker may use for an image, beside what it has anyway."""
    memory = BASE_BYTES + 3 * request["size"] + request["limits"]["max_decode_bytes"]
    if "resize" in request:
        memory += PIXEL_BYTES * (request["limits"]["max_pixels"] + COPIES * request["resize"]["side"] ** 2)
    return int(memory)


def _pixel_bytes(request: dict[str, Any], header: JpegHeader) -> int:
    """Return what the pixels of a picture take that is resized; 0 where they are not many."""
    if "resize" not in request:
        return 0
    width, height = decoded_size(header.width, header.height, Resize(**request["resize"]))
    pixels = max(width * height, request["resize"]["side"] ** 2)
    return PIXEL_BYTES * pixels if pixels > MANY_PIXELS else 0


def _validate(request: dict[str, Any], data: Buffer, header: JpegHeader) -> Answer:
    facts = validate_jpeg(data, Limits(**request["limits"]), header).row()
    taken_at = facts["taken_at"]
    return {"facts": {**facts, "taken_at": taken_at and str(taken_at)}}, b""


def _thumbnail(request: dict[str, Any], data: Buffer, header: JpegHeader) -> Answer:
    width, height, pixels = thumbnail(data, request["side"], orientation_of(header))
    return {"width": width, "height": height}, pixels


def _resize(request: dict[str, Any], data: Buffer, header: JpegHeader) -> Answer:
    width, height, picture = resized(data, Resize(**request["resize"]), header)
    return {"width": width, "height": height}, picture


_JOBS = {"validate": _validate, "thumbnail": _thumbnail, "resize": _resize}


def _check_digest(data: Buffer, expected: str | None) -> None:
    digest = hashlib.sha256(data).hexdigest() if expected else None
    if digest != expected:
        words = f"the stored file was altered: its sha256 is {digest}"
        raise InvalidImageError(Reason.HASH_MISMATCH, words)


def _watch_memory() -> None:
    """End the process where it uses too much memory: for systems that do not limit address space."""
    unit = 1 if sys.platform == "darwin" else 1024
    while resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit < MOST_RESIDENT_BYTES:
        time.sleep(0.05)
    os._exit(MEMORY_STATUS)


def _warm_up() -> None:
    """Load all that decoding loads when it is first used: a worker can open no file."""
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "iso2022_jp", "shift_jis"):
        "犬".encode(encoding).decode(encoding, "replace")
    _decode_sample(_sample())


@functools.cache
def _sample() -> bytes:
    """Return a picture that needs all parts of the validator."""
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = "2026:01:01 00:00:00"
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(
        file,
        "JPEG",
        progressive=True,
        exif=exif,
        icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        xmp=b'<x xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><r:Description/></x>',
    )
    return file.getvalue()


def _decode_sample(data: bytes) -> None:
    validate_jpeg(data, Limits(max_pixels=64 * 64, max_decode_bytes=BASE_BYTES))
    thumbnail(data, 32, 1)
    libjpeg.decode_gray(data, 32)
    header = read_header(data)
    for color in ("srgb", "keep"):
        resized(data, Resize(32, "pad", 90, "4:2:0", color, "keep"), header)
