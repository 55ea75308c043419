"""A decoder that misbehaves at pictures with a comment that says how; put before the real one on the path."""

import ctypes
import importlib
import os
import sys
import time
from pathlib import Path

_here = sys.modules.pop(__name__)
_path, sys.path = sys.path, [each for each in sys.path if Path(each) != Path(__file__).parent]
_real = importlib.import_module("simplejpeg")
sys.path, sys.modules[__name__] = _path, _here


def decode_jpeg(data, *args, **options):
    head = bytes(data[:200])
    if b"please abort" in head:
        os.abort()
    if b"please crash" in head:
        ctypes.string_at(0)
    if b"please loop" in head:
        while True:
            pass
    if b"please wait" in head:
        time.sleep(1000)
    if b"please allocate" in head:
        return [bytearray(10_000_000) for _ in range(10_000)]
    if b"please lie" in head:
        os.write(_socket(), b'{"facts": {"width": "wide"}, "payload": 0}\n')
        time.sleep(1000)
    if b"please open" in head:
        return _attempt(lambda: Path(__file__).open("rb"))
    if b"please connect" in head:
        return _attempt(lambda: __import__("socket").socket())
    if b"please fork" in head:
        return _attempt(os.fork)
    if b"please kill" in head:
        return _attempt(lambda: os.kill(os.getppid(), 0))
    return _real.decode_jpeg(data, *args, **options)


def _attempt(forbidden):
    try:
        forbidden()
    except PermissionError as error:
        raise ValueError(f"not allowed: {error.strerror}") from error
    raise ValueError("allowed")


def _socket():
    """Return the descriptor on which the worker answers."""
    return next(each for each in range(3, 16) if _is_socket(each))


def _is_socket(descriptor):
    try:
        return str(Path(f"/proc/self/fd/{descriptor}").readlink()).startswith("socket:")
    except OSError:
        return False
