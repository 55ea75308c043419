"""Plan a run of a gallery: which links are fetched, which images are rechecked, and in which order."""

import json
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import count, repeat
from typing import Any, Protocol

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
from imgdl_pipeline.core.model.schemas import BATCH_ROWS, DOWNLOADS, LINKS, columns, take_column
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.storage.arrange import NOWHERE, Places, arranged
from imgdl_pipeline.core.storage.judged import forbidding, is_lifted
from imgdl_pipeline.core.storage.layout import is_image_path
from imgdl_pipeline.core.storage.ledger import Download, Ledger
from imgdl_pipeline.core.storage.table_file import TableFile

BATCH_JOBS = 1_000
"""Rows of the plan that are converted to objects at a time."""

DESCRIBED = columns(LINKS, "attributes", "request_headers")
"""The columns of the link list that only jobs need."""


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


class Rows(Protocol):
    """A table, or the ledger, which reads only the columns that are wanted."""

    @property
    def num_rows(self) -> int:
        """The number of rows."""

    def select(self, columns: list[str]) -> pa.Table:
        """Return some of the columns."""


def plan(
    links: pa.Table,
    ledger: Rows,
    stored: pa.Table,
    settings: DownloadSettings,
    now: datetime,
    *,
    force: bool = False,
    files: pa.ChunkedArray | None = None,
) -> pa.Table:
    """Return the links to fetch, with the given columns, `place`, `row` and `is_stored`.

    These are the links without an image in the ledger or whose file is not in the store, except those in a
    cooldown. If `recheck` is set, links whose image has not been checked for that long are included, too.

    Args:
        links: The links, with `url`; `place` is the link's position among them.
        ledger: The ledger; `row` is the link's position in it, or null.
        stored: All stored images; `is_stored` is true if the link's image is among them, with the size that
            the ledger gives.
        settings: The settings, of which `recheck` and those of opt-outs are used.
        now: The time of the run.
        force: Return all links but removed ones; those with an image are requested conditionally.
        files: The result of `files_of`, if it is known.
    """
    is_whole = _is_whole(ledger, stored, files_of(ledger, stored) if files is None else files)
    row = pc.index_in(links["url"], value_set=ledger.select(["url"])["url"])
    facts = ledger.select(list(_JUDGED))

    def of_link(column: pa.Array) -> pa.Array:
        return pc.fill_null(pc.take(column, row), fill_value=False)

    is_stored = of_link(is_whole)
    is_removed = of_link(pc.equal(facts["reason"], Reason.REMOVED.value))
    waits = pc.and_not(in_cooldown(facts, now), is_lifted(facts["reason"], facts["opt_outs"], settings))
    wanted = pc.and_not(pc.invert(is_stored), of_link(waits))
    if settings.recheck != "never":
        due = is_due(facts, pc.fill_null(is_whole, fill_value=False), settings.recheck, now)
        wanted = pc.or_(wanted, pc.and_(is_stored, of_link(due)))
    is_planned = pc.and_not(pa.scalar(True) if force else wanted, is_removed)
    place = pa.array(np.arange(links.num_rows))
    for name, column in (("place", place), ("row", row), ("is_stored", is_stored)):
        links = links.append_column(name, column)
    return links.filter(is_planned)


_JUDGED = ("status", "reason", "fetched_at", "tried_at", "checked_at", "failures", "opt_outs")


