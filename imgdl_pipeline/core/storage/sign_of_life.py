"""Show others that a run is alive, by a file in the store that the run keeps renewing.

A lease lets one run at a time write a gallery, and a run has one only while it writes. A sign of life is
there for as long as a run works at all, so that a run whose process was killed can be told from a live one.

Whoever looks compares the times at which the store says that the file was written, one look with the next,
and never with a clock: clocks of several machines differ.
"""

import json
import logging
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from imgdl_pipeline.core.storage.layout import SIGNS_OF_LIFE
from imgdl_pipeline.core.storage.lease import RENEW_S, this_process, working_for
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.store import Store

logger = logging.getLogger(__name__)

END_S = 5.0
"""Seconds that the end of a step waits for its sign of life to be deleted."""


@contextmanager
def alive(store: Store, run: str, step: str = "") -> Iterator[None]:
    """Keep a sign of life of a run in the store until the block ends; the store may fail.

    Args:
        store: The store of the gallery's files.
        run: The run's id.
        step: The step's name.
    """
    path = f"{SIGNS_OF_LIFE}/{run}/{uuid.uuid4().hex}.json"
    content = json.dumps({**this_process(), "run": run, "step": step}).encode()
    ended = threading.Event()

    def show() -> None:
        try:
            while True:
                _unless_it_fails(store.put, path, content)
                if ended.wait(RENEW_S):
                    return
        finally:
            _unless_it_fails(store.delete, [path])

    shower = threading.Thread(target=show, name="imgdl-alive", daemon=True)
    shower.start()
    try:
        with working_for(run):
            yield
    finally:
        ended.set()
        shower.join(END_S)


def _unless_it_fails(action: Any, *args: Any) -> None:
    try:
        action(*args)
    except StoreError as error:
        logger.debug("a sign of life: %s", error)  # the run itself fails on it, and says so


def signs_of_life(store: Store) -> dict[str, str]:
    """Return the paths of all signs of life, with the time at which each was last written.

    Raises:
        StoreError: The store failed.
    """
    return {file.path: file.modified.isoformat() for file in store.list(SIGNS_OF_LIFE)}


def run_of(path: str) -> str:
    """Return the id of the run that a sign of life is of."""
    return path.split("/")[-2]


def read_sign(store: Store, path: str) -> dict[str, Any] | None:
    """Return what a sign of life says, or None if it was deleted meanwhile or is unreadable.

    Raises:
        StoreError: The store failed.
    """
    try:
        sign = json.loads(store.get(path) or b"null")
    except ValueError:
        return None
    return sign if isinstance(sign, dict) else None
