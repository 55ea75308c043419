"""Define the sensor that notices galleries which no run refreshes any more.

The check `is_fresh` in a gallery's own runs cannot notice that there are no runs.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone

import dagster as dg

from imgdl_pipeline.assets import open_store
from imgdl_pipeline.config.galleries import Galleries, partition_of
from imgdl_pipeline.core.catalog.audit import is_stale, last_refreshed
from imgdl_pipeline.core.storage.layout import catalog_path
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.store import Store

logger = logging.getLogger(__name__)

LOOK_S = 8.0
"""Seconds that a tick reads catalogs; those that it does not reach are read by the next one."""

Seen = dict[str, tuple[str | None, str]]
"""What is known of each gallery: when its catalog was written, or null, and when it was refreshed.

For a gallery without a catalog, the second time is that at which the sensor saw it first.
"""


def build_freshness_sensor(galleries: Galleries, job: dg.JobDefinition, name: str) -> dg.SensorDefinition:
    """Return a sensor that requests the checks of stale galleries, and of those that never succeeded.

    Args:
        galleries: The settings of the galleries file.
        job: The job that runs the checks of one gallery.
        name: The sensor's name.
    """

    @dg.sensor(
        name=name,
        job=job,
        minimum_interval_seconds=3600,
        default_status=dg.DefaultSensorStatus[galleries.schedule_status],
        description="Once an hour, runs the checks of every stale gallery.",
    )
    def gallery_freshness(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        now = datetime.now(timezone.utc)
        before: Seen = {name: tuple(each) for name, each in json.loads(context.cursor or "{}").items()}
        seen = look(galleries, open_store(galleries), before, now)
        stale = stale_galleries(galleries, seen, now)
        return dg.SensorResult(
            run_requests=[
                dg.RunRequest(run_key=f"{name} {at}", partition_key=partition_of(name))
                for name, at in stale.items()
            ],
            skip_reason=None if stale else f"none of {len(seen)} galleries is stale",
            cursor=json.dumps(seen),
        )

    return gallery_freshness


def look(
    galleries: Galleries,
    store: Store,
    before: Mapping[str, tuple[str | None, str]],
    now: datetime,
    clock: Callable[[], float] = time.monotonic,
) -> Seen:
    """Return what is known of each gallery, reading only the catalogs that were written since the last look.

    Args:
        galleries: The settings of the galleries file.
        store: The store of the galleries' files.
        before: The result of the last look.
        now: The current time.
        clock: Returns the time in seconds, to stop reading after LOOK_S.

    Raises:
        StoreError: The store failed.
    """
    until = clock() + LOOK_S
    written = {file.path: file.modified for file in store.list("catalog")}
    seen: Seen = {}
    for gallery in galleries.galleries:
        name = gallery.name
        modified = written.get(catalog_path(name))
        known = before.get(name)
        if modified is None:
            seen[name] = known if known and known[0] is None else (None, now.isoformat())
        elif known is not None and known[0] == modified.isoformat():
            seen[name] = known
        elif clock() < until:
            seen[name] = (modified.isoformat(), _refreshed(store, name, modified).isoformat())
        elif known is not None:
            seen[name] = known
    return seen


def _refreshed(store: Store, name: str, modified: datetime) -> datetime:
    """Return when a gallery was refreshed; of a catalog that cannot be read, when it was written."""
    try:
        return last_refreshed(store, name) or modified
    except StoreError as error:
        logger.warning("%s", error)
        return modified


def stale_galleries(galleries: Galleries, seen: Seen, now: datetime) -> dict[str, str]:
    """Return the stale galleries with the time, in ISO 8601, at which each was refreshed or seen first."""
    stale = {}
    for name, (_, at) in seen.items():
        gallery = galleries.gallery(name)
        fresh_days = galleries.check_settings(gallery).fresh_days
        if is_stale(datetime.fromisoformat(at), galleries.schedule_of(gallery), now, fresh_days):
            stale[name] = at
    return stale
