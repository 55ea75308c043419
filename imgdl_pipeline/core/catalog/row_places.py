"""Find the place in the catalog of each row that it is made of, by links and by the bytes that they have."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from imgdl_pipeline.core.catalog.facts import FreshFacts, row_numbers, rows_of_facts
from imgdl_pipeline.core.model.outcome import Status
from imgdl_pipeline.core.model.schemas import CATALOG, LINKS, columns, take_column
from imgdl_pipeline.core.storage.arrange import NOWHERE, Places
from imgdl_pipeline.core.storage.checkpoints import Checkpoints
from imgdl_pipeline.core.storage.ledger import Ledger
from imgdl_pipeline.core.storage.table_file import TableFile

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


@dataclass(frozen=True, slots=True)
class RowPlaces:
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
    def of(sources: Sources) -> "RowPlaces":
        """Return the places; raises StoreError."""
        ledger = sources.ledger
        listed, before = (
            _rows_in(ledger, table.read(columns(schema, "url"))["url"])
            for table, schema in ((sources.links, LINKS), (sources.previous, CATALOG))
        )
        place_of_row = _order(ledger.num_rows, listed, before)
        fresh = rows_of_facts(ledger, sources.fresh.column)
        missed, missed_at = _missed(ledger, sources.unseen, place_of_row)
        duplicate_of, originals = _duplicates(ledger, place_of_row)
        return RowPlaces(
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
