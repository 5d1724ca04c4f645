"""Separation power of histograms, with errors and floors for every layer and for the mean over layers.

The separation power (triangular discrimination) of two normalised histograms is 1/2 sum (p - q)^2 / (p + q), from 0 to
1 (arXiv:2009.03796, eq. 15; arXiv:2410.21611).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calogen.evaluate.metrics import EMPTY_BIN, MIN_BLOCKS_FOR_POWER, Resampling

SMALLEST_SUM = 1e-16
"""Added to p + q, as in the challenge's code: bins that are empty in both samples count nothing."""

PIECE_ENTRIES = 1 << 17
"""Bins of replicas handled at once, so that they stay in the processor's cache."""


def separation_power(p: NDArray[Any], q: NDArray[Any]) -> NDArray[np.float64]:
    """Separation power of counts `[..., bins]`.

    A sample without entries has nothing in common with one that has some (1); two without entries are equal (0).

    >>> round(float(separation_power(np.array([1, 1, 0]), np.array([0, 1, 1]))), 9)
    0.5
    """
    p, q = np.asarray(p, dtype=np.float64), np.asarray(q, dtype=np.float64)
    n, m = p.sum(axis=-1, keepdims=True), q.sum(axis=-1, keepdims=True)
    p = p / np.where(n > 0, n, 1.0)
    q = q / np.where(m > 0, m, 1.0)
    both = p + q
    both += SMALLEST_SUM
    p -= q
    p *= p
    p /= both
    power = 0.5 * p.sum(axis=-1)
    one_is_empty = (n[..., 0] > 0) != (m[..., 0] > 0)
    return np.asarray(np.where(one_is_empty, 1.0, power))


@dataclass(frozen=True, eq=False)
class Measured:
    """A value with its error, its floor and the floor's spread: numbers, or one of each for every layer."""

    value: NDArray[np.float64]
    error: NDArray[np.float64]
    floor: NDArray[np.float64]
    floor_error: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Separation:
    """Separation power of each histogram `[layers]`, and of their mean."""

    layers: Measured
    mean: Measured


def separation(
    generated: NDArray[np.float64],
    truth: NDArray[np.float64],
    resampling: Resampling,
    totals: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
) -> Separation:
    """Separation powers of two samples given as counts per block, `[blocks, layers, bins]` each.

    `totals` are the counts `[layers, bins]` of the whole samples where the sums over blocks are not exactly these.

    The power is quadratic in the difference, like the Jensen-Shannon divergence: drawing again from samples that
    already fluctuate counts their noise twice over, so twice the floor's variance is taken off the bootstrap's
    variance. The floor is measured between random halves of the truth and carried to the compared sizes (where bins
    are filled it falls as 1/n + 1/m, with few entries more slowly: half of the lack seen between quarters and halves
    is taken off, as for the other divergences).
    """
    value = separation_power(*((generated.sum(axis=0), truth.sum(axis=0)) if totals is None else totals))
    blocks = truth.shape[0]
    drawn = _replicas(resampling.draws(blocks), generated, truth)
    halves = _replicas(resampling.splits(blocks), truth, truth)
    quarters = None if blocks < MIN_BLOCKS_FOR_POWER else _replicas(resampling.splits(blocks, 0.5), truth, truth)
    ratio = resampling.size_ratio
    layers = _measured(value, drawn, halves, quarters, ratio)
    mean = _measured(
        value.mean(keepdims=True),
        drawn.mean(axis=1, keepdims=True),
        halves.mean(axis=1, keepdims=True),
        None if quarters is None else quarters.mean(axis=1, keepdims=True),
        ratio,
    )
    return Separation(layers, mean)


def _replicas(
    weights: tuple[NDArray[np.float64], NDArray[np.float64]], p: NDArray[np.float64], q: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Separation powers `[replicas, layers]` of sums of blocks, for weights `[replicas, blocks]` of either sample."""
    sums = [
        (w @ counts.reshape(counts.shape[0], -1)).reshape(-1, *counts.shape[1:])
        for w, counts in zip(weights, (p, q), strict=True)
    ]
    step = max(1, PIECE_ENTRIES // p[0].size)
    starts = range(0, sums[0].shape[0], step)
    return np.concatenate([separation_power(sums[0][i : i + step], sums[1][i : i + step]) for i in starts])


def _measured(
    value: NDArray[np.float64],
    drawn: NDArray[np.float64],
    halves: NDArray[np.float64],
    quarters: NDArray[np.float64] | None,
    size_ratio: float,
) -> Measured:
    """From replicas `[replicas, layers]` to errors and floors `[layers]`."""
    power = np.ones(value.shape)
    if quarters is not None:
        means = (np.maximum(v.mean(axis=0), EMPTY_BIN) for v in (quarters, halves))
        power -= 0.5 * np.clip(1.0 - np.log2(np.divide(*means)), 0.0, 1.0)
    floors = halves * size_ratio**power
    spread = floors.std(axis=0, ddof=1)
    error = np.sqrt(np.maximum(drawn.var(axis=0, ddof=1) - 2 * spread**2, spread**2))
    return Measured(value, error, floors.mean(axis=0), spread)
