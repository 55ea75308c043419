"""Open temporary files, and name the disk when it is full."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from imgdl_pipeline.core.model.outcome import ResourceError


@contextmanager
def needing_room() -> Iterator[None]:
    """Convert an OSError into a ResourceError that names the disk: the machine failed, not the data."""
    try:
        yield
    except OSError as error:
        raise ResourceError(
            f"cannot write a temporary file in {_folder()}: {error.strerror or error}; "
            "make room there, or let TMPDIR name another folder"
        ) from error


def _folder() -> str:
    try:
        return tempfile.gettempdir()
    except OSError:
        return "any temporary folder"


def discard(file: IO[bytes]) -> None:
    """Close and so delete a temporary file, also if the disk is too full for the rest of its buffer."""
    with suppress(OSError):
        file.close()


@contextmanager
def opened_temporary() -> Iterator[IO[bytes]]:
    """Open a temporary file for the length of a `with` block; raises like `temporary_file`."""
    file = temporary_file()
    try:
        yield file
    finally:
        discard(file)


def temporary_file() -> IO[bytes]:
    """Return an empty temporary file, which is deleted when it is closed.

    Raises:
        ResourceError: The file could not be created.
    """
    with needing_room():
        return tempfile.TemporaryFile()


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that takes a path once the `with` block has written it, whole; until then, none sees it.

    If the block fails, the file that was at the path before stays.

    Raises:
        ResourceError: The file cannot be written.
    """
    whole = path.resolve()  # a link keeps pointing at its file
    unfinished = whole.with_name(f".{whole.name}#{os.getpid()}")
    try:
        file = unfinished.open("wb")
    except OSError as error:
        raise ResourceError(f"cannot write {path}: {error.strerror}") from error
    try:
        with file:
            yield file
        unfinished.replace(whole)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise ResourceError(f"cannot write {path}: {error.strerror}; make room there") from error
    finally:
        unfinished.unlink(missing_ok=True)
