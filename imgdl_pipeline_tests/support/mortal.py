"""Processes that are killed before the n-th change of a folder, or by the write that a full disk refuses.

Python reports what it is about to do to a file system as audit events (PEP 578). A process counts those that
change something below a folder, and kills itself before the n-th, as `kill -9` does.
"""

import ctypes
import multiprocessing
import os
import resource
import signal
import sys
from pathlib import Path

from imgdl_pipeline.core.dataset.export import export_dataset
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline_tests.support.datasets import settings_of

CHANGES = {"os.rename", "os.link", "os.remove", "os.rmdir", "os.truncate"}
"""Events before something changes, besides a new folder, a file that is opened to be written, and the look-up
of the system call that exchanges two folders."""

KILLED = -signal.SIGKILL

TOO_LARGE = -signal.SIGXFSZ

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__name__])


def export_until(root, change, *, can_exchange=True, seconds=60, **settings):
    """Export gallery `g` in a process that is killed before its n-th change; return how it ended."""
    return _ended(_export_until, (str(root), change, can_exchange, settings), seconds)


def export_within(root, limit, *, is_killed, seconds=60, **settings):
    """Export gallery `g` in a process of which no file may grow beyond some bytes; return how it ended.

    Args:
        root: The store's root.
        limit: Bytes.
        is_killed: Whether the write that grows beyond them ends the process, in its middle.
        seconds: How long it may take.
        settings: The dataset's settings.
    """
    return _ended(_export_within, (str(root), limit, is_killed, settings), seconds)


def _ended(work, arguments, seconds):
    process = _processes.Process(target=work, args=arguments)
    process.start()
    process.join(seconds)
    assert not process.is_alive(), "it hangs"
    return process.exitcode


def _export_until(root, change, can_exchange, settings):
    if not can_exchange:
        forbid_exchange(lambda name, value: setattr(ctypes, name, value))
    changes = 0

    def count(event, arguments):
        nonlocal changes
        if _is_change(event, arguments, root):
            changes += 1
            if changes == change:
                os.kill(os.getpid(), signal.SIGKILL)

    store = Store(root)
    sys.addaudithook(count)
    export_dataset(store, "g", settings_of(**settings))


def _is_change(event, arguments, root):
    if event == "ctypes.dlsym":
        return "rename" in str(arguments[1])
    if event == "open":
        path, mode, _ = arguments
        is_written = isinstance(mode, str) and any(each in mode for each in "wax+")
        return is_written and str(path).startswith(root)
    if event == "os.mkdir":
        return not Path(arguments[0]).exists()
    return event in CHANGES


def _export_within(root, limit, is_killed, settings):
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL if is_killed else signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        export_dataset(Store(root), "g", settings_of(**settings))
    except Exception as error:  # noqa: BLE001 -- it is what the test asks for
        sys.exit(f"{type(error).__name__}: {error}")


def forbid_exchange(put, number=None):
    """Let the system have no way to exchange two folders, or one that fails.

    Args:
        put: Called with the name of an attribute of `ctypes`, and its new value.
        number: The `errno` with which the call fails; None if there is no such call.
    """

    class Library:
        def __init__(self, *_, **__):
            if number is not None:
                self.renameat2 = self.renamex_np = lambda *_: -1

    put("CDLL", Library)
    put("get_errno", lambda: number)
