"""Group the images of all galleries that look alike, and write `near_duplicates.parquet`.

Images look alike if their perceptual hashes differ in few bits, directly or by way of other images. A group's
number is its smallest hash, as a signed number with the highest bit flipped: it stays the same as long as
that hash does, whatever other groups do, and however many runs there were before.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from imgdl_pipeline.core.jpeg.workers import available_cores
from imgdl_pipeline.core.model.outcome import Status
from imgdl_pipeline.core.model.phashes import Hashes, is_phash, phash_numbers, phash_texts
from imgdl_pipeline.core.model.schemas import CATALOG, NEAR_DUPLICATES, filter_table, take_column
from imgdl_pipeline.core.near_duplicates.disjoint_sets import Places
from imgdl_pipeline.core.near_duplicates.hash_groups import HashGroups, group_hashes
from imgdl_pipeline.core.storage.layout import (
    GROUPED_HASHES_PATH,
    NEAR_DUPLICATES_PATH,
    catalog_path,
    is_catalog_path,
)
from imgdl_pipeline.core.storage.object_store import UnreadableError
from imgdl_pipeline.core.storage.parts import check_resharded
from imgdl_pipeline.core.storage.store import Store

logger = logging.getLogger(__name__)

LARGEST_GROUPS = 10
SHOWN_MEMBERS = 8
"""The most members of each of the largest groups that the result names."""

TOP_BIT = np.uint64(1 << 63)

_OF_CATALOG = pa.schema(
    [
        CATALOG.field(name)
        for name in ("url", "status", "path", "sha256", "bytes", "width", "height", "phash", "first_seen")
    ],
    metadata=CATALOG.metadata,
)

_IMAGES = pa.schema(
    [
        pa.field("gallery", pa.int32()),  # its place in the galleries' names, in alphabetical order
        *(CATALOG.field(name) for name in ("url", "path", "sha256", "bytes", "first_seen")),
        pa.field("pixels", pa.int64()),
        pa.field("hash", pa.uint64()),
    ]
)

_GROUPED_HASHES = pa.schema(
    [pa.field("hash", pa.uint64()), pa.field("group", pa.uint64()), pa.field("distance", pa.int8())],
    metadata=CATALOG.metadata,
)


@dataclass(frozen=True, slots=True)
class Member:
    """An image of a group."""

    gallery: str
    url: str
    path: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Group:
    """A group of images that look alike.

    Args:
        number: As in the column `group`.
        images: How many images it has.
        members: Some of them, the representative first and then those that differ.
    """

    number: int
    images: int
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class NearDuplicates:
    """The result of looking for near duplicates.

    Args:
        images: How many images were considered: the galleries' valid images that have a hash.
        hashes: How many different hashes they have.
        searched: How many hashes were compared in this run: new ones, and groups that lost a hash.
        groups: How many groups there are.
        grouped: How many images are in a group; all but one of each group could be left out.
        largest: The largest groups, the largest first.
        seconds: How long it took.
    """

    images: int
    hashes: int
    searched: int
    groups: int
    grouped: int
    largest: tuple[Group, ...]
    seconds: float


def find_near_duplicates(store: Store, galleries: Sequence[str], distance: int) -> NearDuplicates:
    """Write the groups of images that look alike, of all galleries together.

    The hashes and their groups are written, too, so that the next run compares only what is new. The
    result does not depend on them.

    Args:
        store: The store of the galleries' catalogs.
        galleries: The galleries' own names, which the rows have also for images of shards; one without a
            catalog has no images yet.
        distance: The most bits by which the perceptual hashes of neighbours in a group differ.

    Raises:
        ReshardError: A gallery is between two numbers of shards.
        StoreError: The store failed.
    """
    started = time.monotonic()
    names = sorted(set(galleries))
    images = pa.concat_tables([_IMAGES.empty_table(), *_read(store, names)])
    count = images.num_rows
    hashes, place, copies = np.unique(images["hash"].to_numpy(), return_inverse=True, return_counts=True)
    found = group_hashes(hashes, distance, _known(store, distance), threads=available_cores())
    images = _with_company(images, np.searchsorted(hashes, found.groups), place, copies)
    images = _in_order(images.append_column("group", pa.array(_numbers(found, images))))
    store.write_table(NEAR_DUPLICATES_PATH, _table(images, names))
    store.write_table(GROUPED_HASHES_PATH, _grouped_hashes(found, distance))
    starts, sizes = _extents(images)
    return NearDuplicates(
        images=count,
        hashes=len(hashes),
        searched=found.searched,
        groups=len(starts),
        grouped=images.num_rows,
        largest=tuple(_largest(images, names, starts, sizes)),
        seconds=time.monotonic() - started,
    )


def without_rows(near: pa.Table, is_gone: pa.ChunkedArray) -> pa.Table:
    """Return NEAR_DUPLICATES without some rows: groups of one go, too, and others get a new representative.

    Groups that fell apart are only told apart when they are looked for again.

    Args:
        near: The table, in the order in which it was written.
        is_gone: For each row, whether it is to be left out.
    """
    left = near.filter(pc.invert(is_gone))
    sizes = pc.value_counts(left["group"])
    alone = pc.struct_field(sizes.filter(pc.equal(pc.struct_field(sizes, "counts"), 1)), "values")
    left = left.filter(pc.invert(pc.is_in(left["group"], value_set=alone)))
    columns = _by_representative(phash_numbers(left["phash"]), *_extents(left))
    return pa.table([columns.get(name, left[name]) for name in NEAR_DUPLICATES.names], schema=NEAR_DUPLICATES)


def rename_in_groups(store: Store, old: str, new: str | None) -> None:
    """Give the images of a gallery that was renamed its new name; None takes out those of one that is gone.

    Raises:
        StoreError: The store failed.
    """
    near = store.read_table(NEAR_DUPLICATES_PATH, NEAR_DUPLICATES)
    if near is None:
        return
    is_theirs = pc.equal(near["gallery"], old)
    if new is None:
        near = without_rows(near, is_theirs)
    else:
        near = near.set_column(0, near.field(0), pc.if_else(is_theirs, new, near["gallery"]))
    store.write_table(NEAR_DUPLICATES_PATH, near)


def _read(store: Store, names: list[str]) -> Iterator[pa.Table]:
    """Yield the valid images of each catalog file, as _IMAGES."""
    for number, name in enumerate(names):
        check_resharded(store, name)
        folder = catalog_path(name).rpartition("/")[0]
        for path in sorted(file.path for file in store.list(folder) if is_catalog_path(file.path)):
            catalog = store.read_table(path, _OF_CATALOG)
            if catalog is not None:
                yield _images(catalog, number)


def _images(catalog: pa.Table, gallery: int) -> pa.Table:
    is_image = pc.and_(pc.equal(catalog["status"], Status.OK.value), is_phash(catalog["phash"]))
    rows = filter_table(catalog, pc.fill_null(is_image, fill_value=False))
    width, height = (pc.fill_null(rows[side], 0).cast(pa.int64()) for side in ("width", "height"))
    columns = {
        "gallery": pa.array(np.full(rows.num_rows, gallery, np.int32)),
        "pixels": pc.multiply(width, height),
        "hash": pa.array(phash_numbers(rows["phash"])),
    }
    return pa.table(
        [columns[name] if name in columns else rows[name] for name in _IMAGES.names], schema=_IMAGES
    )


def _known(store: Store, distance: int) -> HashGroups | None:
    """Return the last run's groups; None if it was never, had another distance, or its file is damaged."""
    try:
        table = store.read_table(GROUPED_HASHES_PATH, _GROUPED_HASHES)
    except UnreadableError as error:
        logger.warning("all images are compared anew: %s", error)
        return None
    if table is None or not table.num_rows or table["distance"][0].as_py() != distance:
        return None
    return HashGroups(table["hash"].to_numpy(), table["group"].to_numpy())


