"""Distributions in a layer that change with its energy: tables at some energies, and what lies between."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

BINS = 16
"""Energies of a layer at which distributions are stored; with equal numbers of showers in between."""
QUANTILES = 33
"""Of a distribution, closer towards both ends: at (1 - cos(π j / 32)) / 2."""
END = 1e-4
"""Probability that is kept beyond the least and the largest value seen."""
SMALLEST = 1e-12
"""Stands for zero in logarithms and quotients."""
FARTHEST_ENERGY = 3.0
"""Standard deviations beyond which a layer's energy counts as no farther where it is a feature."""


class EnergyBins(nn.Module):
    """Energies of each layer at which tables are stored [L, BINS], as logarithms of GeV; a buffer."""

    at: Tensor

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.register_buffer("at", torch.zeros(layers, BINS, dtype=torch.float64))

    def fit(self, layers_gev: NDArray[np.float64]) -> NDArray[np.int64]:
        """Set them by energies of layers [N, L], and tell the bin of each [N, L]."""
        edges, at = zip(*(_bins(column) for column in layers_gev.T), strict=True)
        self.at.copy_(torch.from_numpy(np.stack(at)))
        return np.stack([np.searchsorted(e, column) for e, column in zip(edges, layers_gev.T, strict=True)], axis=1)

    def forward(self, gev: Tensor) -> Energies:
        """Energies of layers [N, L] GeV -> where they are among those of the tables."""
        ln = gev.double().clamp(min=SMALLEST).log().T.contiguous()  # [L, N]
        right = torch.searchsorted(self.at, ln).clamp(1, BINS - 1)
        low, high = self.at.gather(1, right - 1), self.at.gather(1, right)
        share = torch.where(high > low, (ln - low) / (high - low), 0.0).clamp(0, 1)
        return Energies(gev, right.T, share.T)

    def standardised(self, gev: Tensor) -> Tensor:
        """Logarithms of energies [N, L] GeV as standard deviations from the mean, within `FARTHEST_ENERGY`."""
        spread = self.at.std(1).clamp(min=SMALLEST)
        z = (gev.double().clamp(min=SMALLEST).log() - self.at.mean(1)) / spread
        return z.clamp(-FARTHEST_ENERGY, FARTHEST_ENERGY)


class Energies:
    """Energies of layers [N, L] GeV between those at which tables are stored.

    Args:
        gev: the energies.
        right: the next stored one [N, L].
        share: how far each is between the one before and this, 0 to 1 [N, L].
    """

    def __init__(self, gev: Tensor, right: Tensor, share: Tensor) -> None:
        self.gev, self.right, self.share = gev, right, share

    def of(self, stored: Tensor, layer: Tensor | None = None) -> Tensor:
        """Tables [K, BINS, Q], one a layer or each of the layer told [K] -> their rows at these energies [N, K, Q]."""
        right, share = (part if layer is None else part.index_select(1, layer) for part in (self.right, self.share))
        own = torch.arange(len(stored), device=stored.device)
        return torch.lerp(stored[own, right - 1].double(), stored[own, right].double(), share[..., None])


def probability(table: Tensor, shower: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Where values [H] lie in the distributions of their shower and key, of tables [N, K, Q]; within (0, 1)."""
    first, flat = (shower * table.shape[1] + key) * QUANTILES, table.flatten()
    low, width = torch.zeros_like(first), QUANTILES - 1
    while width > 1:  # a search by halves, for all at once
        width //= 2
        low = torch.where(flat[first + low + width] <= value, low + width, low)
    left, right = flat[first + low], flat[first + low + 1]
    share = torch.where(right > left, (value - left) / torch.where(right > left, right - left, 1.0), 0.5)
    place = low + share.clamp(0, 1)
    return END + (1 - 2 * END) * (1 - torch.cos(math.pi * place / (QUANTILES - 1))) / 2


def quantile(table: Tensor, shower: Tensor, key: Tensor, p: Tensor) -> Tensor:
    """The inverse of `probability`: values [H] at probabilities p [H]."""
    inside = ((p - END) / (1 - 2 * END)).clamp(0, 1)
    place = torch.acos(1 - 2 * inside) * (QUANTILES - 1) / math.pi
    below = place.floor().clamp(max=QUANTILES - 2)
    first, flat = (shower * table.shape[1] + key) * QUANTILES + below.long(), table.flatten()
    return flat[first] + (place - below) * (flat[first + 1] - flat[first])


def levels() -> NDArray[np.float64]:
    """The probabilities [Q] of the stored quantiles."""
    return (1 - np.cos(np.pi * np.arange(QUANTILES) / (QUANTILES - 1))) / 2


def quantiles(
    values: NDArray[np.float32], key: NDArray[np.int64], n: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Quantiles [n, Q] of the values of each key < n, zero where there are none, and how many there are [n]."""
    counts = np.bincount(key, minlength=n)
    ordered = np.append(values[np.lexsort((values, key))].astype(np.float64), 0.0)
    place = levels() * np.maximum(counts - 1, 0)[:, None]
    first = (np.cumsum(counts) - counts)[:, None]
    below = np.minimum(first + place.astype(np.int64), len(values))
    above = np.minimum(below + 1, np.maximum(first + counts[:, None] - 1, 0))
    out = ordered[below] + (place - np.floor(place)) * (ordered[above] - ordered[below])
    return np.where(counts[:, None] > 0, out, 0.0), counts


def _bins(gev: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Inner edges [BINS - 1] GeV of equal numbers of layers with energy, and means of ln(energy) in between [BINS]."""
    ln = np.log(gev[gev > 0])
    if not len(ln):
        return np.ones(BINS - 1), np.zeros(BINS)
    edges = np.quantile(ln, np.arange(1, BINS) / BINS)
    inside = np.searchsorted(edges, ln)
    n = np.bincount(inside, minlength=BINS)
    middle = np.quantile(ln, (np.arange(BINS) + 0.5) / BINS)
    mean = np.where(n > 0, np.bincount(inside, weights=ln, minlength=BINS) / np.maximum(n, 1), middle)
    return np.exp(edges), np.maximum.accumulate(mean)
