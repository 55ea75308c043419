"""Download the images of one gallery.

This module connects the pool, the fetcher, the store and the ledger, which do not depend on each other.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from imgdl_pipeline.core.download.crew import Crew, Task
from imgdl_pipeline.core.download.eager_validation import EagerValidator
from imgdl_pipeline.core.download.fetch import (
    check_expected,
)
from imgdl_pipeline.core.download.host_budget import limits_of
from imgdl_pipeline.core.download.kept_robots import KeptRobots
from imgdl_pipeline.core.download.plan import (
    BATCH_JOBS,
    Job,
    files_of,
    interleaved,
    jobs,
    large_hosts,
    orphans,
    plan,
)
from imgdl_pipeline.core.download.processes import DownloadProcesses
from imgdl_pipeline.core.download.retry import Retry
from imgdl_pipeline.core.download.shares import HostShares
from imgdl_pipeline.core.download.work import removed_row, row_of, row_of_error
from imgdl_pipeline.core.jpeg.facts import Limits
from imgdl_pipeline.core.jpeg.workers import JpegWorkers, available_cores, opened
from imgdl_pipeline.core.listing.build import open_links
from imgdl_pipeline.core.listing.places import checked_places
from imgdl_pipeline.core.model.outcome import (
    FetchError,
    Reason,
    Status,
)
from imgdl_pipeline.core.model.schemas import CATALOG, DOWNLOADS, LINKS, columns, filter_table
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.storage.host_leases import HostLeases
from imgdl_pipeline.core.storage.judged import discard_opted_out, discard_removed, note_usage
from imgdl_pipeline.core.storage.layout import (
    catalog_path,
    downloads_path,
    image_path,
    images_path,
    is_shard,
    links_path,
    whole_gallery,
)
from imgdl_pipeline.core.storage.ledger import Download, Ledger
from imgdl_pipeline.core.storage.removed import Removed, RemovedNow
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline.core.storage.table_file import TableFile

logger = logging.getLogger(__name__)

HOSTS_PER_WORKER = 2
"""Hosts that take turns at a time, for each worker."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a run.

    Args:
        done: Number of links that are done.
        total: Number of links that this run requests.
        failed: Number of done links without an image.
        seconds: Seconds since the run began.
        busy: Number of links in progress, given only while no link finishes.
        by_status: Number of done links with each status.
    """

    done: int
    total: int
    failed: int
    seconds: float
    busy: int = 0
    by_status: Mapping[str, int] = field(default_factory=dict)

    @property
    def per_second(self) -> float:
        """Return the number of links per second."""
        return self.done / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        left = f"{(self.total - self.done) / self.per_second:.0f} s to go" if self.done else "none done yet"
        busy = f", {self.busy} being asked for" if self.busy else ""
        return (
            f"{self.done} of {self.total} links, {self.per_second:.1f} a second, {left}, "
            f"{self.failed} without an image{busy}"
        )


@dataclass(frozen=True, slots=True)
class DownloadRun:
    """The result of a run. Its rows stay in the store, and are read as far as they are wanted.

    Args:
        store: The store of the gallery's files.
        gallery: The gallery's name.
        started_at: When the run began.
        ended_at: When it ended.
        seconds: Duration of the run.
        waiting: Number of links that `limit` or `time_limit` left to the next run.
    """

    store: Store
    gallery: str
    started_at: datetime
    ended_at: datetime
    seconds: float
    waiting: int = 0

    @property
    def ledger(self) -> pa.Table:
        """All ledger rows of the gallery."""
        return self.rows(*DOWNLOADS.names)

    @property
    def tried(self) -> pa.Table:
        """The rows of the links that this run requested."""
        return self.tried_rows(*DOWNLOADS.names)

    @property
    def fetched(self) -> pa.Table:
        """The rows of the links whose bytes this run fetched."""
        return self.fetched_rows(*DOWNLOADS.names)

    def rows(self, *names: str) -> pa.Table:
        """Return some columns of all ledger rows.

        Raises:
            StoreError: The ledger could not be read.
        """
        schema = columns(DOWNLOADS, *names)
        table = self.store.read_table(downloads_path(self.gallery), schema)
        return schema.empty_table() if table is None else table

    def without_image(self) -> pa.Table:
        """Return why links have no image: `url`, `status`, `reason` and `detail`; raises like `rows`."""
        schema = columns(DOWNLOADS, "url", "status", "reason", "detail")
        batches = self.store.batches(downloads_path(self.gallery), schema)
        rows = [batch.filter(pc.not_equal(batch["status"], Status.OK.value)) for batch in batches]
        return pa.concat_tables([schema.empty_table(), *rows])

    def tried_rows(self, *names: str) -> pa.Table:
        """Return some columns of `tried`; raises like `rows`."""
        return self._of_this_run("tried_at", names)

    def fetched_rows(self, *names: str) -> pa.Table:
        """Return some columns of `fetched`; raises like `rows`."""
        return self._of_this_run("fetched_at", names)

    def _of_this_run(self, time_column: str, names: tuple[str, ...]) -> pa.Table:
        rows = self.rows(*dict.fromkeys([*names, time_column]))
        is_ours = _is_between(rows[time_column], self.started_at, self.ended_at)
        return filter_table(rows.select(list(names)), is_ours)


NOT_SPREAD: Mapping[str, int] = {}


def download_gallery(
    gallery: str,
    store: Store,
    settings: DownloadSettings,
    *,
    limit: int | None = None,
    force: bool = False,
    retry: Retry | None = None,
    jpegs: JpegWorkers | None = None,
    checks_early: bool = True,
    spread: Mapping[str, int] = NOT_SPREAD,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> DownloadRun:
    """Fetch every planned link of a gallery, and update the ledger.

    Args:
        gallery: The gallery's name; its link list must exist.
        store: The store with the gallery's files.
        settings: The download settings.
        limit: Maximum number of links to fetch.
        force: Request every link again, regardless of the ledger; conditionally if its image is stored.
        retry: The retry policy; None creates one from the settings.
        jpegs: The processes that validate images; None starts some and ends them afterwards.
        checks_early: Validate images during the downloads; otherwise the catalog validates all of them.
        spread: Hosts whose slots and rate are shared by several runs at the same time, and by how many.
        on_progress: Called after every link, and twice a second while no link finishes.

    Raises:
        StoreError: The store failed. Results up to then are in the ledger, if it could still be written.
    """
    started, started_at = time.monotonic(), datetime.now(timezone.utc)
    now = RemovedNow(store)
    with (
        open_links(store, gallery) as links,
        Ledger(store, gallery) as ledger,
        opened(jpegs) as jpegs,
    ):
        store.sweep(images_path(gallery))
        removed = now.list()
        todo, planned = _plan(
            gallery, store, links, ledger, removed, settings, started_at, limit, force=force
        )
        if todo.num_rows:
            jpegs.start()
            KeptRobots(store, settings.user_agent_header).forget_past_days()
        eager = EagerValidator(store, gallery, jpegs, Limits.of(settings), now) if checks_early else None
        counter = ProgressCounter(todo.num_rows, started, on_progress)
        leases = HostLeases(store, limits_of(settings), large_hosts(todo, spread))
        wanted = available_cores() if settings.processes == "auto" else settings.processes
        shares = HostShares.of(todo, min(wanted, settings.workers))
        task = Task(
            gallery,
            store.root,
            settings,
            retry or Retry(settings.attempts),
            started + (settings.time_limit or float("inf")),
            spread,
        )
        crew = _crew(task, shares, store, now, leases, jpegs, eager, counter)
        leases.busy, leases.on_renewal = crew.busy_with, crew.renewed
        parts = [jobs(part, links, ledger, settings) for part in shares.tables(todo)]
        with leases:
            _download(crew, parts, ledger, eager, counter)
        if now.list() is not removed:  # something was removed while this run was at work
            ledger.merge()
            discard_removed(ledger, store, now.list())
        if usage := crew.usage():
            ledger.merge()
            note_usage(ledger, usage)
            discard_opted_out(ledger, store, settings)
        waiting = planned - counter.done
    ended_at = datetime.now(timezone.utc)
    return DownloadRun(store, gallery, started_at, ended_at, time.monotonic() - started, waiting)


def _crew(
    task: Task,
    shares: HostShares,
    store: Store,
    removed: RemovedNow,
    leases: HostLeases,
    jpegs: JpegWorkers,
    eager: EagerValidator | None,
    counter: "ProgressCounter",
) -> "Crew[Download] | DownloadProcesses":
    """Return the threads of this process that download, or several processes with threads."""
    if shares.processes > 1:
        return DownloadProcesses(task, shares, leases, jpegs, eager, counter.waited)
    return Crew(
        task,
        store,
        removed,
        jpegs,
        eager,
        leases=leases,
        route=lambda outcome: outcome,
        on_wait=counter.waited,
    )


def _plan(
    gallery: str,
    store: Store,
    links: TableFile,
    ledger: Ledger,
    removed: Removed,
    settings: DownloadSettings,
    now: datetime,
    limit: int | None,
    *,
    force: bool,
) -> tuple[pa.Table, int]:
    """Reconcile ledger and stored images; return the links to fetch now, and the count of all."""
    with store.reading(links_path(gallery)):
        stored, is_whole = _stored_images(store, gallery, ledger)
        files = files_of(ledger, stored)
        before = ledger.writes
        if is_whole:
            _adopt(gallery, store, links, set(orphans(stored, files, even_all=True)), ledger)
        urls = links.read(columns(LINKS, "url"))
        _refuse_removed(gallery, urls, ledger, removed, store)
        discard_opted_out(ledger, store, settings)
        if ledger.writes > before:
            files = files_of(ledger, stored)
        if is_whole:
            store.delete(orphans(stored, files))
        planned = plan(urls, ledger, stored, settings, now, force=force, files=files)
        todo = interleaved(planned[:limit], HOSTS_PER_WORKER * settings.workers)
        return todo, planned.num_rows


def _stored_images(store: Store, gallery: str, ledger: Ledger) -> tuple[pa.Table, bool]:
    """Return the stored images of a gallery or shard, and whether all others in its folder are of no use.

    After another number of shards, images stay in the folders of the shards that they were in. Those are not
    listed, so an image there counts as stored if the ledger has it.
    """
    stored = store.files(images_path(gallery))
    places = checked_places(store, whole_gallery(gallery)) if is_shard(gallery) else None
    if places is None or not places.is_resharded:
        return stored, True
    rows = ledger.select(["path", "bytes"])
    is_elsewhere = pc.invert(pc.starts_with(rows["path"], f"{images_path(gallery)}/"))
    elsewhere = rows.filter(pc.fill_null(is_elsewhere, fill_value=False))
    return pa.concat_tables([stored, elsewhere.cast(stored.schema)]), False


def _is_between(times: pa.ChunkedArray, start: datetime, end: datetime) -> pa.ChunkedArray:
    is_between = pc.and_(pc.greater_equal(times, start), pc.less_equal(times, end))
    return pc.fill_null(is_between, fill_value=False)


_PICTURES = columns(CATALOG, "url", "sha256", "phash")


def _refuse_removed(gallery: str, links: pa.Table, ledger: Ledger, removed: Removed, store: Store) -> None:
    """Give links that were removed their rows, without asking for them, and delete what is left of them."""
    if not removed:
        return
    named = [url for urls in links["url"].chunks for url in urls.to_pylist() if removed.names(url)]
    rows = ledger.select(["url", "sha256"])
    named += rows["url"].filter(removed.rows_of(rows)).to_pylist()
    if removed.has_pictures:
        known = store.read_table(catalog_path(gallery), _PICTURES)
        named += [] if known is None else known["url"].filter(removed.rows_of(known)).to_pylist()
    before = ledger.select(["url", "path", "reason"])
    before = before.filter(pc.is_in(before["url"], value_set=pa.array(named, pa.string())))
    store.delete(before["path"].drop_null().to_pylist())
    known = before.filter(pc.equal(before["reason"], Reason.REMOVED.value))
    for url in set(named).difference(known["url"].to_pylist()):
        ledger.add(removed_row(Job(url=url, host="", expected={}, request_headers={})))
    ledger.merge()


def _adopt(gallery: str, store: Store, links: TableFile, lost: set[str], ledger: Ledger) -> None:
    """Give the images of a killed run their rows again: each file is whole, and its name tells its link."""
    if not lost:
        return
    rows = ledger.select(["url", "status"])
    is_judged = pc.is_in(rows["status"], pa.array([Status.INVALID.value, Status.REFUSED.value]))
    judged = set(rows["url"].filter(is_judged).to_pylist())
    del rows
    for batch in links.batches(columns(LINKS, "url", "attributes"), BATCH_JOBS):
        for link in batch.to_pylist():
            path = image_path(gallery, link["url"])
            if path in lost and link["url"] not in judged:
                row = _adopted(link["url"], path, json.loads(link["attributes"] or "{}"), store)
                if row is not None:
                    ledger.add(row)
    ledger.merge()


def _adopted(url: str, path: str, expected: dict[str, Any], store: Store) -> Download | None:
    """Return the row of a stored image without a row, or None if it is not what its source describes."""
    file = store.open(path)
    if file is None:
        return None
    with file:
        try:
            body = check_expected(file, expected)
        except FetchError:
            return None
    now = datetime.now(timezone.utc)
    return Download(
        url=url,
        status=Status.OK.value,
        tried_at=now,
        attempts=0,
        elapsed_s=0.0,
        path=path,
        sha256=body.digests["sha256"],
        bytes=body.bytes,
        fetched_at=now,
    )


def _download(
    crew: "Crew[Download] | DownloadProcesses",
    parts: list[Iterator[Job]],
    ledger: Ledger,
    eager: EagerValidator | None,
    counter: "ProgressCounter",
) -> None:
    """Have all links downloaded, and write the row of each one to the ledger, also after an interrupt."""
    try:
        with crew:
            for done in crew.map(parts):
                if done.is_dropped:
                    _keep_last_error(done.item, ledger)
                    continue
                row = done.result or row_of_error(done.item, done.error)
                ledger.add(row)
                counter.finished(row)
                if eager:
                    eager.write_due()
    finally:
        for row in crew.remains():  # results that were finished before an interrupt
            ledger.add(row)
        if eager:
            eager.write()


def _keep_last_error(job: Job, ledger: Ledger) -> None:
    """Write the row of a link that was tried, but not again before the time limit."""
    if job.error is not None and job.known is None:
        ledger.add(row_of(job, job.error))


class ProgressCounter:
    """Counts the finished links, and reports the progress.

    Args:
        total: The number of links.
        started: When the run began, by the monotonic clock.
        on_progress: Called with the progress.
    """

    def __init__(self, total: int, started: float, on_progress: Callable[[Progress], None]) -> None:
        self._total, self._started, self._on_progress = total, started, on_progress
        self.done = 0
        self._by_status = {status.value: 0 for status in Status}

    def finished(self, row: Download) -> None:
        """Count a finished link, and report the progress."""
        self.done += 1
        self._by_status[row.status] += 1
        self.waited(0)

    def waited(self, busy: int) -> None:
        """Report the progress and the number of links in progress while no link finishes."""
        seconds = time.monotonic() - self._started
        failed = self.done - self._by_status[Status.OK.value]
        counts = dict(self._by_status)
        self._on_progress(Progress(self.done, self._total, failed, seconds, busy, counts))