def _grouped_hashes(found: HashGroups, distance: int) -> pa.Table:
    distances = np.full(len(found.hashes), distance, np.int8)
    return pa.table([found.hashes, found.groups, distances], schema=_GROUPED_HASHES)


def _with_company(images: pa.Table, firsts: Places, place: Places, copies: Places) -> pa.Table:
    """Return the images that are not alone in their group.

    Args:
        images: All images.
        firsts: The group of each hash: the place of its smallest hash.
        place: The place of each image's hash.
        copies: How many images have each hash.
    """
    sizes = np.zeros(len(copies), np.int64)
    np.add.at(sizes, firsts, copies)
    return filter_table(images, pa.array(sizes[firsts[place]] > 1))


def _numbers(found: HashGroups, images: pa.Table) -> npt.NDArray[np.int64]:
    """Return the number of each image's group."""
    groups = found.groups[np.searchsorted(found.hashes, images["hash"].to_numpy())]
    numbers: npt.NDArray[np.int64] = (groups ^ TOP_BIT).view(np.int64)
    return numbers


def _in_order(images: pa.Table) -> pa.Table:
    """Return the images by group, and each group's representative first."""
    keys = ("group", "ascending"), ("pixels", "descending"), ("first_seen", "ascending")
    order = pc.sort_indices(images, sort_keys=[*keys, ("gallery", "ascending"), ("url", "ascending")])
    return pa.table([take_column(column, order) for column in images.columns], names=images.column_names)


