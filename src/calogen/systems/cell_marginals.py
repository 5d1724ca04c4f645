"""The share of a voxel in its layer as a normal number, by the distribution it has in layers of that energy.

A voxel is empty in most showers, and has at least what one particle leaves when it is not. On the logit of its share
(CaloDREAM, arXiv:2405.09629, eq. 3) that is two clouds far apart, and a flow that is not trained to perfection fills
the gap. Here the voxel's own distribution F maps both to one bell,

    x = Φ⁻¹(F(share)),  where an empty voxel, with probability F(0) = p₀, is anywhere below: x = Φ⁻¹(p₀ · uniform),

so each voxel alone is right before anything is trained, and a flow learns how voxels hang together. F is that of all
voxels alike (one ring of a layer), interpolated in the logarithm of the layer's energy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calogen.detector.geometry import Detector, PolarCells
from calogen.systems.voxel_shares import VoxelLayers

BINS = 16
"""Energies of a layer at which distributions are stored; with equal numbers of showers in between."""
QUANTILES = 33
"""Of the logarithm of a share, closer towards both ends: (1 - cos(π j / 32)) / 2."""
END = 1e-4
"""Probability that a normal number keeps beyond the least and the largest share seen."""
FEWEST = 16
"""With fewer filled voxels the quantiles are those of the next larger group: all energies, then the layer, then all."""
UNSEEN = 0.5
"""Filled voxels that count as seen where there were none, and empty ones where all were filled: Jeffreys' prior."""
SHOWERS = 20_000
"""Of which distributions are made, the first of those it is given: their filled voxels are in memory together."""


def alike(detector: Detector) -> list[int]:
    """The group of each voxel [V]: one for each ring of a layer; of square cells, those as far from the middle in x and
    y, or y and x. A shower of normal incidence tells none from another of its group."""
    groups: list[NDArray[np.int64]] = []
    for layer in detector.layers:
        cells, index = layer.cells, np.arange(layer.cells.n_cells)
        if isinstance(cells, PolarCells):
            key = index % cells.n_r
        else:
            x, y = (np.abs(np.rint(2 * part / cells.pitch_mm)).astype(np.int64) for part in cells.centre(index))
            key = np.maximum(x, y) * (1 + int(max(x.max(), y.max()))) + np.minimum(x, y)
        own = np.unique(key, return_inverse=True)[1]
        groups.append(own + (0 if not groups else int(groups[-1].max()) + 1))
    return np.concatenate(groups).tolist()


