"""Plan: how one stage is fitted (steps, batch, learning rate, seed). Kept as provenance, never part of the model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Optimizer = Literal["adam", "adamw", "radam"]
Schedule = Literal["constant", "linear", "cosine", "onecycle"]
Batching = Literal["shuffled", "bucketed", "points"]


@dataclass(frozen=True)
class Plan:
    """The fitting of one stage. Raises ValueError for values that cannot be meant.

    The learning-rate schedule is a function of the step alone. `max_minutes` stops earlier by the clock; such a stop
    is recorded in the report, and a run stopped by the clock is not repeatable to the bit.
    """

    steps: int | None = None  # optimiser steps; exactly one of steps and epochs
    epochs: float | None = None  # passes over the training showers
    batch_size: int = 64  # showers a step, over all devices together (an upper limit with batching="points")
    batching: Batching = "shuffled"  # bucketed: similar counts together; points: at most max_points a batch
    max_points: int = 100_000  # points a batch, with batching="points"
    bucket_noise: float = 0.1  # width in log(count) that mixes showers, with batching="bucketed"
    shards: int = 1  # parts a batch is cut into (less memory); raised to the number of devices
    learning_rate: float = 1e-3  # the largest of the schedule
    schedule: Schedule = "constant"
    warmup_steps: int = 0  # linear rise from 0 before the schedule starts (onecycle has its own)
    final_fraction: float = 0.0  # learning rate at the end / largest, for linear and cosine
    optimizer: Optimizer = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    grad_clip: float | None = None  # largest norm of the gradient
    ema: Literal["none", "constant", "inverse"] = "none"  # inverse: decay = min(ema_decay, 1 - (1 + step)^(-2/3))
    ema_decay: float = 0.9999
    validate_every: int = 500  # steps
    validation_showers: int | None = None  # judge on the first so many; None: all
    patience: int | None = None  # stop after so many validations without improvement
    keep: Literal["best", "last"] = "best"  # which weights the stage ends with (best needs validation showers)
    max_minutes: float | None = None  # wall-clock budget over all restarts together
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps is not None and self.epochs is not None:
            raise ValueError("a plan has steps or epochs, not both (set the other to none)")
        for name in ("steps", "epochs", "patience", "max_minutes", "grad_clip", "validation_showers"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name}={value}: must be above 0, or none")
        for name in ("batch_size", "max_points", "shards", "validate_every", "learning_rate"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)}: must be above 0")
        for name in ("warmup_steps", "weight_decay", "bucket_noise", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: must not be negative")
        for name in ("final_fraction", "ema_decay"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name}={getattr(self, name)}: must be in [0, 1]")

    def total_steps(self, batches_per_epoch: int) -> int:
        """Steps of the whole fit. Raises ValueError if the plan says neither steps nor epochs."""
        if self.steps is not None:
            return self.steps
        if self.epochs is None:
            raise ValueError("the plan has neither steps nor epochs: set one")
        return max(1, math.ceil(self.epochs * batches_per_epoch))
