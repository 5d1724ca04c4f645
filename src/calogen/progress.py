"""One progress bar for all long work: what, how far, how fast, how long still."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import ProgressColumn as Column
from rich.text import Text


class _Rate(Column):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.3g} {self.unit}/s", style="progress.data.speed")


class Advance:
    """Told of every finished piece of work."""

    def __init__(self, bar: Progress, task: int) -> None:
        self._bar, self._task = bar, task

    def __call__(self, n: int = 1) -> None:
        """`n` more pieces are done."""
        self._bar.advance(self._task, n)  # type: ignore[arg-type]


@contextmanager
def progress_bar(label: str, total: int, unit: str, *, shown: bool = True) -> Iterator[Advance]:
    """A bar on standard error with rate and estimate; `shown=False` (the `-q` of the command line) is silent.

    >>> with progress_bar("sample", 3, "showers", shown=False) as advance:
    ...     advance(3)
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as bar:
        yield Advance(bar, bar.add_task(label, total=total))
