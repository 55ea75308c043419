"""Work on one link: make an attempt at it, store its bytes, and decide what happens next."""

import io
import logging
import time
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Protocol, TypeAlias, TypeVar

from imgdl_pipeline.core.download.breaker import CircuitBreaker
from imgdl_pipeline.core.download.fetch import Fetched, Fetcher, Heard, NotModified, Redirect
from imgdl_pipeline.core.download.host_queue import Requeue, Throttled
from imgdl_pipeline.core.download.plan import Job
from imgdl_pipeline.core.download.retry import Retry, is_permanent
from imgdl_pipeline.core.http.pace import Paces
from imgdl_pipeline.core.http.transport import Validators
from imgdl_pipeline.core.http.urls import host_of
from imgdl_pipeline.core.jpeg.facts import InvalidImageError, Limits
from imgdl_pipeline.core.jpeg.worker_client import Image
from imgdl_pipeline.core.model.opt_outs import FILE, from_json, renewed, to_json
from imgdl_pipeline.core.model.outcome import (
    FetchError,
    Reason,
    ResourceError,
    RetryAfter,
    Status,
    UnreachableError,
)
from imgdl_pipeline.core.storage.layout import image_path
from imgdl_pipeline.core.storage.ledger import Download
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.removed import REMOVED_VERDICT, RemovedNow
from imgdl_pipeline.core.storage.store import Store

logger = logging.getLogger(__name__)

R = TypeVar("R")

Outcome: TypeAlias = R | Requeue[Job] | Throttled[R]
"""What a worker returns for a job."""


class Validates(Protocol):
    """Validates images."""

    def validate(self, image: Image, limits: Limits) -> object:
        """Validate an image; raise InvalidImageError if it is no whole, valid JPEG."""


class Checks(Protocol):
    """Validates new images, and keeps the results for the catalog."""

    def check(self, url: str, sha256: str, image: Image) -> None:
        """Validate an image and keep the result."""


def row_of_error(job: Job, error: BaseException | None) -> Download:
    """Return the row of a link whose work raised an unexpected exception.

    Raises:
        StoreError, ResourceError: The exception was one of these; the run cannot continue.
    """
    if isinstance(error, (StoreError, ResourceError)):
        raise error
    logger.error("%s: an internal error", job.url, exc_info=error)
    return row_of(job, FetchError(Reason.CONNECTION, f"unexpected {type(error).__name__}: {error}"))


@dataclass(frozen=True, slots=True)
class Work:
    """A worker's task for a job: make one attempt, or part of one up to another host, and store the bytes."""

    gallery: str
    store: Store
    fetcher: Fetcher
    retry: Retry
    breaker: CircuitBreaker
    paces: Paces
    jpegs: Validates
    limits: Limits
    eager: Checks | None
    removed: RemovedNow
    counts_failures: bool

    def __call__(self, job: Job) -> Outcome[Download]:
        """Make an attempt at a link; return its row, or what is to be done next."""
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

    def _after(self, error: FetchError, job: Job, host: str, started: float) -> Outcome[Download]:
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
            return row_of(job, error)
        if error.retryable or not job.attempts:  # no definite answer: the next run requests the link again
            return self._unanswered(job.known)
        if error.reason is not Reason.OPT_OUT:
            return _unchanged(job)
        self.store.delete([str(job.known.path)])
        return row_of(job, error)

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
            return removed_row(job)
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


def removed_row(job: Job) -> Download:
    """Return the row of a link whose bytes were removed; a stored image of it goes with the old row."""
    return row_of(job, FetchError(Reason.REMOVED, REMOVED_VERDICT["detail"]))


def row_of(job: Job, error: FetchError) -> Download:
    """Return the row of a link without an image."""
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
