"""Optimisers, learning-rate schedules and the exponential moving average (EMA) of weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from calogen.train.plan import Plan

INVERSE_POWER = 2 / 3  # CaloClouds II/3 training code: EMA of type "inverse", power 0.6667
# One-cycle policy, Smith & Topin arXiv:1708.07120, with the defaults of torch.optim.lr_scheduler.OneCycleLR
ONECYCLE_RISE = 0.3
ONECYCLE_START_DIVISOR = 25.0
ONECYCLE_FINAL_DIVISOR = 1e4


def make_optimizer(parameters: Sequence[nn.Parameter], plan: Plan) -> torch.optim.Optimizer:
    """The plan's optimiser. Its learning rate is set anew at every step by `make_schedule`."""
    common: dict[str, Any] = {"lr": plan.learning_rate, "betas": plan.betas, "weight_decay": plan.weight_decay}
    if plan.optimizer == "radam":
        return torch.optim.RAdam(parameters, **common)
    if plan.optimizer == "adamw":
        return torch.optim.AdamW(parameters, fused=True, **common)
    return torch.optim.Adam(parameters, fused=True, **common)


def make_schedule(plan: Plan, total_steps: int) -> Callable[[int], float]:
    """Learning rate as a pure function of the step (0-based, `total_steps` in all)."""
    if plan.schedule == "onecycle":
        return lambda step: plan.learning_rate * _onecycle(step, total_steps)
    warmup = min(plan.warmup_steps, total_steps)

    def rate(step: int) -> float:
        if step < warmup:
            return plan.learning_rate * (step + 1) / warmup
        done = (step - warmup) / max(1, total_steps - warmup)
        return plan.learning_rate * _decay(plan, min(done, 1.0))

    return rate


def _decay(plan: Plan, done: float) -> float:
    if plan.schedule == "constant":
        return 1.0
    left = 1.0 - done if plan.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
    return plan.final_fraction + (1.0 - plan.final_fraction) * left


def _onecycle(step: int, total_steps: int) -> float:
    peak = max(1.0, ONECYCLE_RISE * total_steps - 1.0)
    start = 1.0 / ONECYCLE_START_DIVISOR
    if step <= peak:
        return _cosine_between(start, 1.0, step / peak)
    end = start / ONECYCLE_FINAL_DIVISOR
    return _cosine_between(1.0, end, min(1.0, (step - peak) / max(1.0, total_steps - 1 - peak)))


def _cosine_between(a: float, b: float, done: float) -> float:
    return b + (a - b) * 0.5 * (1.0 + math.cos(math.pi * done))


class EMA:
    """Exponential moving average of parameters: `average <- d average + (1 - d) parameter`.

    `inverse` raises the decay with the number of updates, d = min(decay, 1 - (1 + updates)^(-2/3)): early averages
    forget the start quickly (CaloClouds II/3; k-diffusion's EMAWarmup). Buffers are not averaged.
    """

    def __init__(self, parameters: Sequence[Tensor], decay: float, *, inverse: bool = False) -> None:
        self.parameters = list(parameters)
        self.averages = [parameter.detach().clone() for parameter in self.parameters]
        self.decay = decay
        self.inverse = inverse

    def decay_at(self, updates: int) -> float:
        """The decay of the update that has `updates` before it."""
        if not self.inverse:
            return self.decay
        return min(self.decay, 1.0 - (1.0 + updates) ** (-INVERSE_POWER))

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Take in the present parameters; `updates` were made before."""
        weight = 1.0 - self.decay_at(updates)
        torch._foreach_lerp_(self.averages, [p.detach() for p in self.parameters], weight)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the averaged parameters inside, its own afterwards."""
        own = [parameter.detach().clone() for parameter in self.parameters]
        copy_into(self.parameters, self.averages)
        try:
            yield
        finally:
            copy_into(self.parameters, own)


@torch.no_grad()
def copy_into(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copy values, keeping each target's storage, device and type."""
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)


def make_ema(parameters: Sequence[Tensor], plan: Plan) -> EMA | None:
    """The plan's moving average, or None."""
    if plan.ema == "none":
        return None
    return EMA(parameters, plan.ema_decay, inverse=plan.ema == "inverse")


def clip_gradients(parameters: Sequence[nn.Parameter], max_norm: float | None) -> None:
    """Scale all gradients so that their joint norm is at most `max_norm`."""
    if max_norm is not None:
        nn.utils.clip_grad_norm_(parameters, max_norm)
