"""Make a contact sheet: thumbnails of a gallery's newest images on one JPEG.

It is stored under a name derived from its images, so that nothing is decoded again for a gallery without new
images.
"""

import hashlib
import io
import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from imgdl_pipeline.core.catalog.stored_image import VALIDATED, opened_image
from imgdl_pipeline.core.jpeg.facts import InvalidImageError
from imgdl_pipeline.core.jpeg.workers import JpegWorkers, opened
from imgdl_pipeline.core.model.outcome import Status
from imgdl_pipeline.core.model.schemas import CATALOG, columns
from imgdl_pipeline.core.storage.layout import contact_sheets_path
from imgdl_pipeline.core.storage.store import Store

logger = logging.getLogger(__name__)

SHOWN = ["path", "bytes", "sha256", "fetched_at", "url", "status", "duplicate_of"]
"""The catalog's columns that tell which images to show."""

IMAGES = 48
COLUMNS = 8
SIDE = 120
"""The side in pixels of the square for each image."""

GAP = 4
BACKGROUND = (32, 34, 40)

LARGEST_BYTES = 110_000
"""The largest sheet; it is under 150 kB in base64, which Markdown needs."""

QUALITIES = (80, 65, 50, 35, 20)


def contact_sheet(
    gallery: str, catalog: Iterable[pa.Table], store: Store, jpegs: JpegWorkers | None = None
) -> bytes | None:
    """Return the gallery's contact sheet, new or from the store; None for a gallery without images.

    Args:
        gallery: The gallery's name.
        catalog: The columns SHOWN of the catalog, a few thousand rows at a time; up to 48 of its images are
            shown, the newest first.
        store: The store of the images and the sheet.
        jpegs: The worker processes that decode images; if None, start workers for this call and end them.

    Raises:
        StoreError: The store failed.
    """
    newest = _newest(catalog)
    if not newest:
        return None
    folder = contact_sheets_path(gallery)
    digest = hashlib.sha256("".join(row["sha256"] for row in newest).encode()).hexdigest()
    path = f"{folder}/{digest[:20]}.jpg"
    kept = store.get(path)
    if kept is not None:
        return kept
    with opened(jpegs) as jpegs:
        sheet = compressed(_sheet(thumbnails(newest, store, jpegs)))
    store.delete([file.path for file in store.list(folder)])
    store.put(path, sheet)
    return sheet


def _newest(catalog: Iterable[pa.Table]) -> list[dict[str, Any]]:
    """Return the rows of the images to show, without duplicates of other images."""
    newest = columns(CATALOG, *SHOWN).empty_table()
    for batch in catalog:
        is_shown = pc.and_(pc.equal(batch["status"], Status.OK.value), pc.is_null(batch["duplicate_of"]))
        rows = pa.concat_tables([newest, batch.select(SHOWN).filter(is_shown)])
        if rows.num_rows:  # before version 26, Arrow fails if k is 0
            order = pc.select_k_unstable(
                rows,
                k=min(IMAGES, rows.num_rows),
                sort_keys=[("fetched_at", "descending"), ("url", "ascending")],
            )
            newest = rows.take(order)
    shown: list[dict[str, Any]] = newest.to_pylist()
    return shown


def thumbnails(rows: list[dict[str, Any]], store: Store, jpegs: JpegWorkers) -> list[Image.Image | None]:
    """Return an upright thumbnail for each row with `path` and `bytes`; None where it cannot be shown."""
    with ThreadPoolExecutor(jpegs.count, thread_name_prefix="thumbnail") as threads:
        return list(threads.map(lambda row: _thumbnail(row["path"], row["bytes"], store, jpegs), rows))


def _thumbnail(path: str, size: int, store: Store, jpegs: JpegWorkers) -> Image.Image | None:
    """Return an upright thumbnail of an image that fits the square, or None if it cannot be shown."""
    try:
        return stored_thumbnail(path, size, store, jpegs, SIDE)
    except InvalidImageError as error:
        logger.warning("%s is not on the contact sheet: %s", path, error)
        return None


def stored_thumbnail(path: str, size: int, store: Store, jpegs: JpegWorkers, side: int) -> Image.Image:
    """Return an upright thumbnail of a stored image, of which no side has more than `side` pixels.

    Raises:
        InvalidImageError: The image cannot be decoded, or its file is gone.
        StoreError: The file could not be read.
    """
    open_image = partial(opened_image, store, path)
    small = jpegs.thumbnail(open_image, 0 if store.is_local else size, VALIDATED, side)
    return Image.frombytes("RGB", (small.width, small.height), small.pixels)


def _sheet(pictures: list[Image.Image | None]) -> Image.Image:
    shown = [each for each in pictures if each is not None]
    return sheet_of_rows([shown[start : start + COLUMNS] for start in range(0, max(1, len(shown)), COLUMNS)])


def sheet_of_rows(rows: list[list[Image.Image]]) -> Image.Image:
    """Return a picture with rows of thumbnails, each in the middle of its square."""
    columns, cell = max(1, *map(len, rows)), SIDE + GAP
    sheet = Image.new("RGB", (columns * cell + GAP, len(rows) * cell + GAP), BACKGROUND)
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            left = GAP + column * cell + (SIDE - picture.width) // 2
            top = GAP + row * cell + (SIDE - picture.height) // 2
            sheet.paste(picture, (left, top))
    return sheet


def compressed(sheet: Image.Image) -> bytes:
    """Return the sheet as a JPEG of the best quality that is small enough; halve its size if none is."""
    for quality in QUALITIES:
        file = io.BytesIO()
        sheet.save(file, "JPEG", quality=quality, optimize=True)
        if file.tell() <= LARGEST_BYTES:
            return file.getvalue()
    return compressed(sheet.reduce(2))
