"""The share of a voxel in its layer as a normal number, by the distribution it has in layers of that energy.

A voxel is empty in most showers, and has at least what one particle leaves when it is not. On the logit of its share
(CaloDREAM, arXiv:2405.09629, eq. 3) that is two clouds far apart, and a flow that is not trained to perfection fills
the gap. Here the voxel's own distribution F maps both to one bell,

    x = Φ⁻¹(F(share)),  where an empty voxel, with probability F(0) = p₀, is anywhere below: x = Φ⁻¹(p₀ · uniform),

so each voxel alone is right before anything is trained, and a flow learns how voxels hang together. F is that of all
voxels alike (one ring of a layer), interpolated in the logarithm of the layer's energy.

How many voxels of a layer are filled, n, is a number of its own, normal in the same way: of independent voxels a layer
that always has two would have none, one, two or three. Given n, the odds of each voxel to be filled are multiplied by
one factor of the layer, so that n are expected (as of independent voxels that are n by chance), and on the way back the
n that are nearest to it are filled. The share that is mapped is that of an average filled voxel, share · n.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calogen.detector.geometry import CartesianCells, Detector, PolarCells
from calogen.systems.voxel_shares import VoxelLayers
from calogen.transforms import finite

BINS = 16
"""Energies of a layer at which distributions are stored; with equal numbers of showers in between."""
QUANTILES = 33
"""Of the logarithm of a share, closer towards both ends: (1 - cos(π j / 32)) / 2."""
END = 1e-4
"""Probability that a normal number keeps beyond the least and the largest share seen."""
FEWEST = 16
"""With fewer filled voxels the quantiles are those of the next larger group: all energies, then the layer, then all."""
UNSEEN = 0.5
"""Filled voxels that count as seen where there were none, and empty ones where all were filled: Jeffreys' prior. At one
energy of several, at most as many as the share of all energies makes expected: rings of few hits would drown in it."""
SHOWERS_FITTED = 20_000
"""Of which distributions are made, the first of those it is given: their filled voxels are in memory together."""
MOST_GROUPS = 20_000
"""Groups of voxels that may have tables of their own: 20 MB of them."""


def alike(detector: Detector) -> list[int]:
    """The group of each voxel [V]: one for each ring of a layer; of square cells that lie symmetrically about the entry
    point, those as far from it in x and y, or y and x. A shower of normal incidence tells none from another of its
    group."""
    groups: list[NDArray[np.int64]] = []
    for layer in detector.layers:
        cells, index = layer.cells, np.arange(layer.cells.n_cells)
        if isinstance(cells, PolarCells):
            key = index % cells.n_r
        else:
            x, y = (np.abs(np.rint(2 * part / cells.pitch_mm)).astype(np.int64) for part in cells.centre(index))
            key = np.maximum(x, y) * (1 + int(max(x.max(), y.max()))) + np.minimum(x, y)
            if not _symmetric(cells):
                key = index
        own = np.unique(key, return_inverse=True)[1]
        groups.append(own + (0 if not groups else int(groups[-1].max()) + 1))
    return np.concatenate(groups).tolist()


def _symmetric(cells: CartesianCells) -> bool:
    """Whether square cells lie about the entry point as in a mirror, in x and in y."""
    sizes = (cells.x_min_mm, cells.n_x), (cells.y_min_mm, cells.n_y)
    return all(math.isclose(2 * low, -n * cells.pitch_mm, rel_tol=1e-9) for low, n in sizes)


class CellMarginals(nn.Module):
    """Shares of voxels to normal numbers and back; everything fitted is a buffer.

    What was not seen at fitting has no number of its own: a share or a number of filled voxels beyond the least and the
    largest at that energy counts as these, and comes back as they are.

    Args:
        cells_per_layer: voxels of each layer.
        groups: of each voxel [V], see `alike`; no group has voxels of two layers.

    Raises:
        ValueError: groups that do not fit the voxels, or too many of them.
    """

    group: Tensor
    layer: Tensor
    voxels: Tensor
    cells: Tensor
    at: Tensor
    filled: Tensor
    shares: Tensor
    counts: Tensor

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
        if len(layer) > MOST_GROUPS:
            raise ValueError(
                f"{len(layer)} groups of voxels would each have tables of their own (limit {MOST_GROUPS}): choose "
                "scaling.shares=logit, or cells that lie symmetrically about the entry point"
            )
        self.register_buffer("group", group, persistent=False)
        self.register_buffer("layer", layer, persistent=False)
        self.register_buffer("voxels", torch.bincount(group).double(), persistent=False)  # of each group
        self.register_buffer("cells", torch.tensor(list(cells_per_layer)).double(), persistent=False)
        self.register_buffer("at", torch.zeros(len(cells_per_layer), BINS, dtype=torch.float64))
        self.register_buffer("filled", torch.full((len(layer), BINS), 0.5))
        self.register_buffer("shares", torch.zeros(len(layer), BINS, QUANTILES, dtype=torch.float16))  # half the state
        self.register_buffer("counts", torch.ones(len(cells_per_layer), BINS, QUANTILES))

    def forward(self, within: Tensor, layers_gev: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Shares [N, V], energies of the layers [N, L] GeV and uniform numbers in [0, 1) [N, V + L] -> normal numbers.

        Returns:
            x [N, V + L], the numbers of filled voxels behind the voxels; and for each empty voxel the largest that x
            could have been, NaN for all others [N, V + L].
        """
        voxels, spare = (part.double() for part in uniform.split([within.shape[1], len(self.counts)], dim=1))
        energies = _Energies(self, layers_gev)
        n = self.layers.sum(within > 0)
        filled = self._filled(energies, n)
        part = filled.index_select(1, self.group)  # probability to be filled
        beyond = part + (1 - part) * (1 - voxels.clamp(min=SMALLEST))  # of numbers larger than this one
        shower, voxel = (within > 0).nonzero(as_tuple=True)
        value = (within[shower, voxel].double() * n[shower, self.layer[self.group[voxel]]]).log()
        p = _probability(energies.of(self.shares, self.layer), shower, self.group[voxel], value)
        beyond[shower, voxel] = part[shower, voxel] * (1 - p)
        edge = -torch.special.ndtri(filled).index_select(1, self.group)
        edge = edge.index_put((shower, voxel), edge.new_tensor(torch.nan))
        count = -torch.special.ndtri(1 - self._place_of_counts(energies, n, spare))
        x = torch.cat([-torch.special.ndtri(beyond), count], dim=1)
        return x.to(within.dtype), torch.cat([edge, torch.full_like(count, torch.nan)], dim=1).to(within.dtype)

    def inverse(self, x: Tensor, layers_gev: Tensor) -> Tensor:
        """Normal numbers [N, V + L], energies of the layers [N, L] GeV -> shares [N, V]; they need not add up to one.

        A layer with energy has as many filled voxels as were drawn, one at least. Of those it lacked beside that number
        the shares are the faintest of the layer; the others keep what they drew.

        Raises:
            ValueError: NaN or infinite numbers.
        """
        beyond, drawn = torch.special.ndtr(-finite(x, "drawn numbers of voxels").double()).split(
            [self.layers.n_voxels, len(self.counts)], dim=1
        )
        energies = _Energies(self, layers_gev)
        n = self._drawn_counts(energies, 1 - drawn)
        part = self._filled(energies, n).index_select(1, self.group)
        ratio = beyond / part  # below one: filled; infinite where the layer is empty
        chosen, last = self._nearest(ratio, n)
        shower, voxel = chosen.nonzero(as_tuple=True)
        layer = self.layer[self.group[voxel]]
        near, end = ratio[shower, voxel], last[shower, layer].clamp(min=SMALLEST)
        p = 1 - near / torch.where(near < 1, end.clamp(max=1), end)
        value = _quantile(energies.of(self.shares, self.layer), shower, self.group[voxel], p)
        out = torch.zeros_like(beyond)
        out[shower, voxel] = value.exp() / n[shower, layer]
        return out.to(x.dtype)

    def _filled(self, energies: _Energies, n: Tensor) -> Tensor:
        """Probabilities of groups to be filled [N, G] where n [N, L] voxels of the layer are."""
        filled = energies.of(self.filled[..., None], self.layer)[..., 0]
        odds = torch.logit(filled)
        low, high = torch.full_like(n, -FARTHEST), torch.full_like(n, FARTHEST)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            each = torch.sigmoid(odds + middle.index_select(1, self.layer)) * self.voxels
            few = torch.zeros_like(n).index_add(1, self.layer, each) < n
            low, high = torch.where(few, middle, low), torch.where(few, high, middle)
        tilted = torch.sigmoid(odds + ((low + high) / 2).index_select(1, self.layer))
        return torch.where(n.index_select(1, self.layer) > 0, tilted, 0.0)

    def _place_of_counts(self, energies: _Energies, n: Tensor, uniform: Tensor) -> Tensor:
        """Numbers of filled voxels [N, L] as places in their distribution [N, L]; anywhere where there is no energy."""
        shower, layer = (n > 0).nonzero(as_tuple=True)
        out = END + (1 - 2 * END) * uniform
        inside = MARGIN + (1 - 2 * MARGIN) * uniform  # so that round-off makes no other number of it
        value = (n - inside)[shower, layer]  # a number n stands for all between n - 1 and n
        out[shower, layer] = _probability(energies.of(self.counts), shower, layer, value)
        return out

    def _drawn_counts(self, energies: _Energies, place: Tensor) -> Tensor:
        """The inverse: [N, L] numbers of filled voxels."""
        rows, layers = place.shape
        shower = torch.arange(rows, device=place.device).repeat_interleave(layers)
        layer = torch.arange(layers, device=place.device).repeat(rows)
        value = _quantile(energies.of(self.counts), shower, layer, place.flatten()).view(rows, layers)
        n = torch.minimum(value.ceil().clamp(min=1), self.cells)
        return torch.where(energies.gev > 0, n, 0.0)

    def _nearest(self, ratio: Tensor, n: Tensor) -> tuple[Tensor, Tensor]:
        """The n [N, L] voxels of each layer that are nearest to be filled [N, V], and the ratio [N, L] at which they
        end: one, if it lies between the last of them and the next, else at the next (below it they are uniform)."""
        chosen, ends = [], []
        for part, own in zip(self.layers.split(ratio), self.layers.per_run(n), strict=True):
            ordered, place = part.sort(dim=-1)
            beyond = (ordered[..., -1:] * (1 + 1 / part.shape[-1])).clamp(min=1)  # there is none
            padded = torch.cat([torch.zeros_like(own), ordered, beyond], dim=-1)
            last, following = (padded.gather(-1, own.long() + k) for k in (0, 1))
            first = torch.arange(part.shape[-1], device=part.device) < own
            chosen.append(torch.zeros_like(first).scatter(-1, place, first).flatten(1))
            ends.append(torch.where((last < 1) & (following >= 1), 1.0, following)[..., 0])
        return torch.cat(chosen, dim=1), torch.cat(ends, dim=1)

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
        n = np.zeros(layers_gev.shape, dtype=np.int64)
        np.add.at(n, (shower, layer[own]), 1)
        self.counts.copy_(torch.from_numpy(_count_quantiles(n, bins)))
        value = np.log(share * n[shower, layer[own]])
        segment = own * BINS + bins[shower, layer[own]]
        counts = np.bincount(segment, minlength=groups * BINS).reshape(groups, BINS)
        self.filled.copy_(torch.from_numpy(_probability_filled(counts, cells)))
        levels = [np.zeros_like(own), layer[own], own, segment]
        sizes = [1, len(at), groups, groups * BINS]
        tables = [_quantiles(value, key, size) for key, size in zip(levels, sizes, strict=True)]
        wider = [np.zeros(groups * BINS, dtype=np.int64), np.repeat(layer, BINS), np.repeat(np.arange(groups), BINS)]
        chosen = tables[0][0][wider[0]]
        for (table, seen), key in zip(tables[1:], [*wider[1:], np.arange(groups * BINS)], strict=True):
            chosen = np.where((seen[key] >= FEWEST)[:, None], table[key], chosen)
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


