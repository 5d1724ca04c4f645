"""Invertible, fitted maps between data and what a network likes to see; their numbers are buffers of a state."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Transform(nn.Module):
    """An invertible map of the last axis. `fit` learns its numbers, `forward` and `inverse` apply it.

    All three take x [..., D]; `fit` also a boolean mask [...] of the rows that are real. Values that are NaN or
    infinite are refused with a ValueError that says where.
    """

    def fit(self, x: Tensor, mask: Tensor | None = None) -> None:
        """Learn from data x [..., D]; nothing to learn by default, but the values are checked."""
        _rows(x, mask)

    def forward(self, x: Tensor) -> Tensor:
        """Data to network."""
        raise NotImplementedError

    def inverse(self, y: Tensor) -> Tensor:
        """Network to data."""
        raise NotImplementedError


def finite(x: Tensor, what: str = "values") -> Tensor:
    """x itself, or a ValueError that counts and locates what is NaN or infinite in it."""
    bad = ~torch.isfinite(x)
    if bad.any():
        first = tuple(bad.nonzero()[0].tolist())
        raise ValueError(f"{int(bad.sum())} of {x.numel()} {what} are NaN or infinite, the first at {first}")
    return x


def _rows(x: Tensor, mask: Tensor | None) -> Tensor:
    """The real rows of x [..., D] as [R, D], checked; there must be one."""
    rows = x.reshape(-1, x.shape[-1]) if mask is None else x[mask]
    if len(rows) == 0:
        raise ValueError("cannot fit a transform to no rows")
    return finite(rows)


def _within(x: Tensor, low: float, high: float, name: str) -> Tensor:
    """x itself, or a ValueError if a value is outside of [low, high]."""
    finite(x)
    if x.numel() and (x.min() < low or x.max() > high):
        raise ValueError(f"{name} needs values in [{low}, {high}], got {float(x.min()):g} to {float(x.max()):g}")
    return x


class Affine(Transform):
    """y = (x - shift) / scale, with given numbers: scalars or one a dimension.

    >>> Affine(shift=[1.0, 0.0], scale=2.0)(torch.tensor([[3.0, 4.0]]))
    tensor([[1., 2.]])
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, shift: float | Sequence[float] = 0.0, scale: float | Sequence[float] = 1.0) -> None:
        super().__init__()
        self.register_buffer("shift", finite(torch.as_tensor(shift, dtype=torch.float32)))
        self.register_buffer("scale", finite(torch.as_tensor(scale, dtype=torch.float32)))
        if (self.scale == 0).any():
            raise ValueError("an affine transform with scale 0 has no inverse")

    def forward(self, x: Tensor) -> Tensor:
        return (finite(x) - self.shift) / self.scale

    def inverse(self, y: Tensor) -> Tensor:
        return finite(y) * self.scale + self.shift


class Standardize(Affine):
    """y = std · (x - mean) / standard deviation, fitted for each dimension; a constant dimension is only shifted.

    Args:
        dim: D.
        std: standard deviation after the transform (CaloClouds: 0.5).
    """

    def __init__(self, dim: int, std: float = 1.0) -> None:
        super().__init__([0.0] * dim, [1.0] * dim)
        if std <= 0:
            raise ValueError(f"std must be positive, not {std}")
        self.std = std

    def fit(self, x: Tensor, mask: Tensor | None = None) -> None:
        rows = _rows(x, mask).double()
        spread = rows.std(dim=0, correction=0)
        self.shift.copy_(rows.mean(dim=0))
        self.scale.copy_(torch.where(spread > 0, spread, 1.0) / self.std)


class Log(Transform):
    """y = ln(x + offset), for x > -offset; fitted numbers: none.

    Args:
        offset: added first, > 0 if zeros occur; in the unit of x.
    """

    def __init__(self, offset: float = 0.0) -> None:
        super().__init__()
        if offset < 0:
            raise ValueError(f"offset must not be negative, is {offset}")
        self.offset = offset

    def forward(self, x: Tensor) -> Tensor:
        finite(x)
        if x.numel() and x.min() <= -self.offset:
            raise ValueError(f"the logarithm needs values > {-self.offset:g}, got {float(x.min()):g}")
        return (x + self.offset).log()

    def inverse(self, y: Tensor) -> Tensor:
        return finite(y).exp() - self.offset


