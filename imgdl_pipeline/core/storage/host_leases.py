"""Share each host's request slots and rate among all runs that use one store, on one machine or several.

Every run that asks a host for many links keeps a file beside those of the others, in which it declares how
many slots it may be using, and which it renews every few seconds. It uses only as many as all others leave.

The invariant: the slots that all living runs use at any time add up to the host's slots at most. A run
declares before it uses, and then reads what the others declare: of two that declare at the same time, at
least one sees the other. It uses no more than what is left besides all that others declare, and declares less
only when its requests are answered. This needs no conditional writes, only that a store shows what was
written, as S3, Google Cloud Storage, Azure and disks do. No machine's clock is compared with another's.

Where runs have different limits, the lowest counts for all of them while they are at work. Of more runs than
slots, as many as there are slots have one each, for `TURN_RENEWALS` renewals while others wait.

A run whose file was not renewed for `LAPSE_S` counts as dead, at once if its process would be visible from
here. A run that could not renew its own file for nearly as long uses no slots until it has declared them
anew. Only a host that is asked has a file: it is deleted after `IDLE_S` without a request.
"""

import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

from imgdl_pipeline.core.storage.layout import host_leases_path
from imgdl_pipeline.core.storage.lease import LAPSE_S, is_running_here, this_process
from imgdl_pipeline.core.storage.object_store import StoredFile, StoreError
from imgdl_pipeline.core.storage.store import Store

logger = logging.getLogger(__name__)

RENEW_S = 5.0
"""Seconds between two looks at the declarations of others."""

SAFETY_S = 10.0
"""So many seconds before others may think this run dead, it stops using its slots."""

IDLE_S = 30.0
"""Seconds without a request after which a run leaves a host's slots to the others."""

TURN_RENEWALS = 6
"""Renewals for which a run keeps its only slot of a host while other runs wait for one."""

FORGOTTEN_AFTER = timedelta(hours=1)
"""The age at which a dead run's file is deleted; before, the run might only have been asleep."""

MOST_SLOTS = 1024
UNLIMITED = float("inf")


def since_boot() -> float:
    """Return the time in seconds, which goes on while this machine is suspended, as other machines' does."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


class HostLimits(NamedTuple):
    """What all runs together may ask of a host: requests in flight, and requests per second."""

    slots: int
    per_second: float = UNLIMITED


class Part(NamedTuple):
    """A run's slots of a host, and the limits of all runs together."""

    slots: int
    limits: HostLimits


class _Claim(NamedTuple):
    """What one run declares: its slots, its limits for all runs, and its turn.

    The turn is the number of renewals since it has a slot, or negative, since it waits for one.
    """

    slots: int
    limits: HostLimits
    turn: int = 0


@dataclass(slots=True)
class _Share:
    """What this run has of one host: `declared` in its file, and `usable` now.

    `asked` is when a slot was last wanted; `is_wanted` is whether the run takes part in sharing the host.
    """

    limits: HostLimits
    declared: int = 0
    usable: int = 0
    turn: int = 0
    renewed: float = float("-inf")
    asked: float = float("-inf")
    is_wanted: bool = False
    watched: dict[str, tuple[bytes, float]] = field(default_factory=dict)


