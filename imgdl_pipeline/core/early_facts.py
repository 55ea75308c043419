"""Checks images as soon as they have come, while others are on their way."""

import queue
import time

import pyarrow as pa

from imgdl_pipeline.core.checkpoints import CHECKPOINT_S, Checkpoints
from imgdl_pipeline.core.columns import FACTS
from imgdl_pipeline.core.outcome import Status
from imgdl_pipeline.core.settings import DownloadSettings
from imgdl_pipeline.core.store import Store, checked_path
from imgdl_pipeline.core.validation import LARGE_BYTES, InvalidImageError, Limits, validate_jpeg

EARLY_PIXELS = 40_000_000
"""Larger images are not checked while they are downloaded: who ends a run waits for what is being decoded."""


class EarlyFacts:
    """Facts of images that are checked as soon as they have come, for the catalog to find.

    Decoding releases the interpreter's lock, so that it costs a download little that waits for the network,
    or for that lock. Shared by the workers: a queue.

    Args:
        store: Where the facts are kept.
        gallery: Whose.
        settings: Their limits; what is larger than most waits for the catalog, which checks it alone.
    """

    def __init__(self, store: Store, gallery: str, settings: DownloadSettings) -> None:
        limits = Limits.of(settings)
        pixels, memory = min(EARLY_PIXELS, limits.max_pixels), min(LARGE_BYTES, limits.max_decode_bytes)
        self._limits = Limits(pixels, memory)
        self._checkpoints = Checkpoints(store, checked_path(gallery), FACTS)
        self._rows: queue.SimpleQueue[dict[str, object]] = queue.SimpleQueue()
        self._due = time.monotonic() + CHECKPOINT_S

    def check(self, url: str, sha256: str, data: bytes) -> None:
        """Check an image; what is wrong with one that is not whole is the catalog's to say."""
        try:
            facts = validate_jpeg(data, self._limits)
        except InvalidImageError:
            return
        self._rows.put({"url": url, "status": Status.OK.value, "sha256": sha256, **facts.row()})

    def keep(self, *, now: bool = False) -> None:
        """Write what there is, every other second or now.

        Raises:
            StoreError: It could not be written.
        """
        if now or time.monotonic() >= self._due:
            self._due = time.monotonic() + CHECKPOINT_S
            rows = [self._rows.get() for _ in range(self._rows.qsize())]
            if rows:
                self._checkpoints.add(pa.Table.from_pylist(rows, schema=FACTS))
