"""How AllShowers is fitted: points by flow matching with noise matched to them in each layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calogen.data.showers import Showers
from calogen.methods.matching import match
from calogen.systems.bespoke_stage import FlowProblem
from calogen.systems.layer_stages import LayerFlowStage
from calogen.systems.particles import is_hadronic
from calogen.systems.section_points import PLANE_AND_ENERGY, Given, LayerPoints
from calogen.train import Batch, LearnedStage, Plan
from calogen.train.streams import numpy_stream

if TYPE_CHECKING:
    from calogen.systems.allshowers import AllShowers


class Companion(NamedTuple):
    """A system for another detector that has the same transformer, and the showers it is to learn there."""

    system: AllShowers
    showers: Showers
    validation: Showers | None


class PointsStage(LearnedStage):
    """Fit the points' transform and flow, given the layers of Geant4.

    With companions every batch has about as many of their points, of showers drawn at random, and the loss of the batch
    is the sum of the mean losses of all detectors. A system that was a companion holds the transformer.
    """

    name = "points"

    def __init__(self, system: AllShowers, plan: Plan) -> None:
        self.system, self.plan = system, plan
        self.model = nn.ModuleDict({"transform": system.points, "flow": system.point_flow})
        self.layers = LayerFlowStage(system, "layers", 0, plan)
        self.wholes: dict[int, tuple[Showers, Tensor]] = {}
        self.companions = [(c, PointsStage(c.system, plan)) for c in system.companions]
        self.train: Showers | None = None

    def trainable(self) -> list[nn.Parameter]:
        """The transformer, unless it is another system's."""
        return [] if self.system.main is not None else super().trainable()

    def prepare(self, showers: Showers) -> None:
        """Fit the transform on all training points; for companions all that tells the transformer of a shower."""
        self.train = showers
        for companion, stage in self.companions:
            other = companion.system
            other.particles.take(self.system.particles)  # energies mean the same to one transformer
            LayerFlowStage(other, "layers", 0, self.plan).prepare(companion.showers)
            for part in (other.particles, other.layer_flow.targets, other.points, other.point_flow):
                part.to(self.system.particles.mean.device)
            stage.prepare(companion.showers)
        view = self.system.view(showers)
        self.system.points.fit(LayerPoints(view.x, view.y, view.energy), given_of(view))

    def counts(self, showers: Showers) -> NDArray[np.integer]:
        """Points of the showers as they are viewed."""
        return self.system.view(showers).counts

    def batch(self, showers: Showers, indices: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        """Latent points and noise [P, 3], conditions [n, C], points [n], of each detector, one behind the other."""
        batch = self._batch(showers, indices, rng)
        points = int(batch[3].sum())
        for companion, stage in self.companions:
            held_out = None if showers is self.train else companion.validation
            others = companion.showers if held_out is None else held_out
            drawn = rng.integers(len(others), size=len(indices))
            room = np.cumsum(stage.counts(others)[drawn]) <= points
            batch = (*batch, *stage._batch(others, drawn[: max(1, int(room.sum()))], rng))
        return batch

    def _batch(self, showers: Showers, indices: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        """Of one detector: points of Geant4, layer by layer."""
        view = self.system.view(showers)[indices]
        points = LayerPoints(view.x, view.y, view.energy)
        latent = self.system.points.encode(points, given_of(view)).cpu()
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
        """Mean squared error of the velocity [N]; to each is added the (weighted) mean of the other detectors."""
        loss = self._loss(batch[:MEMBERS])
        for k, (_, stage) in enumerate(self.companions, start=1):
            own = batch[k * MEMBERS : (k + 1) * MEMBERS]
            weights = stage.weights(own).to(loss)
            loss = loss + (stage._loss(own) * weights).sum() / weights.sum().clamp(min=1.0)
        return loss

    def _loss(self, batch: Batch) -> Tensor:
        x, noise, condition, counts = batch
        return self.system.point_flow.loss(x, condition, counts, noise=noise)

    def weights(self, batch: Batch) -> Tensor:
        """Showers weigh as the square root of their points: neither the few bright nor the many faint ones rule."""
        weights: Tensor = batch[3].float().sqrt()
        return weights


MEMBERS = 4
"""Tensors of the batch of one detector."""


def given_of(view: Showers) -> Given:
    """What Geant4's showers tell of their points before they are drawn."""
    n = view.detector.n_layers
    where = view.shower_index * n + view.layer
    counts = view.counts_per_layer.ravel()
    mean = (view.energy_per_layer.ravel() / np.maximum(counts, 1))[where]
    return Given(view.layer, is_hadronic(view.incident.pdg)[view.shower_index], mean)
