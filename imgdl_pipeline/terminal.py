"""Show runs and tables in a terminal, and as plain lines where there is none."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from imgdl_pipeline.core.download.run import Progress as DownloadProgress
from imgdl_pipeline.core.model.counted import Counted
from imgdl_pipeline.core.model.outcome import Status
from imgdl_pipeline.core.model.shown import shown
from imgdl_pipeline.progress import every_few_seconds

DOING = {
    "links": "listing",
    "images": "downloading",
    "catalog": "checking",
    "dataset": "writing the dataset",
    "near_duplicates": "comparing all pictures",
    "view": "making thumbnails",
}
"""What is shown while a stage is at work."""

STANDARD_ERROR = 2
PLAIN_WIDTH = 10_000
"""Columns of what is no terminal: a line is never wrapped there."""


def print_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table; numbers are to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    rows = list(rows)
    for place, name in enumerate(header):
        are_numbers = all(isinstance(row[place], (int, float)) for row in rows)
        table.add_column(name, justify="right" if rows and are_numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(shown(f"{cell:,}" if isinstance(cell, int) else str(cell))) for cell in row))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    console.print(table)


class RunDisplay:
    """Shows the progress of runs: a bar on a terminal, a line every few seconds elsewhere.

    It keeps a copy of the standard error, because Dagster redirects the process's own during a step.
    """

    def __init__(self) -> None:
        self._exits = ExitStack()
        file = self._exits.enter_context(os.fdopen(os.dup(sys.stderr.fileno()), "w"))
        self._console = Console(file=file, highlight=False)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._due: Callable[[object], None] = self._print

    def __enter__(self) -> "RunDisplay":
        if self._console.is_interactive:
            self._bar = self._exits.enter_context(
                Progress(
                    TextColumn("{task.description}"),
                    BarColumn(),
                    MofNCompleteColumn(),
                    TextColumn("{task.fields[rate]}"),
                    TimeRemainingColumn(),
                    TextColumn("{task.fields[counts]}"),
                    console=self._console,
                    transient=True,
                )
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._exits.close()

    def __call__(self, gallery: str, stage: str, progress: object) -> None:
        """Show the progress of a gallery's stage; None where it begins."""
        if self._bar is None:
            self._line(gallery, stage, progress)
            return
        if progress is None:
            self.done()
            self._task = self._bar.add_task(f"{gallery}: {DOING[stage]}", total=None, rate="", counts="")
        elif self._task is not None:
            self._bar.update(self._task, **_shown(progress))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep a terminal with a bar free of other text, such as what Dagster's helper processes say."""
        if self._bar is None:
            yield
            return
        kept = os.dup(STANDARD_ERROR)
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 -- a device, and no path
            os.dup2(nowhere.fileno(), STANDARD_ERROR)
        try:
            yield
        finally:
            os.dup2(kept, STANDARD_ERROR)
            os.close(kept)

    def done(self) -> None:
        """Remove the bar of a run that has ended."""
        if self._bar is not None and self._task is not None:
            self._bar.remove_task(self._task)
            self._bar.refresh()
            self._task = None

    def _line(self, gallery: str, stage: str, progress: object) -> None:
        if progress is None:
            self._print(f"{gallery}: {DOING[stage]}")
            self._due = every_few_seconds(lambda text: self._print(f"{gallery}: {text}"))
        else:
            self._due(progress)

    def _print(self, text: object) -> None:
        self._console.print(text, markup=False, soft_wrap=True)


def _shown(progress: object) -> dict[str, Any]:
    """Return what the bar's columns show of a progress."""
    if isinstance(progress, DownloadProgress):
        counts = ", ".join(
            f"{progress.by_status[status.value]} {status.value}"
            for status in Status
            if progress.by_status.get(status.value)
        )
        rate = f"{progress.per_second:.1f}/s"
        return {"completed": progress.done, "total": progress.total, "rate": rate, "counts": counts}
    if isinstance(progress, Counted):
        return {"completed": progress.done, "total": progress.total}
    return {}
