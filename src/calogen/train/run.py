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
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from torch import Tensor, nn

from calogen.train.checkpoint import below, load_module, prefixed, read_tensors, write_json, write_tensors
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
        self._lock: IO[str] | None = None

    def exists(self) -> bool:
        """Whether a fit was started here."""
        return self._identity.exists()

    def open(self, identity: Mapping[str, Any], models: Mapping[str, nn.Module]) -> None:
        """Begin here, or continue if this directory holds the same fit; ValueError says how it differs."""
        for folder in (self.folder, self._stages, self._logs):
            folder.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        if self.exists():
            self.require_same(identity)
            return
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
        mine = [self._identity, self.checkpoint, self._initial]
        mine += [*self._stages.glob("*.safetensors"), *self._stages.glob("*.json"), *self._logs.glob("*.jsonl")]
        for path in mine:
            path.unlink(missing_ok=True)

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

    def _take_lock(self) -> None:
        if fcntl is None:
            return
        file = open(self.folder / "lock", "w")  # noqa: SIM115 - held until close()
        deadline = time.monotonic() + LOCK_SECONDS
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

    def require_same(self, identity: Mapping[str, Any]) -> None:
        """Refuse (ValueError, naming a difference) if another fit than `identity` was started here."""
        then = json.loads(self._identity.read_text()) if self.exists() else identity
        changes = list(_differences(then, identity, ""))
        if changes:
            more = f" and {len(changes) - 1} more" if len(changes) > 1 else ""
            raise ValueError(
                f"{self.folder} holds another fit ({changes[0]}{more}): use another directory, or --overwrite"
            )


def _differences(then: Any, now: Any, where: str) -> list[str]:
    if isinstance(then, dict) and isinstance(now, dict):
        keys = sorted(set(then) | set(now))
        return [d for k in keys for d in _differences(then.get(k), now.get(k), f"{where}.{k}" if where else k)]
    return [] if then == now else [f"{where} was {_short(then)}, is {_short(now)}"]


def _short(value: Any, limit: int = 60) -> str:
    text = json.dumps(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
