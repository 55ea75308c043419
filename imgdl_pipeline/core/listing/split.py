"""Split the list of a very large gallery into shards, in memory that does not grow with the list.

Links pass through a temporary file. Distinct ones are found by 128 bits of a hash: these are divided by their
first bits into parts, each of which is sorted alone. At 100 million links, a part has 1.6 million.

Which shard a link belongs to:

- A host's links are in one shard, which the hash of its name selects. In the first list, hosts with many
  links are placed where there is room instead, so that the shards are about as long as each other.
- A host with more links than a shard should have is spread over up to `MOST_PLACES` shards by the hashes of
  its links.
- `_shards.json` keeps the number of shards and the places of all hosts that are not where their name's hash
  says. Places are only ever added to a host, never changed or removed.

The invariant: **a link that was ever listed is in the same shard in every later list**, whatever is listed
besides. A host that outgrows its places gets more of them, as another generation: links that any of its
shards knows, from its list or its ledger, stay there, and all others go to the newest generation's places.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from typing import IO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from imgdl_pipeline.core.http.urls import host_of
from imgdl_pipeline.core.listing.build import DIGESTED, LENGTH_BEFORE, LISTED_AT, keep_unseen
from imgdl_pipeline.core.model.digest import TableDigest
from imgdl_pipeline.core.model.links import Link, LinkBatches
from imgdl_pipeline.core.model.schemas import DOWNLOADS, LINKS, columns
from imgdl_pipeline.core.model.temporary import needing_room, opened_temporary
from imgdl_pipeline.core.storage.layout import (
    downloads_path,
    links_path,
    resharding_path,
    shard_name,
    shards_path,
)
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.store import Store, parquet_writer, write_batches
from imgdl_pipeline.core.storage.table_file import TableFile

MOST_PLACES = 8
"""The most shards that one host's links are spread over."""

PARTS = 64
"""Into so many parts the hashes of links are divided."""

ROOM = 0.05
"""Share of a shard's links from which a host is placed where there is room."""

KEY = np.dtype([("high", "<u8"), ("low", "<u8"), ("number", "<i8")])

_URL = columns(LINKS, "url")

Flags = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]


class ReshardError(StoreError):
    """The gallery has another number of shards than is wanted; the message names the command."""


@dataclass(slots=True)
class Places:
    """Where the links of hosts are.

    Args:
        shards: The number of shards.
        hosts: The places of hosts by generation, the first one first; the others are where their hash says.
        is_resharded: Whether the number of shards has changed, so that images may be in folders of other
            shards than their rows.
    """

    shards: int
    hosts: dict[str, list[list[int]]] = field(default_factory=dict)
    is_resharded: bool = False

    @staticmethod
    def read(store: Store, gallery: str) -> "Places | None":
        """Return a gallery's places, or None before its first list.

        Raises:
            StoreError: They could not be read.
        """
        data = store.get(shards_path(gallery))
        if data is None:
            return None
        try:
            kept = json.loads(data)
            return Places(kept["shards"], kept["hosts"], kept.get("is_resharded", False))
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{store.location(shards_path(gallery))} is not a table of shards") from error

    def write(self, store: Store, gallery: str) -> None:
        """Store the places; raises StoreError."""
        store.put(shards_path(gallery), self.text())

    def text(self) -> bytes:
        """Return the places as they are stored."""
        hosts = dict(sorted(self.hosts.items()))
        kept = {"shards": self.shards, "is_resharded": self.is_resharded, "hosts": hosts}
        return json.dumps(kept).encode()

    def spread_hosts(self) -> dict[str, int]:
        """Return the hosts whose links are in several shards, and in how many."""
        return {host: self.spread(host) for host in self.hosts if self.spread(host) > 1}

    def of(self, host: str) -> list[list[int]]:
        """Return the places of a host by generation."""
        return self.hosts.get(host) or [[_hash_of(host) % self.shards]]

    def spread(self, host: str) -> int:
        """Return the number of shards that have links of a host: each has this part of its slots."""
        return sum(map(len, self.of(host)))


@dataclass(frozen=True, slots=True)
class Split:
    """The result of splitting a list.

    Args:
        given: Links that the source gave.
        links: Distinct links by shard.
        hosts: Distinct links by host.
        places: Where the links of hosts are.
        cut: Links whose attributes were cut, because they were too long.
        digest: The digest of the list: the same for the same links and attributes.
    """

    given: int
    links: tuple[int, ...]
    hosts: Counter[str]
    places: Places
    cut: int
    digest: str


