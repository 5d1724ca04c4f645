"""A toy to train: showers of noisy energies, two small networks and a calibration."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import nn

from calogen.train import LearnedStage, Plan, SolvedStage
from calogen.train.streams import seeded


@dataclass(frozen=True)
class ToyShowers:
    """N showers of a few points each."""

    energy: NDArray
    offsets: NDArray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, which) -> ToyShowers:
        parts = [self.energy[self.offsets[i] : self.offsets[i + 1]] for i in np.arange(len(self))[which]]
        return ToyShowers(np.concatenate(parts), np.concatenate([[0], np.cumsum([len(p) for p in parts])]))


def toy_showers(n: int = 300, seed: int = 0) -> ToyShowers:
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(1, 20, n))])
    return ToyShowers(rng.normal(2.0, 0.5, offsets[-1]).astype(np.float32), offsets)


class ToyModel(nn.Module):
    """Predicts the mean energy of a shower from its count, with dropout and a moving buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Dropout(0.1), nn.Linear(16, 1))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def loss(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.calls += 1
        noise = 0.1 * torch.randn_like(x)
        return (self.net(c / self.scale) - x - noise).square().mean(-1)


class ToyStage(LearnedStage):
    """Regression of the shower's mean energy."""

    def __init__(self, name: str, plan: Plan, teacher: ToyModel | None = None) -> None:
        self.name, self.plan, self.teacher = name, plan, teacher
        self.record: Path | None = None  # folder in which each process leaves its weights
        with seeded(0, name):
            self.model = ToyModel()

    def prepare(self, showers) -> None:
        self.model.scale.fill_(float(np.diff(showers.offsets).mean()))
        if self.teacher is not None:
            self.model.load_state_dict(self.teacher.state_dict())

    def batch(self, showers, indices, rng):
        sums = np.add.reduceat(showers.energy, showers.offsets[:-1])[indices]
        counts = np.diff(showers.offsets)[indices]
        x = (sums + rng.uniform(0, 0.1, len(indices))) / counts
        return (
            torch.from_numpy(x.astype(np.float32))[:, None],
            torch.from_numpy(counts.astype(np.float32))[:, None],
        )

    def loss(self, batch):
        return self.model.loss(*batch)

    def after_step(self, step: int) -> None:
        if self.record is not None:
            values = {name: tensor.tolist() for name, tensor in self.model.named_parameters()}
            (self.record / f"rank{dist.get_rank()}.json").write_text(json.dumps(values))


class PickyStage(ToyStage):
    """A stage that no showers please."""

    def prepare(self, showers) -> None:
        raise ValueError("these showers do not do")


class ToyCalibration(SolvedStage):
    """The mean energy of all points over the model's mean prediction."""

    def __init__(self, model: ToyModel) -> None:
        self.name, self.plan, self.learned = "calibrate", Plan(), model
        self.model = nn.Module()
        self.model.register_buffer("factor", torch.ones(()))

    def solve(self, train, validation) -> None:
        with torch.no_grad():
            guess = self.learned.net(torch.rand(10, 1)).mean()
        self.model.factor.copy_(float(train.energy.mean()) / guess)


def toy_stages(**changes) -> list:
    plan = Plan(
        **(
            {
                "steps": 120,
                "batch_size": 32,
                "learning_rate": 1e-2,
                "schedule": "cosine",
                "ema": "inverse",
                "optimizer": "radam",
                "grad_clip": 1.0,
                "validate_every": 25,
            }
            | changes
        )
    )
    first = ToyStage("first", plan)
    second = ToyStage("second", plan, teacher=first.model)
    return [first, second, ToyCalibration(second.model)]


def weights(stages) -> dict[str, torch.Tensor]:
    return {f"{s.name}/{k}": v.clone() for s in stages for k, v in s.model.state_dict().items()}
