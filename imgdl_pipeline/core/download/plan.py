"""Plan a run of a gallery: which links are fetched, which images are rechecked, and in which order."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from imgdl_pipeline.core.download.fetch import Redirect
from imgdl_pipeline.core.download.host_queue import TURN_ITEMS
from imgdl_pipeline.core.download.recheck import is_due
from imgdl_pipeline.core.download.retry import in_cooldown
from imgdl_pipeline.core.http.urls import host_of
from imgdl_pipeline.core.model.opt_outs import FILE, from_json
from imgdl_pipeline.core.model.outcome import FetchError, Reason, Status
from imgdl_pipeline.core.model.schemas import take_column
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.storage.judged import forbidding, is_lifted
from imgdl_pipeline.core.storage.layout import is_image_path
from imgdl_pipeline.core.storage.ledger import Download

BATCH_JOBS = 1_000
"""Rows of the plan that are converted to objects at a time."""


@dataclass(frozen=True, slots=True)
class Job:
    """A link in the pool, with the number and duration of its attempts so far.

    Args:
        url: The link's URL.
        host: The host whose slots it takes: the link's own, or the target of a redirect.
        expected: The attributes that the source gives, some of which describe the bytes.
        request_headers: Headers for the link's own host only.
        known: The link's row in the ledger if its image is stored; the request is then conditional.
        refused: The link's row in the ledger if its file's metadata refuse it; then, too.
        failures: Consecutive runs before this one that ended without an image for a permanent reason.
        opt_outs: What its owner said before this run, as the ledger has it.
        redirect: The point at which an unfinished attempt continues.
        error: The error of the last attempt.
    """

    url: str
    host: str
    expected: dict[str, Any]
    request_headers: dict[str, str]
    known: Download | None = None
    refused: Download | None = None
    failures: int = 0
    opt_outs: str | None = None
    attempts: int = 0
    elapsed_s: float = 0.0
    redirect: Redirect | None = None
    error: FetchError | None = None


def plan(
    links: pa.Table,
    ledger: pa.Table,
    stored: pa.Table,
    settings: DownloadSettings,
    now: datetime,
    *,
    force: bool = False,
) -> pa.Table:
    """Return the links to fetch, with the columns of LINKS, `row` and `is_stored`.

    These are the links without an image in the ledger or whose file is not in the store, except those in a
    cooldown. If `recheck` is set, links whose image has not been checked for that long are included, too.

    Args:
        links: A table with the schema LINKS.
        ledger: A table with the schema DOWNLOADS; `row` is the link's position in it, or null.
        stored: All stored images; `is_stored` is true if the link's image is among them, with the size that
            the ledger gives.
        settings: The settings, of which `recheck` and those of opt-outs are used.
        now: The time of the run.
        force: Return all links but removed ones; those with an image are requested conditionally.
    """
    row = pc.index_in(links["url"], value_set=ledger["url"].combine_chunks())

    def of_link(column: pa.Array) -> pa.Array:
        return pc.fill_null(pc.take(column, row), fill_value=False)

    is_ok = pc.equal(ledger["status"], Status.OK.value)
    place = pc.index_in(ledger["path"], value_set=stored["path"].combine_chunks())
    is_whole = pc.equal(pc.take(stored["bytes"], place), ledger["bytes"])
    is_stored = of_link(pc.and_(is_ok, is_whole))
    is_removed = of_link(pc.equal(ledger["reason"], Reason.REMOVED.value))
    waits = pc.and_not(in_cooldown(ledger, now), is_lifted(ledger["reason"], ledger["opt_outs"], settings))
    wanted = pc.and_not(pc.invert(is_stored), of_link(waits))
    if settings.recheck != "never":
        is_whole_row = pc.fill_null(pc.and_(is_ok, is_whole), fill_value=False)
        due = is_due(ledger, is_whole_row, settings.recheck, now)
        wanted = pc.or_(wanted, pc.and_(is_stored, of_link(due)))
    planned = links.append_column("row", row).append_column("is_stored", is_stored)
    return planned.filter(pc.and_not(pa.scalar(True) if force else wanted, is_removed))


def orphans(stored: pa.Table, ledger: pa.Table, *, even_all: bool = False) -> list[str]:
    """Return the paths of stored images that no ledger row refers to.

    Killed runs leave such images. Only files with names in this package's format are considered.

    Args:
        stored: All stored images.
        ledger: A table with the schema DOWNLOADS.
        even_all: Return them for an empty ledger, too. A lost ledger must not cause all images to be deleted.
    """
    if not ledger.num_rows and not even_all:
        return []
    is_known = pc.is_in(stored["path"], value_set=ledger["path"].combine_chunks())
    return [path for path in stored["path"].filter(pc.invert(is_known)).to_pylist() if is_image_path(path)]


def jobs(planned: pa.Table, ledger: pa.Table, settings: DownloadSettings) -> Iterator[Job]:
    """Yield the planned links as jobs, converting one batch of rows at a time.

    Args:
        planned: The result of `plan`.
        ledger: A table with the schema DOWNLOADS.
        settings: The settings, of which those of opt-outs are used.
    """
    for batch in planned.to_batches(max_chunksize=BATCH_JOBS):
        before = ledger.take(batch["row"]).to_pylist()
        yield from (_job(link, row, settings) for link, row in zip(batch.to_pylist(), before, strict=True))


def _job(link: dict[str, Any], before: dict[str, Any], settings: DownloadSettings) -> Job:
    """Return a planned link as a job; `before` is its row in the ledger, all null if it has none."""
    return Job(
        url=link["url"],
        host=host_of(link["url"]),
        expected=json.loads(link["attributes"] or "{}"),
        request_headers=json.loads(link["request_headers"] or "{}"),
        known=Download(**before) if link["is_stored"] else None,
        refused=Download(**before) if _is_refused_by_its_file(before, settings) else None,
        failures=(before["failures"] or 0) if before["reason"] else 0,
        opt_outs=before["opt_outs"],
    )


def _is_refused_by_its_file(before: dict[str, Any], settings: DownloadSettings) -> bool:
    if before["reason"] != Reason.OPT_OUT.value:
        return False
    in_file = [each for each in from_json(before["opt_outs"]) if each.where == FILE]
    return forbidding(in_file, settings) is not None


def interleaved(todo: pa.Table, hosts_at_a_time: int = 1_000_000) -> pa.Table:
    """Return the links with their hosts alternating, because lists are often sorted by host.

    So many hosts alternate at a time, with up to `TURN_ITEMS` links each. So a host's links are close
    together, and its connection and its robots.txt are still there for the next one. The links of each host
    keep their order.
    """
    hosts = pc.replace_substring_regex(todo["url"], r"^(\w+://[^/?#]*)(.|\n)*$", r"\1")
    codes = hosts.combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    by_host = np.argsort(codes, kind="stable")
    starts = np.concatenate(([0], np.flatnonzero(np.diff(codes[by_host])) + 1)) if len(codes) else by_host
    sizes = np.diff(np.append(starts, len(codes)))
    turns = np.empty(len(codes), dtype=np.int64)
    turns[by_host] = np.arange(len(codes)) - np.repeat(starts, sizes)
    groups = codes // hosts_at_a_time
    places = pa.array(np.lexsort((codes, turns % TURN_ITEMS, groups, turns // TURN_ITEMS)))
    return pa.table({name: take_column(todo[name], places) for name in todo.schema.names})