def _extents(images: pa.Table) -> tuple[Places, Places]:
    """Return where each group starts, and how many images it has."""
    group = images["group"].to_numpy()
    starts = np.flatnonzero(np.append(True, group[1:] != group[:-1])[: len(group)])
    return starts, np.diff(starts, append=len(group))


def _by_representative(hashes: Hashes, starts: Places, sizes: Places) -> dict[str, pa.Array]:
    """Return the columns that follow from the first image of each group, which represents it."""
    is_first = np.zeros(len(hashes), np.bool_)
    is_first[starts] = True
    distances = np.bitwise_count(hashes ^ np.repeat(hashes[starts], sizes)).astype(np.int8)
    return {"distance": pa.array(distances), "representative": pa.array(is_first)}


def _table(images: pa.Table, names: list[str]) -> pa.Table:
    """Return the images as NEAR_DUPLICATES."""
    hashes = images["hash"].to_numpy()
    columns = {
        "gallery": pa.array(names, pa.string()).take(images["gallery"].combine_chunks()),
        "phash": phash_texts(hashes),
        **_by_representative(hashes, *_extents(images)),
    }
    return pa.table(
        [columns[name] if name in columns else images[name] for name in NEAR_DUPLICATES.names],
        schema=NEAR_DUPLICATES,
    )


def _largest(images: pa.Table, names: list[str], starts: Places, sizes: Places) -> Iterator[Group]:
    for place in np.argsort(-sizes, kind="stable")[:LARGEST_GROUPS]:
        rows = images.slice(starts[place], sizes[place])
        shown = rows.take(_different_first(rows["hash"].to_numpy()))
        columns = ("gallery", "url", "path", "bytes")
        members = zip(*(shown[name].to_pylist() for name in columns), strict=True)
        yield Group(
            rows["group"][0].as_py(),
            rows.num_rows,
            tuple(Member(names[gallery], *facts) for gallery, *facts in members),
        )


def _different_first(hashes: Hashes) -> Places:
    """Return the places of some members of a group: of different hashes, as far as there are enough."""
    firsts = np.sort(np.unique(hashes, return_index=True)[1])[:SHOWN_MEMBERS]
    others = np.setdiff1d(np.arange(min(len(hashes), 2 * SHOWN_MEMBERS)), firsts)
    return np.concatenate([firsts, others])[:SHOWN_MEMBERS]
