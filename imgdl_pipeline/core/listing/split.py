"""Split the list of a very large gallery into shards, in memory that does not grow with the list.

`distinct.py` finds the distinct links, `places.py` chooses the shards of hosts, and `divide.py` divides the
links among them.

The invariant: **a link that was ever listed is in the same shard in every later list**, whatever is listed
besides. A host that outgrows its places gets more of them, as another generation: links that any of its
shards knows, from its list or its ledger, stay there, and all others go to the newest generation's places.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import IO

import pyarrow.parquet as pq

from imgdl_pipeline.core.listing.build import LENGTH_BEFORE, LISTED_AT, keep_unseen
from imgdl_pipeline.core.listing.distinct import Listing, distinct_rows
from imgdl_pipeline.core.listing.divide import divided, known_links, pieces_of
from imgdl_pipeline.core.listing.places import Places, checked_places, count_hosts, place_hosts
from imgdl_pipeline.core.model.links import Link
from imgdl_pipeline.core.model.schemas import LINKS, columns
from imgdl_pipeline.core.model.temporary import opened_temporary
from imgdl_pipeline.core.storage.layout import links_path, shard_name
from imgdl_pipeline.core.storage.store import Store, write_batches

_URL = columns(LINKS, "url")


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
    listing: Listing = lambda spool: spool(),
) -> Split:
    """Write the list of each shard of a gallery; see the module for which links it has.

    The caller must hold the gallery's lease: two lists at a time, or a list while the gallery is being given
    another number of shards, would mix the lists of shards.

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
    with distinct_rows(links, now, listing) as rows, opened_temporary() as pieces:
        counts, is_new = count_hosts(rows.batches(_URL)), places is None
        places = places or Places(shards)
        place_hosts(places, counts, is_new=is_new)
        places.write(store, gallery)  # first: lists without their places could not be continued
        offsets = divided(rows.batches(LINKS), places, pieces, known_links(store, gallery, places))
        lengths = tuple(
            _write_shard(store, shard_name(gallery, number), pieces, offsets[number])
            for number in range(shards)
        )
    return Split(rows.given, lengths, counts, places, rows.cut, rows.digest)


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
