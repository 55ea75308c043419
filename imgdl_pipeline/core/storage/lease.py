"""One run at a time works on a gallery's ledger: a lease in the store, renewed for as long as the run lives.

A run that finds another one's lease refuses to start. A run that was killed leaves its lease behind; it is
taken over at once where its process can be seen to be gone, and otherwise when it was not renewed for a
while.

Leases are numbered files, and the highest number holds: to take one over is to create the next number,
which every store lets only one of several do. Numbers only grow: whoever is done says so in its own file, so
that a run which slept through all of that can tell that it is not the holder any more.
"""

import json
import logging
import os
import re
import socket
import threading
import uuid
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from imgdl_pipeline.core.storage.layout import leases_path
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.store import Store

logger = logging.getLogger(__name__)

RENEW_S = 10.0
LAPSE_S = 30.0
"""A lease of another machine that was not renewed for so long is nobody's any more."""

RELEASED = b'{"released": true}'
_LEASE = re.compile(r"(\d+)\.json")

_held: set[str] = set()
"""The identities of the leases that this process holds: it may have its number from an earlier one."""


class GalleryBusyError(Exception):
    """Another run works on the gallery; says which."""


class Lease:
    """The right to write a gallery's ledger, for the length of a `with` block.

    Its shared state is `_lost`, which the thread that renews sets, and the process's set of leases.

    Args:
        store: Where the gallery's files lie.
        gallery: Its name.
        lapse_s: For how long another's lease is watched before it is taken over.
    """

    def __init__(self, store: Store, gallery: str, lapse_s: float = LAPSE_S) -> None:
        self._store = store
        self._gallery = gallery
        self._folder = leases_path(gallery)
        self._lapse_s = lapse_s
        self._number = 0
        self._identity = uuid.uuid4().hex
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
            GalleryBusyError: Another run has taken it over, because this one seemed dead.
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
        """Take a number, if nobody has it. Where an answer got lost, the store has tried twice."""
        return self._store.create(self._path(number), self._text()) or self._is_ours(number)

    def _is_ours(self, number: int) -> bool:
        return _parsed(self._store.get(self._path(number)) or b"").get("identity") == self._identity

    def _watch(self, text: bytes) -> None:
        """Give the holder of a lease the time to renew it.

        Raises:
            GalleryBusyError: It is at work in this very process, or on this machine.
        """
        if _is_here(_parsed(text)):
            raise self._busy(text)
        logger.warning("%s; waiting %g s to see whether it lives", self._busy(text), self._lapse_s)
        self._released.wait(self._lapse_s)

    def _busy(self, text: bytes) -> GalleryBusyError:
        holder = _parsed(text)
        return GalleryBusyError(
            f"another run is at work on {self._gallery}: process {holder.get('pid')} "
            f"on {holder.get('host')}, since {holder.get('started')}; run it again when that one has ended"
        )

    def _renew_on(self) -> None:
        while not self._released.wait(RENEW_S):
            try:
                self.check()
                self._store.put(self._path(self._number), self._text())
            except GalleryBusyError:
                self._lost.set()
                return
            except StoreError as error:  # the run itself will meet it, if it lasts
                logger.warning("the lease of %s was not renewed: %s", self._gallery, error)

    def _text(self) -> bytes:
        return json.dumps(
            {
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "identity": self._identity,
                "processes": _processes(),
                "process_started": _started(os.getpid()),
                "started": self._started,
                "renewed": datetime.now(timezone.utc).isoformat(),
            }
        ).encode()

    def _highest(self) -> int:
        names = (_LEASE.fullmatch(file.path.rpartition("/")[2]) for file in self._store.list(self._folder))
        return max((int(name[1]) for name in names if name), default=0)

    def _path(self, number: int) -> str:
        return f"{self._folder}/{number:08d}.json"

    def _release(self) -> None:
        """Say that this run is done, if it is still the holder; a lease that can't be released lapses."""
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
        """Remove a lease that a higher number has made void."""
        try:
            self._store.delete([self._path(number)] if number else [])
        except StoreError as error:
            logger.warning("a lease of %s that is over was not removed: %s", self._gallery, error)


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        holder = json.loads(text)
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def _is_near(holder: dict[str, Any]) -> bool:
    """Whether the holder's process would be seen from here; without /proc, nobody can tell."""
    processes = _processes()
    is_same_host = holder.get("host") == socket.gethostname()
    return bool(processes) and is_same_host and holder.get("processes") == processes


def _is_here(holder: dict[str, Any]) -> bool:
    """Whether the holder's process can be seen from here, and is there."""
    pid = holder.get("pid")
    if not _is_near(holder) or not isinstance(pid, int) or pid < 1:
        return False
    if pid == os.getpid():
        return holder.get("identity") in _held
    return _is_running(pid) and holder.get("process_started") == _started(pid)


def _is_over(holder: dict[str, Any]) -> bool:
    """Whether a lease is nobody's: released, or of a process that would be seen here and is not there."""
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
    """When a process was started, in the kernel's ticks: numbers are given again to other processes."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _processes() -> str:
    """Names the processes that can be seen from here: containers may share a host's name, and so do boots."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""
