"""Download the images of one gallery.

This module connects the pool, the fetcher, the store and the ledger, which do not depend on each other.
"""

import io
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from imgdl_pipeline.core.download.breaker import CircuitBreaker
from imgdl_pipeline.core.download.eager_validation import EagerValidator
from imgdl_pipeline.core.download.fetch import (
    Fetched,
    Fetcher,
    Heard,
    NotModified,
    Redirect,
    check_expected,
)
from imgdl_pipeline.core.download.host_budget import HostBudget
from imgdl_pipeline.core.download.host_queue import Requeue, Throttled
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
from imgdl_pipeline.core.download.pool import DownloadPool
from imgdl_pipeline.core.download.removed_links import RemovedLinks
from imgdl_pipeline.core.download.retry import Retry, is_permanent
from imgdl_pipeline.core.http.pace import Paces
from imgdl_pipeline.core.http.transport import Validators
from imgdl_pipeline.core.http.urls import host_of
from imgdl_pipeline.core.jpeg.facts import InvalidImageError, Limits
from imgdl_pipeline.core.jpeg.workers import JpegWorkers, opened
from imgdl_pipeline.core.listing.build import open_links
from imgdl_pipeline.core.listing.places import checked_places
from imgdl_pipeline.core.model.opt_outs import FILE, from_json, renewed, to_json
from imgdl_pipeline.core.model.outcome import (
    FetchError,
    Reason,
    ResourceError,
    RetryAfter,
    Status,
    UnreachableError,
)
from imgdl_pipeline.core.model.schemas import CATALOG, DOWNLOADS, LINKS, columns, filter_table
from imgdl_pipeline.core.model.settings import AgeGradedRecheck, DownloadSettings
from imgdl_pipeline.core.storage.judged import discard_opted_out, discard_removed, note_usage
from imgdl_pipeline.core.storage.layout import (
    catalog_path,
    downloads_path,
    image_path,
    images_path,
    links_path,
    shard_mark,
    whole_gallery,
)
from imgdl_pipeline.core.storage.ledger import Download, Ledger
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.removed import REMOVED_VERDICT, Removed, RemovedNow
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
    stop, paces, now = threading.Event(), Paces(settings.requests_per_second), RemovedNow(store)
    robots = KeptRobots(store, settings.user_agent_header)
    with (
        open_links(store, gallery) as links,
        Ledger(store, gallery) as ledger,
        Fetcher(settings, stop, paces=paces, removed=RemovedLinks(now), kept_robots=robots) as fetcher,
        opened(jpegs) as jpegs,
    ):
        store.sweep(images_path(gallery))
        removed = now.list()
        todo, planned = _plan(
            gallery, store, links, ledger, removed, settings, started_at, limit, force=force
        )
        if todo.num_rows:
            jpegs.start()
            robots.forget_past_days()
        limits = Limits.of(settings)
        eager = EagerValidator(store, gallery, jpegs, limits, now) if checks_early else None
        by_age = isinstance(settings.recheck, AgeGradedRecheck)
        retry, breaker = retry or Retry(settings.attempts), CircuitBreaker(settings.host_patience)
        work = _Work(gallery, store, fetcher, retry, breaker, paces, jpegs, limits, eager, now, by_age)
        counter = ProgressCounter(todo.num_rows, started, on_progress)
        budget = HostBudget(store, settings, large_hosts(todo, spread), paces, spread)
        pool = DownloadPool(
            work,
            workers=settings.workers,
            slots=budget.slots,
            host_of=lambda job: job.host,
            stop=stop,
            paced=budget.counting(work.handed_out),
            until=started + (settings.time_limit or float("inf")),
            on_wait=counter.waited,
        )
        with budget.of(pool.busy_with, pool.slots_changed):
            _download(pool, jobs(todo, links, ledger, settings), ledger, work, counter)
        if now.list() is not removed:  # something was removed while this run was at work
            ledger.merge()
            discard_removed(ledger, store, now.list())
        if usage := fetcher.usage():
            ledger.merge()
            note_usage(ledger, usage)
            discard_opted_out(ledger, store, settings)
        waiting = planned - counter.done
    ended_at = datetime.now(timezone.utc)
    return DownloadRun(store, gallery, started_at, ended_at, time.monotonic() - started, waiting)


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
    places = checked_places(store, whole_gallery(gallery)) if shard_mark(gallery) else None
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
        ledger.add(_removed_row(Job(url=url, host="", expected={}, request_headers={})))
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
    pool: "DownloadPool[Job, Download]",
    todo: Iterator[Job],
    ledger: Ledger,
    work: "_Work",
    counter: "ProgressCounter",
) -> None:
    """Run the pool, and write the row of each link to the ledger, also after an interrupt."""
    try:
        with pool:
            for done in pool.map(todo):
                if done.is_dropped:
                    _keep_last_error(done.item, ledger)
                    continue
                row = done.result or _row_of_error(done.item, done.error)
                ledger.add(row)
                counter.finished(row)
                if work.eager:
                    work.eager.write_due()
    finally:
        for row in pool.remains():  # results that were finished before an interrupt
            ledger.add(row)
        if work.eager:
            work.eager.write()