def split(
    gallery: str,
    store: Store,
    links: Iterable[Link],
    shards: int,
    now: datetime,
    listing: Callable[[Callable[[], int]], int] = lambda spool: spool(),
) -> Split:
    """Write the list of each shard of a gallery; see the module for which links it has.

    Args:
        gallery: The gallery's own name.
        store: The store of the gallery's files.
        links: The links, of which the first one of each URL counts.
        shards: The number of shards.
        now: When the list is made.
        listing: Calls its argument, which takes all links and returns their number. If it raises, nothing
            changes in the store.

    Raises:
        ReshardError: The gallery has another number of shards.
        StoreError: The store failed. Lists that are not written yet are those of before.
    """
    places = checked_places(store, gallery, shards)
    with opened_temporary() as rows_file, opened_temporary() as pieces, ExitStack() as files:
        parts = [files.enter_context(opened_temporary()) for _ in range(PARTS)]
        batches, digest = LinkBatches(now), TableDigest(*DIGESTED)
        given = listing(lambda: _spool(batches.batches(links), digest, rows_file, parts))
        is_first = _firsts(parts, given)
        rows_file.seek(0)
        with TableFile(pa.PythonFile(rows_file, "r"), lambda table, schema: table.cast(schema)) as rows:
            counts = count_hosts(table for table, _ in _first_rows(rows, _URL, is_first))
            is_new = places is None
            places = places or Places(shards)
            place_hosts(places, counts, is_new=is_new)
            places.write(store, gallery)  # first: lists without their places could not be continued
            firsts = (table for table, _ in _first_rows(rows, LINKS, is_first))
            offsets = divided(firsts, places, pieces, _known(store, gallery, places))
        lengths = tuple(
            _write_shard(store, shard_name(gallery, number), pieces, offsets[number])
            for number in range(shards)
        )
    return Split(given, lengths, counts, places, batches.cut, digest.hex())


def checked_places(store: Store, gallery: str, shards: int | None = None) -> Places | None:
    """Return the places of a gallery's hosts, or None before its first list.

    Args:
        store: The store of the gallery's files.
        gallery: The gallery's own name.
        shards: The number of shards that it must have; None for any.

    Raises:
        ReshardError: The gallery has another number of shards, or is being given one.
        StoreError: They could not be read.
    """
    under_way = store.get(resharding_path(gallery))
    if under_way is not None:
        raise ReshardError(
            f"{gallery} was given {under_way.decode()} shards, but not all of its files: "
            f"run `imgdl reshard {gallery} {under_way.decode()}` again"
        )
    places = Places.read(store, gallery)
    if places is not None and shards is not None and places.shards != shards:
        raise ReshardError(
            f"{gallery} has {places.shards} shards in the store, and {shards} are wanted: "
            f"run `imgdl reshard {gallery} {shards}` first, which moves no image"
        )
    return places


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


