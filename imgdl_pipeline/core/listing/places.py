"""Choose the shards of hosts: where each host's links are, in this list and in all later ones.

- A host's links are in one shard, which the hash of its name selects. In the first list, hosts with many
  links are placed where there is room instead, so that the shards are about as long as each other.
- A host with more links than a shard should have is spread over up to `MOST_PLACES` shards by the hashes of
  its links.
- `_shards.json` keeps the number of shards and the places of all hosts that are not where their name's hash
  says. Places are only ever added to a host, never changed or removed.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from imgdl_pipeline.core.http.urls import host_of
from imgdl_pipeline.core.storage.layout import shards_path
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.parts import ReshardError, check_resharded
from imgdl_pipeline.core.storage.store import Store

MOST_PLACES = 8
"""The most shards that one host's links are spread over."""

ROOM = 0.05
"""Share of a shard's links from which a host is placed where there is room."""

Numbers = npt.NDArray[np.int64]


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


def _hash_of(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


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
    check_resharded(store, gallery)
    places = Places.read(store, gallery)
    if places is not None and shards is not None and places.shards != shards:
        raise ReshardError(
            f"{gallery} has {places.shards} shards in the store, and {shards} are wanted: "
            f"run `imgdl reshard {gallery} {shards}` first, which moves no image"
        )
    return places


def hosts_in(urls: pa.ChunkedArray) -> tuple[list[str], Numbers]:
    """Return the hosts of URLs, and for each URL its host's number among them."""
    starts = pc.replace_substring_regex(urls, r"^(\w+://[^/?#]*)(.|\n)*$", r"\1")
    distinct = pc.unique(starts)
    numbers: Numbers = pc.index_in(starts, value_set=distinct).to_numpy().astype(np.int64)
    return [host_of(each) for each in distinct.to_pylist()], numbers


def count_hosts(tables: Iterable[pa.Table]) -> Counter[str]:
    """Return the number of links of each host."""
    counts: Counter[str] = Counter()
    for batch in tables:
        hosts, numbers = hosts_in(batch["url"])
        for host, count in zip(hosts, np.bincount(numbers, minlength=len(hosts)).tolist(), strict=True):
            counts[host] += count
    return counts


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
