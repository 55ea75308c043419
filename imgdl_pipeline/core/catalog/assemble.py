"""Assemble the catalog's rows from the ledger, the lists, the facts and the last catalog.

Only the links themselves are in memory; all other columns pass through it a few thousand rows at a time.
"""

from collections.abc import Iterator
from itertools import count

import pyarrow as pa
import pyarrow.compute as pc

from imgdl_pipeline.core.catalog.licenses_of_rows import license_ids
from imgdl_pipeline.core.catalog.row_places import Mask, RowPlaces, Sources
from imgdl_pipeline.core.jpeg.facts import FACT_NAMES
from imgdl_pipeline.core.model.memory import release_memory
from imgdl_pipeline.core.model.outcome import Reason
from imgdl_pipeline.core.model.schemas import BATCH_ROWS, CATALOG, DOWNLOADS, FACTS, LINKS, columns
from imgdl_pipeline.core.storage.arrange import NOWHERE, arranged
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


def assemble(sources: Sources) -> Iterator[pa.Table]:
    """Yield the catalog: listed links in list order, then links no longer listed in catalog order."""
    plan = RowPlaces.of(sources)
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


def _rows(
    start: int,
    plan: RowPlaces,
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
