"""Residuals of hits in numbers: how wide they are, each number with an error from drawing showers again.

Hits of one shower are decoded together and go wrong together, so showers are drawn, never hits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

REPLICAS = 200
"""Resamplings behind an error: it is known to 5 %."""
LEVELS = 4096
"""Quantiles between which residuals are not told apart when a width is drawn again: 0.02 % of the hits."""
ONE_SIGMA = 0.6827
"""Share of a normal distribution within one standard deviation of its middle."""
AT_ONCE = 20
"""Resamplings whose codes are counted together: 10 MB with 65,536 codes."""


class Number(NamedTuple):
    """A number and its standard error."""

    value: float
    error: float


@dataclass(frozen=True)
class Resolution:
    """How wide residuals are.

    `sigma` is the standard deviation about the mean, `rms` about zero, `half_width` half of what the central 68.27 %
    spans, and `bias` the mean.
    """

    sigma: Number
    rms: Number
    half_width: Number
    bias: Number

    def scaled(self, factor: float) -> Resolution:
        """In another unit."""
        return Resolution(
            *(Number(n.value * factor, n.error * factor) for n in (self.sigma, self.rms, self.half_width, self.bias))
        )


class Redrawn:
    """Showers drawn again with replacement, `REPLICAS` times.

    Args:
        showers: N.
        seed: of the draws.

    Raises:
        ValueError: fewer than two showers.
    """

    def __init__(self, showers: int, seed: int = 0) -> None:
        if showers < 2:
            raise ValueError(f"{showers} showers: errors come from drawing showers again, give at least 2")
        self.n = showers
        draws = np.random.default_rng([seed, 47]).multinomial(showers, np.full(showers, 1 / showers), size=REPLICAS)
        self.times: Floats = draws.astype(np.float64)
        """How often each shower is drawn [R, N]."""

    def ratio(self, above: NDArray[Any], below: NDArray[Any]) -> Number:
        """Sum of numbers of showers [N] over another: a mean over hits, or a share of them."""
        return self._number(
            np.array([np.sum(above, dtype=np.float64), np.sum(below, dtype=np.float64)]),
            self.times @ np.column_stack([above, below]).astype(np.float64),
            lambda s: s[..., 0] / s[..., 1],
        )

    def resolution(self, residual: NDArray[Any], shower: Integers) -> Resolution:
        """Of residuals [P] of the hits of some showers [P].

        Raises:
            ValueError: no residual, one that is not finite, or lengths that disagree.
        """
        d = np.asarray(residual, dtype=np.float64)
        if d.ndim != 1 or d.shape != shower.shape or not d.size:
            raise ValueError(
                f"residuals {d.shape} of hits of showers {shower.shape}: give one for each hit, at least 1"
            )
        if not np.isfinite(d).all():
            raise ValueError(f"residual of hit {int(np.flatnonzero(~np.isfinite(d))[0])} is not finite")
        middle = float(d.mean())  # sums about it: the variance is then no small difference of large numbers
        e = d - middle
        weights = (np.ones_like(e), e, e * e)
        sums = np.stack([np.bincount(shower, weights=w, minlength=self.n) for w in weights], axis=1)
        whole, drawn = sums.sum(0), self.times @ sums
        return Resolution(
            sigma=self._number(whole, drawn, lambda s: _root(s[..., 2] / s[..., 0] - (s[..., 1] / s[..., 0]) ** 2)),
            rms=self._number(
                whole, drawn, lambda s: _root((s[..., 2] + 2 * middle * s[..., 1]) / s[..., 0] + middle**2)
            ),
            half_width=self._half_width(d, shower),
            bias=self._number(whole, drawn, lambda s: middle + s[..., 1] / s[..., 0]),
        )

    def usage(self, code: Integers, shower: Integers, codes: int) -> tuple[Number, Number]:
        """Share of codes that is used, and perplexity, of codes [P] of hits of showers [P]."""
        counts = csr_matrix((np.ones(len(code)), (shower, code)), shape=(self.n, codes)).T.tocsr()
        whole = np.asarray(counts.sum(axis=1)).reshape(codes, 1)
        parts = [_usage(counts @ self.times[k : k + AT_ONCE].T) for k in range(0, REPLICAS, AT_ONCE)]
        drawn = np.concatenate(parts, axis=1)
        share, perplexity = _usage(whole)[:, 0]
        return Number(float(share), _spread(drawn[0])), Number(float(perplexity), _spread(drawn[1]))

    def _half_width(self, d: Floats, shower: Integers) -> Number:
        levels = np.unique(np.quantile(d, np.linspace(0, 1, LEVELS + 1), method="inverted_cdf"))
        at = np.searchsorted(levels, d)  # the next level above, or the level itself
        counts = csr_matrix((np.ones(len(d)), (shower, at)), shape=(self.n, len(levels)))
        below = np.cumsum((counts.T @ self.times.T).T, axis=1)
        ends = ((1 - ONE_SIGMA) / 2, (1 + ONE_SIGMA) / 2)
        low, high = (levels[(below >= q * below[:, -1:]).argmax(axis=1)] for q in ends)
        first, last = np.quantile(d, ends, method="inverted_cdf")
        return Number(float(last - first) / 2, _spread((high - low) / 2))

    @staticmethod
    def _number(whole: Floats, drawn: Floats, statistic: Callable[[Floats], Floats]) -> Number:
        with np.errstate(divide="ignore", invalid="ignore"):
            return Number(float(statistic(whole)), _spread(statistic(drawn)))


def _root(square: Floats) -> Floats:
    """Square root; what rounding took below zero is zero."""
    return np.sqrt(np.maximum(square, 0.0))


def _spread(values: Floats) -> float:
    """Standard deviation; samples without a hit (all of their showers were empty) do not count."""
    known = values[np.isfinite(values)]
    return float(known.std(ddof=1)) if known.size > 1 else math.nan


def _usage(counts: Floats) -> Floats:
    """Share of used codes and perplexity [2, R] of how often each was used [K, R]."""
    total = counts.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = counts / total
        entropy = -np.where(p > 0, p * np.log(p), 0.0).sum(axis=0)
    return np.stack([(counts > 0).mean(axis=0), np.where(total > 0, np.exp(entropy), np.nan)])
