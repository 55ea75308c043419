"""Share each host's request slots among all runs that use one store, on one machine or several.

Every run that asks a host for many links keeps a file beside those of the others, in which it declares how
many slots it may be using, and which it renews every few seconds. It uses only as many as all others leave.

The invariant: the slots that all living runs use at any time add up to the host's slots at most. A run
declares before it uses, and then reads what the others declare: of two that declare at the same time, at
least one sees the other. It uses no more than what is left besides all that others declare, and declares less
only when its requests are answered. This needs no conditional writes, only that a store shows what was
written, as S3, Google Cloud Storage, Azure and disks do.

A run whose file was not renewed for `LAPSE_S` counts as dead, at once if its process would be visible from
here. A run that could not renew its own file for nearly as long uses no slots until it has.
"""

import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from imgdl_pipeline.core.storage.layout import host_leases_path
from imgdl_pipeline.core.storage.lease import LAPSE_S, is_process_over, process_identity
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.store import Store

logger = logging.getLogger(__name__)

RENEW_S = 5.0
"""Seconds between two looks at the declarations of others."""

SAFETY_S = 10.0
"""So many seconds before others may think this run dead, it stops using its slots."""


@dataclass(slots=True)
class _Share:
    """What this run has of one host: `declared` in its file, and `usable` now."""

    total: int
    declared: int = 0
    usable: int = 0
    renewed: float = float("-inf")


class HostLeases:
    """The slots that this run has of the hosts that it asks for many links. Use it in a `with` block.

    Its shared state is `_shares`, under `_lock`, and `_watched`, which only the renewing thread uses.

    Args:
        store: The store that all runs share.
        slots: Returns how many requests all runs may have in flight to a host.
        hosts: The hosts that are shared.
        busy: Returns how many requests to a host may be in flight now.
        on_renewal: Called with a host and this run's part of its slots, each time that it is found out.
        clock: Returns the time in seconds.
        renew_s: Seconds between two renewals.
        lapse_s: Seconds without a renewal after which a run counts as dead.
    """

    def __init__(
        self,
        store: Store,
        slots: Callable[[str], int],
        hosts: Iterable[str],
        *,
        busy: Callable[[str], int] = lambda _: 0,
        on_renewal: Callable[[str, float], None] = lambda *_: None,
        clock: Callable[[], float] = time.monotonic,
        renew_s: float = RENEW_S,
        lapse_s: float = LAPSE_S,
    ) -> None:
        self._store, self._slots = store, slots
        self._shares = {host: _Share(slots(host)) for host in hosts}
        self.busy, self.on_renewal = busy, on_renewal
        self._clock, self._renew_s, self._lapse_s = clock, renew_s, lapse_s
        self._identity = uuid.uuid4().hex
        self._watched: dict[str, tuple[bytes, float]] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._renewer = threading.Thread(target=self._renew_on, name="imgdl-host-leases", daemon=True)

    def __repr__(self) -> str:
        with self._lock:
            held = ", ".join(f"{host} {each.usable}/{each.total}" for host, each in self._shares.items())
        return f"<HostLeases {held or 'of no host'}>"

    def __enter__(self) -> "HostLeases":
        self.renew()
        if self._shares:
            self._renewer.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        if self._renewer.is_alive():
            self._renewer.join()
        try:
            self._store.delete([self._own_path(host) for host in self._shares])
        except StoreError as error:
            logger.warning("the slots of hosts are not released until they lapse: %s", error)

    def slots(self, host: str) -> int | None:
        """Return how many requests to a host this run may have in flight now, 0 to all of its slots.

        Return None for a host that is not shared.
        """
        share = self._shares.get(host)
        if share is None:
            return None
        with self._lock:
            return share.usable if self._clock() < self._until(share) else 0

    def until(self, host: str) -> float:
        """Return the time of the clock after which this run has no slots of a shared host, unless renewed."""
        with self._lock:
            return self._until(self._shares[host])

    def _until(self, share: _Share) -> float:
        return share.renewed + self._lapse_s - min(SAFETY_S, self._lapse_s / 3)

    def renew(self) -> None:
        """Declare what this run needs of each host, and find out what others leave; once per `renew_s`."""
        for host, share in self._shares.items():
            try:
                self._renew(host, share)
            except StoreError as error:  # if it persists, the run itself fails on it
                logger.warning("the slots of %s were not renewed: %s", host, error)

    def _renew(self, host: str, share: _Share) -> None:
        others = self._others(host)
        fair = self._fair(share.total, others)
        with self._lock:
            share.usable = min(share.usable, fair)  # first use less, then declare less
        in_use = max(share.usable, self.busy(host))
        free = share.total - sum(others.values())
        self._declare(host, share, max(in_use, min(fair, max(0, free))))
        others = self._others(host)
        left = max(0, share.total - sum(others.values()))
        with self._lock:
            share.usable = min(share.declared, left, self._fair(share.total, others))
            usable = share.usable
        self.on_renewal(host, usable / share.total)

    def _fair(self, total: int, others: dict[str, int]) -> int:
        """Return this run's part of the slots; what cannot be divided goes to the first runs by name."""
        runs = sorted([self._identity, *others])
        return total // len(runs) + (runs.index(self._identity) < total % len(runs))

    def _declare(self, host: str, share: _Share, slots: int) -> None:
        now = self._clock()  # before the write, which may take long
        holder = {**process_identity(), "identity": self._identity, "slots": slots, "at": time.time_ns()}
        self._store.put(self._own_path(host), json.dumps(holder).encode())
        with self._lock:
            share.declared, share.renewed = slots, now

    def _others(self, host: str) -> dict[str, int]:
        """Return what the other living runs declare, by their identity."""
        found: dict[str, int] = {}
        for file in list(self._store.list(host_leases_path(host))):
            name = file.path.rpartition("/")[2].removesuffix(".json")
            text = None if name == self._identity or "#" in name else self._store.get(file.path)
            if text is None:
                continue
            holder = _parsed(text)
            if self._is_dead(file.path, text, holder):
                self._store.delete([file.path])
            else:
                found[name] = holder.get("slots", self._slots(host))
        return found

    def _is_dead(self, path: str, text: bytes, holder: dict[str, Any]) -> bool:
        now = self._clock()
        seen = self._watched.get(path)
        if seen is None or seen[0] != text:
            self._watched[path] = (text, now)
            return is_process_over(holder)
        return is_process_over(holder) or now - seen[1] >= self._lapse_s

    def _own_path(self, host: str) -> str:
        return f"{host_leases_path(host)}/{self._identity}.json"

    def _renew_on(self) -> None:
        while not self._stop.wait(self._renew_s):
            self.renew()


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        holder = json.loads(text)
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}
