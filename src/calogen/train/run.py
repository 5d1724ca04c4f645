"""A run directory: what a fit has stored, so that it can be killed at any moment and go on.

run.json                  what this run is (plans, data, models): another fit is refused here
initial.safetensors       weights before the first step
checkpoint.safetensors    the stage in progress: weights, averages, optimiser, best weights, counters
stages/NAME.best|last.safetensors, stages/NAME.json    a finished stage; the JSON is written last
logs/NAME.jsonl           losses
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from torch import Tensor, nn

from calogen.train.checkpoint import below, load_module, prefixed, read_tensors, unfinished, write_json, write_tensors
from calogen.train.identity import require_same
from calogen.train.report import StageReport

try:
    import fcntl
except ImportError:  # not on Windows, where two runs in one directory go unnoticed
    fcntl = None  # type: ignore[assignment]

CHECKPOINT_SECONDS = 60.0
LOCK_SECONDS = 10.0  # helpers of a killed run need a moment to end
LOCK_RETRY_SECONDS = 0.1


class Run:
    """The files of one fit. Methods that write are for the leading process only."""

    def __init__(self, folder: Path, checkpoint_seconds: float = CHECKPOINT_SECONDS) -> None:
        self.folder = folder
        self.checkpoint_seconds = checkpoint_seconds
        self.checkpoint = folder / "checkpoint.safetensors"
        self._initial = folder / "initial.safetensors"
        self._identity = folder / "run.json"
        self._stages = folder / "stages"
        self._logs = folder / "logs"
        self._lock_file = folder / "lock"
        self._lock: IO[str] | None = None
        self._absent = [path for path in (folder, *folder.absolute().parents) if not path.exists()]

    def exists(self) -> bool:
        """Whether a fit was started here."""
        return self._identity.exists()

    def worth_keeping(self) -> bool:
        """Whether a fit that was started here has got anywhere: a stage is finished, or one is half done."""
        return self.checkpoint.exists() or any(self._stages.glob("*.json"))

    def holds_only_a_start(self) -> bool:
        """Whether all that lies here was left by a fit that was killed before it had got anywhere."""
        own = {path.name for path in (*self._own_files(), self._stages, self._logs, self._lock_file)}
        return self.folder.is_dir() and {p.name for p in self.folder.iterdir()} <= own and not self.worth_keeping()

    def open(self, identity: Mapping[str, Any], models: Mapping[str, nn.Module]) -> None:
        """Begin here, or continue if this directory holds the same fit; ValueError says how it differs."""
        for folder in (self.folder, self._stages, self._logs):
            folder.mkdir(parents=True, exist_ok=True)
        self._take_lock(LOCK_SECONDS)
        if self.exists() and (self.worth_keeping() or self._stored_identity() == identity):
            self.require_same(identity)
            return
        self.clear()
        weights = {name: prefixed(name, model.state_dict()) for name, model in models.items()}
        write_tensors(self._initial, {k: v for part in weights.values() for k, v in part.items()}, {})
        write_json(self._identity, identity)

    def close(self) -> None:
        """Let others use the directory."""
        if self._lock:
            self._lock.close()
            self._lock = None

    def clear(self) -> None:
        """Delete what a fit stored here, and nothing else."""
        mine = [
            *self._own_files(),
            *self._stages.glob("*.safetensors"),
            *self._stages.glob("*.json"),
            *self._logs.glob("*.jsonl"),
        ]
        for path in mine:
            path.unlink(missing_ok=True)

    def _own_files(self) -> list[Path]:
        whole = [self._identity, self.checkpoint, self._initial]
        return [*whole, *map(unfinished, whole)]

    def forget(self) -> None:
        """Leave nothing of a fit that failed before it got anywhere (and is not running in another process)."""
        if self.worth_keeping() or not self.folder.is_dir():
            return
        with suppress(OSError, ValueError):
            self._take_lock(0.0)
            self.clear()
            self._lock_file.unlink()
            for folder in (self._stages, self._logs, *self._absent):
                folder.rmdir()
        self.close()

    def log(self, stage: str) -> Path:
        """Where the losses of a stage go."""
        return self._logs / f"{stage}.jsonl"

    def load_initial(self, models: Mapping[str, nn.Module]) -> None:
        """Give the models the weights they had when this run began."""
        tensors, _ = read_tensors(self._initial)
        for name, model in models.items():
            load_module(model, below(name, tensors), str(self._initial))

    def store(self, stage: str, tensors: Mapping[str, Tensor], counters: Mapping[str, Any]) -> None:
        """Replace the checkpoint."""
        write_tensors(self.checkpoint, tensors, {"stage": stage, "counters": dict(counters)})

    def stored(self, stage: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and counters of the checkpoint, if it is of this stage."""
        if not self.checkpoint.exists():
            return None
        tensors, header = read_tensors(self.checkpoint)
        return (tensors, header["counters"]) if header["stage"] == stage else None

    def finish(self, report: StageReport, *, best: Mapping[str, Tensor], last: Mapping[str, Tensor]) -> None:
        """Store a finished stage; after the last of these writes it is never fitted again."""
        for kind, tensors in (("best", best), ("last", last)):
            if tensors:
                write_tensors(self._weights(report.name, kind), tensors, {"stage": report.name, "kind": kind})
        write_json(self._stages / f"{report.name}.json", asdict(report))
        self.checkpoint.unlink(missing_ok=True)

    def finished(self, stage: str) -> StageReport | None:
        """The report of a stage that was finished here."""
        path = self._stages / f"{stage}.json"
        return StageReport(**json.loads(path.read_text())) if path.exists() else None

    def load_finished(self, report: StageReport, model: nn.Module) -> None:
        """Give `model` the weights its stage ended with."""
        path = self._weights(report.name, report.kept)
        load_module(model, read_tensors(path)[0], str(path))

    def _weights(self, stage: str, kind: str) -> Path:
        return self._stages / f"{stage}.{kind}.safetensors"

    def require_same(self, identity: Mapping[str, Any]) -> None:
        """Refuse (ValueError, naming what differs) if another fit than `identity` has got somewhere here."""
        if self.exists() and self.worth_keeping():
            require_same(self._stored_identity(), identity, self.folder)

    def _stored_identity(self) -> Any:
        return json.loads(self._identity.read_text())

    def _take_lock(self, patience_seconds: float) -> None:
        if fcntl is None:
            return
        file = open(self._lock_file, "w")  # noqa: SIM115 - held until close()
        deadline = time.monotonic() + patience_seconds
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > deadline:
                    file.close()
                    raise ValueError(
                        f"{self.folder}: another fit is running here; wait or use another directory"
                    ) from None
                time.sleep(LOCK_RETRY_SECONDS)
        self._lock = file
