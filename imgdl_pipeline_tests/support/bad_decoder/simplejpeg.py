"""A decoder that misbehaves at pictures with a comment that says how; put before the real one on the path."""

import ctypes
import fcntl
import importlib
import mmap
import os
import stat
import sys
import time
from pathlib import Path

_here = sys.modules.pop(__name__)
_path, sys.path = sys.path, [each for each in sys.path if Path(each) != Path(__file__).parent]
_real = importlib.import_module("simplejpeg")
sys.path, sys.modules[__name__] = _path, _here


FACTS = (
    b'{"orientation": 1, "taken_at": null, "latitude": null, "longitude": null, "color_profile": null, '
    b'"embedded": "{}", "exif": "{}", "width": 1234, "height": 999, "mode": "L", "progressive": false, '
    b'"phash": "0123456789abcdef", "warning": null}'
)


def _answer(facts, more=b'"payload": 0'):
    return b'{"id": "ID", "facts": ' + facts + b", " + more + b"}\n"


ODD_ANSWERS = {
    "with a payload without end": _answer(FACTS, b'"payload": 1e999'),
    "deeply": b"[" * 100_000 + b"\n",
    "by reserving without end": b'{"id": "ID", "reserve": Infinity, "payload": 0}\n',
    "another question": _answer(FACTS).replace(b"ID", b"other"),
    "twice": _answer(FACTS) * 2,
    "with a text": b'"text"\n',
    "with no facts": _answer(b"{}"),
    "with a width that is true": _answer(FACTS.replace(b"1234", b"true")),
    "with an orientation of 1000": _answer(FACTS.replace(b'"orientation": 1', b'"orientation": 1000')),
    "with a time zone": _answer(
        FACTS.replace(b'"taken_at": null', b'"taken_at": "2026-01-01T00:00:00+01:00"')
    ),
    "with a lone surrogate": _answer(FACTS.replace(b'"warning": null', b'"warning": "\\ud800"')),
    "with a latitude of NaN": _answer(FACTS.replace(b'"latitude": null', b'"latitude": NaN')),
    "with EXIF that is no object": _answer(FACTS.replace(b'"exif": "{}"', b'"exif": "[]"')),
}


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
    for name, answer in ODD_ANSWERS.items():
        if f"please answer {name}".encode() in head:
            os.write(_socket(), answer.replace(b"ID", _request()["id"].encode()))
            time.sleep(1000)
    if b"please exit" in head:
        os._exit(1)
    if b"please cut" in head:
        return _attempt(lambda: [os.ftruncate(each, 0) for each in range(3, 16) if not _is_socket(each)])
    if b"please own" in head:
        return _attempt(lambda: fcntl.fcntl(_socket(), fcntl.F_SETOWN, os.getppid()))
    if b"please rewrite" in head:
        return _attempt(_rewrite_what_is_open)
    if b"please open" in head:
        return _attempt(lambda: Path(__file__).open("rb"))
    if b"please connect" in head:
        return _attempt(lambda: __import__("socket").socket())
    if b"please fork" in head:
        return _attempt(os.fork)
    if b"please kill" in head:
        return _attempt(lambda: os.kill(os.getppid(), 0))
    return _real.decode_jpeg(data, *args, **options)


def _rewrite_what_is_open():
    for each in range(3, 16):
        if not _is_socket(each) and os.fstat(each).st_size > 5_000_000:
            mmap.mmap(each, 0, access=mmap.ACCESS_WRITE)


def _request():
    """Return the request that is answered, as code that has taken a worker over could find it."""
    frame = sys._getframe()
    while not isinstance(frame.f_locals.get("request"), dict):
        frame = frame.f_back
    return frame.f_locals["request"]


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
        return stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    except OSError:
        return False
