"""Maps fitted so that data look standard normal one dimension at a time; stored with the model as buffers.

A network then learns only what is left: how the dimensions hang together, and how they follow the condition.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

QUANTILE_RANGE = 3.0
"""Knots span this many standard deviations; the tails beyond hold 0.27 % and continue as straight lines."""
QUANTILE_KNOTS = 61
RADIAL_RANGE = 4.5
"""Largest fitted Rayleigh radius: 4e-5 of a 2-d normal distribution lie beyond."""
RADIAL_KNOTS = 91
LAYER_RANGE = 4.5
"""Depths are kept within this many standard deviations, so that the first and last layer stay finite."""


def _increasing(knots: Tensor) -> Tensor:
    """Knots [..., K] made strictly increasing: equal quantiles (repeated values) are spread by next to nothing."""
    knots = knots.double().clone()
    least = LEAST_SPAN + LEAST_GAP * (knots[..., -1] - knots[..., 0])
    for k in range(1, knots.shape[-1]):
        before = knots[..., k - 1]
        knots[..., k] = torch.maximum(knots[..., k], before + least + ROUND_OFF * before.abs())
    return knots


def _tail(knots: Tensor, place: Tensor, n: int) -> Tensor:
    """Knots [K] whose place [K] is beyond the last of n sorted values: the line goes on.

    Few values do not reach the outer levels. Were their knots the largest value itself, one a little beyond it would
    be mapped to the other end of the world.
    """
    knots, end = knots.clone(), int((place <= n - 1).sum()) - 1
    beyond = len(knots) - 1 - end
    if beyond > 0 and end > 0:
        run = min(TAIL_KNOTS, end)
        slope = (knots[end] - knots[end - run]) / run
        knots[end + 1 :] = knots[end] + slope * torch.arange(1, beyond + 1, dtype=knots.dtype)
    return knots


TAIL_KNOTS = 8
"""Knots from which the slope of a line beyond the values is taken: 0.4 standard deviations."""
LEAST_SPAN, LEAST_GAP = 1e-9, 1e-7
ROUND_OFF = 1e-6
"""Relative; knots are stored as float32 and must stay apart there."""


class GaussianQuantiles(nn.Module):
    """Each of D dimensions mapped to N(0, 1) by its own quantiles, piecewise linear and invertible.

    Args:
        dim: D.
    """

    knots: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("knots", self._grid().repeat(dim, 1))

    @staticmethod
    def _grid() -> Tensor:
        return torch.linspace(-QUANTILE_RANGE, QUANTILE_RANGE, QUANTILE_KNOTS)

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Take the quantiles of x [N, D].

        Raises:
            ValueError: if x has another shape, fewer than two rows, or NaN.
        """
        if x.ndim != 2 or x.shape[1] != self.knots.shape[0] or len(x) < 2 or not torch.isfinite(x).all():
            raise ValueError(f"quantiles need finite x [N >= 2, {self.knots.shape[0]}], got {list(x.shape)}")
        levels = torch.special.ndtr(self._grid().double())
        ordered = x.double().sort(dim=0).values
        place = (levels * len(x) - 0.5).clamp(0, len(x) - 1)
        low = place.floor().long().clamp(max=len(x) - 2)
        knots = torch.lerp(ordered[low], ordered[low + 1], (place - low)[:, None]).T
        self.knots.copy_(_increasing(knots))

    def forward(self, x: Tensor) -> Tensor:
        """x [N, D] -> z [N, D]."""
        columns = x.T.contiguous()
        k = torch.searchsorted(self.knots, columns, right=True).clamp(1, QUANTILE_KNOTS - 1) - 1
        low, high = self.knots.gather(1, k), self.knots.gather(1, k + 1)
        step = 2 * QUANTILE_RANGE / (QUANTILE_KNOTS - 1)
        return ((k + (columns - low) / (high - low)) * step - QUANTILE_RANGE).T

    def inverse(self, z: Tensor) -> Tensor:
        """z [N, D] -> x [N, D]."""
        step = 2 * QUANTILE_RANGE / (QUANTILE_KNOTS - 1)
        place = (z.T.contiguous() + QUANTILE_RANGE) / step
        k = place.long().clamp(0, QUANTILE_KNOTS - 2)
        low, high = self.knots.gather(1, k), self.knots.gather(1, k + 1)
        return torch.lerp(low, high, place - k).T


