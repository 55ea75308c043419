"""Let only one run at a time work on a gallery's ledger, by a lease in the store that the run keeps renewing.

A run that finds another run's lease refuses to start. A run that was killed leaves its lease behind. The next
run takes that lease over at once if it can see that the process is gone, and otherwise once the lease was not
renewed for a while.

Leases are numbered files, and the highest number is the valid one. A run takes a lease over by creating the
next number; every store lets only one of several runs do so. Numbers only grow: a run that is done marks its
own file as released, so that a run that was suspended meanwhile can tell that it is no longer the holder.
"""

import json
import logging
import os
import re
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from imgdl_pipeline.core.storage.layout import dataset_leases_path, leases_path
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.store import Store

logger = logging.getLogger(__name__)

RENEW_S = 10.0
LAPSE_S = 30.0
"""Seconds without a renewal after which another machine's lease has lapsed."""

RELEASED = b'{"released": true}'
_LEASE = re.compile(r"(\d+)\.json")

_held: set[str] = set()
"""The identities of the leases that this process holds: an earlier process may have had the same id."""


_run: ContextVar[str] = ContextVar("run", default="")
"""The run that this context works for, for whoever has to find out whose lease it is."""


@contextmanager
def working_for(run: str) -> Iterator[None]:
    """Put a run's id into the leases that are taken until the block ends."""
    token = _run.set(run)
    try:
        yield
    finally:
        _run.reset(token)


class GalleryBusyError(Exception):
    """Another run is working on the gallery; the message says which."""


def dataset_lease(store: Store, gallery: str) -> "Lease":
    """Return the right to write a gallery's dataset, for a `with` block."""
    return Lease(store, f"the dataset of {gallery}", folder=dataset_leases_path(gallery))


class Lease:
    """The right to write a gallery's ledger, for the length of a `with` block.

    Its shared state is `_lost`, which the renewing thread sets, and the process's set of leases.

    Args:
        store: The store of the gallery's files.
        gallery: The gallery's name.
        lapse_s: Seconds to watch another run's lease before taking it over.
        folder: Where the lease is kept; by default with the gallery's ledger.
    """

    def __init__(
        self, store: Store, gallery: str, lapse_s: float = LAPSE_S, *, folder: str | None = None
    ) -> None:
        self._store = store
        self._gallery = gallery
        self._folder = folder or leases_path(gallery)
        self._lapse_s = lapse_s
        self._number = 0
        self._identity = uuid.uuid4().hex
        self._run = _run.get()
        self._started = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._released = threading.Event()
        self._lost = threading.Event()
        self._renewer = threading.Thread(target=self._renew_on, name="imgdl-lease", daemon=True)

    def __enter__(self) -> "Lease":
        _held.add(self._identity)
        try:
            self._number = self._take()
            self.check()
        except BaseException:
            self._release()
            raise
        self._renewer.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._released.set()
        self._renewer.join()
        self._release()

    def check(self) -> None:
        """Make sure that this run still holds the gallery.

        Raises:
            GalleryBusyError: Another run has taken the gallery over, because this one seemed dead.
            StoreError: The store failed.
        """
        if self._lost.is_set() or self._highest() != self._number or not self._is_ours(self._number):
            raise GalleryBusyError(
                f"another run took {self._gallery} over while this one did not answer; it writes no more"
            )

    def _take(self) -> int:
        watched: tuple[int, bytes | None] | None = None
        while True:
            highest = self._highest()
            seen = (highest, self._store.get(self._path(highest)) if highest else None)
            is_over = seen[1] is None or _is_over(_parsed(seen[1]))
            if watched is not None and seen != watched and not is_over:
                raise self._busy(seen[1] or b"")
            if is_over or seen == watched:
                if self._create(highest + 1):
                    self._drop(highest)
                    return highest + 1
                watched = None
                continue
            self._watch(seen[1] or b"")
            watched = seen

    def _create(self, number: int) -> bool:
        """Take a number if it is free; if an answer was lost, the store's retry finds this run's own file."""
        return self._store.create(self._path(number), self._text()) or self._is_ours(number)

    def _is_ours(self, number: int) -> bool:
        return _parsed(self._store.get(self._path(number)) or b"").get("identity") == self._identity

    def _watch(self, text: bytes) -> None:
        """Wait long enough for the holder of a lease to renew it.

        Raises:
            GalleryBusyError: The holder runs in this process, or on this machine.
        """
        if _is_here(_parsed(text)):
            raise self._busy(text)
        logger.warning("%s; waiting %g s to see whether it lives", self._busy(text), self._lapse_s)
        self._released.wait(self._lapse_s)

    def _busy(self, text: bytes) -> GalleryBusyError:
        holder = _parsed(text)
        run = f", run {holder['run']}" if holder.get("run") else ""
        return GalleryBusyError(
            f"another run is at work on {self._gallery}: process {holder.get('pid')} "
            f"on {holder.get('host')}, since {holder.get('started')}{run}; "
            "run it again when that one has ended"
        )

    def _renew_on(self) -> None:
        while not self._released.wait(RENEW_S):
            try:
                self.check()
                self._store.put(self._path(self._number), self._text())
            except GalleryBusyError:
                self._lost.set()
                return
            except StoreError as error:  # if it persists, the run itself fails on it
                logger.warning("the lease of %s was not renewed: %s", self._gallery, error)

    def _text(self) -> bytes:
        own = {"identity": self._identity, "started": self._started, "run": self._run}
        renewed = datetime.now(timezone.utc).isoformat()
        return json.dumps({**this_process(), **own, "renewed": renewed}).encode()

    def _highest(self) -> int:
        names = (_LEASE.fullmatch(file.path.rpartition("/")[2]) for file in self._store.list(self._folder))
        return max((int(name[1]) for name in names if name), default=0)

    def _path(self, number: int) -> str:
        return f"{self._folder}/{number:08d}.json"

    def _release(self) -> None:
        """Mark the lease as released if this run still holds it; a lease that cannot be released lapses."""
        try:
            if self._number and self._highest() == self._number and self._is_ours(self._number):
                self._store.put(self._path(self._number), RELEASED)
            else:
                self._drop(self._number)
        except StoreError as error:
            logger.warning("the lease of %s stays until it lapses: %s", self._gallery, error)
        finally:
            _held.discard(self._identity)

    def _drop(self, number: int) -> None:
        """Delete a lease that a higher number has replaced."""
        try:
            self._store.delete([self._path(number)] if number else [])
        except StoreError as error:
            logger.warning("a lease of %s that is over was not removed: %s", self._gallery, error)


