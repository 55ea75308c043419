"""Judge a gallery by what its last run left: one function for each check, whose docstring describes it."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from imgdl_pipeline.assets import open_store
from imgdl_pipeline.config.galleries import Galleries, Gallery
from imgdl_pipeline.core.catalog.audit import (
    altered_files,
    is_stale,
    lost_links,
    refreshed_at,
    unknown_files,
    untried_links,
)
from imgdl_pipeline.core.catalog.stored import StoredCatalog, open_catalog
from imgdl_pipeline.core.listing.build import lengths
from imgdl_pipeline.core.model.memory import release_memory
from imgdl_pipeline.core.model.outcome import Reason, Status
from imgdl_pipeline.core.model.schemas import CATALOG, columns
from imgdl_pipeline.core.model.settings import CheckSettings
from imgdl_pipeline.core.model.shown import hide_secrets
from imgdl_pipeline.core.storage.layout import catalog_path, is_shard
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.metadata import failures_markdown, markdown_table

SHOWN = 20
"""The most rows in a check's table."""

SMALL_SHARD_LINKS = 100
"""A shard with fewer links gets no error for their share: a few links say little of its gallery."""

WARN, ERROR = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a check.

    Args:
        passed: Whether the check passed.
        severity: The severity if the check did not pass.
        words: A description of the result for a person.
        metadata: The numbers, and a table of rows.
    """

    passed: bool
    severity: dg.AssetCheckSeverity
    words: str
    metadata: dict[str, Any]

    def told(self, catalog: str) -> dict[str, Any]:
        """Return the arguments of Dagster's `AssetCheckResult`; `catalog` is the catalog's location."""
        return {
            "passed": self.passed,
            "severity": self.severity,
            "description": self.words,
            "metadata": {**self.metadata, "catalog": dg.MetadataValue.path(catalog)},
        }


@dataclass(frozen=True, slots=True)
class Inspected:
    """The input of the checks of one gallery.

    Args:
        gallery: The gallery's name.
        catalog: The catalog, of which each check reads the columns that it needs.
        settings: The limits of the checks.
        schedule: The cron expression of the gallery's runs, if they have one.
    """

    gallery: str
    catalog: StoredCatalog
    settings: CheckSettings
    schedule: str | None


def files_are_intact(seen: Inspected) -> Verdict:
    """No stored file is missing or altered; 100 files are read by default, different ones every day."""
    sample = None if seen.settings.files == "all" else seen.settings.files
    today = datetime.now(timezone.utc).toordinal()
    read, found = altered_files(seen.catalog, sample, seed=today)
    rows = [[each.what, each.path, each.url] for each in found[:SHOWN]]
    return Verdict(
        passed=not found,
        severity=ERROR,
        words=f"{len(found)} of {read} files that were read are missing or altered",
        metadata={
            "files_read": read,
            "files_wrong": len(found),
            "rows": markdown_table(["what", "path", "url"], rows),
        },
    )


def no_damaged_file_is_stored(seen: Inspected) -> Verdict:
    """Every stored image is one that the catalog has checked from its first byte to its last."""
    unknown = unknown_files(seen.catalog)
    return Verdict(
        passed=not unknown,
        severity=ERROR,
        words=f"{len(unknown)} files are stored that the catalog does not have as whole JPEGs",
        metadata={
            "files_unknown": len(unknown),
            "rows": markdown_table(["path"], [[path] for path in sorted(unknown)[:SHOWN]]),
        },
    )


def few_links_failed(seen: Inspected) -> Verdict:
    """The share of links that failed is not above `failed_warn`; above `failed_error` it is an error."""
    return _few_links(seen, Status.FAILED, seen.settings.failed_warn, seen.settings.failed_error)


def few_links_are_invalid(seen: Inspected) -> Verdict:
    """The share of links that gave no whole JPEG is not above `invalid_warn`, nor above `invalid_error`."""
    return _few_links(seen, Status.INVALID, seen.settings.invalid_warn, seen.settings.invalid_error)


def few_links_were_refused(seen: Inspected) -> Verdict:
    """The share of links that a rule forbids is not above `refused_warn`, nor above `refused_error`."""
    return _few_links(seen, Status.REFUSED, seen.settings.refused_warn, seen.settings.refused_error)


_WORDS = {Status.FAILED: "failed", Status.INVALID: "are invalid", Status.REFUSED: "were refused"}
_WORD = {Status.FAILED: "failed", Status.INVALID: "is invalid", Status.REFUSED: "was refused"}


def _with_status(catalog: StoredCatalog, status: Status) -> tuple[int, pa.Table]:
    """Return the number of all rows and the rows with a status, as `failures_markdown` wants them.

    Among refused ones, what was removed does not count: it is no trouble.
    """
    names = ("url", "status", "reason", "detail")
    total, found = 0, [columns(CATALOG, *names).empty_table()]
    for batch in catalog.batches(*names):
        if status is Status.REFUSED:
            is_removed = pc.equal(batch["reason"], Reason.REMOVED.value)
            batch = batch.filter(pc.invert(pc.fill_null(is_removed, fill_value=False)))
        total += batch.num_rows
        found.append(batch.filter(pc.equal(batch["status"], status.value)))
    return total, pa.concat_tables(found)


def _few_links(seen: Inspected, status: Status, warn_above: float, error_above: float) -> Verdict:
    """Judge the share of links with a status that is not `ok`."""
    total, rows = _with_status(seen.catalog, status)
    share = rows.num_rows / total if total else 0.0
    is_small = is_shard(seen.gallery) and total < SMALL_SHARD_LINKS
    return Verdict(
        passed=share <= min(warn_above, error_above),
        severity=ERROR if share > error_above and not is_small else WARN,
        words=f"{rows.num_rows} of {total} links {_WORDS[status]}",
        metadata={
            f"share_{status.value}": round(share, 4),
            status.value: rows.num_rows,
            "allowed": f"a warning above {warn_above:g}, an error above {error_above:g}",
            "rows": dg.MetadataValue.md(failures_markdown(rows, f"no link {_WORD[status]}")),
        },
    )


def every_link_was_tried(seen: Inspected) -> Verdict:
    """Every listed link has its row: none waits for the next run because of `time_limit` or `limit`."""
    waiting = untried_links(seen.catalog)
    return Verdict(
        passed=not waiting,
        severity=WARN,
        words=f"{waiting} listed links wait for the next run",
        metadata={"waiting": waiting},
    )


def list_is_as_long_as_before(seen: Inspected) -> Verdict:
    """The source lists about as many links as last time; a source that lists far fewer may be in trouble."""
    lists = lengths(seen.catalog.store, seen.gallery)
    lost = [[row["url"], row["last_seen"]] for row in lost_links(seen.catalog, SHOWN)]
    before = "this is the first list" if lists.before is None else f"{lists.before} were before"
    return Verdict(
        passed=lists.lost <= seen.settings.lost_warn,
        severity=WARN,
        words=f"{lists.now} links are listed, and {before}",
        metadata={
            "links": lists.now,
            **({} if lists.before is None else {"links_before": lists.before}),
            "share_lost": round(lists.lost, 4),
            "allowed": f"a warning above {seen.settings.lost_warn:g}",
            "rows": markdown_table(["listed no more", "last seen"], lost),
        },
    )


def licenses_are_known(seen: Inspected) -> Verdict:
    """The share of images without a `license_id` is not above `unlicensed_warn`."""
    counted: Counter[str | None] = Counter()
    for batch in seen.catalog.with_status(Status.OK, "license_id"):
        counted.update(batch["license_id"].to_pylist())
    images, unknown = counted.total(), counted.pop(None, 0)
    share = unknown / images if images else 0.0
    return Verdict(
        passed=share <= seen.settings.unlicensed_warn,
        severity=WARN,
        words=f"{unknown} of {images} images have no known licence",
        metadata={
            "share_unlicensed": round(share, 4),
            "allowed": f"a warning above {seen.settings.unlicensed_warn:g}",
            "licences": markdown_table(
                ["license_id", "images"], [list(each) for each in counted.most_common(SHOWN)]
            ),
        },
    )


def is_fresh(seen: Inspected) -> Verdict:
    """The list and the catalog are newer than the last but one scheduled run; checked hourly, too."""
    seen_at = refreshed_at(seen.catalog.rows("last_seen"))
    metadata: dict[str, Any] = {"schedule": seen.schedule or "none"}
    if seen_at is None:
        return Verdict(passed=True, severity=WARN, words="the catalog has no rows", metadata=metadata)
    now, fresh_days = datetime.now(timezone.utc), seen.settings.fresh_days
    return Verdict(
        passed=not is_stale(seen_at, seen.schedule, now, fresh_days),
        severity=WARN,
        words=f"its links were last listed, downloaded and cataloged on {seen_at:%Y-%m-%d %H:%M} UTC",
        metadata={**metadata, "refreshed_at": dg.MetadataValue.timestamp(seen_at)},
    )


CHECKS: dict[str, Callable[[Inspected], Verdict]] = {
    check.__name__: check
    for check in (
        files_are_intact,
        no_damaged_file_is_stored,
        few_links_failed,
        few_links_are_invalid,
        few_links_were_refused,
        every_link_was_tried,
        list_is_as_long_as_before,
        licenses_are_known,
        is_fresh,
    )
}


@dataclass(frozen=True, slots=True)
class Judged:
    """A check's verdict on a gallery.

    Args:
        gallery: The gallery's name.
        check: The check's name.
        verdict: The verdict.
        catalog: The location of the catalog.
    """

    gallery: str
    check: str
    verdict: Verdict
    catalog: str

    @property
    def badness(self) -> int:
        """How bad the verdict is: 0 for passed, 1 for a warning, 2 for an error."""
        return 0 if self.verdict.passed else 1 + (self.verdict.severity is ERROR)


def judge(galleries: Galleries, gallery: Gallery, checks: Iterable[str]) -> list[Judged]:
    """Return the verdicts on what a gallery's last run left.

    A file that cannot be read is a verdict, too. Where nothing is cataloged yet, only `is_fresh` complains.

    Raises:
        StoreError: The store cannot be opened.
    """
    store = open_store(galleries)
    location = store.location(catalog_path(gallery.name))
    try:
        catalog = open_catalog(store, gallery.name)
    except StoreError as error:
        verdict = _unreadable(error)
        return [Judged(gallery.name, check, verdict, location) for check in checks]
    if catalog is None:
        return [Judged(gallery.name, check, _without_catalog(check), location) for check in checks]
    settings, schedule = galleries.check_settings(gallery), galleries.schedule_of(gallery)
    with catalog:
        seen = Inspected(gallery.name, catalog, settings, schedule)
        return [Judged(gallery.name, check, _verdict(check, seen), location) for check in checks]


def _verdict(check: str, seen: Inspected) -> Verdict:
    release_memory()  # which another check has freed
    try:
        return CHECKS[check](seen)
    except StoreError as error:
        return _unreadable(error)


def _unreadable(error: StoreError) -> Verdict:
    return Verdict(passed=False, severity=ERROR, words=hide_secrets(str(error)), metadata={})


def _without_catalog(check: str) -> Verdict:
    words = "no run has cataloged this gallery yet"
    return Verdict(passed=check != is_fresh.__name__, severity=WARN, words=words, metadata={})
