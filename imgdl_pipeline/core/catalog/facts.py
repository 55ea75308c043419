"""Keep what was found out about images since the last catalog, on disk: EXIF and captions may be large."""

import json
from collections.abc import Callable
from typing import IO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from imgdl_pipeline.core.model.opt_outs import OptOut, from_embedded
from imgdl_pipeline.core.model.outcome import Status
from imgdl_pipeline.core.model.schemas import FACTS, columns
from imgdl_pipeline.core.model.temporary import needing_room
from imgdl_pipeline.core.storage.arrange import NOWHERE, Places
from imgdl_pipeline.core.storage.checkpoints import Checkpoints
from imgdl_pipeline.core.storage.layout import checked_path, images_path
from imgdl_pipeline.core.storage.ledger import Ledger
from imgdl_pipeline.core.storage.store import Store, parquet_writer
from imgdl_pipeline.core.storage.table_file import TableFile

KEYS = columns(FACTS, "url", "sha256")
"""The columns that tell which bytes facts are about."""

VERDICT = columns(FACTS, "url", "status", "reason", "detail")


class FreshFacts:
    """The facts that were found since the last catalog.

    In memory are only the verdicts on files that are no complete JPEGs, and what files say against their use.

    Args:
        file: A temporary file for the facts.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._writer = parquet_writer(file, FACTS)
        self._invalid = [VERDICT.empty_table()]
        self._table: TableFile | None = None
        self.count = 0
        self.opt_outs: dict[str, list[OptOut]] = {}

    def __enter__(self) -> "FreshFacts":
        return self

    def __exit__(self, *exc: object) -> None:
        if self._table is not None:
            self._table.close()
        self._writer.close()

    def add(self, facts: pa.Table) -> None:
        """Add rows of FACTS."""
        if not facts.num_rows:
            return
        self.count += facts.num_rows
        is_invalid = pc.not_equal(facts["status"], Status.OK.value)
        self._invalid.append(facts.select(VERDICT.names).filter(is_invalid))
        self.opt_outs.update(said_in_files(facts))
        with needing_room():
            self._writer.write_table(facts)

    def invalid(self) -> pa.Table:
        """Return the verdicts, as VERDICT, on files that are not complete JPEGs."""
        return pa.concat_tables(self._invalid)

    def column(self, name: str) -> pa.ChunkedArray:
        """Return a column of all facts; none can be added any more."""
        return self.table().read(columns(FACTS, name))[name]

    def table(self) -> TableFile:
        """Return the facts, to which none can be added any more."""
        if self._table is None:
            with needing_room():
                self._writer.close()
                self._file.flush()
            self._file.seek(0)
            self._table = TableFile(pa.PythonFile(self._file, "r"), lambda table, schema: table.cast(schema))
        return self._table


def said_in_files(facts: pa.Table) -> dict[str, list[OptOut]]:
    """Return what the metadata of files says against their use, by link."""
    may_say = pc.fill_null(pc.match_substring(facts["embedded"], '"data_mining"'), fill_value=False)
    rows = facts.select(["url", "embedded"]).filter(may_say).to_pylist()
    found = {row["url"]: from_embedded(json.loads(row["embedded"])) for row in rows}
    return {url: said for url, said in found.items() if said}


def rows_of_facts(
    ledger: Ledger, facts: Callable[[str], pa.ChunkedArray], known: Places | None = None
) -> Places:
    """Return for each row of facts the ledger's row of the same link and bytes; NOWHERE if they have changed.

    Args:
        ledger: The ledger.
        facts: Returns the facts' column `url` or `sha256`; one is in memory at a time.
        known: The ledger's row of each link, if it is known, whatever its bytes are.
    """
    if known is None:
        row = pc.index_in(facts("url"), value_set=ledger.select(["url"])["url"])
    else:
        row = pa.chunked_array([pa.array(known, mask=known == NOWHERE)])
    rows = ledger.select(["sha256", "status"])
    is_same = pc.and_(
        pc.equal(pc.take(rows["sha256"], row), facts("sha256")),
        pc.equal(pc.take(rows["status"], row), Status.OK.value),
    )
    return row_numbers(pc.if_else(is_same, row, None))


def row_numbers(rows: pa.ChunkedArray) -> Places:
    """Return row numbers as a numpy array, with NOWHERE in place of nulls."""
    numbers: Places = pc.fill_null(rows.cast(pa.int64()), NOWHERE).to_numpy().copy()
    return numbers


def add_early(fresh: FreshFacts, store: Store, gallery: str, ledger: Ledger) -> Places:
    """Add the results of checks during the download whose file has the bytes that the ledger records.

    Returns:
        The ledger's rows that these are about.
    """
    checkpoints = Checkpoints(store, checked_path(gallery), FACTS)
    if not len(checkpoints):
        return np.empty(0, np.int64)
    keys = pa.concat_tables([KEYS.empty_table(), *checkpoints.tables(KEYS)])
    rows = rows_of_facts(ledger, keys.column)
    del keys
    are_there, start = _are_there(rows, ledger, store, gallery), 0
    for batch in checkpoints.batches():
        fresh.add(batch.filter(pa.array(are_there[start : start + batch.num_rows])))
        start += batch.num_rows
    return rows[are_there]


def _are_there(row: Places, ledger: Ledger, store: Store, gallery: str) -> npt.NDArray[np.bool_]:
    """Return for rows of the ledger whether their file exists, with the size that the ledger records."""
    stored, rows = store.files(images_path(gallery)), ledger.select(["path", "bytes"])
    place = pc.index_in(rows["path"], value_set=stored["path"])
    is_whole = pc.equal(pc.take(stored["bytes"], place), rows["bytes"])
    whole = pc.fill_null(is_whole, fill_value=False).to_numpy()
    are_there: npt.NDArray[np.bool_] = (row != NOWHERE) & whole[row] if len(whole) else row != NOWHERE
    return are_there