MARGIN = 0.01
"""Of the unit that stands for a number of filled voxels, what is left out at both ends."""
FARTHEST, HALVINGS = 30.0, 40
"""Of the logarithm of the factor on odds: where its search begins, and how often the range is halved."""
SMALLEST = 1e-12
"""Stands for zero in logarithms and at the lower end of uniform numbers."""


class _Energies:
    """Energies of layers [N, L] GeV between those at which tables are stored."""

    def __init__(self, marginals: CellMarginals, gev: Tensor) -> None:
        self.gev, at = gev, marginals.at
        ln = gev.double().clamp(min=SMALLEST).log().T.contiguous()  # [L, N]
        right = torch.searchsorted(at, ln).clamp(1, BINS - 1)
        low, high = at.gather(1, right - 1), at.gather(1, right)
        share = torch.where(high > low, (ln - low) / (high - low), 0.0).clamp(0, 1)
        self.right, self.share = right.T, share.T  # [N, L]

    def of(self, stored: Tensor, layer: Tensor | None = None) -> Tensor:
        """Tables [K, BINS, Q], one a layer or each of the layer told [K] -> their rows at these energies [N, K, Q]."""
        right, share = (part if layer is None else part.index_select(1, layer) for part in (self.right, self.share))
        own = torch.arange(len(stored), device=stored.device)
        return torch.lerp(stored[own, right - 1].double(), stored[own, right].double(), share[..., None])