def _hash_of(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


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


def _hosts(urls: pa.ChunkedArray) -> tuple[list[str], Numbers]:
    """Return the hosts of URLs, and for each URL its host's number among them."""
    starts = pc.replace_substring_regex(urls, r"^(\w+://[^/?#]*)(.|\n)*$", r"\1")
    distinct = pc.unique(starts)
    numbers: Numbers = pc.index_in(starts, value_set=distinct).to_numpy().astype(np.int64)
    return [host_of(each) for each in distinct.to_pylist()], numbers


def count_hosts(tables: Iterable[pa.Table]) -> Counter[str]:
    """Return the number of links of each host."""
    counts: Counter[str] = Counter()
    for batch in tables:
        hosts, numbers = _hosts(batch["url"])
        for host, count in zip(hosts, np.bincount(numbers, minlength=len(hosts)).tolist(), strict=True):
            counts[host] += count
    return counts


def _first_rows(rows: TableFile, schema: pa.Schema, is_first: Flags) -> Iterator[tuple[pa.Table, int]]:
    start = 0
    for batch in rows.batches(schema):
        yield batch.filter(pa.array(is_first[start : start + batch.num_rows])), start
        start += batch.num_rows


def place_hosts(places: Places, counts: Counter[str], *, is_new: bool) -> None:
    """Give places to the hosts that have many links, and more places to those that have outgrown theirs.

    Args:
        places: The places, which are extended.
        counts: The links of each host.
        is_new: Whether no list has been split before, so that a host may go where there is room.
    """
    fair = max(1.0, counts.total() / places.shards)
    load = np.zeros(places.shards)
    large = []
    for host, count in counts.items():
        known = places.of(host)
        if count > fair * ROOM and (is_new or count > fair * places.spread(host)):
            large.append((-count, host))
        else:
            for shard in (each for generation in known for each in generation):
                load[shard] += count / places.spread(host)
    for negative, host in sorted(large):
        wanted = min(MOST_PLACES, places.shards, math.ceil(-negative / fair))
        known = [] if is_new else places.of(host)
        there = [shard for generation in known for shard in generation]
        free = (int(each) for each in np.argsort(load, kind="stable") if each not in there)
        more = [each for each, _ in zip(free, range(wanted - len(there)), strict=False)]
        if more:
            places.hosts[host] = [*known, more]
        for shard in (*there, *more):
            load[shard] += -negative / max(1, len(there) + len(more))


@dataclass(frozen=True, slots=True)
class _Known:
    """The shards of links that are known already, of hosts with several generations of places."""

    keys: Hashes
    shards: Numbers

    def find(self, hashes: Hashes) -> Numbers:
        """Return the shard of each link, -1 for a new one."""
        if not len(self.keys):
            return np.full(len(hashes), -1, np.int64)
        at = np.minimum(np.searchsorted(self.keys, hashes), len(self.keys) - 1)
        return np.where(self.keys[at] == hashes, self.shards[at], -1)


def _known(store: Store, gallery: str, places: Places) -> _Known:
    grown = {host for host, generations in places.hosts.items() if len(generations) > 1}
    keys, shards = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    for shard in sorted({each for host in grown for generation in places.of(host) for each in generation}):
        name = shard_name(gallery, shard)
        for path, schema in ((links_path(name), _URL), (downloads_path(name), columns(DOWNLOADS, "url"))):
            for batch in store.batches(path, schema):
                hosts, numbers = _hosts(batch["url"])
                is_grown = np.array([host in grown for host in hosts], bool)[numbers]
                found = batch["url"].filter(pa.array(is_grown))
                if len(found):
                    keys.append(url_hashes(found)[:, 1])
                    shards.append(np.full(len(found), shard, np.int64))
    all_keys, all_shards = np.concatenate(keys), np.concatenate(shards)
    distinct, at = np.unique(all_keys, return_index=True)
    return _Known(distinct, all_shards[at])


def divided(
    tables: Iterable[pa.Table], places: Places, file: IO[bytes], known: _Known | None = None
) -> list[list[tuple[int, int]]]:
    """Write rows with a `url` to a file, each piece of one shard; return where the pieces are, by shard."""
    known = known or _Known(np.empty(0, np.uint64), np.empty(0, np.int64))
    offsets: list[list[tuple[int, int]]] = [[] for _ in range(places.shards)]
    for piece in _gathered(tables):
        shard = _shards(piece["url"], places, known)
        order = np.argsort(shard, kind="stable")
        moved, sorted_ = piece.combine_chunks().take(pa.array(order)).combine_chunks(), shard[order]
        starts = np.flatnonzero(np.diff(sorted_, prepend=-1))
        for start, end in zip(starts, [*starts[1:], len(sorted_)], strict=True):
            [batch] = moved.slice(start, end - start).to_batches()
            with needing_room():
                at = file.tell()
                offsets[int(sorted_[start])].append((at, file.write(batch.serialize())))
    return offsets


GATHERED_BYTES = 32 << 20
"""Bytes of links that are divided at a time: the more, the fewer pieces."""


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


def _shards(urls: pa.ChunkedArray, places: Places, known: _Known) -> Numbers:
    """Return the shard of each link."""
    hosts, numbers = _hosts(urls)
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


def _write_shard(store: Store, name: str, file: IO[bytes], offsets: list[tuple[int, int]]) -> int:
    """Write one shard's list, and return the number of its links."""
    before = store.read_table(links_path(name), LISTED_AT)
    metadata = {} if before is None else {LENGTH_BEFORE: str(before.num_rows).encode()}
    with opened_temporary() as made:
        schema = LINKS.with_metadata({**LINKS.metadata, **metadata})
        write_batches(made, schema, (each.cast(schema) for each in pieces_of(file, offsets, LINKS)))
        made.seek(0)
        links = pq.read_table(made, columns=_URL.names)
        keep_unseen(store, name, before, links)
        store.write_file(links_path(name), made)
    return int(links.num_rows)


def pieces_of(file: IO[bytes], offsets: list[tuple[int, int]], schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the rows of one shard that `divided` has written."""
    for at, size in offsets:
        file.seek(at)
        batch = pa.ipc.read_record_batch(pa.py_buffer(file.read(size)), schema)
        yield pa.Table.from_batches([batch])
