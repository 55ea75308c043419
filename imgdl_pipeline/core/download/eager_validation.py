"""Checks images as soon as they have come, while others are on their way."""

import queue
import time

import pyarrow as pa

from imgdl_pipeline.core.jpeg.facts import InvalidImageError, Limits
from imgdl_pipeline.core.jpeg.worker_client import Image
from imgdl_pipeline.core.jpeg.workers import JpegWorkers
from imgdl_pipeline.core.model.outcome import Status
from imgdl_pipeline.core.model.schemas import FACTS
from imgdl_pipeline.core.storage.checkpoints import CHECKPOINT_S, Checkpoints
from imgdl_pipeline.core.storage.layout import checked_path
from imgdl_pipeline.core.storage.store import Store


class EagerValidator:
    """Keeps the facts of images that are checked as soon as they have come, for the catalog to find.

    The check is done by worker processes, one per core and with less priority than the downloads have, so
    that it costs a download little. Shared by the download workers: a queue of rows.

    Args:
        store: Where the facts are kept.
        gallery: The gallery's name.
        jpegs: The processes that check.
        limits: What is decoded at all.
    """

    def __init__(self, store: Store, gallery: str, jpegs: JpegWorkers, limits: Limits) -> None:
        self._jpegs, self._limits = jpegs, limits
        self._checkpoints = Checkpoints(store, checked_path(gallery), FACTS)
        self._rows: queue.SimpleQueue[dict[str, object]] = queue.SimpleQueue()
        self._due = time.monotonic() + CHECKPOINT_S

    def check(self, url: str, sha256: str, image: Image) -> None:
        """Check an image, and keep the verdict; what follows from a bad one is the catalog's business."""
        try:
            verdict = {"status": Status.OK.value, **self._jpegs.validate(image, self._limits).row()}
        except InvalidImageError as error:
            verdict = error.row()
        self._rows.put({"url": url, "sha256": sha256, **verdict})

    def write_due(self) -> None:
        """Write what there is, every other second.

        Raises:
            StoreError: It could not be written.
        """
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + CHECKPOINT_S
            self.write()

    def write(self) -> None:
        """Write what there is; raises as `write_due` does."""
        rows = [self._rows.get() for _ in range(self._rows.qsize())]
        if rows:
            self._checkpoints.add(pa.Table.from_pylist(rows, schema=FACTS))