def _probability(table: Tensor, shower: Tensor, key: Tensor, value: Tensor) -> Tensor:
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


def _quantile(table: Tensor, shower: Tensor, key: Tensor, p: Tensor) -> Tensor:
    """The inverse of `_probability`: values [H] at probabilities p [H]."""
    inside = ((p - END) / (1 - 2 * END)).clamp(0, 1)
    place = torch.acos(1 - 2 * inside) * (QUANTILES - 1) / math.pi
    below = place.floor().clamp(max=QUANTILES - 2)
    first, flat = (shower * table.shape[1] + key) * QUANTILES + below.long(), table.flatten()
    return flat[first] + (place - below) * (flat[first + 1] - flat[first])


def _probability_filled(counts: NDArray[np.int64], cells: NDArray[np.int64]) -> NDArray[np.float64]:
    """Filled ones [G, BINS] of these cells -> probabilities within (0, 1), see `UNSEEN`; where there are no cells, that
    of all energies."""
    all_counts, all_cells = (part.sum(1, keepdims=True) for part in (counts, cells))
    overall = np.clip(all_counts, UNSEEN, np.maximum(all_cells - UNSEEN, UNSEEN)) / np.maximum(all_cells, 1)
    least = np.minimum(UNSEEN, overall * cells)
    most = cells - np.minimum(UNSEEN, (1 - overall) * cells)
    return np.where(cells > 0, np.clip(counts, least, most) / np.maximum(cells, 1), overall)


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


def _count_quantiles(n: NDArray[np.int64], bins: NDArray[np.int64]) -> NDArray[np.float64]:
    """Quantiles [L, BINS, Q] of n - uniform, for numbers n [N, L] of filled voxels in layers of these bins of energy.

    That distribution is a straight line between one integer and the next. A bin without layers has that of all
    energies, and a layer that never has energy that of n = 1.
    """
    p = (1 - np.cos(np.pi * np.arange(QUANTILES) / (QUANTILES - 1))) / 2
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
