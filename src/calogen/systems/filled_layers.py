"""How many voxels of each layer are filled: of one layer by its energy, of all together by a linear model.

The number n of a layer is a normal number x by the distribution it has in layers of that energy. Given the energies of
all layers, the x of a shower are normal to good approximation: their means are linear in features of the energies,
their correlations those that are left,

    x = W φ(energies) + R ε,  ε standard normal.

This is fitted in closed form. A flow of a few thousand showers finds less: what is common to deep layers of few voxels
is small beside the noise of each.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calogen.systems.energy_tables import BINS, END, QUANTILES, Energies, EnergyBins, levels, probability, quantile
from calogen.transforms import finite

MARGIN = 0.01
"""Of the unit that stands for a number of filled voxels, what is left out at both ends."""
RIDGES = (3.0, 30.0, 300.0)
"""Showers that the prior of the weights (each 0 for a standardised feature) counts as: the best is taken."""
LEAST_VARIANCE = 1e-4
"""Added to each variance, so that there is a square root."""


class FilledLayers(nn.Module):
    """Numbers of filled voxels n [N, L] <-> normal numbers x [N, L], and x drawn for energies; all buffers.

    Args:
        cells_per_layer: voxels of each layer.
        bins: energies at which distributions are stored.
    """

    cells: Tensor
    counts: Tensor
    shift: Tensor
    scale: Tensor
    weights: Tensor
    root: Tensor

    def __init__(self, cells_per_layer: list[int], bins: EnergyBins) -> None:
        super().__init__()
        layers, self._bins = len(cells_per_layer), [bins]  # in a list: its buffers are stored elsewhere
        features = 3 + 4 * layers
        self.register_buffer("cells", torch.tensor(cells_per_layer).double(), persistent=False)
        self.register_buffer("counts", torch.ones(layers, BINS, QUANTILES))
        self.register_buffer("shift", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.register_buffer("weights", torch.zeros(1 + features, layers))
        self.register_buffer("root", torch.eye(layers))

    def x(self, n: Tensor, energies: Energies, uniform: Tensor) -> Tensor:
        """Numbers n [N, L] -> x [N, L]; `uniform` [N, L] tells where within the unit that stands for n. Where there is
        no energy x is anywhere."""
        shower, layer = (n > 0).nonzero(as_tuple=True)
        out = END + (1 - 2 * END) * uniform.double()
        inside = MARGIN + (1 - 2 * MARGIN) * uniform.double()  # so that round-off makes no other number of it
        value = (n - inside)[shower, layer]  # a number n stands for all between n - 1 and n
        out[shower, layer] = probability(energies.of(self.counts), shower, layer, value)
        return torch.special.ndtri(out)

    def level(self, n: Tensor, energies: Energies) -> Tensor:
        """How many more than usual n [N, L] are, as a normal number [N, L]; nothing is random."""
        return self.x(n, energies, torch.full_like(n, 0.5)).float()

    def n(self, x: Tensor, energies: Energies) -> Tensor:
        """The inverse: x [N, L] -> numbers n [N, L] in double precision, 1 at least where there is energy.

        Raises:
            ValueError: NaN or infinite x.
        """
        place = torch.special.ndtr(finite(x, "drawn numbers of filled voxels").double())
        rows, layers = place.shape
        shower = torch.arange(rows, device=place.device).repeat_interleave(layers)
        layer = torch.arange(layers, device=place.device).repeat(rows)
        value = quantile(energies.of(self.counts), shower, layer, place.flatten()).view(rows, layers)
        n = torch.minimum(value.ceil().clamp(min=1), self.cells)
        return torch.where(energies.gev > 0, n, 0.0)

    def draw(self, noise: Tensor, condition: Tensor, gev: Tensor) -> Tensor:
        """Standard normal `noise` [N, L] -> x [N, L].

        Args:
            noise: ε.
            condition: what the networks are given of the energies [N, 1 + L], see `VoxelTargets`.
            gev: energies of the layers [N, L].
        """
        given = (self.features(condition, gev) - self.shift.double()) / self.scale.double()
        mean = self.weights[0].double() + given @ self.weights[1:].double()
        return (mean + noise.double() @ self.root.double().T).to(noise.dtype)

    def features(self, condition: Tensor, gev: Tensor) -> Tensor:
        """φ [N, F]: powers of the scaled incident energy; of each layer its energy, the square of it, its product with
        the incident one, and its ratio to the energy left."""
        e, z = condition[:, :1].double(), self._bins[0].standardised(gev)
        return torch.cat([e, e**2, e**3, z, z**2, e * z, condition[:, 1:].double()], dim=1)

    def fit(self, n: NDArray[np.int64], bins: NDArray[np.int64]) -> None:
        """Set the distribution of each layer by numbers [N, L] in layers of these bins of energy."""
        self.counts.copy_(torch.from_numpy(_count_quantiles(n, bins)))

    def fit_model(self, n: Tensor, condition: Tensor, gev: Tensor, rng: np.random.Generator) -> None:
        """Set the linear model. Its prior, and what it leaves, are measured on each half of the showers by a model of
        the other."""
        x = self.x(n.double(), self._bins[0](gev), torch.from_numpy(rng.random(tuple(n.shape))).to(gev.device))
        phi = self.features(condition, gev)
        shift, scale = phi.mean(0), phi.std(0).clamp(min=1e-6)
        design = torch.cat([torch.ones_like(phi[:, :1]), (phi - shift) / scale], dim=1)
        left = {ridge: _left(design, x, ridge) for ridge in RIDGES}
        ridge = min(left, key=lambda r: float((left[r] ** 2).mean()))
        covariance = torch.cov(left[ridge].T).view(len(self.root), -1)
        root = torch.linalg.cholesky(covariance + LEAST_VARIANCE * torch.eye(len(self.root), device=x.device))
        for buffer, value in (
            (self.shift, shift),
            (self.scale, scale),
            (self.weights, _solved(design, x, ridge)),
            (self.root, root),
        ):
            buffer.copy_(value)


def _solved(design: Tensor, x: Tensor, ridge: float) -> Tensor:
    prior = torch.full((design.shape[1],), ridge, dtype=design.dtype, device=design.device)
    prior[0] = 0.0  # the mean
    return torch.linalg.solve(design.T @ design + torch.diag(prior), design.T @ x)


def _left(design: Tensor, x: Tensor, ridge: float) -> Tensor:
    """What is left of x [N, L] of each half by weights of the other."""
    half = torch.arange(len(x), device=x.device) % 2 == 0
    out = torch.empty_like(x)
    for own in (half, ~half):
        out[own] = x[own] - design[own] @ _solved(design[~own], x[~own], ridge)
    return out


def _count_quantiles(n: NDArray[np.int64], bins: NDArray[np.int64]) -> NDArray[np.float64]:
    """Quantiles [L, BINS, Q] of n - uniform, for numbers n [N, L] of filled voxels in layers of these bins of energy.

    That distribution is a straight line between one integer and the next. A bin without layers has that of all
    energies, and a layer that never has energy that of n = 1.
    """
    p = levels()
    out = np.tile(p, (n.shape[1], BINS, 1))
    for layer, b in itertools.product(range(n.shape[1]), range(BINS)):
        some = n[:, layer] > 0
        here = some & (bins[:, layer] == b)
        own = n[here if here.any() else some, layer]
        if len(own):
            below = np.cumsum(np.bincount(own)) / len(own)
            step = np.diff(below, prepend=0.0) > 0
            step[:-1] |= step[1:]  # an integer that is not hit itself may be where the next line begins
            out[layer, b] = np.interp(p, below[step], np.flatnonzero(step))
    return out