class CellMarginals(nn.Module):
    """Shares of voxels to normal numbers and back; everything fitted is a buffer.

    Args:
        cells_per_layer: voxels of each layer.
        groups: of each voxel [V], see `alike`; no group has voxels of two layers.
    """

    group: Tensor
    layer: Tensor
    at: Tensor
    filled: Tensor
    shares: Tensor

    def __init__(self, cells_per_layer: Sequence[int], groups: Sequence[int]) -> None:
        super().__init__()
        self.layers = VoxelLayers(cells_per_layer)
        layer_of_voxel = torch.repeat_interleave(torch.tensor(list(cells_per_layer)))
        group = torch.tensor(list(groups))
        if len(group) != len(layer_of_voxel):
            raise ValueError(f"{len(layer_of_voxel)} voxels need as many groups, not {len(group)}")
        layer = torch.zeros(int(group.max()) + 1, dtype=torch.int64).scatter(0, group, layer_of_voxel)
        if not torch.equal(layer[group], layer_of_voxel):
            raise ValueError("a group has voxels of several layers")
        self.register_buffer("group", group, persistent=False)
        self.register_buffer("layer", layer, persistent=False)
        self.register_buffer("at", torch.zeros(len(cells_per_layer), BINS, dtype=torch.float64))
        self.register_buffer("filled", torch.full((len(layer), BINS), 0.5))
        self.register_buffer("shares", torch.zeros(len(layer), BINS, QUANTILES))

    def forward(self, within: Tensor, layers_gev: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Shares [N, V], energies of the layers [N, L] GeV and uniform numbers in [0, 1) [N, V] -> normal numbers.

        Returns:
            x [N, V], and for each empty voxel the largest that x could have been, NaN for the others [N, V].
        """
        filled, table = self._tables(layers_gev)
        part = filled.index_select(1, self.group)  # probability to be filled
        beyond = part + (1 - part) * (1 - uniform.double().clamp(min=SMALLEST))  # of numbers larger than this one
        shower, voxel = (within > 0).nonzero(as_tuple=True)
        place = self._place(table, shower, voxel, within[shower, voxel].double().log())
        p = END + (1 - 2 * END) * (1 - torch.cos(math.pi * place / (QUANTILES - 1))) / 2
        beyond[shower, voxel] = part[shower, voxel] * (1 - p)
        edge = -torch.special.ndtri(filled)
        edges = edge.index_select(1, self.group).index_put((shower, voxel), edge.new_tensor(torch.nan))
        return -torch.special.ndtri(beyond).to(within.dtype), edges.to(within.dtype)

    def inverse(self, x: Tensor, layers_gev: Tensor) -> Tensor:
        """Normal numbers [N, V], energies of the layers [N, L] GeV -> shares [N, V]; they need not add up to one.

        A layer with energy has a filled voxel: where none is drawn it is the one that is nearest to be, which each is
        with a probability in proportion to that of being filled.
        """
        filled, table = self._tables(layers_gev)
        beyond = torch.special.ndtr(-x.double())
        part = filled.index_select(1, self.group)
        beyond = self._with_one(beyond, part)
        shower, voxel = (beyond < part).nonzero(as_tuple=True)
        p = ((1 - beyond[shower, voxel] / part[shower, voxel] - END) / (1 - 2 * END)).clamp(0, 1)
        place = torch.acos(1 - 2 * p) * (QUANTILES - 1) / math.pi
        below = place.floor().clamp(max=QUANTILES - 2)
        first = self._first(shower, voxel) + below.long()
        flat = table.flatten()
        low, high = flat[first], flat[first + 1]
        out = torch.zeros_like(beyond)
        out[shower, voxel] = (low + (place - below) * (high - low)).exp()
        return out.to(x.dtype)

    def _with_one(self, beyond: Tensor, part: Tensor) -> Tensor:
        """Move the voxel nearest to be filled over the edge, in each layer that has energy and none that is."""
        ratio = beyond / part  # infinite where the layer is empty
        nearest = torch.cat([x.amin(-1) for x in self.layers.split(ratio)], dim=1)
        alone = (nearest >= 1) & torch.isfinite(nearest)
        limit = [n.unsqueeze(-1) for n in torch.where(alone, nearest, -1.0).split([k for k, _ in self.layers.runs], 1)]
        hit = [x <= n for x, n in zip(self.layers.split(ratio), limit, strict=True)]
        return torch.where(torch.cat([h.flatten(1) for h in hit], 1), part * HALF, beyond)

    def _tables(self, layers_gev: Tensor) -> tuple[Tensor, Tensor]:
        """Of each shower the probabilities to be filled [N, G] and the quantiles [N, G, Q] at its layers' energies."""
        ln = layers_gev.double().clamp(min=SMALLEST).log().T.contiguous()  # [L, N]
        right = torch.searchsorted(self.at, ln).clamp(1, BINS - 1)
        low, high = self.at.gather(1, right - 1), self.at.gather(1, right)
        share = torch.where(high > low, (ln - low) / (high - low), 0.0).clamp(0, 1)
        right, share = right.T[:, self.layer], share.T[:, self.layer]  # [N, G]
        own = torch.arange(len(self.layer), device=right.device)
        filled = torch.lerp(self.filled[own, right - 1].double(), self.filled[own, right].double(), share)
        filled = torch.where(layers_gev[:, self.layer] > 0, filled, 0.0)
        table = torch.lerp(self.shares[own, right - 1].double(), self.shares[own, right].double(), share[..., None])
        return filled, table

    def _first(self, shower: Tensor, voxel: Tensor) -> Tensor:
        """Where a voxel's quantiles begin in the flat table."""
        return (shower * len(self.layer) + self.group[voxel]) * QUANTILES

    def _place(self, table: Tensor, shower: Tensor, voxel: Tensor, value: Tensor) -> Tensor:
        """Where values lie among their quantiles, in [0, Q - 1]: a search by halves, for all at once."""
        first, flat = self._first(shower, voxel), table.flatten()
        low, width = torch.zeros_like(first), QUANTILES - 1
        while width > 1:
            width //= 2
            low = torch.where(flat[first + low + width] <= value, low + width, low)
        left, right = flat[first + low], flat[first + low + 1]
        share = torch.where(right > left, (value - left) / torch.where(right > left, right - left, 1.0), 0.5)
        return low + share.clamp(0, 1)

    def fit(self, layers_gev: NDArray[np.float64], hits: Hits) -> None:
        """Set the distributions.

        Args:
            layers_gev: energies of the layers [N, L].
            hits: the filled voxels of these showers.
        """
        groups, device = len(self.layer), self.at.device
        edges, at = zip(*(_bins(column) for column in layers_gev.T), strict=True)
        self.at.copy_(torch.from_numpy(np.stack(at)))
        bins = np.stack([np.searchsorted(e, column) for e, column in zip(edges, layers_gev.T, strict=True)], axis=1)
        group, layer = self.group.cpu().numpy(), self.layer.cpu().numpy()
        voxels = np.bincount(group, minlength=groups)
        rows = np.stack([np.bincount(bins[layers_gev[:, k] > 0, k], minlength=BINS) for k in range(len(at))])
        cells = rows[layer] * voxels[:, None]  # [G, BINS]
        shower, voxel, share = hits.packed()
        own = group[voxel]
        segment = own * BINS + bins[shower, layer[own]]
        counts = np.bincount(segment, minlength=groups * BINS).reshape(groups, BINS)
        filled = np.clip(counts, UNSEEN, np.maximum(cells - UNSEEN, UNSEEN)) / np.maximum(cells, 1)
        self.filled.copy_(torch.from_numpy(filled))
        levels = [np.zeros_like(own), layer[own], own, segment]
        sizes = [1, len(at), groups, groups * BINS]
        tables = [_quantiles(np.log(share), key, n) for key, n in zip(levels, sizes, strict=True)]
        wider = [np.zeros(groups * BINS, dtype=np.int64), np.repeat(layer, BINS), np.repeat(np.arange(groups), BINS)]
        chosen = tables[0][0][wider[0]]
        for (table, n), key in zip(tables[1:], [*wider[1:], np.arange(groups * BINS)], strict=True):
            chosen = np.where((n[key] >= FEWEST)[:, None], table[key], chosen)
        self.shares.copy_(torch.from_numpy(chosen.reshape(groups, BINS, QUANTILES)).to(device))


class Hits:
    """Filled voxels, packed: the shower and the voxel of each, and its share of the layer."""

    def __init__(self) -> None:
        self.showers = 0
        self.parts: list[tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]] = []

    def add(self, within: Tensor) -> None:
        """Shares [N, V] of further showers."""
        shares = within.cpu().numpy()
        shower, voxel = np.nonzero(shares > 0)
        share = shares[shower, voxel].astype(np.float32)
        self.parts.append(((shower + self.showers).astype(np.int32), voxel.astype(np.int32), share))
        self.showers += len(within)

    def packed(self) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
        """Showers, voxels and shares of all [H]."""
        shower, voxel, share = (np.concatenate(column) for column in zip(*self.parts, strict=True))
        return shower, voxel, share


HALF = 0.5
"""Of the probability to be filled: a voxel that is the only one of its layer is in the middle of its distribution."""
SMALLEST = 1e-12
"""Stands for zero in logarithms and at the lower end of uniform numbers."""


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


def _quantiles(
    values: NDArray[np.float32], key: NDArray[np.int64], n: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Quantiles [n, Q] of the values of each key < n, zero where there are none, and how many there are [n]."""
    counts = np.bincount(key, minlength=n)
    ordered = np.append(values[np.lexsort((values, key))].astype(np.float64), 0.0)
    p = (1 - np.cos(np.pi * np.arange(QUANTILES) / (QUANTILES - 1))) / 2
    place = p * np.maximum(counts - 1, 0)[:, None]
    first = (np.cumsum(counts) - counts)[:, None]
    below = np.minimum(first + place.astype(np.int64), len(values))
    above = np.minimum(below + 1, np.maximum(first + counts[:, None] - 1, 0))
    out = ordered[below] + (place - np.floor(place)) * (ordered[above] - ordered[below])
    return np.where(counts[:, None] > 0, out, 0.0), counts