def this_process() -> dict[str, Any]:
    """Return what lets others find out whether this process still runs."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "processes": _processes(),
        "process_started": _started(os.getpid()),
    }


def is_running_here(holder: dict[str, Any]) -> bool | None:
    """Return whether a process that `this_process` told of runs; None if it cannot be seen from this one."""
    pid = holder.get("pid")
    if not _is_near(holder) or not isinstance(pid, int) or pid < 1:
        return None
    return _is_running(pid) and holder.get("process_started") == _started(pid)


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        holder = json.loads(text)
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def _is_near(holder: dict[str, Any]) -> bool:
    """Return whether the holder's process would be visible from this one; always False without /proc."""
    processes = _processes()
    is_same_host = holder.get("host") == socket.gethostname()
    return bool(processes) and is_same_host and holder.get("processes") == processes


def _is_here(holder: dict[str, Any]) -> bool:
    """Return whether the holder's process is visible from this one, and running."""
    pid = holder.get("pid")
    if not _is_near(holder) or not isinstance(pid, int) or pid < 1:
        return False
    if pid == os.getpid():
        return holder.get("identity") in _held
    return _is_running(pid) and holder.get("process_started") == _started(pid)


def _is_over(holder: dict[str, Any]) -> bool:
    """Return whether a lease is over: released, or its process would be visible here but is not running."""
    return holder.get("released") is True or (_is_near(holder) and not _is_here(holder))


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _started(pid: int) -> str:
    """Return when a process started, in kernel ticks, because process ids are reused.

    Return an empty text for a process that was killed, but whose parent has not asked how it ended.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        return ""


def _processes() -> str:
    """Identify the visible processes by boot and PID namespace.

    The host name is not enough: containers may share it, and a reboot keeps it.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""
