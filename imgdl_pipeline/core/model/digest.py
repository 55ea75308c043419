"""Make a digest of a table's text, so that two tables can be told apart without keeping either."""

import hashlib

import pyarrow as pa
import pyarrow.compute as pc

AT_A_TIME = 10_000
"""Rows whose text is held as Python objects at a time."""

SHOWN_DIGITS = 32
"""Hex digits of a digest: 128 bits, far more than two versions of one table need."""


class TableDigest:
    """A digest of text columns that grows batch by batch; how rows are batched does not change it.

    Args:
        names: The columns, all of them strings.
    """

    def __init__(self, *names: str) -> None:
        self._names = names
        self._lengths = [hashlib.sha256() for _ in names]
        self._texts = [hashlib.sha256() for _ in names]

    @staticmethod
    def of(table: pa.Table, *names: str) -> str:
        """Return the digest of a whole table, as `hex` does."""
        digest = TableDigest(*names)
        digest.update(table)
        return digest.hex()

    def update(self, rows: pa.Table | pa.RecordBatch) -> None:
        """Add rows that have the columns, and may have others."""
        for name, lengths, texts in zip(self._names, self._lengths, self._texts, strict=True):
            for start in range(0, rows.num_rows, AT_A_TIME):
                values = rows.column(name).slice(start, AT_A_TIME)
                lengths.update(pc.cast(pc.fill_null(pc.binary_length(values), -1), pa.int64()).to_numpy())
                texts.update("".join(values.drop_null().to_pylist()).encode("utf-8", "surrogatepass"))

    def hex(self) -> str:
        """Return the digest of all rows so far, as hex digits."""
        whole = hashlib.sha256()
        for each in (*self._lengths, *self._texts):
            whole.update(each.digest())
        return whole.hexdigest()[:SHOWN_DIGITS]
