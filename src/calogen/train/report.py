"""What a fit tells: a progress bar, a log of JSON lines, and a record of each stage."""

from __future__ import annotations

import json
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from calogen.train.checkpoint import write_bytes

REDRAW_SECONDS = 0.2

Stopped = Literal["finished", "early", "budget", "solved", "held"]


@dataclass(frozen=True)
class StageReport:
    """How the fit of one stage went. Losses are means per shower; validation losses are of the averaged weights."""

    name: str
    stopped: Stopped  # all steps done; no improvement; out of minutes; fitted without steps; nothing may move
    steps: int
    kept: Literal["best", "last"]
    train_loss: float | None
    validation_loss: float | None  # the latest
    best_loss: float | None
    best_step: int | None
    seconds: float  # over all restarts
    peak_memory_mb: float  # resident memory of the leading process
    parameters: int
    shards: int

    @classmethod
    def without_steps(cls, name: str, stopped: Stopped, seconds: float, parameters: int) -> StageReport:
        """The record of a stage that took no steps: solved in one go, or held."""
        return cls(
            name=name,
            stopped=stopped,
            steps=0,
            kept="last",
            train_loss=None,
            validation_loss=None,
            best_loss=None,
            best_step=None,
            seconds=seconds,
            peak_memory_mb=peak_memory_mb(),
            parameters=parameters,
            shards=1,
        )


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024.0 * 1024.0) if sys.platform == "darwin" else peak / 1024.0


class StageLog:
    """One stage's JSON lines `{step, train_loss, validation_loss, learning_rate, seconds, memory_mb, ...}`."""

    def __init__(self, path: Path, step: int) -> None:
        """Continue the log at `step`: lines after it were written by a run that died and will be written again."""
        self.path = path
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if _step_of(line) <= step] if step > 0 else []
            write_bytes(path, "".join(line + "\n" for line in kept).encode())

    def add(self, **values: Any) -> None:
        """Append one line."""
        with open(self.path, "a") as file:
            file.write(json.dumps(values) + "\n")


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # a line cut by a crash


class StageBar:
    """A progress bar with rate, time left and losses; silent if `show` is false."""

    def __init__(self, name: str, total: int, done: int, *, show: bool) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:.1f}/s"),
            TimeRemainingColumn(),
            TextColumn("train {task.fields[train]}  val {task.fields[val]}  best {task.fields[best]}"),
            console=Console(stderr=True),
            disable=not show,
        )
        self._show = show
        self._task = self._bar.add_task(name, total=total, completed=done, rate=0.0, train="-", val="-", best="-")
        self._first, self._start, self._drawn = done, time.monotonic(), 0.0

    def __enter__(self) -> StageBar:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()

    def update(
        self, step: int, train: float | None, val: float | None, best: float | None, *, force: bool = False
    ) -> None:
        """Show the state after `step` steps."""
        now = time.monotonic()
        if not self._show or (now - self._drawn < REDRAW_SECONDS and not force):
            return
        self._drawn = now
        rate = (step - self._first) / max(now - self._start, 1e-9)
        self._bar.update(self._task, completed=step, rate=rate, train=_short(train), val=_short(val), best=_short(best))


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