def _is_whole(ledger: Rows, stored: pa.Table, files: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return for each row of the ledger whether its image is stored, with the size that it gives."""
    rows = ledger.select(["status", "bytes"])
    is_whole = pc.equal(pc.take(stored["bytes"], files), rows["bytes"])
    return pc.and_(pc.equal(rows["status"], Status.OK.value), is_whole)


def files_of(ledger: Rows, stored: pa.Table) -> pa.ChunkedArray:
    """Return for each row of the ledger the position of its image among all stored ones, or null."""
    return pc.index_in(ledger.select(["path"])["path"], value_set=stored["path"])


def orphans(stored: pa.Table, files: pa.ChunkedArray, *, even_all: bool = False) -> list[str]:
    """Return the paths of stored images that no ledger row refers to.

    Killed runs leave such images. Only files with names in this package's format are considered.

    Args:
        stored: All stored images.
        files: The result of `files_of`.
        even_all: Return them for an empty ledger, too. A lost ledger must not cause all images to be deleted.
    """
    if not len(files) and not even_all:
        return []
    is_orphan = np.ones(stored.num_rows, bool)
    is_orphan[files.drop_null().to_numpy()] = False
    return [path for path in stored["path"].filter(pa.array(is_orphan)).to_pylist() if is_image_path(path)]


def jobs(planned: pa.Table, links: TableFile, ledger: Ledger, settings: DownloadSettings) -> Iterator[Job]:
    """Yield the planned links as jobs, converting one batch of rows at a time.

    Args:
        planned: The plan, in the order of the jobs.
        links: The link list that was planned.
        ledger: The ledger, which is not written until all jobs are taken.
        settings: The settings, of which those of opt-outs are used.
    """
    if not planned.num_rows:
        return
    rows_of_links = _places(planned["place"], links.num_rows)
    described = arranged(links.batches(DESCRIBED), rows_of_links, planned.num_rows, DESCRIBED)
    rows_of_ledger = _places(planned["row"], ledger.num_rows)
    before = arranged(ledger.batches(), rows_of_ledger, planned.num_rows, DOWNLOADS)
    for start, piece, rows in zip(count(0, BATCH_ROWS), described, before, strict=False):
        for first in range(0, piece.num_rows, BATCH_JOBS):
            links_, described_, before_ = (
                each.slice(at, BATCH_JOBS).to_pylist()
                for each, at in ((planned, start + first), (piece, first), (rows, first))
            )
            yield from map(_job, links_, described_, before_, repeat(settings))


def _places(rows: pa.ChunkedArray, length: int) -> Places:
    """Return for each row of a table its place in the plan, of which `rows` has the tables' row numbers."""
    places = np.full(length, NOWHERE, np.int64)
    is_there = rows.is_valid().to_numpy()
    places[rows.drop_null().to_numpy()] = np.flatnonzero(is_there)
    return places


def _job(
    link: dict[str, Any], described: dict[str, Any], before: dict[str, Any], settings: DownloadSettings
) -> Job:
    """Return a planned link as a job; `before` is its row in the ledger, all null if it has none."""
    return Job(
        url=link["url"],
        host=host_of(link["url"]),
        expected=json.loads(described["attributes"] or "{}"),
        request_headers=json.loads(described["request_headers"] or "{}"),
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


def origins_of(todo: pa.Table) -> pa.ChunkedArray:
    """Return the scheme, host and port of each link, as it spells them."""
    return pc.replace_substring_regex(todo["url"], r"^(\w+://[^/?#]*)(.|\n)*$", r"\1")


LARGE_HOST_LINKS = 100
MOST_LARGE_HOSTS = 32
"""From so many links to fetch on, a run shares a host with other runs; so many hosts at most, the largest."""


def large_hosts(todo: pa.Table, spread: Collection[str] = ()) -> list[str]:
    """Return the hosts that have many of the links to fetch, and those of `spread` that have any."""
    origins = origins_of(todo)
    counts: Counter[str] = Counter()
    for each in pc.value_counts(origins).to_pylist():
        counts[host_of(each["values"])] += each["counts"]
    largest = counts.most_common(MOST_LARGE_HOSTS)
    large = [host for host, links in largest if host and links >= LARGE_HOST_LINKS]
    return list(dict.fromkeys([*large, *(host for host in spread if host in counts)]))


def interleaved(todo: pa.Table, hosts_at_a_time: int = 1_000_000) -> pa.Table:
    """Return the links with their hosts alternating, because lists are often sorted by host.

    So many hosts alternate at a time, with up to `TURN_ITEMS` links each. So a host's links are close
    together, and its connection and its robots.txt are still there for the next one. The links of each host
    keep their order.
    """
    hosts = origins_of(todo)
    codes = pc.index_in(hosts, value_set=pc.unique(hosts)).to_numpy()
    by_host = np.argsort(codes, kind="stable")
    starts = np.concatenate(([0], np.flatnonzero(np.diff(codes[by_host])) + 1)) if len(codes) else by_host
    sizes = np.diff(np.append(starts, len(codes)))
    turns = np.empty(len(codes), dtype=np.int64)
    turns[by_host] = np.arange(len(codes)) - np.repeat(starts, sizes)
    groups = codes // hosts_at_a_time
    places = pa.array(np.lexsort((codes, turns % TURN_ITEMS, groups, turns // TURN_ITEMS)))
    return pa.table({name: take_column(todo[name], places) for name in todo.schema.names})