class HostLeases:
    """The slots that this run has of the hosts that it asks for many links. Use it in a `with` block.

    Its shared state is `_shares`, under `_lock`; their `watched` is only for the thread that renews.

    Args:
        store: The store that all runs share.
        limits: Returns what all runs together may ask of a host.
        hosts: The hosts that are shared; `share` adds more.
        busy: Returns how many requests to a host may be in flight now.
        on_renewal: Called with a host and this run's part, each time that it is found out. Returns whether
            requests to the host are waiting.
        clock: Returns the time in seconds.
        renew_s: Seconds between two renewals.
        lapse_s: Seconds without a renewal after which a run counts as dead.
    """

    def __init__(
        self,
        store: Store,
        limits: Callable[[str], HostLimits],
        hosts: Iterable[str],
        *,
        busy: Callable[[str], int] = lambda _: 0,
        on_renewal: Callable[[str, Part], bool] = lambda *_: True,
        clock: Callable[[], float] = since_boot,
        renew_s: float = RENEW_S,
        lapse_s: float = LAPSE_S,
    ) -> None:
        self._store, self._limits = store, limits
        self.busy, self.on_renewal = busy, on_renewal
        self._clock, self._renew_s, self._lapse_s = clock, renew_s, lapse_s
        self._identity = uuid.uuid4().hex
        self._lock = threading.Lock()
        self._shares = {host: _Share(limits(host), asked=clock(), is_wanted=True) for host in hosts}
        self._is_over = False
        self._wake = threading.Event()
        self._renewer: threading.Thread | None = None

    def __repr__(self) -> str:
        with self._lock:
            held = ", ".join(
                f"{host} {each.usable}/{each.limits.slots}"
                for host, each in self._shares.items()
                if each.is_wanted
            )
        return f"<HostLeases {held or 'of no host'}>"

    def __enter__(self) -> "HostLeases":
        """Declare what this run needs.

        Raises:
            StoreError: Nothing can be declared, so that no host could ever be asked.
        """
        for host in list(self._shares):
            self._renew(host, self._shares[host])
        if self._shares:
            self._start()
        return self

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self._is_over = True
            renewer, hosts = self._renewer, list(self._shares)
        self._wake.set()
        if renewer is not None:
            renewer.join()
        try:
            self._store.delete([self._own_path(host) for host in hosts])
        except StoreError as error:
            logger.warning("the slots of hosts are not released until they lapse: %s", error)

    def share(self, host: str) -> None:
        """Share a host from now on."""
        with self._lock:
            self._shares.setdefault(host, _Share(self._limits(host)))
        self._start()

    def slots(self, host: str) -> int | None:
        """Return how many requests to a host this run may have in flight now, 0 to all of its slots.

        Return None for a host that is not shared.
        """
        share = self._shares.get(host)
        if share is None:
            return None
        with self._lock:
            share.asked = now = self._clock()
            if share.is_wanted:
                return share.usable if now < self._until(share) else 0
            share.is_wanted = True
        self._wake.set()
        return 0

    def held(self, host: str) -> tuple[int, float]:
        """Return the slots of a shared host, and the time of the clock after which there are none of them.

        That does not count as wanting one.
        """
        with self._lock:
            share = self._shares[host]
            return share.usable, self._until(share)

    def _until(self, share: _Share) -> float:
        """Return the time from which other runs may think this one dead soon."""
        return share.renewed + self._lapse_s - min(SAFETY_S, self._lapse_s / 3)

    def renew(self) -> None:
        """Declare what this run needs of each host, and find out what others leave; once per `renew_s`."""
        with self._lock:
            shares = list(self._shares.items())
        for host, share in shares:
            try:
                if self._is_idle(host, share):
                    self._leave(host, share)
                elif share.is_wanted:
                    self._renew(host, share)
            except StoreError as error:  # if it persists, the run itself fails on it
                logger.warning("the slots of %s were not renewed: %s", host, error)

    def _is_idle(self, host: str, share: _Share) -> bool:
        """Return whether a host is asked no more; from then on, it has no slots until it is asked again."""
        is_busy = self.busy(host) > 0
        with self._lock:
            if is_busy or not share.is_wanted or self._clock() - share.asked < IDLE_S:
                return False
            share.is_wanted, share.usable = False, 0
            return True

    def _leave(self, host: str, share: _Share) -> None:
        self.on_renewal(host, Part(0, share.limits))
        if self.busy(host):  # a request began before that was heard
            with self._lock:
                share.is_wanted = True
            return
        share.declared = share.turn = 0
        share.watched.clear()
        self._store.delete([self._own_path(host)])

    def _renew(self, host: str, share: _Share) -> None:
        others = self._others(host, share)
        fair = self._fair(share, others)
        with self._lock:
            if self._clock() >= self._until(share):
                share.usable = 0  # others may use them by now
            share.usable = min(share.usable, fair)  # first use less, then declare less
        in_use = max(share.usable, self.busy(host))
        free = _limits(share, others).slots - _slots(others)
        self._declare(host, share, max(in_use, min(fair, max(0, free))))
        others = self._others(host, share)
        limits, fair = _limits(share, others), self._fair(share, others)
        with self._lock:
            share.usable = usable = max(0, min(share.declared, limits.slots - _slots(others), fair))
        share.turn = max(0, share.turn) + 1 if usable else min(0, share.turn) - 1
        if self.on_renewal(host, Part(usable, limits)):
            with self._lock:
                share.asked = self._clock()

    def _fair(self, share: _Share, others: dict[str, _Claim]) -> int:
        """Return this run's part of the slots; what cannot be divided goes to the first runs by name.

        If there are more runs than slots, those go first that have just got one, and then those that have
        waited the longest.
        """
        slots = _limits(share, others).slots
        claims = {**others, self._identity: _Claim(share.declared, share.limits, share.turn)}
        if len(claims) <= slots:
            runs = sorted(claims)
            return slots // len(runs) + (runs.index(self._identity) < slots % len(runs))

        def place(run: str) -> tuple[int, int, str]:
            turn = claims[run].turn
            if turn > 0:
                return (0, 0, run) if turn < TURN_RENEWALS else (2, turn, run)
            return (1, turn, run)

        return int(self._identity in sorted(claims, key=place)[:slots])

    def _declare(self, host: str, share: _Share, slots: int) -> None:
        now = self._clock()  # before the write, which may take long
        limits = share.limits
        holder = {
            **this_process(),
            "identity": self._identity,
            "slots": slots,
            "of": limits.slots,
            "per_second": None if limits.per_second == UNLIMITED else limits.per_second,
            "turn": share.turn,
            "at": time.time_ns(),
        }
        self._store.put(self._own_path(host), json.dumps(holder).encode())
        with self._lock:
            if self._clock() >= self._until(share):
                share.usable = 0  # it took so long that others may use them by now
            share.declared, share.renewed = slots, now

    def _others(self, host: str, share: _Share) -> dict[str, _Claim]:
        """Return what the other living runs declare, by their identity."""
        found: dict[str, _Claim] = {}
        for file in list(self._store.list(host_leases_path(host))):
            name = file.path.rpartition("/")[2].removesuffix(".json")
            text = None if name == self._identity or "#" in name else self._store.get(file.path)
            if text is None:
                continue
            holder = _parsed(text)
            if not self._is_dead(file, share, text, holder):
                found[name] = _claim(holder, share.limits)
        return found

    def _is_dead(self, file: StoredFile, share: _Share, text: bytes, holder: dict[str, Any]) -> bool:
        """Return whether a file's run is over or silent, and delete the file if nobody can renew it any more.

        A silent run might renew it at this very moment, and would then use slots that nobody sees.
        """
        if is_running_here(holder) is False:
            self._store.delete([file.path])
            return True
        now = self._clock()
        seen = share.watched.get(file.path)
        if seen is None or seen[0] != text:
            share.watched[file.path] = (text, now)
            return False
        if now - seen[1] < self._lapse_s:
            return False
        if datetime.now(timezone.utc) - file.modified > FORGOTTEN_AFTER:
            self._store.delete([file.path])
        return True

    def _own_path(self, host: str) -> str:
        return f"{host_leases_path(host)}/{self._identity}.json"

    def _start(self) -> None:
        with self._lock:
            if self._renewer is None and not self._is_over:
                self._renewer = threading.Thread(target=self._renew_on, name="imgdl-host-leases", daemon=True)
                self._renewer.start()

    def _renew_on(self) -> None:
        due = self._clock() + self._renew_s
        while True:
            is_new = self._wake.wait(max(0.0, due - self._clock()))
            self._wake.clear()
            if self._is_over:
                return
            if is_new:
                self._begin_asked()
            else:
                self.renew()
                due = self._clock() + self._renew_s

    def _begin_asked(self) -> None:
        """Declare hosts that are asked for the first time, or again."""
        with self._lock:
            new = [(host, each) for host, each in self._shares.items() if each.is_wanted]
        for host, share in new:
            if share.declared == 0 and share.turn == 0:
                try:
                    self._renew(host, share)
                except StoreError as error:
                    logger.warning("the slots of %s were not declared: %s", host, error)


