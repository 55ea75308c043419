"""Validate each image as soon as it is downloaded, while other downloads continue."""

import queue
import time

import pyarrow as pa

from imgdl_pipeline.core.jpeg.facts import InvalidImageError, Limits
from imgdl_pipeline.core.jpeg.worker_client import Image
from imgdl_pipeline.core.jpeg.workers import JpegWorkers
from imgdl_pipeline.core.model.schemas import FACTS
from imgdl_pipeline.core.storage.checkpoints import CHECKPOINT_S, Checkpoints
from imgdl_pipeline.core.storage.layout import checked_path
from imgdl_pipeline.core.storage.removed import RemovedNow
from imgdl_pipeline.core.storage.store import Store


class EagerValidator:
    """Validates images as soon as they are downloaded, and stores the results for the catalog.

    Worker processes, one per core and with a lower priority than the downloads, validate the images, so that
    downloads are hardly slowed down. The download workers share one queue of rows.

    Args:
        store: The store for the results.
        gallery: The gallery's name.
        jpegs: The worker processes.
        limits: The limits for decoding an image.
        removed: What was removed; a picture that is near to it is not kept.
    """

    def __init__(
        self, store: Store, gallery: str, jpegs: JpegWorkers, limits: Limits, removed: RemovedNow
    ) -> None:
        self._jpegs, self._limits, self._removed = jpegs, limits, removed
        self._checkpoints = Checkpoints(store, checked_path(gallery), FACTS)
        self._rows: queue.SimpleQueue[dict[str, object]] = queue.SimpleQueue()
        self._due = time.monotonic() + CHECKPOINT_S

    def check(self, url: str, sha256: str, image: Image) -> None:
        """Validate an image and queue the result. The catalog decides what happens to an invalid image."""
        try:
            verdict = self._removed.list().verdict(self._jpegs.validate(image, self._limits).row())
        except InvalidImageError as error:
            verdict = error.row()
        self._rows.put({"url": url, "sha256": sha256, **verdict})

    def write_due(self) -> None:
        """Write the queued results if `CHECKPOINT_S` seconds have passed since the last write.

        Raises:
            StoreError: The results could not be written.
        """
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + CHECKPOINT_S
            self.write()

    def write(self) -> None:
        """Write the queued results; raise the same errors as `write_due`."""
        rows = [self._rows.get() for _ in range(self._rows.qsize())]
        if rows:
            self._checkpoints.add(pa.Table.from_pylist(rows, schema=FACTS))