def _keep_last_error(job: Job, ledger: Ledger) -> None:
    """Write the row of a link that was tried, but not again before the time limit."""
    if job.error is not None and job.known is None:
        ledger.add(_row(job, job.error))


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


def _row_of_error(job: Job, error: BaseException | None) -> Download:
    """Return the row of a link whose work raised an unexpected exception.

    Raises:
        StoreError, ResourceError: The exception was one of these; the run cannot continue.
    """
    if isinstance(error, (StoreError, ResourceError)):
        raise error
    logger.error("%s: an internal error", job.url, exc_info=error)
    return _row(job, FetchError(Reason.CONNECTION, f"unexpected {type(error).__name__}: {error}"))


@dataclass(frozen=True, slots=True)
class _Work:
    """A worker's task for a job: make one attempt, or part of one up to another host, and store the bytes."""

    gallery: str
    store: Store
    fetcher: Fetcher
    retry: Retry
    breaker: CircuitBreaker
    paces: Paces
    jpegs: JpegWorkers
    limits: Limits
    eager: EagerValidator | None
    removed: RemovedNow
    counts_failures: bool

    def __call__(self, job: Job) -> Download | Requeue[Job] | Throttled[Download]:
        started, host = time.monotonic(), job.host
        refusal = self.breaker.begin(host)
        if refusal is not None:
            self.paces.release(host)
            return self._without_image(job, _given_up(refusal, job))
        try:
            validators = _validators(job.known or job.refused)
            fetched = self.fetcher.fetch(job.url, job.expected, validators, job.request_headers, job.redirect)
        except NotModified as signal:
            self._answered(host)
            return _unchanged(job, signal.heard) if job.known else _still_refused(job, signal.heard)
        except FetchError as error:
            return self._after(error, _tried(job, started, error), host, started)
        except BaseException:
            self.breaker.released(host)
            raise
        if isinstance(fetched, Redirect):
            return self._continued(fetched, job, started)
        self._answered(host)
        with fetched.body:
            return self._stored(_tried(job, started), fetched)

    def handed_out(self, host: str, now: float) -> float:
        """Return when the next link of a host may be handed out, at the latest when its patience ends."""
        due = self.paces.handed_out(host, now)
        if due <= now:
            return due
        self.breaker.waits(host, due)
        return min(due, now + max(0.0, self.breaker.patience_left(host)))

    def _answered(self, host: str) -> None:
        self.breaker.answered(host)
        self.paces.answered(host)

    def _continued(self, rest: Redirect, job: Job, started: float) -> Requeue[Job]:
        """Requeue the rest of an attempt, for another host or for later."""
        if rest.wait_s:
            self.breaker.released(job.host)
        else:
            self._answered(job.host)
        elapsed_s = job.elapsed_s + time.monotonic() - started
        return Requeue(replace(job, redirect=rest, host=rest.host, elapsed_s=elapsed_s), rest.wait_s)

    def _after(
        self, error: FetchError, job: Job, host: str, started: float
    ) -> Download | Requeue[Job] | Throttled[Download]:
        """Return the row of a failed attempt, or requeue the job; record what it says about the host.

        A pause that a host asks for, or that it needs because it cannot be connected to, is for all of its
        links. No pause is longer than the host's patience, because the host is given up then.
        """
        asked_s = error.seconds if isinstance(error, RetryAfter) else None
        is_long = asked_s is not None and asked_s > self.retry.longest_asked_s
        wait = self.retry.wait(error, job.attempts, asked_s)
        pause = wait if isinstance(error, UnreachableError) else None if is_long else asked_s
        self._record(error, job.url, host, started, max(wait or 0.0, pause or 0.0), is_long=is_long)
        left = max(0.0, self.breaker.patience_left(host))
        if wait is not None:
            return Requeue(job, min(wait, left), host if pause is not None else "")
        row = self._without_image(job, error)
        return row if pause is None else Throttled(row, min(pause, left), host)

    def _record(
        self, error: FetchError, url: str, host: str, started: float, wait_s: float, *, is_long: bool
    ) -> None:
        if error.retryable:
            troubles = self.breaker.failed(host, url, error, wait_s, is_long=is_long)
            asks_for_less = isinstance(error, RetryAfter) and not is_long
            is_in_trouble = troubles >= TROUBLES_IN_A_ROW and not isinstance(error, UnreachableError)
            if asks_for_less or is_in_trouble:
                self.paces.throttled(host, started)
        elif error.http_status is not None:
            self._answered(host)
        else:  # not an answer of this host: a refusal by a rule, or a name that does not exist
            self.breaker.released(host)

    def _without_image(self, job: Job, error: FetchError) -> Download:
        """Return the row of a link without a new image. Keep a stored image unless its owner opted out."""
        if job.known is None:
            return _row(job, error)
        if error.retryable or not job.attempts:  # no definite answer: the next run requests the link again
            return self._unanswered(job.known)
        if error.reason is not Reason.OPT_OUT:
            return _unchanged(job)
        self.store.delete([str(job.known.path)])
        return _row(job, error)

    def _unanswered(self, known: Download) -> Download:
        """Return the row of a stored image whose host gave no definite answer.

        Where rechecks have a budget, the time counts, or links of dead hosts would take all of it.
        """
        if not self.counts_failures:
            return known
        now = datetime.now(timezone.utc)
        return replace(known, tried_at=now, checked_at=known.checked_at or known.tried_at)

    def _is_whole(self, job: Job, fetched: Fetched) -> bool:
        """Return whether new bytes are a valid image and may replace a good one.

        All other images are validated by the catalog.
        """
        try:
            self.jpegs.validate(fetched.body, self.limits)
        except InvalidImageError as error:
            logger.warning("%s: kept, the new bytes are %s", job.url, error)
            return False
        return True

    def _stored(self, job: Job, fetched: Fetched) -> Download:
        path = image_path(self.gallery, job.url) if job.known is None else str(job.known.path)
        if self.removed.list().names(job.url, fetched.digests["sha256"]):
            return _removed_row(job)
        if job.known is not None and job.known.sha256 == fetched.digests["sha256"]:
            row = _unchanged(job, fetched.heard)
            return replace(row, etag=fetched.etag, last_modified=fetched.last_modified)
        if job.known is not None and not self._is_whole(job, fetched):
            return _unchanged(job)
        # Bytes that are in memory anyway are stored in one piece: as a file, they would be read bit by bit.
        body = fetched.body.getvalue() if isinstance(fetched.body, io.BytesIO) else fetched.body
        self.store.put(path, body)
        if self.eager:
            self.eager.check(job.url, fetched.digests["sha256"], body)
        now = datetime.now(timezone.utc)
        return Download(
            url=job.url,
            status=Status.OK.value,
            tried_at=now,
            attempts=job.attempts,
            elapsed_s=job.elapsed_s,
            path=path,
            sha256=fetched.digests["sha256"],
            bytes=fetched.bytes,
            http_status=fetched.http_status,
            etag=fetched.etag,
            last_modified=fetched.last_modified,
            fetched_at=now,
            checked_at=now,
            failures=job.failures,
            opt_outs=_renewed(job, fetched.heard.and_also((), FILE)),
        )


