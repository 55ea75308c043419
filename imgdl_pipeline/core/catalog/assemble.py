"""Assemble the catalog's rows from the ledger, the lists, the facts and the last catalog.

Only the links themselves are in memory; all other columns pass through it a few thousand rows at a time.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from imgdl_pipeline.core.catalog.facts import FreshFacts, row_numbers, rows_of_facts
from imgdl_pipeline.core.jpeg.facts import FACT_NAMES
from imgdl_pipeline.core.model.licenses import first_license_id
from imgdl_pipeline.core.model.memory import release_memory
from imgdl_pipeline.core.model.outcome import Reason, Status
from imgdl_pipeline.core.model.schemas import (
    BATCH_ROWS,
    CATALOG,
    DOWNLOADS,
    FACTS,
    LINKS,
    columns,
    take_column,
)
from imgdl_pipeline.core.storage.arrange import NOWHERE, Places, arranged
from imgdl_pipeline.core.storage.checkpoints import Checkpoints
from imgdl_pipeline.core.storage.ledger import Ledger
from imgdl_pipeline.core.storage.table_file import TableFile

REMEMBERED = pa.schema(
    (*FACTS, *(CATALOG.field(name) for name in ("attributes", "license_id", "first_seen", "last_seen"))),
    metadata=CATALOG.metadata,
)
"""The columns that are taken from the last catalog; its other columns come from the ledger."""

LISTED = columns(LINKS, "attributes", "listed_at")
"""The columns that are taken from the link list."""

IS_KNOWN = pa.field("is_known", pa.bool_())
_BEFORE = pa.schema([*REMEMBERED, IS_KNOWN])

Mask = npt.NDArray[np.bool_]

_LAST = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Sources:
    """What a catalog is made of.

    Args:
        ledger: The ledger; a link that was not tried yet has no row in it, and gets none.
        links: The link list.
        unseen: Links that left earlier lists before any catalog included them, the older ones first.
        fresh: The facts about images that were found since the last catalog.
        previous: The last catalog.
    """

    ledger: Ledger
    links: TableFile
    unseen: Checkpoints
    fresh: FreshFacts
    previous: TableFile


def assemble(sources: Sources) -> Iterator[pa.Table]:
    """Yield the catalog: listed links in list order, then links no longer listed in catalog order."""
    plan = _Plan.of(sources)
    total, fresh = len(plan.place_of_row), sources.fresh.table()
    release_memory()
    tried, listed, before, known, missed = (
        arranged(batches, places, total, schema)
        for batches, places, schema in (
            (sources.ledger.batches(), plan.place_of_row, DOWNLOADS),
            (sources.links.batches(LISTED), plan.listed, LISTED),
            (_with_known(sources.previous, plan.is_known), plan.before, _BEFORE),
            (fresh.batches(FACTS), plan.fresh, FACTS),
            (sources.unseen.batches(), plan.missed, LINKS),
        )
    )
    pieces = zip(count(0, BATCH_ROWS), tried, listed, before, known, missed, strict=False)
    for start, *tables in pieces:
        yield _rows(start, plan, *tables)


def _with_known(previous: TableFile, is_known: Mask) -> Iterator[pa.Table]:
    start = 0
    for batch in previous.batches(REMEMBERED):
        here = is_known[start : start + batch.num_rows]
        start += batch.num_rows
        yield batch.append_column(IS_KNOWN, pa.array(here))


@dataclass(frozen=True, slots=True)
class _Plan:
    """The place in the catalog of each row of what it is made of, NOWHERE for rows without one.

    Args:
        place_of_row: Of each row of the ledger.
        listed: Of each row of the link list.
        before: Of each row of the last catalog.
        is_known: Whether that row's facts are about the bytes that are stored now.
        fresh: Of each row of the new facts.
        missed: Of each row of the links that left earlier lists, if it is the last one of its link.
        missed_at: When a link of these was first listed, by its place in the catalog; None if there are none.
        duplicate_of: By place, the link with the same bytes: its number in `originals`, or NOWHERE.
        originals: Links with the same bytes as later ones.
    """

    place_of_row: Places
    listed: Places
    before: Places
    is_known: Mask
    fresh: Places
    missed: Places
    missed_at: pa.Array | None
    duplicate_of: Places
    originals: pa.ChunkedArray

    @staticmethod
    def of(sources: Sources) -> "_Plan":
        ledger = sources.ledger
        listed, before = (
            _rows_in(ledger, table.read(columns(schema, "url"))["url"])
            for table, schema in ((sources.links, LINKS), (sources.previous, CATALOG))
        )
        place_of_row = _order(ledger.num_rows, listed, before)
        fresh = rows_of_facts(ledger, sources.fresh.column)
        missed, missed_at = _missed(ledger, sources.unseen, place_of_row)
        duplicate_of, originals = _duplicates(ledger, place_of_row)
        return _Plan(
            place_of_row,
            _place(listed, place_of_row),
            _place(before, place_of_row),
            known_rows(ledger, sources.previous, before) != NOWHERE,
            _place(fresh, place_of_row),
            missed,
            missed_at,
            duplicate_of,
            originals,
        )


def _rows_in(ledger: Ledger, urls: pa.ChunkedArray) -> Places:
    """Return the row of each link in the ledger, NOWHERE if it has none."""
    return row_numbers(pc.index_in(urls, value_set=ledger.select(["url"])["url"]))


def _place(rows: Places, place_of_row: Places) -> Places:
    places = np.full(len(rows), NOWHERE, np.int64)
    is_there = rows != NOWHERE
    places[is_there] = place_of_row[rows[is_there]]
    return places


def _order(total: int, listed: Places, before: Places) -> Places:
    """Return each row's place: listed links in list order, then the others in the last catalog's order."""
    keys = [_first_places(total, rows) for rows in (before, listed)]
    places = np.empty(total, np.int64)
    places[np.lexsort(keys)] = np.arange(total)
    return places


def _first_places(total: int, rows: Places) -> Places:
    """Return for each of so many rows the first place at which it occurs."""
    first, there = np.full(total, _LAST), np.flatnonzero(rows != NOWHERE)[::-1]
    first[rows[there]] = there
    return first


def known_rows(ledger: Ledger, previous: TableFile, rows: Places | None = None) -> Places:
    """Return for each row of the last catalog the ledger's, if its facts are about the bytes stored now.

    Rows of an older version lack columns, so their files are checked again.

    Args:
        ledger: The ledger.
        previous: The last catalog.
        rows: The ledger's row of each row of the last catalog, if it is known.
    """

    def column(name: str) -> pa.ChunkedArray:
        return previous.read(columns(CATALOG, name))[name]

    known = rows_of_facts(ledger, column, rows)
    is_complete = pc.and_(pc.equal(column("status"), Status.OK.value), pc.is_valid(column("orientation")))
    known[~pc.fill_null(is_complete, fill_value=False).to_numpy()] = NOWHERE
    return known


def _missed(ledger: Ledger, unseen: Checkpoints, place_of_row: Places) -> tuple[Places, pa.Array | None]:
    schema = columns(LINKS, "url", "listed_at")
    known = pa.concat_tables([schema.empty_table(), *unseen.tables(schema)])
    if not known.num_rows:
        return np.empty(0, np.int64), None
    places = _place(_rows_in(ledger, known["url"]), place_of_row)
    there = np.flatnonzero(places != NOWHERE)
    first, last = (np.full(len(place_of_row), NOWHERE, np.int64) for _ in range(2))
    first[places[there[::-1]]] = there[::-1]
    last[places[there]] = there
    is_last = last[places] == np.arange(len(places))
    listed_at = known["listed_at"].take(pa.array(first, mask=first == NOWHERE))
    return np.where(is_last & (places != NOWHERE), places, NOWHERE), listed_at


def _duplicates(ledger: Ledger, place_of_row: Places) -> tuple[Places, pa.ChunkedArray]:
    """Return for each place the number of the first link with the same bytes, and these links."""
    sha256, total = ledger.select(["sha256"])["sha256"], len(place_of_row)
    same = pc.index_in(sha256, value_set=sha256).to_numpy()
    order = np.empty(total, np.int64)
    order[place_of_row] = np.arange(total)
    first = np.empty(total, np.int64)
    first[same[order[::-1]]] = order[::-1]
    row_of_first = first[same]
    is_copy = (row_of_first != np.arange(total)) & pc.is_valid(sha256).to_numpy()
    originals, numbers = np.unique(row_of_first[is_copy], return_inverse=True)
    duplicate_of = np.full(total, NOWHERE, np.int64)
    duplicate_of[place_of_row[is_copy]] = numbers
    del sha256, same
    return duplicate_of, take_column(ledger.select(["url"])["url"], pa.array(originals))


def _rows(
    start: int,
    plan: _Plan,
    tried: pa.Table,
    listed: pa.Table,
    before: pa.Table,
    known: pa.Table,
    missed: pa.Table,
) -> pa.Table:
    """Return some rows of the catalog; each table has the same rows, null where it has none."""
    is_fresh, is_known = pc.is_valid(known["url"]), before["is_known"]
    made = {
        name: pc.if_else(
            is_fresh, known[name], pc.if_else(pc.fill_null(is_known, fill_value=False), before[name], None)
        )
        for name in FACT_NAMES
    }
    copies = plan.duplicate_of[start : start + tried.num_rows]
    made["duplicate_of"] = plan.originals.take(pa.array(copies, mask=copies == NOWHERE))
    first_missed = (
        pa.nulls(tried.num_rows, LINKS.field("listed_at").type)
        if plan.missed_at is None
        else plan.missed_at.slice(start, tried.num_rows)
    )
    made["first_seen"] = pc.coalesce(
        before["first_seen"], first_missed, listed["listed_at"], tried["tried_at"]
    )
    made["last_seen"] = pc.coalesce(
        listed["listed_at"], missed["listed_at"], before["last_seen"], tried["tried_at"]
    )
    made["opt_outs"] = pc.fill_null(tried["opt_outs"], "[]")
    attributes = pc.coalesce(listed["attributes"], missed["attributes"], before["attributes"], "{}")
    made |= _described(attributes, made["embedded"], before, tried["reason"])
    made |= {name: tried[name] for name in CATALOG.names if name not in made}
    return pa.table({name: made[name] for name in CATALOG.names}).cast(CATALOG)


def _described(
    attributes: pa.ChunkedArray, embedded: pa.ChunkedArray, before: pa.Table, reason: pa.ChunkedArray
) -> dict[str, pa.ChunkedArray]:
    """Return what the source says, and the licence that follows from it and from the file."""
    is_same = pc.and_(
        pc.equal(before["attributes"], attributes),
        pc.equal(pc.fill_null(before["embedded"], ""), pc.fill_null(embedded, "")),
    )
    is_removed = pc.fill_null(pc.equal(reason, Reason.REMOVED.value), fill_value=False)
    attributes = pc.if_else(is_removed, "{}", attributes)
    known_ids = pc.if_else(pc.fill_null(is_same, fill_value=False), before["license_id"], None)
    return {"attributes": attributes, "license_id": license_ids(attributes, embedded, known_ids)}


def license_ids(attributes: pa.ChunkedArray, embedded: pa.ChunkedArray, known: pa.ChunkedArray) -> pa.Array:
    """Return each row's licence: as the source names it, or else as the file does; null where neither does.

    Args:
        attributes: JSON objects of what the source says.
        embedded: JSON objects of what the file says, or null.
        known: The identifiers that need not be made again, or null.
    """
    mentions = pc.or_(*(_mentions_license(column) for column in (attributes, embedded)))
    has_license = pc.and_(mentions, pc.is_null(known))
    places = np.flatnonzero(has_license.to_numpy(zero_copy_only=False))
    said, own = (take_column(column, pa.array(places)).to_pylist() for column in (attributes, embedded))
    found = np.full(len(attributes), None, dtype=object)
    for place, *texts in zip(places, said, own, strict=True):
        found[place] = first_license_id(*map(_license_of, texts))
    return pc.coalesce(known, pa.array(found, pa.string()))


def _mentions_license(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.fill_null(pc.match_substring(column, '"license'), fill_value=False)


def _license_of(text: str | None) -> tuple[str | None, str | None]:
    """Return the name and the URL of the licence in a JSON object."""
    values = json.loads(text or "{}")
    name, url = values.get("license"), values.get("license_url")
    return name if isinstance(name, str) else None, url if isinstance(url, str) else None
