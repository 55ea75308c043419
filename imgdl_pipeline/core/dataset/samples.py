"""Read the images of a dataset from the store, as they are stored or made smaller, in the rows' order."""

import hashlib
import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from imgdl_pipeline.core.catalog.stored_image import VALIDATED, opened_image
from imgdl_pipeline.core.dataset.rows import caption_of, key_of
from imgdl_pipeline.core.jpeg.facts import InvalidImageError
from imgdl_pipeline.core.jpeg.workers import JpegWorkers
from imgdl_pipeline.core.model.dataset_settings import DatasetSettings, ResizeSettings
from imgdl_pipeline.core.model.outcome import Reason
from imgdl_pipeline.core.storage.store import Store

logger = logging.getLogger(__name__)

READERS = 8
"""Threads that read images: from an object store, each answer takes a while."""

AHEAD = 4
AHEAD_BYTES = 128_000_000
"""Images that are read ahead for each thread, and bytes for all of them; they bound the memory."""

ROWS_AT_A_TIME = 1_000
"""Rows that are held as Python objects at a time."""


@dataclass(frozen=True, slots=True)
class Sample:
    """An image of a dataset.

    Args:
        key: Its name in the dataset.
        jpeg: Its bytes.
        caption: What it shows, in words; None where there are none.
        row: Its row of the catalog, by column.
    """

    key: str
    jpeg: bytes
    caption: str | None
    row: dict[str, Any]


def rows_of(tables: Iterable[pa.Table]) -> Iterator[dict[str, Any]]:
    """Yield the rows of tables as Python objects, of which only a few exist at a time."""
    for table in tables:
        for batch in table.to_batches(ROWS_AT_A_TIME):
            yield from batch.to_pylist()


class Samples:
    """Reads the images of rows, with threads that read ahead.

    Args:
        store: The store of the images.
        settings: The dataset's settings.
        jpegs: The worker processes that make images smaller.
        on_image: Called after every image.
    """

    def __init__(
        self, store: Store, settings: DatasetSettings, jpegs: JpegWorkers, on_image: Callable[[], None]
    ) -> None:
        self._store = store
        self._settings = settings
        self._jpegs = jpegs
        self._on_image = on_image
        self.missing: list[str] = []
        """The links whose file is gone from the store, or is not what the catalog says."""

    def of(self, tables: Iterable[pa.Table]) -> Iterator[Sample]:
        """Yield the samples of rows, in their order, without those whose file is missing.

        Args:
            tables: The rows, as CATALOG, a few thousand at a time.

        Raises:
            StoreError: The store failed.
            ResourceError: No worker process could be started.
        """
        with (
            ThreadPoolExecutor(READERS, thread_name_prefix="dataset") as threads,
            closing(self._read_ahead(threads, tables)) as images,
        ):
            for row, image in images:
                try:
                    jpeg = image.result()
                except InvalidImageError as error:
                    logger.warning("%s is not in the dataset: %s", row["path"], error)
                    self.missing.append(row["url"])
                    continue
                finally:
                    self._on_image()
                yield Sample(key_of(row["url"]), jpeg, caption_of(row, self._settings.caption), row)

    def _read_ahead(
        self, threads: ThreadPoolExecutor, tables: Iterable[pa.Table]
    ) -> Generator[tuple[dict[str, Any], "Future[bytes]"], None, None]:
        ahead: deque[tuple[dict[str, Any], Future[bytes]]] = deque()
        try:
            for row in rows_of(tables):
                ahead.append((row, threads.submit(self._image, row)))
                while (
                    len(ahead) >= READERS * AHEAD
                    or sum(each["bytes"] or 0 for each, _ in ahead) > AHEAD_BYTES
                ):
                    yield ahead.popleft()
            while ahead:
                yield ahead.popleft()
        finally:
            for _, image in ahead:
                image.cancel()

    def _image(self, row: dict[str, Any]) -> bytes:
        """Return the bytes of a row's image; raise InvalidImageError if they are not what the row says."""
        if self._settings.resize is None:
            data = self._store.get(row["path"])
            if data is None:
                raise InvalidImageError(Reason.INCOMPLETE, "its file is gone from the store")
            if hashlib.sha256(data).hexdigest() != row["sha256"]:
                raise InvalidImageError(Reason.HASH_MISMATCH, "the stored file was altered")
            return data
        return self._resized(row, self._settings.resize)

    def _resized(self, row: dict[str, Any], settings: ResizeSettings) -> bytes:
        open_image = partial(opened_image, self._store, row["path"])
        size = 0 if self._store.is_local else row["bytes"]
        return self._jpegs.resize(open_image, size, VALIDATED, settings, row["sha256"]).data
