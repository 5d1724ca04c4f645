"""How AllShowers is fitted: points by flow matching with noise matched to them in each layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calogen.data.showers import Showers
from calogen.methods.matching import match
from calogen.systems.bespoke_stage import FlowProblem
from calogen.systems.layer_stages import LayerFlowStage
from calogen.systems.section_points import PLANE_AND_ENERGY, LayerPoints
from calogen.train import Batch, LearnedStage, Plan
from calogen.train.streams import numpy_stream

if TYPE_CHECKING:
    from calogen.systems.allshowers import AllShowers


class PointsStage(LearnedStage):
    """Fit the points' transform and flow, given the layers of Geant4."""

    name = "points"

    def __init__(self, system: AllShowers, plan: Plan) -> None:
        self.system, self.plan = system, plan
        self.model = nn.ModuleDict({"transform": system.points, "flow": system.point_flow})
        self.layers = LayerFlowStage(system, "layers", 0, plan)
        self.wholes: dict[int, tuple[Showers, Tensor]] = {}

    def prepare(self, showers: Showers) -> None:
        """Fit the transform on all training points."""
        view = self.system.view(showers)
        self.system.points.fit(LayerPoints(view.x, view.y, view.energy), view.layer, mean_energy(view))

    def counts(self, showers: Showers) -> NDArray[np.integer]:
        """Points of the showers as they are viewed."""
        return self.system.view(showers).counts

    def batch(self, showers: Showers, indices: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        """Latent points and noise [P, 3], conditions [n, C], points [n]: those of Geant4, layer by layer."""
        view = self.system.view(showers)[indices]
        points = LayerPoints(view.x, view.y, view.energy)
        latent = self.system.points.encode(points, view.layer, mean_energy(view)).cpu()
        noise = rng.standard_normal((view.n_points, PLANE_AND_ENERGY), dtype=np.float32)
        per_layer = view.counts_per_layer
        if self.system.config.matched:
            noise = match(latent.numpy(), noise, per_layer.ravel())
        condition = self._condition(showers, indices).cpu()
        return latent, torch.from_numpy(noise), condition, torch.from_numpy(view.counts)

    def flow_of(self, showers: Showers, indices: NDArray[np.int64], rng: np.random.Generator) -> FlowProblem:
        """The trained flow for Geant4's layers of some showers, with noise, for a solver to be fitted to."""
        view = self.system.view(showers)[indices]
        device = self.system.particles.mean.device
        condition = self._condition(showers, indices).to(device)
        counts = torch.from_numpy(view.counts).to(device)
        noise = torch.from_numpy(rng.standard_normal((view.n_points, PLANE_AND_ENERGY), dtype=np.float32))
        return FlowProblem(self.system.point_flow.velocity(condition, counts), noise.to(device), counts)

    def _condition(self, showers: Showers, indices: NDArray[np.int64]) -> Tensor:
        """Conditions [N, C] of the points, on Geant4's layers."""
        counts = self.layers.profile(showers).counts[indices]
        return self.system.point_condition(showers.incident[indices], self._whole(showers)[indices], counts)

    def _whole(self, showers: Showers) -> Tensor:
        """The showers as a whole [N, given], made once: a condition needs no fresh spread of its whole numbers."""
        held = self.wholes.get(id(showers))
        if held is None or held[0] is not showers:
            rng = numpy_stream(self.name, "whole")
            made = self.system.whole_of(self.layers.profile(showers), showers.incident, rng)
            self.wholes[id(showers)] = held = (showers, made.cpu())
        return held[1]

    def loss(self, batch: Batch) -> Tensor:
        """Mean squared error of the velocity [N]."""
        x, noise, condition, counts = batch
        return self.system.point_flow.loss(x, condition, counts, noise=noise)

    def weights(self, batch: Batch) -> Tensor:
        """Showers weigh as the square root of their points: neither the few bright nor the many faint ones rule."""
        weights: Tensor = batch[3].float().sqrt()
        return weights


def mean_energy(view: Showers) -> NDArray[np.float64]:
    """Mean energy [P] GeV of the points of the same shower and layer, at each point."""
    n = view.detector.n_layers
    where = view.shower_index * n + view.layer
    counts = view.counts_per_layer.ravel()
    mean: NDArray[np.float64] = (view.energy_per_layer.ravel() / np.maximum(counts, 1))[where]
    return mean
