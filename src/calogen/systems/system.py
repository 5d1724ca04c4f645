"""System: stages that together turn incident particles and a detector into showers; fit, save and load written once."""

from __future__ import annotations

import platform
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import nn

from calogen.data.batches import split
from calogen.data.incident import Incident
from calogen.data.showers import Showers
from calogen.detector.geometry import Detector
from calogen.overrides import from_dict, nearest, to_dict
from calogen.systems.state import State, gather
from calogen.train import Plan, Stage, StageReport, fit
from calogen.train.fit import fingerprint
from calogen.train.streams import seeded, torch_untouched

Tune = Literal["all", "bias"]
"""What fine-tuning moves."""
BARE_NAME = re.compile(r"[A-Za-z0-9_-]+")  # neither a folder nor a suffix: the name of a shipped state
STATE_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Preset:
    """A named configuration with its plans, the detector it is for, and one line that says what for."""

    about: str
    config: Any
    plans: dict[str, Plan]
    detector: str


class System(ABC):
    """A published system. A paper writes `parts`, `stages` and `sample`.

    Build one with `create` (seeded initial weights) or `load`. `__init__(config, detector)` builds the parts; the
    shape of every parameter and buffer follows from those two alone.
    """

    name: ClassVar[str]
    events: ClassVar[Literal["points", "voxels"]] = (
        "points"  # voxels: every point of `sample` is a cell, files hold cells
    )
    joins_detectors: ClassVar[bool] = False  # whether one model learns showers of several (`AllShowers.learn_with`)
    solvers: ClassVar[Mapping[str, str]] = {}  # stages that fit a bespoke solver -> option of `sample` for that flow's
    Config: ClassVar[type]  # frozen dataclass, JSON types, tuples, nested dataclasses

    def __init__(self, config: Any, detector: Detector) -> None:
        self.config = config
        self.detector = detector
        self.provenance: dict[str, Any] = {}
        self.started_from: dict[str, Any] = {}
        self.device = torch.device("cpu")

    @classmethod
    def create(cls, config: Any, detector: Detector, *, seed: int = 0) -> Self:
        """A system with initial weights that depend on the seed only."""
        with seeded(seed, cls.name, "initial weights"):
            return cls(config, detector)

    def start_from(self, other: System, *, tune: Tune = "all", label: str = "") -> tuple[int, int]:
        """Take the parameters of a fitted system, as far as they fit, before this one is fitted: fine-tuning.

        A parameter fits if it has the same name and shape; the detectors may differ. Transforms are fitted anew
        by `fit`. With tune="bias" only biases of what was taken will move, and all of what was not.

        Returns how many numbers were taken, and of how many.

        Raises:
            ValueError: another kind of system, one that shares no parameter, or an unknown `tune`.
        """
        if tune not in ("all", "bias"):
            raise ValueError(f"unknown tune {tune!r}; use 'all' or 'bias'")
        if other.name != self.name:
            raise ValueError(f"{label or 'the state'} is of system {other.name!r}, not of {self.name!r}")
        taken = total = 0
        sources = other.parts()
        for part_name, part in self.parts().items():
            source = dict(sources[part_name].named_parameters()) if part_name in sources else {}
            for name, parameter in part.named_parameters():
                total += parameter.numel()
                given = source.get(name)
                if given is None or given.shape != parameter.shape:
                    continue
                taken += parameter.numel()
                with torch.no_grad():
                    parameter.copy_(given)
                in_a_network = "." in name  # the numbers of a solver are no network's, and are all fitted anew
                if tune == "bias" and in_a_network and not name.endswith("bias"):
                    parameter.requires_grad_(False)
        if not taken:
            raise ValueError(f"{label or 'the state'} has no parameter that fits: another configuration")
        tensors = [(key, n, t.cpu().numpy()) for key, part in sources.items() for n, t in part.state_dict().items()]
        hashed = fingerprint(tensors)
        self.started_from = {"state": label, "tune": tune, "hash": hashed, "taken": taken, "of": total}
        return taken, total

    @abstractmethod
    def parts(self) -> dict[str, nn.Module]:
        """The modules that sampling needs, by name: what a state stores. Always the same objects."""

    @abstractmethod
    def stages(self) -> list[Stage]:
        """What is fitted, in order. Each call may make new stages, of the same modules."""

    @abstractmethod
    def sample(
        self, incident: Incident, *, seed: int, batch_size: int = 64, progress: bool = False, first: int = 0
    ) -> Showers:
        """One shower for each of the incident particles, the same for any `batch_size`. Systems add options.

        `first` is the index of the first of them in a larger request: shards of it, put together, are its showers.
        """

    def reconstruct(
        self, showers: Showers, *, seed: int, batch_size: int = 64, progress: bool = False, first: int = 0
    ) -> Showers:
        """Showers as the system's autoencoder or tokens give them back; arguments as for `sample`.

        Raises:
            ValueError: for a system or configuration that has neither.
        """
        raise ValueError(f"this state of {self.name!r} draws showers directly: it has no code to reconstruct them from")

    def transforms(self) -> dict[str, Any]:
        """The fitted transforms in plain JSON, for readers of a state's header."""
        return {}

    def left_out(self, showers: Showers) -> float:
        """Share of the energy of training showers in points that the system does not model; 0 for most."""
        return 0.0

    def learn_with(self, other: Any, showers: Showers, validation: Showers | None = None) -> None:
        """Learn another detector too, with part of the networks in common; see `AllShowers.learn_with`.

        Raises:
            ValueError: for systems that learn one detector.
        """
        raise ValueError(f"{self.name!r} learns showers of one detector, not of {other.detector.name!r} too")

    def learned_with(self) -> dict[str, Any]:
        """What else than the showers given to `fit` is learned from: part of a run's identity and provenance."""
        return {}

    def plans(self) -> dict[str, Plan]:
        """The plan of each stage, to be overridden and given to `fit`."""
        return {stage.name: stage.plan for stage in self.stages()}

    def to(self, device: str | torch.device) -> Self:
        """Move all parts."""
        self.device = torch.device(device)
        for part in self.parts().values():
            part.to(self.device)
        return self

    def fit(
        self,
        showers: Showers,
        plans: Mapping[str, Plan] | None = None,
        *,
        run_dir: str | Path,
        validation: float | Showers = 0.1,
        split_seed: int = 0,
        device: str | torch.device = "cpu",
        devices: int = 1,
        resume: bool = True,
        overwrite: bool = False,
        progress: bool = True,
        source: Mapping[str, Any] | None = None,
    ) -> tuple[StageReport, ...]:
        """Fit all stages (see `calogen.train.fit` for resuming and devices).

        `validation` is a fraction of `showers`, cut off with `split_seed`, or showers of their own. `source` (file
        names, checksums) is kept as provenance. Raises ValueError for showers of another detector.
        """
        train, held_out, number = self.cut(showers, validation, split_seed)
        resolved = self.plans() | dict(plans or {})
        start = datetime.now(UTC)
        self.device = torch.device(device)  # stages move what they fit; a calibration samples there
        reports = fit(
            self.stages(),
            train,
            held_out,
            resolved,
            run_dir=run_dir,
            device=device,
            devices=devices,
            resume=resume,
            overwrite=overwrite,
            progress=progress,
            identity={
                "system": self.name,
                "config": self.config,
                "detector": fingerprint(self.detector),
                **({"from": self.started_from} if self.started_from else {}),
                **self.learned_with(),
            },
        )
        self.to("cpu")
        self.provenance = {
            "plans": to_dict(resolved),
            "stages": [asdict(report) for report in reports],
            "data": {
                "showers": len(showers),
                "training": len(train),
                "validation": number,
                "split_seed": split_seed,
                "energy_left_out": self.left_out(train),
                "hash": fingerprint(showers),
                "source": to_dict(source or {}),
            },
            "from": self.started_from,
            **self.learned_with(),
            "devices": devices,
            "device": str(device),
            "versions": versions(),
            "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "started": start.isoformat(timespec="seconds"),
            "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        return reports

    def cut(self, showers: Showers, validation: float | Showers, seed: int = 0) -> tuple[Showers, Showers | None, int]:
        """Showers to learn from, those held out (a fraction, or given) and how many these are.

        Raises:
            ValueError: showers of another detector than the system is for.
        """
        for part in (showers, validation):
            if isinstance(part, Showers) and part.detector != self.detector:
                raise ValueError(
                    f"showers of detector {part.detector.name!r}, the system is for {self.detector.name!r}"
                )
        if isinstance(validation, Showers):
            return showers, validation, len(validation)
        if validation == 0.0:
            return showers, None, 0
        cut = split(len(showers), validation=validation, seed=seed)
        return showers[cut.train], showers[cut.validation], len(cut.validation)

    def state(self, *, dtype: str = "float32") -> State:
        """The fitted system; parameters stored as `dtype` (float32, float16, bfloat16), buffers as they are."""
        return State(
            tensors=gather(self.parts(), dtype),
            system=self.name,
            config=to_dict(self.config),
            detector=self.detector.to_dict(),
            transforms=to_dict(self.transforms()),
            provenance=to_dict(self.provenance),
            dtype=dtype,
        )

    def save(self, path: str | Path, *, dtype: str = "float32", overwrite: bool = False) -> None:
        """Write the state to one file. Raises ValueError if it exists or a weight is not finite."""
        self.state(dtype=dtype).write(path, overwrite=overwrite)

    @classmethod
    def from_state(cls, state: State, where: str = "state") -> Self:
        """The system of a state, on the CPU. Raises ValueError, in one line, if they do not fit exactly."""
        if state.system != cls.name:
            raise ValueError(f"{where}: a state of {state.system!r}, not of {cls.name!r}")
        try:
            with torch_untouched():
                system = cls(from_dict(cls.Config, state.config, "config"), Detector.from_dict(dict(state.detector)))
        except (ValueError, TypeError, KeyError, RuntimeError, ArithmeticError, MemoryError) as error:
            raise ValueError(f"{where}: cannot build {cls.name!r}: {' '.join(str(error).split())}") from None
        state.load_into(system.parts(), where)
        system.provenance = dict(state.provenance)
        for part in system.parts().values():
            part.eval()
        return system


def load(
    name_or_path: str | Path,
    systems: Mapping[str, type[System]],
    *,
    weights_dir: Path,
    detector: Detector | None = None,
    device: str | torch.device = "cpu",
) -> System:
    """A fitted system: a bare name is the state shipped in `weights_dir`, anything else a path.

    Raises ValueError, in one line, if there is none, it is damaged or does not fit, or it is not for `detector`.
    """
    path = state_path(name_or_path, weights_dir)
    state = State.read(path)
    if state.system not in systems:
        raise ValueError(f"{path}: a state of the unknown system {state.system!r}; {nearest(state.system, systems)}")
    system = systems[state.system].from_state(state, str(path))
    if detector is not None and system.detector != detector:
        raise ValueError(f"{path}: trained for detector {system.detector.name!r}, asked for {detector.name!r}")
    return system.to(device)


def state_path(name_or_path: str | Path, weights_dir: Path) -> Path:
    """The file of a shipped state's bare name, or the path itself. ValueError if no state of that name is shipped."""
    if isinstance(name_or_path, Path) or not BARE_NAME.fullmatch(name_or_path):
        return Path(name_or_path)
    path = weights_dir / f"{name_or_path}{STATE_SUFFIX}"
    if path.is_file():
        return path
    if Path(name_or_path).is_file():
        return Path(name_or_path)
    shipped = [file.stem for file in weights_dir.glob(f"*{STATE_SUFFIX}")]
    raise ValueError(f"no state {name_or_path!r} is shipped; {nearest(name_or_path, shipped)}; or give a path")


def versions() -> dict[str, str]:
    """Versions of what a fit depends on."""
    return {
        "calogen": version("calogen"),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
