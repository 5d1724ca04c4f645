"""How the published CaloHadronic shows showers to its networks: its constants, kept for its weights.

From the authors' code (CaloHadronic) and the checkpoint of its point counts. Features of points are in their order,
x, layer, y, energy. Counts were divided by the largest of the batch there, so that a shower depended on its batch; here
by the largest of the training showers.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from calogen.data.incident import Incident
from calogen.systems.particles import Particles
from calogen.systems.points import Points, PointTransform
from calogen.units import GEV_PER_MEV

COUNTS_ENERGY_GEV = 90.1395492553711  # the flow of the counts sees E / this (the largest of their training showers)
COUNTS_OFFSET = 1e-20  # counts enter as ln(n + this) / COUNTS_LOG
COUNTS_LOG = 6.400257445308821
COUNTS_WIDTHS = (128, 256, 512, 256, 128)
POINTS_ENERGY_GEV = 50.0  # the points' networks see 2 E / 100 GeV - 1
HALF_WIDTH_MM = 450.0  # x and y from -450 to 450 mm become -1 to 1
LAYER_SPREAD = 0.49  # layers are spread over ± this, before 0 to L become -1 to 1
ENERGY_OFFSET_MEV = 1e-20  # energies enter as (ln(e + this) - mean) / std


class LogEnergy(NamedTuple):
    """Mean and standard deviation of ln(e / MeV), as typed in the authors' code."""

    mean: float
    std: float


LOG_ENERGY = {"ecal": LogEnergy(-1.3037328, 1.1088891), "hcal": LogEnergy(-1.8573549, 1.7792583)}


class FixedEnergy(Particles):
    """E / `COUNTS_ENERGY_GEV`, whatever the training showers are."""

    def __init__(self) -> None:
        super().__init__(logarithm=False, directions=False, kinds=False)
        self.std.fill_(COUNTS_ENERGY_GEV)

    def fit(self, incident: Incident) -> None:
        """Nothing: the scale is a constant."""


def point_energy(incident: Incident, like: Tensor) -> Tensor:
    """The energy as the points' networks see it, [N, 1]."""
    energy = torch.from_numpy(np.asarray(incident.energy, dtype=np.float32)).to(like)
    return (energy / POINTS_ENERGY_GEV - 1)[:, None]


class BoxPoints(PointTransform):
    """x, layer and y of a section scaled to a box from -1 to 1, ln e standardised.

    Args:
        section: ecal or hcal.
        layers: of the section.
    """

    log_energy: Tensor

    def __init__(self, section: str, layers: int) -> None:
        super().__init__()
        self.layers = layers
        self.register_buffer("log_energy", torch.tensor(LOG_ENERGY[section]))

    def encode(self, points: Points, u: Tensor) -> Tensor:
        """See `PointTransform`; depth is the layer within the section."""
        depth = points.depth + LAYER_SPREAD * (2 * u - 1)
        mean, std = self.log_energy
        energy = ((points.energy / GEV_PER_MEV + ENERGY_OFFSET_MEV).log() - mean) / std
        x, y = points.x / HALF_WIDTH_MM, points.y / HALF_WIDTH_MM
        return torch.stack([x, 2 * depth / self.layers - 1, y, energy], dim=1).to(self.log_energy)

    def decode(self, latent: Tensor) -> Points:
        """See `PointTransform`."""
        x, depth, y, energy = latent.unbind(1)
        return Points(x * HALF_WIDTH_MM, y * HALF_WIDTH_MM, depth, self._mev(energy) * GEV_PER_MEV)

    def _mev(self, standard: Tensor) -> Tensor:
        mean, std = self.log_energy
        return (standard * std + mean).clamp(max=LARGEST_LOG).exp()

    def with_energies(self, latent: Tensor) -> Tensor:
        """Points as the HCal's network is given those of the ECal: with e in MeV, not its logarithm."""
        return torch.cat([latent[:, :3], self._mev(latent[:, 3:])], dim=1)


LARGEST_LOG = math.log(1e12)
"""Keeps energies finite, whatever an untrained network says."""
