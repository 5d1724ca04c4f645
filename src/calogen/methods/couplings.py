"""The steps of a coupling flow: affine coupling, element-wise spline, permutation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from calogen.methods.rational_spline import BINS, Knots, knots, rational_linear_spline


def mlp(inputs: int, width: int, outputs: int) -> nn.Sequential:
    """Two hidden ReLU layers of equal width."""
    return nn.Sequential(
        nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs)
    )


class AffineCoupling(nn.Module):
    """y1 = x1,  y2 = exp(s) x2 + m,  s = -tanh(r),  (m, r) = MLP(c, x1); x1 is the first half.

    Real NVP (arXiv:1605.08803, eqs. 7-8) with ShowerFlow's bounded scale.
    """

    def __init__(self, dim: int, cond_dim: int, width: int) -> None:
        super().__init__()
        self.split = (dim // 2, dim - dim // 2)
        self.network = mlp(cond_dim + self.split[0], width, 2 * self.split[1])

    def _shift_and_log_scale(self, x1: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        m, r = self.network(torch.cat([c, x1], dim=-1)).chunk(2, dim=-1)
        return m, -torch.tanh(r)

    def forward(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """x [N, D], c [N, C] -> y [N, D], log|dy/dx| [N]."""
        x1, x2 = x.split(self.split, dim=-1)
        m, s = self._shift_and_log_scale(x1, c)
        return torch.cat([x1, s.exp() * x2 + m], dim=-1), s.sum(dim=-1)

    def inverse(self, y: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """y [N, D], c [N, C] -> x [N, D], log|dx/dy| [N]."""
        y1, y2 = y.split(self.split, dim=-1)
        m, s = self._shift_and_log_scale(y1, c)
        return torch.cat([y1, (y2 - m) * (-s).exp()], dim=-1), -s.sum(dim=-1)


class RationalLinearSpline(nn.Module):
    """Element-wise monotone spline whose knots depend on the condition only.

    Dolatabadi et al. (arXiv:2001.05168): each bin is divided at the fraction λ, and each of the two pieces is a
    ratio of linear functions with weights w_a, w_c, w_b at its ends (there sec. 3.2).
    """

    def __init__(self, dim: int, cond_dim: int, width: int) -> None:
        super().__init__()
        self.dim = dim
        self.network = mlp(cond_dim, width, dim * (4 * BINS - 1))

    def knots(self, c: Tensor) -> Knots:
        """c [N, C] -> the splines of its dimensions, arrays [N, D, ...]."""
        return knots(self.network(c), self.dim)

    def forward(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """x [N, D], c [N, C] -> y [N, D], log|dy/dx| [N]."""
        y, log_slope = rational_linear_spline(x, self.knots(c))
        return y, log_slope.sum(dim=-1)

    def inverse(self, y: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """y [N, D], c [N, C] -> x [N, D], log|dx/dy| [N]."""
        x, log_slope = rational_linear_spline(y, self.knots(c), inverse=True)
        return x, log_slope.sum(dim=-1)


class Permutation(nn.Module):
    """A fixed order of the dimensions, y = x[order]; part of the state."""

    order: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("order", torch.randperm(dim))

    def forward(self, x: Tensor) -> Tensor:
        """x [N, D] -> y [N, D]."""
        return x.index_select(-1, self.order)

    def inverse(self, y: Tensor) -> Tensor:
        """y [N, D] -> x [N, D]."""
        return y.index_select(-1, self.order.argsort())
