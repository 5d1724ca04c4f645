"""Which drawn cells are too faint to be kept, so that a layer has as many cells with energy as Geant4's."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calogen.data.incident import Incident
from calogen.data.showers import Showers
from calogen.train import Plan, SolvedStage

SHOWERS = 600
"""With some hundred thousand cells in all."""
FEWEST_CELLS = 200
"""With fewer in a layer, of Geant4, its cut is that of all layers together."""


class FaintCut(nn.Module):
    """Energies below which a drawn cell is empty, layer by layer.

    A flow blurs the gap between nothing and the least that a particle deposits: without a cut cells light up there.
    The energy of what is cut goes to the other cells of the layer.

    Args:
        layers: L.
    """

    gev: Tensor

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.register_buffer("gev", torch.zeros(layers, dtype=torch.float64))

    def fit(self, made: Showers, truth: Showers) -> None:
        """Set the cuts from showers drawn without any, and as many of Geant4; none where too few cells were drawn."""
        everywhere = _cut(made.energy, truth.n_points)
        for k in range(len(self.gev)):
            own, cells = made.energy[made.layer == k], int((truth.layer == k).sum())
            self.gev[k] = _cut(own, cells) if cells >= FEWEST_CELLS else everywhere


def _cut(energy: NDArray[Any], cells: int) -> float:
    """The energy that so many of the cells exceed, half way to the next."""
    if cells >= len(energy):
        return 0.0
    ordered = np.partition(energy, (len(energy) - cells - 1, len(energy) - cells))
    return float(ordered[len(energy) - cells - 1 : len(energy) - cells + 1].mean())


class Cutting(Protocol):
    """What the stage needs of a system."""

    faint: FaintCut

    def sample(self, incident: Incident, *, seed: int) -> Showers:
        """See `System`; a point is a cell."""
        ...


class FaintCutStage(SolvedStage):
    """Fit the cuts to showers of the final networks.

    Args:
        system: the system.
        plan: of which the seed is used.
    """

    name = "calibrate"

    def __init__(self, system: Cutting, plan: Plan) -> None:
        self.system, self.plan = system, plan
        self.model = system.faint

    def solve(self, train: Showers, validation: Showers | None) -> None:
        """Sample the particles of some training showers once."""
        chosen = np.random.default_rng(self.plan.seed).permutation(len(train))[:SHOWERS]
        truth = train[np.sort(chosen)]
        self.system.faint.gev.zero_()
        self.system.faint.fit(self.system.sample(truth.incident, seed=self.plan.seed), truth)
