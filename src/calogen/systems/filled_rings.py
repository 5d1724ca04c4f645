"""How many voxels of each ring are filled, where it is known how many of its layer are.

Each ring has a distribution of its own number k at that energy of the layer, as if rings were independent. Given that
the numbers of a layer add up to n, the number of its first ring has the distribution

    P(k_1 | n) ∝ P_1(k_1) · P(k_2 + k_3 + ... = n - k_1),

the next one that given n - k_1, and so on; each is a normal number y by its distribution. So a ring that is always hit
always is: the particle itself crosses the innermost ring of the first layer.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calogen.systems.energy_tables import BINS, Energies
from calogen.systems.filled_layers import MARGIN

PRIOR = 2.0
"""Showers that the distribution of all energies counts as at one of them."""
UNSEEN = 1e-3
"""Showers that each number counts as which was never seen."""
FEASIBLE = 1e-290
"""Added to the weight of each number that is possible at all: products of rare ones may be smaller than there are."""


class _Run(NamedTuple):
    """Layers that follow each other with rings of the same sizes."""

    first_layer: int
    layers: int
    first_ring: int
    sizes: tuple[int, ...]


class FilledRings(nn.Module):
    """Numbers of filled voxels of rings k [N, G] <-> normal numbers y [N, G], given those of the layers; a buffer.

    Args:
        sizes: voxels of each ring, layer by layer.
        layer: of each ring, not falling.
    """

    layer: Tensor
    roots: Tensor

    def __init__(self, sizes: Sequence[int], layer: Sequence[int]) -> None:
        super().__init__()
        self.most = max(sizes)
        per_layer = [
            tuple(sizes[i] for i in own)
            for own in (list(g) for _, g in itertools.groupby(range(len(sizes)), lambda i: layer[i]))
        ]
        self.runs: list[_Run] = []
        first_layer = first_ring = 0
        for rings, group in itertools.groupby(per_layer):
            layers = len(list(group))
            self.runs.append(_Run(first_layer, layers, first_ring, rings))
            first_layer, first_ring = first_layer + layers, first_ring + layers * len(rings)
        self.register_buffer("layer", torch.tensor(list(layer)), persistent=False)
        # Square roots of probabilities: half precision holds those of 1e-15.
        self.register_buffer("roots", torch.full((len(sizes), BINS, self.most + 1), 0.5, dtype=torch.float16))

    def y(self, k: Tensor, energies: Energies, uniform: Tensor) -> Tensor:
        """Numbers k [N, G] -> y [N, G]; `uniform` [N, G] tells where within the part that stands for k."""
        parts = []
        inside = MARGIN + (1 - 2 * MARGIN) * uniform.double()
        for run, chances in zip(self.runs, self._chances(energies), strict=True):
            own, u = self._of(k.long(), run), self._of(inside, run)
            left, out = own.sum(-1), []
            for r, rest in enumerate(_rests(chances, run.sizes)):
                below = _cumulative(chances[..., r, : run.sizes[r] + 1], rest, left)
                upper = below.gather(-1, own[..., r, None])
                lower = below.gather(-1, (own[..., r, None] - 1).clamp(min=0)) * (own[..., r, None] > 0)
                out.append((lower + (upper - lower) * u[..., r, None])[..., 0])
                left = left - own[..., r]
            parts.append(torch.stack(out, dim=-1).flatten(1))
        return torch.special.ndtri(torch.cat(parts, dim=1))

    def k(self, y: Tensor, energies: Energies, n: Tensor) -> Tensor:
        """The inverse: y [N, G] and numbers of layers n [N, L] -> numbers k [N, G] int, which add up to n."""
        parts, place = [], torch.special.ndtr(y.double()).clamp(min=FEASIBLE)
        for run, chances in zip(self.runs, self._chances(energies), strict=True):
            own = self._of(place, run)
            left, out = n[:, run.first_layer : run.first_layer + run.layers].long(), []
            for r, rest in enumerate(_rests(chances, run.sizes)):
                below = _cumulative(chances[..., r, : run.sizes[r] + 1], rest, left)
                out.append((below < own[..., r, None]).sum(-1))
                left = left - out[-1]
            parts.append(torch.stack(out, dim=-1).flatten(1))
        return torch.cat(parts, dim=1)

    def _of(self, x: Tensor, run: _Run) -> Tensor:
        """Numbers of all rings [N, G] -> those of a run [N, layers, rings]."""
        rings = len(run.sizes)
        return x[:, run.first_ring : run.first_ring + run.layers * rings].unflatten(1, (run.layers, rings))

    def _chances(self, energies: Energies) -> list[Tensor]:
        """Probabilities of each number of each ring [N, layers, rings, K + 1], one for each run."""
        out = []
        for run in self.runs:
            stop = run.first_ring + run.layers * len(run.sizes)
            own = slice(run.first_ring, stop)
            found = energies.of(self.roots[own].double() ** 2, self.layer[own])
            out.append(found.unflatten(1, (run.layers, len(run.sizes))))
        return out

    def fit(self, k: NDArray[np.int64], bins: NDArray[np.int64], energetic: NDArray[np.bool_]) -> None:
        """Set the distributions.

        Args:
            k: numbers of filled voxels [N, G].
            bins: of energy of the layer of each ring [N, G].
            energetic: which of these layers have energy [N, G].
        """
        rings, width = self.roots.shape[0], self.most + 1
        seen = np.zeros((rings, BINS, width))
        for ring in range(rings):
            some = energetic[:, ring]
            key = bins[some, ring] * width + k[some, ring]
            seen[ring] = np.bincount(key, minlength=BINS * width).reshape(BINS, width)
        overall = seen.sum(1, keepdims=True) + UNSEEN
        overall /= overall.sum(-1, keepdims=True)
        chances = (seen + PRIOR * overall) / (seen.sum(-1, keepdims=True) + PRIOR)
        self.roots.copy_(torch.from_numpy(np.sqrt(chances)))


def _rests(chances: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Of each ring the probabilities of the sum of all rings behind it [N, layers, 1 + their voxels]."""
    rests = [torch.ones_like(chances[..., 0, :1])]
    for r in range(len(sizes) - 1, 0, -1):
        before = rests[-1]
        length = before.shape[-1]
        rest = before.new_zeros(*before.shape[:-1], length + sizes[r])
        for number in range(sizes[r] + 1):
            rest[..., number : number + length] += chances[..., r, number, None] * before
        rests.append(rest / rest.amax(-1, keepdim=True).clamp(min=FEASIBLE))
    return rests[::-1]


def _cumulative(chances: Tensor, rest: Tensor, left: Tensor) -> Tensor:
    """P(k <= 0, 1, ...) [N, layers, K + 1] of a ring, of which `left` [N, layers] are filled with all behind it."""
    behind = left[..., None] - torch.arange(chances.shape[-1], device=left.device)
    possible = (behind >= 0) & (behind < rest.shape[-1])
    weight = chances * rest.gather(-1, behind.clamp(0, rest.shape[-1] - 1)) + FEASIBLE
    below = torch.where(possible, weight, 0.0).cumsum(-1)
    return below / below[..., -1:]
