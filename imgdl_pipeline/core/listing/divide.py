"""Divide rows of links among shards: pieces in a temporary file, each of one shard."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np
import pyarrow as pa

from imgdl_pipeline.core.listing.distinct import Hashes, url_hashes
from imgdl_pipeline.core.listing.places import Numbers, Places, hosts_in
from imgdl_pipeline.core.model.schemas import DOWNLOADS, LINKS, columns
from imgdl_pipeline.core.model.temporary import needing_room
from imgdl_pipeline.core.storage.layout import downloads_path, links_path, shard_name
from imgdl_pipeline.core.storage.store import Store

GATHERED_BYTES = 32 << 20
"""Bytes of links that are divided at a time: the more, the fewer pieces."""


@dataclass(frozen=True, slots=True)
class Known:
    """The shards of links that are known already, of hosts with several generations of places."""

    keys: Hashes
    shards: Numbers

    def find(self, hashes: Hashes) -> Numbers:
        """Return the shard of each link, -1 for a new one."""
        if not len(self.keys):
            return np.full(len(hashes), -1, np.int64)
        at = np.minimum(np.searchsorted(self.keys, hashes), len(self.keys) - 1)
        return np.where(self.keys[at] == hashes, self.shards[at], -1)


def known_links(store: Store, gallery: str, places: Places) -> Known:
    """Return the links of hosts with several generations of places, from all lists and ledgers.

    Raises:
        StoreError: The store failed.
    """
    grown = {host for host, generations in places.hosts.items() if len(generations) > 1}
    keys, shards = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    for shard in sorted({each for host in grown for generation in places.of(host) for each in generation}):
        name = shard_name(gallery, shard)
        for path, schema in (
            (links_path(name), columns(LINKS, "url")),
            (downloads_path(name), columns(DOWNLOADS, "url")),
        ):
            for batch in store.batches(path, schema):
                hosts, numbers = hosts_in(batch["url"])
                is_grown = np.array([host in grown for host in hosts], bool)[numbers]
                found = batch["url"].filter(pa.array(is_grown))
                if len(found):
                    keys.append(url_hashes(found)[:, 1])
                    shards.append(np.full(len(found), shard, np.int64))
    all_keys, all_shards = np.concatenate(keys), np.concatenate(shards)
    distinct, at = np.unique(all_keys, return_index=True)
    return Known(distinct, all_shards[at])


def divided(
    tables: Iterable[pa.Table], places: Places, file: IO[bytes], known: Known | None = None
) -> list[list[tuple[int, int]]]:
    """Write rows with a `url` to a file, each piece of one shard; return where the pieces are, by shard."""
    offsets: list[list[tuple[int, int]]] = [[] for _ in range(places.shards)]
    for piece in _gathered(tables):
        shard = shards_of(piece["url"], places, known)
        order = np.argsort(shard, kind="stable")
        moved, sorted_ = piece.combine_chunks().take(pa.array(order)).combine_chunks(), shard[order]
        starts = np.flatnonzero(np.diff(sorted_, prepend=-1))
        for start, end in zip(starts, [*starts[1:], len(sorted_)], strict=True):
            [batch] = moved.slice(start, end - start).to_batches()
            with needing_room():
                at = file.tell()
                offsets[int(sorted_[start])].append((at, file.write(batch.serialize())))
    return offsets


def _gathered(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    size = 0
    for table in tables:
        waiting.append(table)
        size += table.nbytes
        if size >= GATHERED_BYTES:
            yield pa.concat_tables(waiting)
            waiting, size = [], 0
    if waiting:
        yield pa.concat_tables(waiting)


def shards_of(urls: pa.ChunkedArray, places: Places, known: Known | None = None) -> Numbers:
    """Return the shard of each link."""
    known = known or Known(np.empty(0, np.uint64), np.empty(0, np.int64))
    hosts, numbers = hosts_in(urls)
    hashes = url_hashes(urls)[:, 1]
    shard = np.empty(len(urls), np.int64)
    newest = [places.of(host)[-1] for host in hosts]
    single = np.array([each[0] if len(each) == 1 else -1 for each in newest], np.int64)
    shard[:] = single[numbers]
    for number, several in enumerate(newest):
        if len(several) > 1:
            is_its = numbers == number
            shard[is_its] = np.array(several)[hashes[is_its] % np.uint64(len(several))]
    has_grown = np.array([len(places.of(host)) > 1 for host in hosts], bool)[numbers]
    before = known.find(hashes)
    return np.where(has_grown & (before >= 0), before, shard)


def pieces_of(file: IO[bytes], offsets: list[tuple[int, int]], schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the rows of one shard that `divided` has written."""
    for at, size in offsets:
        file.seek(at)
        batch = pa.ipc.read_record_batch(pa.py_buffer(file.read(size)), schema)
        yield pa.Table.from_batches([batch])
