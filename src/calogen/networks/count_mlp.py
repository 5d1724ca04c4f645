"""CountMLP: the velocity of a flow of points per layer, the network of PointCountFM."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from calogen.networks.layers import Harmonics


class CountMLP(nn.Module):
    """[cos kπt, sin kπt, x, c] -> Linear -> ReLU -> ... -> Linear -> v.

    Published sizes, with 78 layers: 349,902 parameters with the energy as condition (CaloHadronic), 351,822 with 16
    numbers (energy, particle, direction; AllShowers).

    Args:
        layers: L, length of x.
        condition: C.
        widths: hidden widths.
        harmonics: of the time.
    """

    def __init__(
        self,
        layers: int = 78,
        condition: int = 1,
        widths: Sequence[int] = (128, 256, 512, 256, 128),
        harmonics: int = 3,
    ) -> None:
        super().__init__()
        self.layers, self.condition = layers, condition
        self.time = Harmonics(harmonics)
        sizes = [2 * harmonics + layers + condition, *widths, layers]
        parts: list[nn.Module] = [nn.Linear(sizes[0], sizes[1])]
        for a, b in itertools.pairwise(sizes[1:]):
            parts += [nn.ReLU(inplace=True), nn.Linear(a, b)]
        self.network = nn.Sequential(*parts)

    def forward(self, x: Tensor, t: Tensor, c: Tensor, counts: Tensor) -> Tensor:
        """x [N, L], time t [N], condition c [N, C], counts [N], all 1 (a vector is a set of one) -> [N, L].

        Raises:
            ValueError: if the shapes do not agree.
        """
        n = len(counts)
        if x.shape != (n, self.layers) or t.shape != (n,) or c.shape != (n, self.condition):
            raise ValueError(
                f"{n} rows need x [{n}, {self.layers}], t [{n}] and c [{n}, {self.condition}], "
                f"not {list(x.shape)}, {list(t.shape)} and {list(c.shape)}"
            )
        out: Tensor = self.network(torch.cat([self.time(t), x, c], dim=1))
        return out
