"""Give a folder another content at once: a reader finds the old files or the new ones."""

import ctypes
import ctypes.util
import errno
import os
import shutil
import sys
from pathlib import Path

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_RENAME_SWAP = 2
"""Linux's and macOS's flags, from `renameat2(2)` and `renamex_np(2)`."""

_UNSUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}


def swap(new: Path, folder: Path, aside: Path) -> None:
    """Put a folder in the place of another one, whose files are deleted.

    Where the file system cannot exchange two folders at once, as NFS cannot, there is neither for a moment.
    `recover` ends what was interrupted then.

    Args:
        new: A folder on the same file system.
        folder: The folder to replace; it need not exist.
        aside: Where the old folder may be meanwhile, on the same file system.

    Raises:
        OSError: It was not possible.
    """
    recover(folder, aside)
    for each in (*filter(Path.is_dir, new.rglob("*")), new):
        _sync(each)
    for each in (folder, aside):
        each.parent.mkdir(parents=True, exist_ok=True)
    if not folder.exists():
        new.rename(folder)
    elif _exchanged(new, folder):
        new.rename(aside)
    else:
        folder.rename(aside)
        new.rename(folder)
    _sync(folder.parent)
    shutil.rmtree(aside, ignore_errors=True)


def recover(folder: Path, aside: Path) -> None:
    """Put a folder back that an interrupted `swap` had moved aside.

    Raises:
        OSError: It was not possible.
    """
    if aside.exists() and not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside.rename(folder)
    elif aside.exists():
        shutil.rmtree(aside)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two folders at once; return whether the system and the file system can do that."""
    library = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    if sys.platform == "darwin":
        call, arguments = "renamex_np", (*names, _RENAME_SWAP)
    else:
        call, arguments = "renameat2", (_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE)
    if not hasattr(library, call):
        return False
    if getattr(library, call)(*arguments) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(other))


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
