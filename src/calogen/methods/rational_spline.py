"""Monotone rational-linear splines (Dolatabadi et al., arXiv:2001.05168), in pyro's conventions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

BINS = 8
"""Bins of a spline (pyro's default, ShowerFlow)."""

BOUND = 3.0
"""A spline acts on [-BOUND, BOUND] and is the identity outside (pyro's default, ShowerFlow)."""

MIN_BIN = 1e-3
"""Least width and height of a bin, as a fraction of the whole interval (pyro's default)."""

MIN_DERIVATIVE = 1e-3
"""Least derivative at a knot (pyro's default)."""

END_DERIVATIVE = 1 - MIN_DERIVATIVE
"""Derivative at both ends of a spline. 1 would join the identity smoothly; pyro and the published weights take this."""

MIN_LAMBDA = 0.025
"""A bin is divided between this fraction and one minus it (pyro's default)."""


class Knots(NamedTuple):
    """A spline of K bins: where its knots are, and what it does between them. The last axis counts knots or bins."""

    x: Tensor
    """Knots [..., K + 1], rising from -BOUND to BOUND."""
    y: Tensor
    """Their images [..., K + 1], rising from -BOUND to BOUND."""
    slope: Tensor
    """Derivative at the knots [..., K + 1], END_DERIVATIVE at both ends."""
    lam: Tensor
    """Where each bin is divided, as a fraction of its width [..., K]."""


def knots(raw: Tensor, dim: int) -> Knots:
    """Unbounded numbers [..., dim (4 BINS - 1)] -> knots [..., dim, ...].

    In order for all dims: widths (softmax), heights (softmax), inner derivatives (softplus), λ (sigmoid).
    """
    sizes = (dim * BINS, dim * BINS, dim * (BINS - 1), dim * BINS)
    w, h, d, lam = (part.unflatten(-1, (dim, -1)) for part in raw.split(sizes, dim=-1))
    return Knots(
        _positions(w),
        _positions(h),
        F.pad(MIN_DERIVATIVE + F.softplus(d), (1, 1), value=END_DERIVATIVE),
        MIN_LAMBDA + (1 - 2 * MIN_LAMBDA) * torch.sigmoid(lam),
    )


def _positions(raw: Tensor) -> Tensor:
    """Unbounded [..., K] -> knots [..., K + 1] from exactly -BOUND to exactly BOUND."""
    fractions = raw.transpose(-1, -2).softmax(dim=-2).transpose(-1, -2)  # 6 times faster than along a short last axis
    lengths = MIN_BIN + (1 - MIN_BIN * BINS) * fractions
    inner = 2 * BOUND * lengths[..., :-1].cumsum(dim=-1) - BOUND
    return F.pad(F.pad(inner, (1, 0), value=-BOUND), (0, 1), value=BOUND)


class Piece(NamedTuple):
    """What a spline does around each value: one ratio of linear functions, from (x_0, y_0, w_0) to (x_1, y_1, w_1).

    In φ = (x - x_0)/(x_1 - x_0) and r = w_1/w_0:

        y = y_0 + (y_1 - y_0) r φ / (1 - φ + r φ),      dy/dx = (y_1 - y_0)/(x_1 - x_0) · r / (1 - φ + r φ)²
    """

    phi: Tensor
    r: Tensor
    y_0: Tensor
    rise: Tensor
    """y_1 - y_0"""
    run: Tensor
    """x_1 - x_0"""

    def value(self) -> Tensor:
        """y."""
        return self.y_0 + self.rise * self.r * self.phi / (1 - self.phi + self.r * self.phi)

    def log_slope(self) -> Tensor:
        """log dy/dx."""
        return (self.rise / self.run * self.r).log() - 2 * (1 - self.phi + self.r * self.phi).log()


def piece(v: Tensor, knots: Knots, inverse: bool = False) -> Piece:
    """The pieces at the values v [N, D], inside of [-BOUND, BOUND], of splines with arrays [N, D, ...].

    A bin from a to b is divided at c:  w_a = 1,  w_b = √(d_a/d_b),  w_c = (λ d_a + (1-λ) w_b d_b) Δx/Δy,
    x_c = (1-λ) x_a + λ x_b,  y_c = ((1-λ) y_a + λ w_b y_b) / ((1-λ) + λ w_b).  The inverse of a piece is the
    piece with x and y exchanged and 1/r for r.
    """
    axis = knots.y if inverse else knots.x
    k = torch.searchsorted(axis[..., 1:-1].contiguous(), v[..., None], right=True)
    x_a, y_a, d_a = (_at(values, k) for values in (knots.x, knots.y, knots.slope))
    x_b, y_b, d_b = (_at(values, k + 1) for values in (knots.x, knots.y, knots.slope))
    lam = _at(knots.lam, k)
    w_b = (d_a / d_b).sqrt()
    w_c = (lam * d_a + (1 - lam) * w_b * d_b) * (x_b - x_a) / (y_b - y_a)
    x_c = torch.lerp(x_a, x_b, lam)
    y_c = torch.lerp(y_a, y_b, lam * w_b / (1 - lam + lam * w_b))
    left = v <= (y_c if inverse else x_c)
    x_0, x_1 = torch.where(left, x_a, x_c), torch.where(left, x_c, x_b)
    y_0, y_1 = torch.where(left, y_a, y_c), torch.where(left, y_c, y_b)
    r = torch.where(left, w_c, w_b / w_c)
    if inverse:
        x_0, x_1, y_0, y_1, r = y_0, y_1, x_0, x_1, 1 / r
    return Piece((v - x_0) / (x_1 - x_0), r, y_0, y_1 - y_0, x_1 - x_0)


def rational_linear_spline(x: Tensor, knots: Knots, inverse: bool = False) -> tuple[Tensor, Tensor]:
    """x [N, D] -> y [N, D] and log dy/dx [N, D]; x itself and 0 outside of [-BOUND, BOUND]."""
    here = piece(x.clamp(-BOUND, BOUND), knots, inverse)
    inside = x.abs() <= BOUND
    return torch.where(inside, here.value(), x), torch.where(inside, here.log_slope(), 0.0)


def spline_value(x: Tensor, knots: Knots) -> Tensor:
    """y of `rational_linear_spline` alone."""
    return torch.where(x.abs() <= BOUND, piece(x.clamp(-BOUND, BOUND), knots).value(), x)


def _at(values: Tensor, k: Tensor) -> Tensor:
    """values [N, D, K], bins k [N, D, 1] -> [N, D]."""
    return values.gather(-1, k)[..., 0]
