"""Give each host to one of a run's download processes: its slots, pace and pauses are in one place."""

import heapq
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from imgdl_pipeline.core.download.plan import origins_of
from imgdl_pipeline.core.http.urls import host_of
from imgdl_pipeline.core.model.schemas import filter_table

DEALT_HOSTS = 10_000
"""The hosts with the most links, which are given out one by one. A checksum decides about all others."""

LINKS_PER_PROCESS = 50
"""With fewer links, a process is not worth its start."""


@dataclass(frozen=True, slots=True)
class HostShares:
    """Which process works on which hosts.

    All ports of a host belong to the same process, because http often redirects to https.

    Args:
        processes: The number of processes.
        dealt: The processes of some hosts, by their names without a port.
    """

    processes: int = 1
    dealt: Mapping[str, int] = field(default_factory=dict)

    @staticmethod
    def of(todo: pa.Table, processes: int) -> "HostShares":
        """Divide the hosts of a plan among some processes, with about the same number of links for each.

        There are fewer processes if there are fewer hosts, or few links.
        """
        processes = min(processes, todo.num_rows // LINKS_PER_PROCESS)
        if processes < 2:
            return HostShares()
        links: Counter[str] = Counter()
        for each in pc.value_counts(origins_of(todo)).to_pylist():
            links[_name(host_of(each["values"]))] += each["counts"]
        processes = min(processes, len(links))
        dealt = links.most_common(DEALT_HOSTS)
        loads = [0] * processes
        for host in links.keys() - dict(dealt).keys():
            loads[_by_checksum(host, processes)] += links[host]
        return HostShares(processes, _deal(dealt, loads))

    def owner(self, host: str) -> int:
        """Return the number of the process that works on a host, from 0 on.

        Args:
            host: The host, named as `host_of` names it.
        """
        name = _name(host)
        number = self.dealt.get(name)
        return _by_checksum(name, self.processes) if number is None else number

    def tables(self, todo: pa.Table) -> list[pa.Table]:
        """Return the part of a plan that each process works on, in the plan's order."""
        if self.processes == 1:
            return [todo]
        origins = origins_of(todo)
        distinct = pc.unique(origins)
        owners = np.fromiter(self._owners(distinct), np.int64, len(distinct))
        owner = owners[pc.index_in(origins, value_set=distinct).to_numpy()]
        return [filter_table(todo, pa.array(owner == number)) for number in range(self.processes)]

    def _owners(self, origins: pa.Array) -> Iterator[int]:
        return (self.owner(host_of(origin)) for origin in origins.to_pylist())


def _name(host: str) -> str:
    return host.rpartition(":")[0] or host


def _by_checksum(name: str, processes: int) -> int:
    return zlib.crc32(name.encode()) % processes


def _deal(hosts: list[tuple[str, int]], loads: list[int]) -> dict[str, int]:
    """Give each host, the largest first, to the process that has the fewest links so far."""
    heap = [(links, number) for number, links in enumerate(loads)]
    heapq.heapify(heap)
    dealt = {}
    for host, links in hosts:
        load, number = heap[0]
        dealt[host] = number
        heapq.heapreplace(heap, (load + links, number))
    return dealt
