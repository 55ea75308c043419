"""Decide how many requests a run may have in flight to each host, and how fast, besides other runs.

A host is shared with other runs through `HostLeases` if it has many links of the plan, if many requests have
gone to it, as to a host that links redirect to, or if its owner allows only a few requests in all. The links
of a shard's hosts that are too small for that, but are in other shards too, get a fixed part.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Protocol

from imgdl_pipeline.core.download.plan import LARGE_HOST_LINKS
from imgdl_pipeline.core.http.pace import Paces
from imgdl_pipeline.core.model.settings import HOST_SLOTS, DownloadSettings
from imgdl_pipeline.core.storage.host_leases import UNLIMITED, HostLimits, Part

MOST_SHARED_HOSTS = 64
"""The most hosts that a run shares. Each takes a few requests to the store every few seconds."""


class Leases(Protocol):
    """The slots that a run has of shared hosts: `HostLeases`, or what a download process knows of them."""

    def slots(self, host: str) -> int | None:
        """Return the slots of a host that is wanted now; None for a host that is not shared."""

    def share(self, host: str) -> None:
        """Share a host from now on."""


def limits_of(settings: DownloadSettings) -> Callable[[str], HostLimits]:
    """Return a function that tells what all runs with some settings may ask of a host together."""
    per_second = settings.requests_per_second or UNLIMITED
    return lambda host: HostLimits(settings.slots(host), per_second)


class HostBudget:
    """The slots and the pace of each host for the threads of one process.

    Its methods are called by one pool, with its lock held, save `renewed`.

    Args:
        leases: The slots of shared hosts.
        settings: The settings, of which `per_host` is used.
        paces: How fast each host is asked.
        spread: Hosts that several runs ask at the same time, and how many runs.
        part: Returns the part of the pace of a host that is not shared.
    """

    def __init__(
        self,
        leases: Leases,
        settings: DownloadSettings,
        paces: Paces,
        spread: Mapping[str, int],
        part: Callable[[str], float] = lambda _: 1.0,
    ) -> None:
        self._leases, self._settings, self._paces, self._spread = leases, settings, paces, spread
        self._shared: set[str] = set()
        self._requests: Counter[str] = Counter()
        for host, runs in spread.items():
            if leases.slots(host) is None:
                paces.share(host, part(host) / runs)

    def renewed(self, host: str, part: Part) -> None:
        """Heed this run's part of a shared host, which `slots` gives from now on, in the host's pace."""
        self._paces.share(host, part.slots / part.limits.slots, part.limits.per_second)

    def slots(self, host: str) -> int:
        """Return how many links of a host may be in progress now."""
        if host in HOST_SLOTS:
            self._share(host)
        held = self._leases.slots(host)
        return self._settings.slots(host) // self._spread.get(host, 1) or 1 if held is None else held

    def counting(self, paced: Callable[[str, float], float]) -> Callable[[str, float], float]:
        """Return a function that does the same for a host, and shares it once many requests went to it."""

        def counted(host: str, now: float) -> float:
            if host not in self._shared and len(self._shared) < MOST_SHARED_HOSTS:
                self._requests[host] += 1
                if self._requests[host] >= LARGE_HOST_LINKS:
                    self._share(host)
            return paced(host, now)

        return counted

    def _share(self, host: str) -> None:
        if host not in self._shared:
            self._shared.add(host)
            self._requests.pop(host, None)
            if self._leases.slots(host) is None:
                self._leases.share(host)