class RadialQuantiles(nn.Module):
    """Points of the plane pulled along their radius so that they follow a 2-d standard normal; angles stay.

    Shower cores are millimetres wide, tails reach a metre: a straight scaling leaves a spike that one step of a
    diffusion model blurs, this map leaves a Gaussian.
    """

    knots: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("knots", torch.linspace(0, RADIAL_RANGE, RADIAL_KNOTS))

    @torch.no_grad()
    def fit(self, xy: Tensor) -> None:
        """Take the radial quantiles of xy [P, 2].

        Raises:
            ValueError: if xy has another shape, fewer than two rows, or NaN.
        """
        if xy.ndim != 2 or xy.shape[1] != 2 or len(xy) < 2 or not torch.isfinite(xy).all():
            raise ValueError(f"radial quantiles need finite points [P >= 2, 2], got {list(xy.shape)}")
        rho = torch.linspace(0, RADIAL_RANGE, RADIAL_KNOTS, dtype=torch.float64)
        levels = -torch.expm1(-0.5 * rho**2)
        ordered = xy.double().norm(dim=1).sort().values
        wanted = (levels * len(xy) - 0.5).clamp(min=0)
        place = wanted.clamp(max=len(xy) - 1)
        low = place.floor().long().clamp(max=len(xy) - 2)
        knots = torch.lerp(ordered[low], ordered[low + 1], place - low)
        knots[0] = 0.0
        self.knots.copy_(_increasing(_tail(knots, wanted, len(xy))))

    def forward(self, xy: Tensor) -> Tensor:
        """Points [P, 2] -> [P, 2]."""
        r = xy.norm(dim=1)
        k = torch.searchsorted(self.knots, r, right=True).clamp(1, RADIAL_KNOTS - 1) - 1
        low, high = self.knots[k], self.knots[k + 1]
        rho = (k + (r - low) / (high - low)) * (RADIAL_RANGE / (RADIAL_KNOTS - 1))
        return xy * (rho / r.clamp(min=1e-12))[:, None]

    def inverse(self, z: Tensor) -> Tensor:
        """Points [P, 2] -> [P, 2]."""
        rho = z.norm(dim=1)
        place = rho * ((RADIAL_KNOTS - 1) / RADIAL_RANGE)
        k = place.long().clamp(0, RADIAL_KNOTS - 2)
        r = torch.lerp(self.knots[k], self.knots[k + 1], place - k)
        return z * (r / rho.clamp(min=1e-12))[:, None]


class LayerQuantiles(nn.Module):
    """Layer numbers spread within their share of the depth profile, so that depth follows N(0, 1).

    Args:
        layers: number of layers L.
    """

    cdf: Tensor

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.register_buffer("cdf", torch.linspace(0, 1, layers + 1, dtype=torch.float64))

    @torch.no_grad()
    def fit(self, layer: Tensor) -> None:
        """Take the depth profile of the points' layers [P]."""
        counts = torch.bincount(layer.long(), minlength=len(self.cdf) - 1).double()
        # One extra point a layer keeps a place for layers that the training showers leave empty.
        shares = (counts + 1) / (counts + 1).sum()
        self.cdf[1:] = shares.cumsum(0)
        self.cdf[-1] = 1.0

    def forward(self, layer: Tensor, u: Tensor) -> Tensor:
        """Layer [P] and a place u [P] in [0, 1) within it -> depth z [P]."""
        low, high = self.cdf[layer.long()], self.cdf[layer.long() + 1]
        z = torch.special.ndtri(low + u.double() * (high - low))
        return z.clamp(-LAYER_RANGE, LAYER_RANGE).float()

    def inverse(self, z: Tensor) -> Tensor:
        """Depth z [P] -> layer [P]."""
        return torch.searchsorted(self.cdf[1:-1].contiguous(), torch.special.ndtr(z.double()), right=True)


class Whitening(nn.Module):
    """Correlated z [N, D] of zero mean -> uncorrelated of unit variance, by Cholesky factors of the covariance.

    Correlations may change with one condition s (the angle of a shower decides how its layers hang together): a
    factor is fitted about each of K values of s and the factor at s is linear in between.

    Args:
        dim: D.
        knots: K.
    """

    factor: Tensor
    range: Tensor

    def __init__(self, dim: int, knots: int = 1) -> None:
        super().__init__()
        self.register_buffer("factor", torch.eye(dim).repeat(knots, 1, 1))
        self.register_buffer("range", torch.tensor([0.0, 1.0]))

    @torch.no_grad()
    def fit(self, z: Tensor, s: Tensor) -> None:
        """Take the covariances of z [N, D] about K values spread over s [N]; `RIDGE` keeps dependent dimensions apart.

        Where few showers decide, the covariance leans on that of all.
        """
        self.range.copy_(torch.stack([s.min(), s.max()]))
        z = z.double()
        ridge = WHITENING_RIDGE * torch.eye(z.shape[1], dtype=torch.float64)
        pooled = z.T @ z / len(z)
        for k, weight in enumerate(self._weights(s).double().T):
            own = (z * weight[:, None]).T @ z
            lean = WHITENING_LEAN * z.shape[1]
            covariance = (own + lean * pooled) / (weight.sum() + lean)
            self.factor[k] = torch.linalg.cholesky(covariance + ridge)

    def _weights(self, s: Tensor) -> Tensor:
        """Shares [N, K] of the factors at s [N]."""
        knots = torch.arange(len(self.factor), device=s.device)
        low, high = self.range
        place = ((s - low) / (high - low).clamp(min=LEAST_RANGE)).clamp(0, 1) * (len(knots) - 1)
        return (1 - (place[:, None] - knots).abs()).clamp(min=0)

    def forward(self, z: Tensor, s: Tensor) -> Tensor:
        """z [N, D], s [N] -> uncorrelated [N, D]."""
        factor = torch.einsum("nk,kij->nij", self._weights(s), self.factor)
        return torch.linalg.solve_triangular(factor, z[:, :, None], upper=False)[:, :, 0]

    def inverse(self, w: Tensor, s: Tensor) -> Tensor:
        """Uncorrelated [N, D], s [N] -> z [N, D]."""
        weights = self._weights(s)
        parts = [weights[:, k, None] * (w @ factor.T) for k, factor in enumerate(self.factor)]
        return torch.stack(parts).sum(0)


