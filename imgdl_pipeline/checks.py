"""Asset checks on each gallery: none stops a run, and each says in its metadata what it saw.

All run in one step, because a step of its own would cost each of them more than what it does.
"""

import inspect
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import dagster as dg
import pyarrow as pa

from imgdl_pipeline.assets import AssetKeys, open_store, partitions_of
from imgdl_pipeline.core.columns import CATALOG
from imgdl_pipeline.core.galleries import Galleries
from imgdl_pipeline.core.inspection import altered_files, is_stale, listing, unknown_files
from imgdl_pipeline.core.listing import last_listed
from imgdl_pipeline.core.outcome import Status
from imgdl_pipeline.core.settings import CheckSettings
from imgdl_pipeline.core.store import Store, StoreError, catalog_path
from imgdl_pipeline.metadata import counts, failures_markdown, markdown_table, share_failed

FRESHNESS_SENSOR = "gallery_freshness"
SHOWN = 20
"""Rows that a check's table shows at most."""

WARN, ERROR = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check found.

    Args:
        passed: Whether all is well.
        severity: Of a check that did not pass.
        words: What was found, for a person.
        metadata: The numbers, and links to rows.
    """

    passed: bool
    severity: dg.AssetCheckSeverity
    words: str
    metadata: dict[str, Any]

    def told(self) -> dict[str, Any]:
        """The same in the names of Dagster's results and evaluations of checks."""
        return {
            "passed": self.passed,
            "severity": self.severity,
            "description": self.words,
            "metadata": self.metadata,
        }


@dataclass(frozen=True, slots=True)
class Inspected:
    """What the checks look at.

    Args:
        gallery: Its name.
        catalog: As CATALOG.
        store: Where its files lie.
        settings: What is allowed.
        schedule: The cron expression of the gallery's runs, if they have one.
    """

    gallery: str
    catalog: pa.Table
    store: Store
    settings: CheckSettings
    schedule: str | None


def files_are_intact(seen: Inspected) -> Verdict:
    """No stored file is missing or was altered; by default 100 of them are read, other ones every day."""
    sample = None if seen.settings.files == "all" else seen.settings.files
    today = datetime.now(timezone.utc).toordinal()
    read, found = altered_files(seen.catalog, seen.store, sample, seed=today)
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
    """Every file among the images is one that the catalog has checked from its first byte to its last."""
    unknown = unknown_files(seen.gallery, seen.catalog, seen.store)
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
    counted = counts(seen.catalog)
    total, failed, share = seen.catalog.num_rows, counted[Status.FAILED.value], share_failed(counted)
    warn_above, error_above = seen.settings.failed_warn, seen.settings.failed_error
    return Verdict(
        passed=share <= min(warn_above, error_above),
        severity=ERROR if share > error_above else WARN,
        words=f"{failed} of {total} links failed",
        metadata={
            "share_failed": round(share, 4),
            "failed": failed,
            "warn_above": warn_above,
            "error_above": error_above,
            "rows": dg.MetadataValue.md(failures_markdown(seen.catalog)),
        },
    )


def list_is_as_long_as_before(seen: Inspected) -> Verdict:
    """The source lists about as many links as the last time: one that lists fewer may be in trouble."""
    lists = listing(seen.catalog)
    return Verdict(
        passed=lists.lost <= seen.settings.lost_warn,
        severity=WARN,
        words=f"{lists.now} links are listed, and {lists.before} were before",
        metadata={
            "links": lists.now,
            "links_before": lists.before,
            "share_lost": round(lists.lost, 4),
            "warn_above": seen.settings.lost_warn,
        },
    )


def is_fresh(seen: Inspected) -> Verdict:
    """The gallery was listed since its schedule's last time but one; gallery_freshness looks hourly, too."""
    return _freshness(seen.store, seen.gallery, seen.schedule)


def _freshness(store: Store, gallery: str, schedule: str | None) -> Verdict:
    try:
        listed_at = last_listed(store, gallery)
    except StoreError:  # one list that can't be read must not hide what is to be said of the others
        listed_at = None
    stale = listed_at is not None and is_stale(listed_at, schedule, datetime.now(timezone.utc))
    return Verdict(
        passed=not stale,
        severity=WARN,
        words=f"last listed {listed_at:%Y-%m-%d %H:%M} UTC" if listed_at else "not listed yet",
        metadata={
            "schedule": schedule or "none",
            **({"listed_at": dg.MetadataValue.timestamp(listed_at)} if listed_at else {}),
        },
    )


CHECKS: dict[str, Callable[[Inspected], Verdict]] = {
    check.__name__: check
    for check in (
        files_are_intact,
        no_damaged_file_is_stored,
        few_links_failed,
        list_is_as_long_as_before,
        is_fresh,
    )
}


def build_checks(galleries: Galleries, keys: AssetKeys) -> dg.AssetChecksDefinition:
    """The checks on `gallery_catalog`, each with a result of its own for every gallery."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)  # partitioned checks: Dagster 1.13 previews them
        specs = [
            dg.AssetCheckSpec(
                name,
                asset=keys.catalog,
                description=inspect.getdoc(check),
                partitions_def=partitions_of(galleries),
            )
            for name, check in CHECKS.items()
        ]

    @dg.multi_asset_check(
        name="__".join([*keys.catalog.path, "checks"]),  # names of steps are of all the code location
        specs=specs,
        can_subset=True,
    )
    def gallery_checks(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        seen = inspected(galleries, context.partition_key)
        for key in context.selected_asset_check_keys:
            yield dg.AssetCheckResult(
                asset_key=key.asset_key,
                check_name=key.name,
                **CHECKS[key.name](seen).told(),
            )

    return gallery_checks


def inspected(galleries: Galleries, name: str) -> Inspected:
    """What the checks of a gallery look at, as its last run left it."""
    store = open_store(galleries)
    catalog = store.read_table(catalog_path(name), CATALOG)
    return Inspected(
        gallery=name,
        catalog=CATALOG.empty_table() if catalog is None else catalog,
        store=store,
        settings=galleries.check_settings(galleries.gallery(name)),
        schedule=galleries.schedule,
    )


def build_freshness_sensor(galleries: Galleries, keys: AssetKeys) -> dg.SensorDefinition:
    """Tells of galleries that no run refreshes any more, which no run's own check could."""

    @dg.sensor(
        name=FRESHNESS_SENSOR,
        minimum_interval_seconds=3600,
        default_status=dg.DefaultSensorStatus[galleries.schedule_status],
        description=f"Evaluates {is_fresh.__name__} of every gallery once an hour, without a run.",
    )
    def gallery_freshness() -> dg.SensorResult:
        store = open_store(galleries)
        return dg.SensorResult(
            asset_events=[
                dg.AssetCheckEvaluation(
                    asset_key=keys.catalog,
                    check_name=is_fresh.__name__,
                    partition=each.name,
                    **_freshness(store, each.name, galleries.schedule).told(),
                )
                for each in galleries.galleries
            ]
        )

    return gallery_freshness
