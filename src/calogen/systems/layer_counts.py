"""Points and energy per layer: drawn by flow matching, kept within limits, made whole, and laid onto points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calogen.methods.flow_matching import FlowMatching, FromData, OneStepFlow
from calogen.networks.count_mlp import CountMLP
from calogen.systems.profile_targets import LEAST_ENERGY_GEV, LayerProfile, ProfileTargets


@dataclass(frozen=True)
class CountSampling:
    """How layer profiles are drawn: by the flow in `steps` of `solver`, or in one step by its distilled form."""

    sampler: Literal["flow", "one-step"] = "flow"
    steps: int = 16  # two evaluations each with midpoint or heun (published: 200 of heun)
    solver: str = "midpoint"

    def __post_init__(self) -> None:
        if self.sampler not in ("flow", "one-step"):
            raise ValueError(f"unknown sampler {self.sampler!r} of layers; use 'flow' or 'one-step'")


class LayerFlow(nn.Module):
    """p(points and energy per layer | particle) by flow matching: PointCountFM, in one flow or in two.

    Targets that leave the shower as a whole in front (`ProfileTargets.given`) are learned by a flow of their own, which
    conditions that of the layers. Each flow has a student that takes one evaluation.

    Args:
        targets: layer profiles as vectors.
        condition: C.
        widths: hidden widths of each flow's network (published, one flow: 128, 256, 512, 256, 128).
        from_data: the networks' time starts at the data, as that of published weights does.
    """

    def __init__(
        self, targets: ProfileTargets, condition: int, widths: Sequence[Sequence[int]], *, from_data: bool = False
    ) -> None:
        super().__init__()
        self.targets = targets
        self.limits = Limits(targets.layers)
        self.sizes = [targets.given, targets.dim - targets.given] if targets.given else [targets.dim]
        flows = []
        for k, (size, hidden) in enumerate(zip(self.sizes, widths, strict=True)):
            network = CountMLP(size, condition + sum(self.sizes[:k]), hidden)
            flows.append(FlowMatching(FromData(network) if from_data else network, size, stratified=True))
        self.flows = nn.ModuleList(flows)
        self.students = nn.ModuleList(OneStepFlow.from_teacher(flow) for flow in flows)

    def part(self, x: Tensor, condition: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """What flow k learns of targets x [N, dim], and given what."""
        parts = x.split(self.sizes, dim=1)
        return parts[k], torch.cat([condition, *parts[:k]], dim=1)

    def draw(self, condition: Tensor, noise: Tensor, how: CountSampling) -> Tensor:
        """Targets [N, dim] out of standard normal noise [N, dim]."""
        drawn: list[Tensor] = []
        for k, z in enumerate(noise.split(self.sizes, dim=1)):
            c = torch.cat([condition, *drawn], dim=1)
            drawn.append(self.one(k, c, z, how))
        return torch.cat(drawn, dim=1)

    def one(self, k: int, condition: Tensor, noise: Tensor, how: CountSampling) -> Tensor:
        """What flow k, or its student, makes of its noise [N, D] given its whole condition."""
        if how.sampler == "one-step":
            return self.students[k].sample(condition, noise=noise)  # type: ignore[operator]
        return self.flows[k].sample(condition, noise=noise, steps=how.steps, solver=how.solver)  # type: ignore[operator]


class Limits(nn.Module):
    """What a drawn profile may look like: at most `SLACK` times the largest of the training showers."""

    counts: Tensor
    total: Tensor
    fraction: Tensor

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.register_buffer("counts", torch.full((layers,), float(UNFITTED_POINTS)))
        self.register_buffer("total", torch.tensor(float(UNFITTED_POINTS)))
        self.register_buffer("fraction", torch.tensor(1.0))

    def fit(self, profile: LayerProfile, energy: NDArray[Any]) -> None:
        """Take the largest counts and visible fractions of training showers of incident energy [N] GeV."""
        self.counts.copy_(torch.from_numpy(profile.counts.max(0) * SLACK + SLACK_POINTS))
        self.total.fill_(float(profile.counts.sum(1).max()) * SLACK)
        self.fraction.fill_(min(1.0, float((profile.energy.sum(1) / energy).max()) * SLACK))

    def broken(self, profile: LayerProfile, energy: NDArray[Any], most_negative: int) -> NDArray[np.bool_]:
        """Which showers [N] to draw again: not finite, empty, beyond the limits, too many layers below zero."""
        counts, deposited = profile.counts, profile.energy
        finite = np.isfinite(counts).all(1) & np.isfinite(deposited).all(1) & np.isfinite(profile.cog).all(1)
        with np.errstate(invalid="ignore"):
            negative = np.maximum((counts < 0).sum(1), (deposited < 0).sum(1)) > most_negative
            beyond = (counts > self.counts.cpu().numpy()).any(1) | (counts.sum(1) > float(self.total))
            bright = deposited.sum(1) > float(self.fraction) * energy
            empty = counts.clip(min=0).sum(1) < 0.5
        return ~finite | negative | beyond | bright | empty


SLACK = 1.5
"""Over the largest of some thousand training showers: a rarer one may be larger, one half as large again is none."""
SLACK_POINTS = 3
"""More, in layers that training showers hardly reach."""
UNFITTED_POINTS = 30_000
"""Points a shower may have before limits are fitted: `max_points` of CaloClouds3's configuration."""


def whole(counts: NDArray[Any], u: NDArray[Any]) -> NDArray[np.int64]:
    """Fractional counts [N, L] -> whole ones with the same mean where it is 1 or more, by u [N, L] in [0, 1).

    A layer with points keeps at least one, so that its energy is not lost: below 1 the mean rises to 1 (the
    published code truncates: half a point a layer is lost, and the energy of layers that end with none).
    """
    positive = np.maximum(counts, 0.0)
    drawn = np.floor(positive + u).astype(np.int64)
    return np.where(positive > 0, np.maximum(drawn, 1), 0)


def assign_layers(depth: NDArray[Any], counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Order of the points [P] by generated depth within each shower, and the layer [P] of each in that order.

    counts [N, L] says how many points each layer of each shower has, front to back.
    """
    n_layers = counts.shape[1]
    order = np.empty(depth.shape[0], dtype=np.int64)
    start = 0
    for n in counts.sum(1):
        order[start : start + n] = np.argsort(depth[start : start + n]) + start
        start += n
    layer = np.repeat(np.tile(np.arange(n_layers), len(counts)), counts.ravel())
    return order, layer


def rescale(energy: NDArray[Any], counts: NDArray[np.int64], target: NDArray[Any]) -> NDArray[np.float64]:
    """Energies [P], ordered by shower and layer, scaled so that each layer holds its target [N, L] GeV."""
    flat, wanted = counts.ravel(), np.maximum(target, 0.0).ravel()
    held = np.flatnonzero(flat)
    if held.size == 0:
        return np.zeros(0)
    starts = np.concatenate([[0], np.cumsum(flat[held])[:-1]])
    sums = np.add.reduceat(energy.astype(np.float64), starts)
    return energy * np.repeat(wanted[held] / np.maximum(sums, LEAST_ENERGY_GEV), flat[held])
