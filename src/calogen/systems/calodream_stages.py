"""How CaloDREAM is fitted: energies of the layers, shapes within them, and the autoencoder in front of these."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calogen.data.projection import voxelize
from calogen.data.showers import Showers
from calogen.systems.bespoke_stage import FlowProblem
from calogen.systems.shape_spaces import LatentSpace
from calogen.train import Batch, LearnedStage, Plan
from calogen.train.streams import numpy_stream

if TYPE_CHECKING:
    from calogen.systems.calodream import CaloDream

AT_ONCE = 256
"""Showers whose cells are in memory together while transforms are fitted: 40 MB of the largest of the CaloChallenge."""


def cells_of(showers: Showers) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Energies [N, V] GeV in the detector's cells, and incident energies [N] GeV."""
    voxels, _ = voxelize(showers)
    return voxels.energy, showers.incident.energy


def in_batches(showers: Showers) -> Iterator[tuple[NDArray[np.float32], NDArray[Any]]]:
    """The cells of all showers, `AT_ONCE` at a time."""
    for start in range(0, len(showers), AT_ONCE):
        yield cells_of(showers[np.arange(start, min(start + AT_ONCE, len(showers)))])


class _VoxelStage(LearnedStage):
    """What the stages share: showers as targets, made batch by batch."""

    def __init__(self, system: CaloDream, plan: Plan) -> None:
        self.system, self.plan = system, plan

    def cells(
        self, showers: Showers, indices: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """`cells_of` some of the showers, turned at random where the system learns so."""
        energy, incident = cells_of(showers[indices])
        return (energy if self.system.turns is None else self.system.turns(energy, rng)), incident


class EnergiesStage(_VoxelStage):
    """Fit the transforms, and the flow of the layers' energies."""

    name = "energies"

    def __init__(self, system: CaloDream, plan: Plan) -> None:
        super().__init__(system, plan)
        self.model = nn.ModuleDict({"domain": system.domain, "targets": system.targets, "flow": system.energy_flow})
        self.profiles: dict[int, tuple[Showers, Tensor, Tensor]] = {}

    def prepare(self, showers: Showers) -> None:
        """Fit domain and transforms; refuses showers of several kinds, or inclined ones that look alike to it."""
        species = np.unique(showers.incident.pdg)
        if len(species) > 1:
            raise ValueError(
                f"showers of particles {species.tolist()}: this system learns one kind, it cannot tell them"
            )
        self.system.require_upright(showers.incident)
        self.model.to("cpu")  # where the showers are
        self.system.domain.fit(showers.incident)
        self.system.targets.fit(in_batches(showers), numpy_stream(self.name, "noise"))
        if self.system.turns is not None and self.system.targets.marginals is None:
            self.system.turns.average(self.system.targets.shape)

    def batch(self, showers: Showers, indices: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        """What the flow learns [N, L] and is given [N, 1]; there is nothing random in it, so it is made once."""
        held = self.profiles.get(id(showers))
        if held is None or held[0] is not showers:
            x, c = self._all(showers)
            self.profiles[id(showers)] = held = (showers, x, c)
        return held[1][indices], held[2][indices]

    def _all(self, showers: Showers) -> tuple[Tensor, Tensor]:
        targets = self.system.targets
        made = [targets.encode_energies(*part) for part in in_batches(showers)]
        x, c = (torch.cat(parts).cpu() for parts in zip(*made, strict=True))
        return x, c

    def loss(self, batch: Batch) -> Tensor:
        """Mean squared error of the velocity [N]."""
        x, c = batch
        return self.system.energy_flow.loss(x, c)

    def flow_of(self, showers: Showers, indices: NDArray[np.int64], rng: np.random.Generator) -> FlowProblem:
        """The flow of all layers of some showers, each given Geant4's layers before it, for a solver."""
        x, c = (part.to(self.system.targets.energy.shift.device) for part in self.batch(showers, indices, rng))
        noise = torch.from_numpy(rng.standard_normal(tuple(x.shape), dtype=np.float32)).to(x)
        ones = torch.ones(len(x), dtype=torch.int64, device=x.device)
        return FlowProblem(self.system.energy_flow.velocity(x, c), noise, ones)


class AutoencoderStage(_VoxelStage):
    """Fit the autoencoder of the latent form: shares of voxels to latent numbers and back."""

    name = "code"

    def __init__(self, system: CaloDream, space: LatentSpace, plan: Plan) -> None:
        super().__init__(system, plan)
        self.space, self.model = space, space.network

    def batch(self, showers: Showers, indices: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        """Shares [N, layers, angles, radii] and conditions [N, 1 + L]."""
        return self.space.shares(*self.cells(showers, indices, rng))

    def loss(self, batch: Batch) -> Tensor:
        """Binary cross-entropy + β KL [N]."""
        return self.space.loss(*batch)


class ShapesStage(_VoxelStage):
    """Fit the flow of the shares of voxels in their layers, or of their latent numbers, given the layers of Geant4."""

    name = "shapes"

    def __init__(self, system: CaloDream, plan: Plan) -> None:
        super().__init__(system, plan)
        learned: dict[str, nn.Module] = {"flow": system.shape_flow}
        if isinstance(system.space, LatentSpace):
            learned["scale"] = system.space.scale
        self.model = nn.ModuleDict(learned)

    def prepare(self, showers: Showers) -> None:
        """Scale the latent numbers, of which the autoencoder is final now."""
        if isinstance(self.system.space, LatentSpace):
            self.system.space.module.eval()
            self.system.space.fit(in_batches(showers), numpy_stream(self.name, "noise"))

    def batch(self, showers: Showers, indices: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        """What the flow learns [N, F], is given [N, 1 + L], and what is known of empty voxels [N, F] if it matters."""
        made = self.system.space.encode(*self.cells(showers, indices, rng), rng)
        return (made.x, made.condition) if made.edge is None else (made.x, made.condition, made.edge)

    def loss(self, batch: Batch) -> Tensor:
        """Mean squared error of the velocity [N]."""
        x, c, *edge = batch
        return self.system.shape_flow.loss(x, c, edge=edge[0] if edge else None)

    def flow_of(self, showers: Showers, indices: NDArray[np.int64], rng: np.random.Generator) -> FlowProblem:
        """The flow of the shapes of some showers, for a solver."""
        x, condition, _ = self.system.space.encode(*cells_of(showers[indices]), numpy_stream(self.name, "layers"))
        noise = torch.from_numpy(rng.standard_normal(tuple(x.shape), dtype=np.float32)).to(condition)
        ones = torch.ones(len(noise), dtype=torch.int64, device=noise.device)
        return FlowProblem(self.system.shape_flow.velocity(condition, ones), noise, ones)
