"""Find the distinct links of a very large list, in memory that does not grow with it.

Links pass through a temporary file. Distinct ones are found by 128 bits of a hash: these are divided by their
first bits into parts, each of which is sorted alone. At 100 million links, a part has 1.6 million.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import IO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from imgdl_pipeline.core.listing.build import DIGESTED
from imgdl_pipeline.core.model.digest import TableDigest
from imgdl_pipeline.core.model.links import Link, LinkBatches
from imgdl_pipeline.core.model.schemas import LINKS
from imgdl_pipeline.core.model.temporary import needing_room, opened_temporary
from imgdl_pipeline.core.storage.store import parquet_writer
from imgdl_pipeline.core.storage.table_file import TableFile

PARTS = 64
"""Into so many parts the hashes of links are divided."""

KEY = np.dtype([("high", "<u8"), ("low", "<u8"), ("number", "<i8")])

Listing = Callable[[Callable[[], int]], int]
"""Calls its argument, which takes all links and returns their number."""

Flags = npt.NDArray[np.bool_]
Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class DistinctRows:
    """A list in a temporary file, of which the first link of each URL counts.

    Args:
        given: The number of all links.
        cut: Links whose attributes were cut, because they were too long.
        digest: The digest of the list: the same for the same links and attributes.
    """

    given: int
    cut: int
    digest: str
    _rows: TableFile
    _is_first: Flags

    def batches(self, schema: pa.Schema) -> Iterator[pa.Table]:
        """Yield some columns of the first link of each URL, a few thousand at a time."""
        start = 0
        for batch in self._rows.batches(schema):
            yield batch.filter(pa.array(self._is_first[start : start + batch.num_rows]))
            start += batch.num_rows


@contextmanager
def distinct_rows(links: Iterable[Link], now: datetime, listing: Listing) -> Iterator[DistinctRows]:
    """Write links to a temporary file, and give the distinct ones for the length of a `with` block.

    Args:
        links: The links.
        now: When the list is made.
        listing: Takes all links by calling its argument.

    Raises:
        ResourceError: The file could not be written.
    """
    batches, digest = LinkBatches(now), TableDigest(*DIGESTED)
    with opened_temporary() as file:
        with ExitStack() as files:
            parts = [files.enter_context(opened_temporary()) for _ in range(PARTS)]
            given = listing(partial(_spool, batches.batches(links), digest, file, parts))
            is_first = _firsts(parts, given)
        file.seek(0)
        with TableFile(pa.PythonFile(file, "r"), lambda table, schema: table.cast(schema)) as rows:
            yield DistinctRows(given, batches.cut, digest.hex(), rows, is_first)


def _spool(
    batches: Iterable[pa.RecordBatch], digest: TableDigest, file: IO[bytes], parts: list[IO[bytes]]
) -> int:
    """Write all links to a file, and the hashes of their URLs to another one by their first bits."""
    number = 0
    with parquet_writer(file, LINKS) as writer:
        for batch in batches:
            digest.update(batch)
            keys = np.empty(batch.num_rows, KEY)
            keys["high"], keys["low"] = url_hashes(batch.column("url")).T
            keys["number"] = np.arange(number, number + len(keys))
            number += len(keys)
            part = keys["high"] >> np.uint64(58)
            with needing_room():
                writer.write_batch(batch)
                for each in np.unique(part):
                    parts[int(each)].write(keys[part == each].tobytes())
    return number


def url_hashes(urls: pa.Array) -> Hashes:
    """Return two 64-bit halves of a hash of each URL."""
    digests = (
        hashlib.blake2b(url.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        for url in urls.to_pylist()
    )
    return np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2)


def _firsts(parts: list[IO[bytes]], count: int) -> Flags:
    """Return for each link whether it is the first one with its URL."""
    is_first = np.zeros(count, bool)
    for part in parts:
        part.seek(0)
        keys = np.frombuffer(part.read(), KEY)
        keys = keys[np.lexsort((keys["number"], keys["low"], keys["high"]))]
        is_again = np.zeros(len(keys), bool)
        is_again[1:] = (keys["high"][1:] == keys["high"][:-1]) & (keys["low"][1:] == keys["low"][:-1])
        is_first[keys["number"][~is_again]] = True
    return is_first
