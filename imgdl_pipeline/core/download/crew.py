"""The download threads of one process, with what they share: connections, paces, pauses and the breaker."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from imgdl_pipeline.core.download.breaker import CircuitBreaker
from imgdl_pipeline.core.download.fetch import Fetcher
from imgdl_pipeline.core.download.host_budget import HostBudget, Leases
from imgdl_pipeline.core.download.host_queue import Requeue
from imgdl_pipeline.core.download.kept_robots import KeptRobots
from imgdl_pipeline.core.download.plan import Job
from imgdl_pipeline.core.download.pool import Done, DownloadPool
from imgdl_pipeline.core.download.removed_links import RemovedLinks
from imgdl_pipeline.core.download.retry import Retry
from imgdl_pipeline.core.download.work import Checks, Outcome, Validates, Work
from imgdl_pipeline.core.http.pace import Paces
from imgdl_pipeline.core.http.robots_rules import RobotsRules
from imgdl_pipeline.core.jpeg.facts import Limits
from imgdl_pipeline.core.model.settings import AgeGradedRecheck, DownloadSettings
from imgdl_pipeline.core.storage.host_leases import Part
from imgdl_pipeline.core.storage.ledger import Download
from imgdl_pipeline.core.storage.removed import RemovedNow
from imgdl_pipeline.core.storage.store import Store

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Task:
    """What a run is about, for its threads in whichever process they are.

    Args:
        gallery: The gallery's name.
        root: The root of its store.
        settings: The settings; `workers` are those of the run, or of one of its processes.
        retry: The retry policy.
        until: The time, by the monotonic clock, after which no link begins.
        spread: Hosts whose slots and rate are shared by several runs at the same time, and by how many.
    """

    gallery: str
    root: str
    settings: DownloadSettings
    retry: Retry
    until: float = float("inf")
    spread: Mapping[str, int] = field(default_factory=dict)


class Crew(Generic[R]):
    """A pool of download threads and what they need. Use it in a `with` block, as the pool.

    Args:
        task: What the run is about.
        store: The task's store.
        removed: What was removed for good.
        jpegs: Validates new bytes of a stored image before they replace it.
        eager: Validates each new image; None if the catalog does.
        leases: The slots of hosts that the run shares with other runs.
        part: Returns the part of the pace of a host that is not shared.
        route: Called with what became of a job; returns what the pool is to do.
        on_wait: Called twice a second with the number of links in progress while none is done.
    """

    def __init__(
        self,
        task: Task,
        store: Store,
        removed: RemovedNow,
        jpegs: Validates,
        eager: Checks | None,
        *,
        leases: Leases,
        route: Callable[[Outcome[Download]], Outcome[R]],
        part: Callable[[str], float] = lambda _: 1.0,
        on_wait: Callable[[int], None] = lambda _: None,
    ) -> None:
        settings = task.settings
        self.stop = threading.Event()
        paces = Paces(settings.requests_per_second, part=part)
        self._budget = HostBudget(leases, settings, paces, task.spread, part)
        self._fetcher = Fetcher(
            settings,
            self.stop,
            paces=paces,
            removed=RemovedLinks(removed),
            kept_robots=KeptRobots(store, settings.user_agent_header),
        )
        work = Work(
            task.gallery,
            store,
            self._fetcher,
            task.retry,
            CircuitBreaker(settings.host_patience),
            paces,
            jpegs,
            Limits.of(settings),
            eager,
            removed,
            isinstance(settings.recheck, AgeGradedRecheck),
        )
        self._pool: DownloadPool[Job, R] = DownloadPool(
            lambda job: route(work(job)),
            workers=settings.workers,
            slots=self._budget.slots,
            host_of=lambda job: job.host,
            stop=self.stop,
            paced=self._budget.counting(work.handed_out),
            until=task.until,
            on_wait=on_wait,
        )

    def __repr__(self) -> str:
        return f"<Crew {self._pool!r}>"

    def __enter__(self) -> "Crew[R]":
        self._pool.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.__exit__(None, None, None)
        self._fetcher.close()

    def map(self, items: Sequence[Iterator[Job | Requeue[Job] | None]]) -> Iterator[Done[Job, R]]:
        """Work on every item of the one list of items; see `DownloadPool.map`."""
        [jobs] = items
        return self._pool.map(jobs)

    def wake(self) -> None:
        """See `DownloadPool.wake`."""
        self._pool.wake()

    def remains(self) -> Iterator[R]:
        """Yield the results that `map` did not."""
        return self._pool.remains()

    def usage(self) -> dict[str, RobotsRules]:
        """Return what the hosts' robots.txt files say about the use of their images, by origin."""
        return self._fetcher.usage()

    def busy_with(self, host: str) -> int:
        """Return how many requests to a host may be in flight now."""
        return self._pool.busy_with(host)

    def renewed(self, host: str, part: Part) -> bool:
        """Heed the run's part of a shared host; return whether links of the host wait."""
        self._budget.renewed(host, part)
        return self._pool.slots_changed(host)
