"""Points of upright showers as the vectors a point model learns: x, y, depth, energy, and back."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calogen.gaussianize import GaussianQuantiles, LayerQuantiles, RadialQuantiles

FEATURES = 4


def across(
    x: NDArray[Any], y: NDArray[Any], direction: NDArray[Any], counts: NDArray[Any], *, back: bool = False
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Upright points `[P]` mm seen across the particle's axis instead of along the layers, or `back`.

    A layer cuts an inclined shower at a slant: lengths in the plane of incidence appear 1/p_z longer. Shortened by
    p_z (direction `[N, 3]`, `counts` points each), radii hardly depend on the angle: from 0 to 60 degrees
    their median changes by 7 % instead of 50 %.
    """
    p_x, p_y, p_z = direction.astype(np.float64).T
    p_t = np.hypot(p_x, p_y)
    inclined = p_t > LEAST_INCLINATION
    u_x = np.divide(p_x, p_t, out=np.ones_like(p_t), where=inclined)
    u_y = np.divide(p_y, p_t, out=np.zeros_like(p_t), where=inclined)
    stretch = (1 / p_z if back else p_z) - 1
    along = x * np.repeat(u_x, counts) + y * np.repeat(u_y, counts)
    return x + np.repeat(stretch * u_x, counts) * along, y + np.repeat(stretch * u_y, counts) * along


LEAST_INCLINATION = 1e-6
"""Sine of the angle below which there is no plane of incidence (and nothing to stretch)."""


class Points(NamedTuple):
    """Packed points `[P]`: x, y mm about the axis, depth (any scale that rises with the layer), energy GeV."""

    x: Tensor
    y: Tensor
    depth: Tensor
    energy: Tensor


class PointTransform(nn.Module):
    """Points as the latent vectors of a diffusion model, of standard deviation about `sigma_data`, and back."""

    def fit(self, points: Points) -> None:
        """Take scales from training points, whose depth is the layer number [P]."""

    @abstractmethod
    def encode(self, points: Points, u: Tensor) -> Tensor:
        """Points with whole layers as depth -> latent [P, 4]; u [P] in [0, 1) is the place within the layer."""

    @abstractmethod
    def decode(self, latent: Tensor) -> Points:
        """Latent [P, 4] -> points."""


class FittedPoints(PointTransform):
    """Each of radius, depth and ln energy made normal by its fitted quantiles, angle in the plane kept.

    Args:
        layers: number of layers.
        sigma_data: standard deviation of the latent.
    """

    def __init__(self, layers: int, sigma_data: float) -> None:
        super().__init__()
        self.radial = RadialQuantiles()
        self.layers = LayerQuantiles(layers)
        self.energies = GaussianQuantiles(1)
        self.sigma_data = sigma_data

    def fit(self, points: Points) -> None:
        """See `PointTransform`."""
        self.radial.fit(torch.stack([points.x, points.y], dim=1))
        self.layers.fit(points.depth)
        self.energies.fit(points.energy.log()[:, None])

    def encode(self, points: Points, u: Tensor) -> Tensor:
        """See `PointTransform`."""
        plane = self.radial(torch.stack([points.x, points.y], dim=1))
        depth = self.layers(points.depth, u)
        energy = self.energies(points.energy.log()[:, None])
        return self.sigma_data * torch.cat([plane, depth[:, None], energy], dim=1)

    def decode(self, latent: Tensor) -> Points:
        """See `PointTransform`."""
        z = latent / self.sigma_data
        plane = self.radial.inverse(z[:, :2])
        return Points(plane[:, 0], plane[:, 1], z[:, 2], self.energies.inverse(z[:, 3:]).flatten().exp())


class LinearPoints(PointTransform):
    """(value - mean) / std / 2 of x, y, layer and ln energy, with constants given: the published normalisation."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def encode(self, points: Points, u: Tensor) -> Tensor:
        """See `PointTransform`; layers stay whole, as published."""
        log_energy = (points.energy + PUBLISHED_EPSILON_GEV).log()
        return (torch.stack([points.x, points.y, points.depth, log_energy], dim=1) - self.mean) / self.std / 2

    def decode(self, latent: Tensor) -> Points:
        """See `PointTransform`."""
        x, y, depth, log_energy = (latent * 2 * self.std + self.mean).unbind(1)
        return Points(x, y, depth, log_energy.exp())


PUBLISHED_EPSILON_GEV = 1e-12
"""Added to energies before the logarithm in the CaloClouds3 code."""
