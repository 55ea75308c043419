"""Open a stored image that a catalog has, for the processes that decode."""

from collections.abc import Iterator
from contextlib import contextmanager

from imgdl_pipeline.core.jpeg.facts import InvalidImageError, Limits
from imgdl_pipeline.core.jpeg.worker_client import Image
from imgdl_pipeline.core.model.outcome import Reason
from imgdl_pipeline.core.storage.store import Store

VALIDATED = Limits(max_pixels=1 << 32, max_decode_bytes=1 << 32)
"""Limits that allow every image: the catalog has already applied the gallery's own limits."""


@contextmanager
def opened_image(store: Store, path: str) -> Iterator[Image]:
    """Open a stored image for the length of a `with` block.

    Raises:
        InvalidImageError: The file is gone.
        StoreError: The file could not be read.
    """
    file = store.open(path)
    if file is None:
        raise InvalidImageError(Reason.INCOMPLETE, "its file is gone from the store")
    with file:
        yield file
