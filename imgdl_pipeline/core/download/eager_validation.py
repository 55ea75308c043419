"""Checks images as soon as they have come, while others are on their way."""

import os
import queue
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pyarrow as pa

from imgdl_pipeline.core.jpeg.validate import LARGE_BYTES, InvalidImageError, Limits, validate_jpeg
from imgdl_pipeline.core.model.outcome import Status
from imgdl_pipeline.core.model.schemas import FACTS
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.storage.checkpoints import CHECKPOINT_S, Checkpoints
from imgdl_pipeline.core.storage.store import Store, checked_path

EARLY_PIXELS = 40_000_000
"""Larger images are not checked while they are downloaded: who ends a run waits for what is being decoded."""

NICENESS = 5
"""How much less of the processor checks ask for than downloads do, as `nice` counts it."""


class EarlyFacts:
    """Facts of images that are checked as soon as they have come, for the catalog to find.

    Decoding releases the interpreter's lock, so that it costs a download little that waits for the network,
    or for that lock. It is done in one thread a core and with less priority: if every worker decoded, the one
    that has the lock would wait for a core, and all the others for it. Shared by the workers: a queue.

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
        self._checks = ThreadPoolExecutor(
            os.cpu_count() or 1, thread_name_prefix="validate", initializer=_let_others_go_first
        )
        self._rows: queue.SimpleQueue[dict[str, object]] = queue.SimpleQueue()
        self._due = time.monotonic() + CHECKPOINT_S

    def check(self, url: str, sha256: str, data: bytes) -> None:
        """Check an image; what is wrong with one that is not whole is the catalog's to say."""
        try:
            facts = self._checks.submit(validate_jpeg, data, self._limits).result()
        except InvalidImageError:
            return
        self._rows.put({"url": url, "status": Status.OK.value, "sha256": sha256, **facts.row()})

    def keep(self) -> None:
        """Write what there is, every other second.

        Raises:
            StoreError: It could not be written.
        """
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + CHECKPOINT_S
            self._write()

    def close(self) -> None:
        """Write the rest, and end the threads; raises as `keep` does."""
        self._checks.shutdown()
        self._write()

    def _write(self) -> None:
        rows = [self._rows.get() for _ in range(self._rows.qsize())]
        if rows:
            self._checkpoints.add(pa.Table.from_pylist(rows, schema=FACTS))


def _let_others_go_first() -> None:
    """Lower the priority of the calling thread; elsewhere than on Linux, it would be the process's."""
    if sys.platform == "linux":
        with suppress(OSError):  # a sandbox may forbid it, and nothing depends on it
            os.nice(NICENESS)
