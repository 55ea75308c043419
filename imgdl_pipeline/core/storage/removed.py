"""Keep the list of what was removed for good, and recognise it again.

The list is `removed/removed.parquet` in the store. Every run reads it: nothing that it names is asked for
or kept again.
"""

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from imgdl_pipeline.core.model.outcome import Reason, Status
from imgdl_pipeline.core.model.phashes import phash_numbers
from imgdl_pipeline.core.model.schemas import REMOVED
from imgdl_pipeline.core.storage.layout import REMOVED_PATH
from imgdl_pipeline.core.storage.store import Store

HASHES_AT_A_TIME = 1 << 22
"""Pairs of perceptual hashes that are compared at a time, to bound the memory that it takes."""


REMOVED_VERDICT = {
    "status": Reason.REMOVED.status.value,
    "reason": Reason.REMOVED.value,
    "detail": "it was removed for good, and is not asked for again",
}
"""The columns of every row whose image was removed."""


@dataclass(frozen=True, slots=True)
class Removal:
    """An entry of the list: what to remove, by exactly one of its first three fields.

    Args:
        reason: Why, in words, for whoever asks later.
        removed_at: When it was asked for.
        url: A link; its image is found by its bytes, too.
        sha256: The SHA-256 of a file, 64 hex digits.
        phash: A perceptual hash, 16 hex digits.
        distance: The most bits by which a picture's hash may differ from `phash`.
    """

    reason: str
    removed_at: datetime
    url: str | None = None
    sha256: str | None = None
    phash: str | None = None
    distance: int | None = None


class Removed:
    """What was removed, ready to be compared with.

    Args:
        table: The list, as REMOVED.
    """

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self._urls = table["url"].combine_chunks().drop_null()
        self._sha256s = table["sha256"].combine_chunks().drop_null()
        self._url_set, self._sha256_set = set(self._urls.to_pylist()), set(self._sha256s.to_pylist())
        near = table.filter(pc.is_valid(table["phash"]))
        self._phashes = phash_numbers(near["phash"])
        self._distances = near["distance"].fill_null(0).to_numpy().astype(np.uint8)

    @staticmethod
    def read(store: Store) -> "Removed":
        """Return the store's list.

        Raises:
            StoreError: It could not be read.
        """
        table = store.read_table(REMOVED_PATH, REMOVED)
        return Removed(REMOVED.empty_table() if table is None else table)

    def __bool__(self) -> bool:
        """Whether anything was removed at all."""
        return bool(self.table.num_rows)

    @property
    def has_pictures(self) -> bool:
        """Whether anything was removed by its perceptual hash."""
        return len(self._phashes) > 0

    def names(self, url: str, sha256: str | None = None) -> bool:
        """Return whether a link, or the bytes that came from it, were removed."""
        return url in self._url_set or sha256 in self._sha256_set

    def is_near(self, phash: str) -> bool:
        """Return whether a picture is as near to a removed one as its entry says."""
        if not len(self._phashes):
            return False
        bits = np.bitwise_count(self._phashes ^ np.uint64(int(phash, 16)))
        return bool(np.any(bits <= self._distances))

    def verdict(self, facts: dict[str, object]) -> dict[str, object]:
        """Return the columns of FACTS for a whole, valid JPEG: its facts, unless its picture was removed."""
        if self.is_near(str(facts["phash"])):
            return dict(REMOVED_VERDICT)
        return {"status": Status.OK.value, **facts}

    def rows_of(self, table: pa.Table) -> pa.ChunkedArray:
        """Return for each row of a table whether the list names it.

        Args:
            table: It has `url` and `sha256`, and may have `phash`.
        """
        is_named = pc.or_(
            pc.is_in(table["url"], value_set=self._urls),
            pc.fill_null(pc.is_in(table["sha256"], value_set=self._sha256s), fill_value=False),
        )
        if "phash" not in table.schema.names or not len(self._phashes):
            return is_named
        return pc.or_(is_named, pa.chunked_array([self._near(table["phash"])]))

    def _near(self, phashes: pa.ChunkedArray) -> pa.Array:
        known = np.flatnonzero(pc.is_valid(phashes).to_numpy())
        numbers = phash_numbers(phashes.drop_null())
        found = np.zeros(len(phashes), bool)
        size = max(1, HASHES_AT_A_TIME // len(self._phashes))
        for start in range(0, len(numbers), size):
            bits = np.bitwise_count(numbers[start : start + size, None] ^ self._phashes[None, :])
            found[known[start : start + size]] = (bits <= self._distances[None, :]).any(axis=1)
        return pa.array(found)


REREAD_S = 5.0
"""Seconds after which a run reads the list again."""


class RemovedNow:
    """The store's list as it is now, so that a run heeds what is removed while it is at work.

    Its shared state, under `_lock`, is the list and when it was read.

    Args:
        store: The store with the list.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._list, self._read_at = Removed.read(store), time.monotonic()

    def list(self) -> Removed:
        """Return the list, which is at most `REREAD_S` old.

        Raises:
            StoreError: It could not be read.
        """
        with self._lock:
            if time.monotonic() - self._read_at > REREAD_S:
                now, self._read_at = Removed.read(self._store), time.monotonic()
                if not now.table.equals(self._list.table):
                    self._list = now
            return self._list


def with_entries(removed: Removed, entries: Iterable[Removal]) -> pa.Table:
    """Return the list with more entries, each once."""
    rows = [{name: getattr(each, name) for name in REMOVED.names} for each in entries]
    table = pa.concat_tables([removed.table, pa.Table.from_pylist(rows, schema=REMOVED)])
    keys = ["url", "sha256", "phash", "distance"]
    grouped = table.group_by(keys, use_threads=False).aggregate(
        [("reason", "first"), ("removed_at", "first")]
    )
    return grouped.rename_columns([*keys, "reason", "removed_at"]).select(REMOVED.names).cast(REMOVED)