def _slots(claims: dict[str, _Claim]) -> int:
    return sum(claim.slots for claim in claims.values())


def _limits(share: _Share, others: dict[str, _Claim]) -> HostLimits:
    """Return the limits that count for all runs: the lowest of each."""
    limits = [share.limits, *(claim.limits for claim in others.values())]
    return HostLimits(min(each.slots for each in limits), min(each.per_second for each in limits))


def _claim(holder: dict[str, Any], limits: HostLimits) -> _Claim:
    """Return what a file declares; all slots if it cannot be read."""
    slots, of = _whole(holder.get("slots"), 0), _whole(holder.get("of"), 1)
    if slots is None or of is None:
        return _Claim(limits.slots, limits)
    rate, turn = holder.get("per_second"), holder.get("turn")
    is_rate = isinstance(rate, (int, float)) and not isinstance(rate, bool) and 0 < rate < UNLIMITED
    per_second = float(rate or 0) if is_rate else UNLIMITED
    return _Claim(slots, HostLimits(of, per_second), turn if isinstance(turn, int) else 0)


def _whole(number: Any, lowest: int) -> int | None:
    """Return a whole number of slots, or None if it is none."""
    is_number = isinstance(number, int) and not isinstance(number, bool)
    return number if is_number and lowest <= number <= MOST_SLOTS else None


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        holder = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return holder if isinstance(holder, dict) else {}
