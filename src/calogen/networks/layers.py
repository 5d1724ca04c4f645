"""Layers that networks share: features of a time or noise level, and the concat-squash linear map."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class FourierFeatures(nn.Module):
    """f(t) = [cos 2πWt, sin 2πWt] with a fixed random W (Tancik et al., arXiv:2006.10739).

    Args:
        features: length of the output, even.
        std: standard deviation of the rows of W; 16 in k-diffusion and CaloClouds.

    Raises:
        ValueError: if `features` is odd or not positive.
    """

    weight: Tensor

    def __init__(self, features: int, std: float = 16.0) -> None:
        super().__init__()
        if features < 2 or features % 2:
            raise ValueError(f"Fourier features come in pairs of cos and sin: features={features} is not even")
        self.register_buffer("weight", std * torch.randn(features // 2, 1))

    def forward(self, t: Tensor) -> Tensor:
        """t [N] -> [N, features]."""
        f = 2 * math.pi * t[:, None] @ self.weight.T
        return torch.cat([f.cos(), f.sin()], dim=-1)


class Harmonics(nn.Module):
    """f(t) = [cos πt, cos 2πt, ..., sin πt, sin 2πt, ...]: the time of a flow, for t in [0, 1].

    Args:
        number: harmonics; the output is twice as long.
    """

    frequencies: Tensor

    def __init__(self, number: int = 3) -> None:
        super().__init__()
        self.register_buffer("frequencies", math.pi * torch.arange(1, number + 1), persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        """t [N] -> [N, 2 number]."""
        f = t[:, None] * self.frequencies
        return torch.cat([f.cos(), f.sin()], dim=-1)


class ConcatSquash(nn.Module):
    """y = (W x + b) · sigmoid(W_g u + b_g) + W_h u: a linear map of x, gated and shifted by a context u.

    From FFJORD (Grathwohl et al., arXiv:1810.01367, appendix) as used in CaloClouds. The context belongs to
    a set of points, so gate g and shift h are computed once a set; and because both act on the
    output only, they fold into the map: y = x (g ⊙ W)ᵀ + (g ⊙ b + h).
    """

    def __init__(self, inputs: int, outputs: int, context: int) -> None:
        super().__init__()
        self.map = nn.Linear(inputs, outputs)
        self.gate = nn.Linear(context, outputs)
        self.shift = nn.Linear(context, outputs, bias=False)

    def modulation(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Context u [N, context] -> gate g, shift h, each [N, outputs]."""
        return torch.sigmoid(self.gate(u)), self.shift(u)

    def forward(self, x: Tensor, u: Tensor, index: Tensor) -> Tensor:
        """x [P, inputs], contexts u [N, context], the set of each point index [P] -> [P, outputs]."""
        g, h = self.modulation(u)
        return torch.addcmul(h[index], self.map(x), g[index])

    def folded(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Context u [N, context] -> the plain map of each set: weight [N, outputs, inputs], bias [N, outputs]."""
        g, h = self.modulation(u)
        return g[:, :, None] * self.map.weight, torch.addcmul(h, g, self.map.bias)
