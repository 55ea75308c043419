"""Report the progress of a step: to the run's log, and to whoever watches the runs of this process."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

EVERY_S = 5.0
"""Seconds between two progress lines, because each line costs Dagster a write to its database."""

Watch = Callable[[str, str, object], None]
"""A function that is called with a gallery, a stage, and the stage's progress; None where it begins."""

_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


@contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Let a function watch all progress in this process until the block ends."""
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)


def reporting(gallery: str, stage: str, log: Callable[[str], None]) -> Callable[[object], None]:
    """Return the progress callback of a stage, and report that the stage begins."""
    say, watch = every_few_seconds(log), _watch.get()
    if watch is None:
        return say
    watch(gallery, stage, None)

    def report(progress: object) -> None:
        say(progress)
        watch(gallery, stage, progress)

    return report


def every_few_seconds(
    log: Callable[[str], None], clock: Callable[[], float] = time.monotonic
) -> Callable[[object], None]:
    """Return a progress callback that logs at most once every EVERY_S seconds."""
    due = clock() + EVERY_S

    def say(progress: object) -> None:
        nonlocal due
        if clock() >= due:
            due = clock() + EVERY_S
            log(str(progress))

    return say
