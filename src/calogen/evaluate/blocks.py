"""Observables of two samples in blocks of showers, and the scores that follow from sums over blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from calogen.evaluate.metrics import (
    Distance,
    Resampling,
    Score,
    bootstrap_error,
    divergence_score,
    floor_of,
    wasserstein_score,
)
from calogen.evaluate.observables import block_histogram, block_sum

BLOCKS = 100
"""Groups of showers that are resampled; an even number."""
FINE_BINS = 2000
"""Bins over the common range in which Wasserstein distances of one number a shower are computed."""


class Blocked(NamedTuple):
    """One observable in blocks: published bins for the divergence, `fine` ones at `position` for Wasserstein.

    Histograms are `[blocks, bins + 2]`, of the generated, the true and, if there is one, the floor sample.
    """

    name: str
    edges: NDArray[np.float64]
    generated: NDArray[np.float64]
    truth: NDArray[np.float64]
    floor: NDArray[np.float64] | None
    fine: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64] | None]
    position: NDArray[np.float64]

    def divergence(self, resampling: Resampling) -> Score:
        """Jensen-Shannon divergence, natural logarithm, no root."""
        return divergence_score(self.name, self.generated, self.truth, resampling, self.floor)

    def wasserstein(self, resampling: Resampling) -> Score:
        """Wasserstein-1 distance in standard deviations of the truth."""
        return wasserstein_score(self.name, self.fine[0], self.fine[1], self.position, resampling, self.fine[2])


def block_count(n_generated: int, n_truth: int) -> int:
    """An even number of blocks with at least one shower of each sample."""
    return min(BLOCKS, n_generated // 2 * 2, n_truth // 2 * 2)


def dealt(n: int, blocks: int) -> NDArray[np.int64]:
    """Block of each of n showers: dealt in turn, so neighbours in order are in neighbouring blocks."""
    return np.arange(n) % blocks


def of_values(name: str, samples: Sequence[NDArray[Any]], edges: NDArray[np.float64]) -> Blocked:
    """One number a shower: arrays `[N]` of the generated, the true and perhaps the floor sample; NaN is left out."""
    blocks = block_count(samples[0].size, samples[1].size)
    values = [np.asarray(v, dtype=np.float64) for v in samples]
    deals = [dealt(v.size, blocks) for v in values]
    fine_edges = common_range(values)
    counts = [block_histogram(v, d, blocks, edges) for v, d in zip(values, deals, strict=True)]
    fine = [block_histogram(v, d, blocks, fine_edges) for v, d in zip(values, deals, strict=True)]
    return _blocked(name, edges, counts, fine, positions(fine_edges))


def of_rows(name: str, samples: Sequence[NDArray[Any]], edges: NDArray[np.float64], *, log: bool = False) -> Blocked:
    """One histogram a shower: rows `[N, bins + 2]` on `edges`; Wasserstein along log10 of the axis where `log`."""
    blocks = block_count(samples[0].shape[0], samples[1].shape[0])
    counts = [block_sum(rows, dealt(rows.shape[0], blocks), blocks) for rows in samples]
    return _blocked(name, edges, counts, counts, positions(np.log10(edges) if log else edges))


def _blocked(
    name: str,
    edges: NDArray[np.float64],
    counts: Sequence[NDArray[np.float64]],
    fine: Sequence[NDArray[np.float64]],
    position: NDArray[np.float64],
) -> Blocked:
    third, fine_third = (s[2] if len(s) > 2 else None for s in (counts, fine))
    return Blocked(name, edges, counts[0], counts[1], third, (fine[0], fine[1], fine_third), position)


def common_range(values: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Edges of `FINE_BINS` bins that hold every finite value."""
    known = [v[np.isfinite(v)] for v in values]
    low = min((float(v.min()) for v in known if v.size), default=0.0)
    high = max((float(v.max()) for v in known if v.size), default=1.0)
    return np.linspace(low, np.nextafter(max(high, low + 1e-12), math.inf), FINE_BINS + 1)


def positions(edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Middles of the bins, and one step further for the entries below and above the range."""
    middle = 0.5 * (edges[1:] + edges[:-1])
    first, last = edges[1] - edges[0], edges[-1] - edges[-2]
    return np.concatenate([[middle[0] - first], middle, [middle[-1] + last]])


def squared_score(
    name: str,
    metric: str,
    unit: str,
    distance: Distance,
    generated: NDArray[np.float64],
    truth: NDArray[np.float64],
    resampling: Resampling,
) -> Score:
    """Score of a distance quadratic in the difference of histograms `[blocks, bins]`, such as a divergence.

    Floor and error as in `metrics.divergence_score`: the floor falls as 1/n, and the noise that resampling counts again
    is taken off.
    """
    floor, spread = floor_of(generated, truth, distance, 1.0, resampling)
    raw = bootstrap_error(generated, truth, distance, resampling)
    error = math.sqrt(max(raw**2 - 2 * spread**2, spread**2))
    return Score(name, metric, unit, float(distance(generated.sum(0), truth.sum(0))), error, floor, spread)


def linear_score(
    name: str,
    metric: str,
    unit: str,
    distance: Distance,
    generated: NDArray[np.float64],
    truth: NDArray[np.float64],
    resampling: Resampling,
) -> Score:
    """Score of a distance linear in the difference of sums `[blocks, entries]`: its floor falls as 1/sqrt(n)."""
    floor, spread = floor_of(generated, truth, distance, 0.5, resampling)
    error = max(bootstrap_error(generated, truth, distance, resampling), spread)
    return Score(name, metric, unit, float(distance(generated.sum(0), truth.sum(0))), error, floor, spread)
