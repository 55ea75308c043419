"""Decide how many requests a run may have in flight to each host, and how fast, besides other runs.

A host is shared with other runs through `HostLeases` if it has many links of the plan, if many requests have
gone to it, as to a host that links redirect to, or if its owner allows only a few requests in all. The links
of a shard's hosts that are too small for that, but are in other shards too, get a fixed part.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from imgdl_pipeline.core.download.plan import LARGE_HOST_LINKS
from imgdl_pipeline.core.http.pace import Paces
from imgdl_pipeline.core.model.settings import HOST_SLOTS, DownloadSettings
from imgdl_pipeline.core.storage.host_leases import UNLIMITED, HostLeases, HostLimits, Part
from imgdl_pipeline.core.storage.store import Store

MOST_SHARED_HOSTS = 64
"""The most hosts that a run shares. Each takes a few requests to the store every few seconds."""


class HostBudget:
    """The slots and the pace of each host in one run.

    Its methods are called by one pool, with its lock held, save `of`.

    Args:
        store: The store that all runs share.
        settings: The settings, of which `per_host` and `requests_per_second` are used.
        hosts: The hosts with many links.
        paces: How fast each host is asked.
        spread: Hosts that several runs ask at the same time, and how many runs.
    """

    def __init__(
        self,
        store: Store,
        settings: DownloadSettings,
        hosts: Iterable[str],
        paces: Paces,
        spread: Mapping[str, int],
    ) -> None:
        self._settings, self._paces, self._spread = settings, paces, spread
        self._shared = set(hosts)
        self._requests: Counter[str] = Counter()
        per_second = settings.requests_per_second or UNLIMITED
        self._leases = HostLeases(
            store, lambda host: HostLimits(settings.slots(host), per_second), self._shared
        )
        for host, runs in spread.items():
            if host not in self._shared:
                paces.share(host, 1 / runs)

    def of(self, busy: Callable[[str], int], slots_changed: Callable[[str], bool]) -> HostLeases:
        """Return the leases for a `with` block around the work of a pool.

        Args:
            busy: Returns how many links of a host are in progress.
            slots_changed: Called when a host has other slots; returns whether links of it wait.
        """

        def renewed(host: str, part: Part) -> bool:
            self._paces.share(host, part.slots / part.limits.slots, part.limits.per_second)
            return slots_changed(host)

        self._leases.busy, self._leases.on_renewal = busy, renewed
        return self._leases

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
            self._leases.share(host)