TROUBLES_IN_A_ROW = 8
"""Attempts without a definite answer after which a host is asked more slowly, whatever its trouble is."""


def _given_up(refusal: FetchError, job: Job) -> FetchError:
    """Return the error for a link of a host that was given up."""
    words = f"not tried{' again' if job.attempts else ''}: {refusal.detail}"
    return FetchError(refusal.reason, words, http_status=refusal.http_status)


def _validators(known: Download | None) -> Validators:
    return Validators(known.etag, known.last_modified) if known else Validators()


def _tried(job: Job, started: float, error: FetchError | None = None) -> Job:
    """Return the job after a finished attempt; its next attempt starts at the link itself."""
    elapsed_s = job.elapsed_s + time.monotonic() - started
    host = job.host if job.redirect is None else host_of(job.url)
    return replace(job, attempts=job.attempts + 1, elapsed_s=elapsed_s, host=host, redirect=None, error=error)


def _unchanged(job: Job, heard: Heard = Heard()) -> Download:  # noqa: B008 -- it is frozen
    assert job.known is not None  # noqa: S101 -- only a known image is requested conditionally
    now = datetime.now(timezone.utc)
    return replace(job.known, tried_at=now, checked_at=now, opt_outs=_renewed(job, heard))


def _still_refused(job: Job, heard: Heard) -> Download:
    """Return the row of a link whose file, which its metadata refuses, is the same as before."""
    assert job.refused is not None  # noqa: S101 -- only such a link is requested conditionally without an image
    now = datetime.now(timezone.utc)
    return replace(job.refused, tried_at=now, failures=job.failures + 1, opt_outs=_renewed(job, heard))


def _renewed(job: Job, heard: Heard) -> str:
    """Return the opt-outs of a link after an answer; what was said in places that were not read stays."""
    return to_json(renewed(from_json(job.opt_outs), heard.opt_outs, heard.places))


def _removed_row(job: Job) -> Download:
    """Return the row of a link whose bytes were removed; a stored image of it goes with the old row."""
    return _row(job, FetchError(Reason.REMOVED, REMOVED_VERDICT["detail"]))


def _row(job: Job, error: FetchError) -> Download:
    return Download(
        url=job.url,
        status=error.reason.status.value,
        tried_at=datetime.now(timezone.utc),
        attempts=job.attempts,
        elapsed_s=job.elapsed_s,
        reason=error.code,
        detail=error.detail,
        http_status=error.http_status,
        failures=job.failures + is_permanent(error.code),
        opt_outs=to_json(renewed(from_json(job.opt_outs), error.opt_outs, error.places)),
    )
