"""Conditional normalising flow of affine couplings and element-wise rational-linear splines: CaloClouds' ShowerFlow."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calogen.methods.conditional import Conditional, gaussian, refuse_unknown

LAYOUTS = {"alt1": "APAPAPSPAPAPAP", "original": "APAPAPPSAPAPAP"}
"""One block, noise to data: A affine coupling, P permutation, S spline. CaloClouds 3: alt1, CaloClouds 2: original."""

COUPLING_WIDTH = 10
"""Hidden width of a coupling's network, in units of the flow's dimension (ShowerFlow)."""

SPLINE_WIDTH = 4
"""Hidden width of a spline's network, in units of the flow's dimension (ShowerFlow)."""

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
    lengths = MIN_BIN + (1 - MIN_BIN * BINS) * torch.softmax(raw, dim=-1)
    inner = 2 * BOUND * lengths[..., :-1].cumsum(dim=-1) - BOUND
    return F.pad(F.pad(inner, (1, 0), value=-BOUND), (0, 1), value=BOUND)


def rational_linear_spline(x: Tensor, knots: Knots, inverse: bool = False) -> tuple[Tensor, Tensor]:
    """Apply splines element by element.

    With w_a = 1, w_b = √(d_a/d_b), w_c = (λ d_a + (1-λ) w_b d_b) Δx/Δy and
    y_c = ((1-λ) y_a + λ w_b y_b) / ((1-λ) + λ w_b), a piece from (x_0, y_0, w_0) to (x_1, y_1, w_1) is, in r = w_1/w_0
    and φ = (x - x_0)/(x_1 - x_0),

        y = y_0 + (y_1 - y_0) r φ / (1 - φ + r φ),      dy/dx = (y_1 - y_0)/(x_1 - x_0) · r / (1 - φ + r φ)²

    The inverse is the same with x and y exchanged and 1/r for r.

    Args:
        x: [N, D].
        knots: of these dimensions, arrays [N, D, ...].

    Returns:
        y [N, D] and log dy/dx [N, D]; x itself and 0 outside of [-BOUND, BOUND].
    """
    v = x.clamp(-BOUND, BOUND)
    axis = knots.y if inverse else knots.x
    k = torch.searchsorted(axis[..., 1:-1].contiguous(), v[..., None], right=True)
    (x_a, x_b), (y_a, y_b), (d_a, d_b) = (
        (_at(values, k), _at(values, k + 1)) for values in (knots.x, knots.y, knots.slope)
    )
    lam = _at(knots.lam, k)
    w_b = (d_a / d_b).sqrt()
    w_c = (lam * d_a + (1 - lam) * w_b * d_b) * (x_b - x_a) / (y_b - y_a)
    y_c = torch.lerp(y_a, y_b, lam * w_b / (1 - lam + lam * w_b))
    x_c = torch.lerp(x_a, x_b, lam)
    left = v <= (y_c if inverse else x_c)
    x_0, x_1 = torch.where(left, x_a, x_c), torch.where(left, x_c, x_b)
    y_0, y_1 = torch.where(left, y_a, y_c), torch.where(left, y_c, y_b)
    r = torch.where(left, w_c, w_b / w_c)
    if inverse:
        x_0, x_1, y_0, y_1, r = y_0, y_1, x_0, x_1, 1 / r
    phi = (v - x_0) / (x_1 - x_0)
    denominator = 1 - phi + r * phi
    y = y_0 + (y_1 - y_0) * r * phi / denominator
    log_slope = ((y_1 - y_0) / (x_1 - x_0) * r).log() - 2 * denominator.log()
    inside = x.abs() <= BOUND
    return torch.where(inside, y, x), torch.where(inside, log_slope, 0.0)


def _at(values: Tensor, k: Tensor) -> Tensor:
    """values [N, D, K], bins k [N, D, 1] -> [N, D]."""
    return values.gather(-1, k)[..., 0]


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


class CouplingFlow(Conditional):
    """p(x | c) by invertible steps from z ~ N(0, 1)^D.

    Args:
        dim: D.
        cond_dim: C, length of the condition.
        blocks: how often the layout is repeated (CaloClouds3: 2, CaloClouds2: 10).
        layout: the order of parts in a block, a key of `LAYOUTS`.
        coupling_width, spline_width: hidden widths of the networks, in units of D.

    Raises:
        ValueError: for an unknown layout or dim < 2.
    """

    def __init__(
        self,
        dim: int,
        cond_dim: int,
        blocks: int = 2,
        layout: str = "alt1",
        coupling_width: int = COUPLING_WIDTH,
        spline_width: int = SPLINE_WIDTH,
    ) -> None:
        super().__init__()
        if layout not in LAYOUTS or dim < 2 or blocks < 1:
            raise ValueError(
                f"no flow with layout={layout!r} (known: {', '.join(LAYOUTS)}), dim={dim}, blocks={blocks}"
            )
        self.dim, self.cond_dim = dim, cond_dim
        self.sequence = LAYOUTS[layout] * blocks
        self.permutations = nn.ModuleList(Permutation(dim) for _ in range(self.sequence.count("P")))
        self.parts = nn.ModuleList(
            AffineCoupling(dim, cond_dim, coupling_width * dim)
            if letter == "A"
            else RationalLinearSpline(dim, cond_dim, spline_width * dim)
            for letter in self.sequence.replace("P", "")
        )

    def _in_order(self) -> list[nn.Module]:
        parts, permutations = iter(self.parts), iter(self.permutations)
        return [next(permutations if letter == "P" else parts) for letter in self.sequence]

    def forward(self, z: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Noise to data: z [N, D], c [N, C] -> x [N, D], log|dx/dz| [N]."""
        x, log_det = z, z.new_zeros(len(z))
        for step in self._in_order():
            if isinstance(step, Permutation):
                x = step(x)
            else:
                x, change = step(x, c)
                log_det = log_det + change
        return x, log_det

    def inverse(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Data to noise: x [N, D], c [N, C] -> z [N, D], log|dz/dx| [N]."""
        z, log_det = x, x.new_zeros(len(x))
        for step in reversed(self._in_order()):
            if isinstance(step, Permutation):
                z = step.inverse(z)
            else:
                assert isinstance(step, AffineCoupling | RationalLinearSpline)
                z, change = step.inverse(z, c)
                log_det = log_det + change
        return z, log_det

    def log_prob(self, x: Tensor, c: Tensor) -> Tensor:
        """log p(x | c): x [N, D], c [N, C] -> [N].

        Raises:
            ValueError: if the shapes are not these.
        """
        if x.shape != (len(c), self.dim) or c.shape[1:] != (self.cond_dim,):
            raise ValueError(
                f"log_prob needs x [N, {self.dim}] and c [N, {self.cond_dim}], not {list(x.shape)}, {list(c.shape)}"
            )
        z, log_det = self.inverse(x, c)
        return log_det - 0.5 * (z**2).sum(dim=-1) - 0.5 * self.dim * math.log(2 * math.pi)

    def loss(self, x: Tensor, c: Tensor, mask: Tensor | None = None) -> Tensor:
        """-log p(x | c) of each example [N]; x has no ragged part, so `mask` must be None."""
        if mask is not None:
            raise ValueError("a coupling flow has a fixed number of dimensions: mask must be None")
        return -self.log_prob(x, c)

    @torch.no_grad()
    def sample(
        self,
        c: Tensor,
        *,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> Tensor:
        """Draw x [N, D] for conditions c [N, C].

        Args:
            c: conditions [N, C].
            noise: standard normal numbers [N, D]; else they are drawn from `generator`.

        Raises:
            ValueError: for noise or conditions of another shape, or an unknown option.
        """
        refuse_unknown(options, "noise, generator")
        if c.ndim != 2 or c.shape[1] != self.cond_dim:
            raise ValueError(f"conditions must be [N, {self.cond_dim}], not {list(c.shape)}")
        return self(gaussian((len(c), self.dim), c, noise, generator), c)[0]