class Logit(Transform):
    """y = ln(u / (1 - u)),  u = alpha + (1 - 2 alpha) x  for x in [0, 1]; alpha keeps 0 and 1 finite.

    Dinh et al., arXiv:1605.08803, sec. 4.1.

    Args:
        alpha: 0 < alpha < 1/2. CaloDREAM and CaloFlow take 1e-6.
    """

    def __init__(self, alpha: float = 1e-6) -> None:
        super().__init__()
        if not 0 < alpha < 0.5:
            raise ValueError(f"alpha must be between 0 and 0.5, is {alpha}")
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        _within(x, 0.0, 1.0, "logit")
        low = self.alpha + (1 - 2 * self.alpha) * x
        return low.log() - (self.alpha + (1 - 2 * self.alpha) * (1 - x)).log()

    def inverse(self, y: Tensor) -> Tensor:
        return (torch.sigmoid(finite(y)) - self.alpha) / (1 - 2 * self.alpha)


class Dequantize(Transform):
    """Integers n to n + u, u uniform in [0, 1), and back by rounding down. No fitted numbers.

    The noise comes from torch's global generator, or ready-made as `noise`.
    """

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """x [..., D] of whole numbers, noise of its shape in [0, 1) -> floats of the same shape."""
        finite(x)
        if (x != x.round()).any():
            raise ValueError("only whole numbers can be dequantised")
        value = x.to(torch.get_default_dtype()) if not x.is_floating_point() else x
        u = torch.rand_like(value) if noise is None else noise
        y = value + u
        # round-off must not carry n + u to n + 1, where flooring would not find n again
        return torch.where(y.floor() > value, value, y)

    def inverse(self, y: Tensor) -> Tensor:
        return finite(y).floor()


class LayerFractions(Transform):
    """Energies of L layers [..., L] to u [..., L]: the total, and L - 1 conditional fractions in [0, 1].

        u_0 = Σ_l E_l,   u_{l+1} = E_l / Σ_{k >= l} E_k   for l < L - 1

    CaloFlow and CaloDREAM (arXiv:2405.09629, eq. 4) with the total left in the unit of E. Where nothing
    is left the fraction is 0.
    """

    def forward(self, x: Tensor) -> Tensor:
        _within(x, 0.0, float("inf"), "layer fractions")
        remaining = x.flip(-1).cumsum(-1).flip(-1)
        left = remaining[..., :-1]
        fractions = torch.where(left > 0, x[..., :-1] / torch.where(left > 0, left, 1.0), 0.0)
        return torch.cat([remaining[..., :1], fractions], dim=-1)

    def inverse(self, y: Tensor) -> Tensor:
        total, u = y[..., :1], y[..., 1:]
        _within(total, 0.0, float("inf"), "the total energy")
        _within(u, 0.0, 1.0, "layer fractions")
        remaining = total * F.pad(torch.cumprod(1 - u, dim=-1), (1, 0), value=1.0)
        return torch.cat([remaining[..., :-1] * u, remaining[..., -1:]], dim=-1)


class Chain(Transform):
    """Several transforms one after the other; each is fitted to what those before it make of the data."""

    def __init__(self, *transforms: Transform) -> None:
        super().__init__()
        self.transforms = nn.ModuleList(transforms)

    def _in_order(self) -> list[Transform]:
        return [transform for transform in self.transforms if isinstance(transform, Transform)]

    def fit(self, x: Tensor, mask: Tensor | None = None) -> None:
        x = _rows(x, mask)
        for transform in self._in_order():
            transform.fit(x)
            x = transform(x)

    def forward(self, x: Tensor) -> Tensor:
        for transform in self._in_order():
            x = transform(x)
        return x

    def inverse(self, y: Tensor) -> Tensor:
        for transform in reversed(self._in_order()):
            y = transform.inverse(y)
        return y


class PerFeature(Transform):
    """A transform of its own for each part of the last axis, e.g. the logarithm for energies alone.

    Args:
        parts: (features, transform) in order; the features must add up to the last axis.

    >>> t = PerFeature((2, Affine(scale=2.0)), (1, Log()))
    >>> t(torch.tensor([[2.0, 4.0, 1.0]]))
    tensor([[1., 2., 0.]])
    """

    def __init__(self, *parts: tuple[int, Transform]) -> None:
        super().__init__()
        self.sizes = [size for size, _ in parts]
        self.transforms = nn.ModuleList(transform for _, transform in parts)

    def _split(self, x: Tensor) -> list[tuple[Transform, Tensor]]:
        if x.shape[-1] != sum(self.sizes):
            raise ValueError(f"{sum(self.sizes)} features are transformed, but x has {x.shape[-1]}")
        parts = x.split(self.sizes, dim=-1)
        return [(t, part) for t, part in zip(self.transforms, parts, strict=True) if isinstance(t, Transform)]

    def fit(self, x: Tensor, mask: Tensor | None = None) -> None:
        for transform, part in self._split(_rows(x, mask)):
            transform.fit(part)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([transform(part) for transform, part in self._split(x)], dim=-1)

    def inverse(self, y: Tensor) -> Tensor:
        return torch.cat([transform.inverse(part) for transform, part in self._split(y)], dim=-1)