WHITENING_LEAN = 1.0
"""How many showers, in units of D, the covariance of all counts for beside those about a knot."""
LEAST_RANGE = 1e-4
WHITENING_RIDGE = 1e-3
"""Variance added to each (unit-variance) dimension before its correlations are taken."""


class ConditionalStandardize(nn.Module):
    """(t - mean(c)) / scale(c) of D dimensions, mean and ln scale linear in F given features of the condition.

    Values may be missing in the fit (layers without points have no energy per point).

    Args:
        dim: D.
        features: F.
        rows_per_feature: with fewer values than this for each feature only the constant is fitted.
    """

    mean: Tensor
    log_scale: Tensor

    def __init__(self, dim: int, features: int, rows_per_feature: int = 0) -> None:
        super().__init__()
        self.rows_per_feature = rows_per_feature
        self.register_buffer("mean", torch.zeros(features, dim))
        self.register_buffer("log_scale", torch.zeros(features, dim))

    @torch.no_grad()
    def fit(self, t: Tensor, features: Tensor, present: Tensor) -> None:
        """Least squares on t [N, D] where `present` [N, D], features [N, F]; dimensions never present stay (0, 1)."""
        for d in range(t.shape[1]):
            here = present[:, d]
            if int(here.sum()) < MIN_ROWS:
                continue
            f, y = features[here].double(), t[here, d].double()
            rows = int(here.sum())
            enough = self.rows_per_feature * f.shape[1]
            mean = _ridge(f, y) if rows >= enough else _constant(f, y)
            spread = (y - f @ mean).abs().clamp(min=MIN_SPREAD).log() + MEAN_LOG_NORMAL
            # Where few showers decide, only the constant of the spread is believable.
            few = rows < max(FEW_ROWS, enough)
            self.mean[:, d] = mean.float()
            self.log_scale[:, d] = (_constant(f, spread) if few else _ridge(f, spread)).float()

    def _at(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return features @ self.mean, (features @ self.log_scale).clamp(-MAX_LOG_SCALE, MAX_LOG_SCALE).exp()

    def forward(self, t: Tensor, features: Tensor) -> Tensor:
        """t [N, D], features [N, F] -> [N, D]."""
        mean, scale = self._at(features)
        return (t - mean) / scale

    def inverse(self, z: Tensor, features: Tensor) -> Tensor:
        """z [N, D], features [N, F] -> t [N, D]."""
        mean, scale = self._at(features)
        return mean + scale * z


MEAN_LOG_NORMAL = 0.5 * (math.log(2) + 0.5772156649015329)
"""-E[ln |n|] of a standard normal n, (ln 2 + Euler's constant) / 2."""
MIN_ROWS = 12
FEW_ROWS = 200
MIN_SPREAD = 1e-4
MAX_LOG_SCALE = 10.0
RIDGE = 1e-5
"""Weight of the pull to zero in least squares, relative to the number of rows."""


def _constant(f: Tensor, y: Tensor) -> Tensor:
    """The mean of y [N] as coefficients of f [N, F] whose first column is the constant."""
    coefficients = torch.zeros(f.shape[1], dtype=f.dtype)
    coefficients[0] = y.mean()
    return coefficients


def _ridge(f: Tensor, y: Tensor) -> Tensor:
    """Least squares of y [N] on f [N, F] whose first column is the constant, which is not pulled to zero."""
    pull = RIDGE * torch.eye(f.shape[1], dtype=f.dtype)
    pull[0, 0] = 0.0
    return torch.linalg.solve(f.T @ f / len(f) + pull, f.T @ y / len(f))
