"""Write a page that shows a gallery: one HTML file with a thumbnail and the catalog row of each link.

The page loads nothing: its pictures are `data:` URLs, and a Content-Security-Policy lets no script but the
page's own run. Rows and pictures are in blocks of JSON, which a browser reads where they are scrolled to.
"""

import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
from PIL import Image

from imgdl_pipeline.core.catalog.contact_sheet import stored_thumbnail
from imgdl_pipeline.core.jpeg.facts import InvalidImageError
from imgdl_pipeline.core.jpeg.workers import JpegWorkers, opened
from imgdl_pipeline.core.model.counted import Counted
from imgdl_pipeline.core.model.outcome import Status
from imgdl_pipeline.core.model.temporary import replacing
from imgdl_pipeline.core.storage.layout import catalog_path
from imgdl_pipeline.core.storage.parts import cataloged_parts
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline.core.view.page import BEGINNING, block, page_around
from imgdl_pipeline.core.view.rows import index_of, near_duplicates, newer_rows, newest_rows, shown_row

LIMIT = 20_000
"""The most rows on a page, if nothing else is asked for: some 100 MB."""

BLOCK_ROWS = 250
"""Rows in a block: a browser parses one in a few milliseconds."""

SIDE = 160
"""The pixels of a thumbnail's longer side."""

LARGEST_BYTES = 3_600
"""The largest thumbnail; with its row, it is under 6 kB in base64, so that 10,000 take less than 60 MB."""

QUALITIES = (60, 45, 30, 15)
WEBP_EFFORT = 2
"""Of 6: twice as fast as Pillow's default, for one or two percent more bytes."""


@dataclass(frozen=True, slots=True)
class View:
    """What a page holds.

    Args:
        links: The number of rows in the catalog.
        rows: The number of rows on the page.
        pictures: The number of those with a picture.
    """

    links: int
    rows: int
    pictures: int


def save_view(
    store: Store,
    gallery: str,
    path: Path,
    *,
    jpegs: JpegWorkers | None = None,
    limit: int = LIMIT,
    on_progress: Callable[[Counted], None] = lambda _: None,
) -> View:
    """Write a gallery's page to a file, whole or not at all; an earlier page is replaced.

    Args:
        store: The store of the gallery's files.
        gallery: The gallery's name, or a shard's, such as `laion/0007`; a gallery's page has all shards.
        path: The file.
        jpegs: As for `write_view`.
        limit: As for `write_view`.
        on_progress: As for `write_view`.

    Raises:
        FileExistsError: The file is no page of this kind, so that it is left alone.
        ResourceError: The file cannot be written.
        FileNotFoundError, ReshardError, StoreError: As `write_view`.
    """
    if path.exists() and not _is_page(path):
        raise FileExistsError(f"{path} exists and is no page of a gallery: name another file")
    with replacing(path) as file:
        return write_view(store, gallery, file, jpegs=jpegs, limit=limit, on_progress=on_progress)


def _is_page(path: Path) -> bool:
    """Return whether a file was written by `write_view`, or is empty."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(BEGINNING)) in (BEGINNING, b"")


def write_view(
    store: Store,
    gallery: str,
    file: IO[bytes],
    *,
    jpegs: JpegWorkers | None = None,
    limit: int = LIMIT,
    on_progress: Callable[[Counted], None] = lambda _: None,
) -> View:
    """Write a gallery's page: its newest rows, those without an image too.

    A picture is kept in memory no longer than its block: 250 rows.

    Args:
        store: The store of the gallery's files.
        gallery: The gallery's name, or a shard's, such as `laion/0007`; a gallery's page has all shards.
        file: Where to write.
        jpegs: The worker processes that decode images; if None, start workers for this call and end them.
        limit: The most rows to show.
        on_progress: Called after each block.

    Raises:
        FileNotFoundError: The gallery has no catalog.
        ReshardError: The gallery is between two numbers of shards.
        StoreError: The store failed.
    """
    links, rows = _newest(store, gallery, limit)
    known = near_duplicates(store, gallery)
    before, after = page_around(gallery, index_of(rows, known, links=links, block_rows=BLOCK_ROWS))
    file.write(before)
    pictures = 0
    with _thumbnails(store, jpegs) as thumbnails:
        for start in range(0, rows.num_rows, BLOCK_ROWS):
            some = rows.slice(start, BLOCK_ROWS).to_pylist()
            shown, missing = thumbnails(some)
            pictures += sum(1 for each in shown if each is not None)
            details = [shown_row(row, known) for row in some]
            file.write(block(start // BLOCK_ROWS, details, shown, missing))
            on_progress(Counted(start + len(some), rows.num_rows, "rows written"))
    file.write(after)
    return View(links, rows.num_rows, pictures)


def _newest(store: Store, gallery: str, limit: int) -> tuple[int, pa.Table]:
    """Return the number of all rows, and the newest ones, in memory for those and one shard's."""
    links, newest = 0, None
    for part in cataloged_parts(store, gallery):
        catalog = store.open_table(catalog_path(part))
        if catalog is not None:
            with catalog, store.reading(catalog_path(part)):
                links += catalog.num_rows
                newest = newer_rows(newest, newest_rows(catalog, limit), limit)
    if newest is None:
        raise FileNotFoundError(f"{gallery} has no catalog in {store.root}: run the gallery first")
    return links, newest


Thumbnails = tuple[list[bytes | None], dict[int, str]]
"""A picture for each row that has one, and why there is none where there should be one."""


@contextmanager
def _thumbnails(
    store: Store, jpegs: JpegWorkers | None
) -> Iterator[Callable[[list[dict[str, Any]]], Thumbnails]]:
    """Give a function that makes the thumbnails of some rows, as many at a time as there are workers."""
    with (
        opened(jpegs) as workers,
        ThreadPoolExecutor(workers.count, thread_name_prefix="thumbnail") as threads,
    ):

        def made(rows: list[dict[str, Any]]) -> Thumbnails:
            found = list(threads.map(partial(_thumbnail, store, workers), rows))
            shown = [each if isinstance(each, bytes) else None for each in found]
            return shown, {place: each for place, each in enumerate(found) if isinstance(each, str)}

        yield made


def _thumbnail(store: Store, jpegs: JpegWorkers, row: dict[str, Any]) -> bytes | str | None:
    """Return a row's picture as WebP; why there is none; or None for a row without an image."""
    if row["status"] != Status.OK.value or row["path"] is None:
        return None
    try:
        return webp(stored_thumbnail(row["path"], row["bytes"] or 0, store, jpegs, SIDE))
    except InvalidImageError as error:
        return error.detail


def webp(picture: Image.Image) -> bytes:
    """Return a picture as WebP of the best quality that is small enough; halve its size if none is."""
    for quality in QUALITIES:
        file = io.BytesIO()
        picture.save(file, "WEBP", quality=quality, method=WEBP_EFFORT)
        if file.tell() <= LARGEST_BYTES:
            return file.getvalue()
    return webp(picture.reduce(2))
