"""Open temporary files, and name the disk when it is full."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from imgdl_pipeline.core.model.outcome import ResourceError


@contextmanager
def needing_room() -> Iterator[None]:
    """Convert an OSError into a ResourceError that names the disk: the machine failed, not the data."""
    try:
        yield
    except OSError as error:
        raise ResourceError(
            f"cannot write a temporary file in {tempfile.gettempdir()}: {error.strerror or error}; "
            "make room there, or let TMPDIR name another folder"
        ) from error


def temporary_file() -> IO[bytes]:
    """Return an empty temporary file, which is deleted when it is closed.

    Raises:
        ResourceError: The file could not be created.
    """
    with needing_room():
        return tempfile.TemporaryFile()
