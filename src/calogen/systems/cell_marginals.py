"""The share of a voxel in its layer as a normal number, by the distribution it has in layers of that energy.

A voxel is empty in most showers, and has at least what one particle leaves when it is not. On the logit of its share
(CaloDREAM, arXiv:2405.09629, eq. 3) that is two clouds far apart, and a flow that is not trained to perfection fills
the gap. Here a shower is told in four steps, each by normal numbers that are right one by one before anything is
trained, so that a flow learns how they hang together:

    energies -> n voxels of each layer are filled      `FilledLayers`, a linear model: what the flow is given
    n        -> k voxels of each ring                  `FilledRings`: one number a ring, y
    k        -> which of them                          the k with the largest x: all voxels of a ring are alike
    n, which -> their shares, which add up to one      z = Φ⁻¹(F(share · n)), F of the ring at that energy of the layer

One bell holds both, x = Φ⁻¹(1 - k/K · Φ(-w)) of a filled voxel of K, below that of an empty one. That shares add up to
one binds the z of a layer: their mean follows from the others. So w is z without it, with an independent number in its
place:

    w = √((n-1)/n) (z - mean z) + ε/√n,    back: z = √(n/(n-1)) (w - mean w) + δ, with δ so that shares add up to one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calogen.detector.geometry import CartesianCells, Detector, PolarCells
from calogen.systems.energy_tables import (
    BINS,
    QUANTILES,
    SMALLEST,
    Energies,
    EnergyBins,
    probability,
    quantile,
    quantiles,
)
from calogen.systems.filled_layers import FilledLayers
from calogen.systems.filled_rings import FilledRings
from calogen.systems.voxel_shares import VoxelLayers
from calogen.transforms import finite

FEWEST = 16
"""With fewer filled voxels the quantiles are those of the next larger group: all energies, then the layer, then all."""
SHOWERS_FITTED = 20_000
"""Of which distributions are made, the first of those it is given: their filled voxels are in memory together."""
MOST_GROUPS = 20_000
"""Groups of voxels that may have tables of their own: 30 MB of them."""
FARTHEST, HALVINGS = 8.0, 22
"""Of the number δ that makes shares add up: where its search ends, and how often the range is halved."""


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
        groups: of each voxel [V], see `alike`; no group has voxels of two layers, and they go from layer to layer.

    Raises:
        ValueError: groups that do not fit the voxels, or too many of them.
    """

    group: Tensor
    layer: Tensor
    sizes: Tensor
    members: Tensor
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
        sizes = torch.bincount(group)
        if bool((layer.diff() < 0).any()) or not bool((sizes > 0).all()):
            raise ValueError("groups must be numbered from the first layer to the last, none without voxels")
        if len(layer) > MOST_GROUPS:
            raise ValueError(
                f"{len(layer)} groups of voxels would each have tables of their own (limit {MOST_GROUPS}): choose "
                "scaling.shares=logit, or cells that lie symmetrically about the entry point"
            )
        self.n_groups = len(layer)
        self.register_buffer("group", group, persistent=False)
        self.register_buffer("layer", layer, persistent=False)
        self.register_buffer("sizes", sizes.double(), persistent=False)
        self.register_buffer("members", _members(group, sizes), persistent=False)
        self.register_buffer("shares", torch.zeros(len(layer), BINS, QUANTILES, dtype=torch.float16))  # half the state
        self.bins = EnergyBins(len(cells_per_layer))
        self.filled_layers = FilledLayers(list(cells_per_layer), self.bins)
        self.filled_rings = FilledRings(sizes.tolist(), layer.tolist())

    @property
    def n_numbers(self) -> int:
        """F: numbers of the flow, one a voxel and behind them one a ring."""
        return self.layers.n_voxels + self.n_groups

    def forward(self, within: Tensor, layers_gev: Tensor, uniform: Tensor, normal: Tensor) -> tuple[Tensor, Tensor]:
        """Shares [N, V], energies of the layers [N, L] GeV -> normal numbers.

        Args:
            within: shares; those of a layer with energy add up to one.
            layers_gev: energies of the layers.
            uniform: numbers in [0, 1) [N, F], where voxels are empty and within the parts of numbers of rings.
            normal: ε [N, L].

        Returns:
            x [N, F]; and for each empty voxel the largest that x could have been, NaN for all others [N, F].
        """
        spare, spare_rings = (part.double() for part in uniform.split([within.shape[1], self.n_groups], dim=1))
        energies = self.bins(layers_gev)
        k = self.rings(within)
        part = (k / self.sizes).index_select(1, self.group)  # probability to be filled
        beyond = part + (1 - part) * (1 - spare.clamp(min=SMALLEST))  # of numbers larger than this one
        shower, voxel = (within > 0).nonzero(as_tuple=True)
        w = self._unbound(within, energies, shower, voxel, normal)
        beyond[shower, voxel] = part[shower, voxel] * torch.special.ndtr(-w)
        edge = -torch.special.ndtri(part)
        edge = edge.index_put((shower, voxel), edge.new_tensor(torch.nan))
        y = self.filled_rings.y(k, energies, spare_rings)
        x = torch.cat([-torch.special.ndtri(beyond), y], dim=1)
        return x.to(within.dtype), torch.cat([edge, torch.full_like(y, torch.nan)], dim=1).to(within.dtype)

    def inverse(self, x: Tensor, n: Tensor, layers_gev: Tensor) -> Tensor:
        """Normal numbers x [N, F], filled voxels n [N, L], energies of the layers [N, L] GeV -> shares [N, V].

        As many voxels of a layer are filled as n says. Their shares add up to one, unless the largest (or the least)
        that were seen of these voxels do not reach it.

        Raises:
            ValueError: NaN or infinite numbers.
        """
        cells, y = finite(x, "drawn numbers of voxels").split([self.layers.n_voxels, self.n_groups], dim=1)
        energies = self.bins(layers_gev)
        k = self.filled_rings.k(y, energies, n)
        w = self._chosen(torch.special.ndtr(-cells.double()), k)
        shower, voxel = (~w.isnan()).nonzero(as_tuple=True)
        out = torch.zeros_like(w)
        out[shower, voxel] = self._bound(w[shower, voxel], energies, shower, voxel, n)
        return out.to(x.dtype)

    def layer_of(self, hits: Hits) -> NDArray[np.int64]:
        """The layer of each filled voxel [H]."""
        out: NDArray[np.int64] = self.layer[self.group].cpu().numpy()[hits.packed()[1]]
        return out

    def rings(self, within: Tensor) -> Tensor:
        """Filled voxels of each ring [N, G]."""
        filled = (within > 0).double()
        return torch.zeros(len(within), self.n_groups, dtype=torch.float64, device=within.device).index_add(
            1, self.group, filled
        )

    def _unbound(self, within: Tensor, energies: Energies, shower: Tensor, voxel: Tensor, normal: Tensor) -> Tensor:
        """w [H] of filled voxels."""
        group = self.group[voxel]
        n = self.layers.sum(within > 0)
        place = shower * self.layers.n_layers + self.layer[group]
        own = n.flatten()[place]
        value = (within[shower, voxel].double() * own).log()
        z = torch.special.ndtri(probability(energies.of(self.shares, self.layer), shower, group, value))
        mean = torch.zeros(n.numel(), dtype=z.dtype, device=z.device).index_add(0, place, z)[place] / own
        return ((own - 1) / own).sqrt() * (z - mean) + normal.double().flatten()[place] / own.sqrt()

    def _bound(self, w: Tensor, energies: Energies, shower: Tensor, voxel: Tensor, n: Tensor) -> Tensor:
        """The inverse: w [H] -> shares [H] that add up to one."""
        group = self.group[voxel]
        place = shower * self.layers.n_layers + self.layer[group]
        own, table = n.flatten()[place], energies.of(self.shares, self.layer)

        def summed(parts: Tensor) -> Tensor:
            return torch.zeros(n.numel(), dtype=parts.dtype, device=parts.device).index_add(0, place, parts)

        z = (own / (own - 1).clamp(min=1)).sqrt() * (w - summed(w)[place] / own)
        low = torch.full_like(n.flatten(), -FARTHEST, dtype=z.dtype)
        high = -low
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            few = summed(self._shares_at(table, shower, group, z + middle[place], own)) < 1
            low, high = torch.where(few, middle, low), torch.where(few, high, middle)
        return self._shares_at(table, shower, group, z + ((low + high) / 2)[place], own)

    @staticmethod
    def _shares_at(table: Tensor, shower: Tensor, group: Tensor, z: Tensor, n: Tensor) -> Tensor:
        return quantile(table, shower, group, torch.special.ndtr(z)).exp() / n

    def _chosen(self, beyond: Tensor, k: Tensor) -> Tensor:
        """w [N, V] of the k [N, G] voxels of each ring with the largest numbers, NaN of the others.

        Where as many were drawn to be filled, w is what was drawn; else they are uniform up to the next.
        """
        padded = torch.cat([beyond, torch.full_like(beyond[:, :1], torch.inf)], dim=1)
        ordered, order = padded[:, self.members].sort(dim=-1)  # [N, G, K]
        part, number = (k / self.sizes)[..., None], k.long()[..., None]
        ends = torch.cat([torch.zeros_like(part), ordered, torch.full_like(part, torch.inf)], dim=-1)
        last, following = ends.gather(-1, number), ends.gather(-1, number + 1)
        end = torch.where((last < part) & (following >= part), part, following.clamp(max=1))
        rank = torch.arange(ordered.shape[-1], device=k.device)
        w = -torch.special.ndtri((ordered / end.clamp(min=SMALLEST)).clamp(SMALLEST, 1 - SMALLEST))
        w = torch.where(rank < number, w, torch.nan)
        place = self.members.expand_as(order).gather(-1, order)
        out = torch.full_like(padded, torch.nan)
        return out.scatter(1, place.flatten(1), w.flatten(1))[:, :-1]

    def fit(self, layers_gev: NDArray[np.float64], hits: Hits) -> None:
        """Set all distributions, of layers, rings and shares.

        Args:
            layers_gev: energies of the layers [N, L].
            hits: the filled voxels of these showers.
        """
        bins = self.bins.fit(layers_gev)
        group, layer = self.group.cpu().numpy(), self.layer.cpu().numpy()
        shower, voxel, share = hits.packed()
        own = group[voxel]
        n, k = hits.counts(layers_gev.shape[1], layer[own]), hits.counts(self.n_groups, own)
        self.filled_layers.fit(n, bins)
        self.filled_rings.fit(k, bins[:, layer], layers_gev[:, layer] > 0)
        value = np.log(share * n[shower, layer[own]])
        self.shares.copy_(torch.from_numpy(self._share_quantiles(value, own, bins[shower, layer[own]], layer)))

    def _share_quantiles(
        self, value: NDArray[np.float32], own: NDArray[np.int64], bins: NDArray[np.int64], layer: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Quantiles [G, BINS, Q] of values [H] of groups `own` at `bins`, of more alike voxels where there are few."""
        groups = self.n_groups
        levels = [np.zeros_like(own), layer[own], own, own * BINS + bins]
        sizes = [1, self.layers.n_layers, groups, groups * BINS]
        tables = [quantiles(value, key, size) for key, size in zip(levels, sizes, strict=True)]
        wider = [np.zeros(groups * BINS, dtype=np.int64), np.repeat(layer, BINS), np.repeat(np.arange(groups), BINS)]
        chosen = tables[0][0][wider[0]]
        for (table, seen), key in zip(tables[1:], [*wider[1:], np.arange(groups * BINS)], strict=True):
            chosen = np.where((seen[key] >= FEWEST)[:, None], table[key], chosen)
        return chosen.reshape(groups, BINS, QUANTILES)


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

    def counts(self, columns: int, column: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many of all there are of each shower and column [N, columns], where each has the column told [H]."""
        key = self.packed()[0].astype(np.int64) * columns + column
        return np.bincount(key, minlength=self.showers * columns).reshape(self.showers, columns)


def _members(group: Tensor, sizes: Tensor) -> Tensor:
    """The voxels of each group [G, K], V where it has less than others."""
    order = group.argsort(stable=True)
    first = sizes.cumsum(0) - sizes
    place = first[:, None] + torch.arange(int(sizes.max()))
    inside = torch.arange(int(sizes.max())) < sizes[:, None]
    return torch.where(inside, order[place.clamp(max=len(group) - 1)], len(group))
