"""Separation power of histograms, with errors and floors for every layer and for the mean over layers.

The separation power (triangular discrimination) of two normalised histograms is 1/2 sum (p - q)^2 / (p + q), from 0 to
1 (arXiv:2009.03796, eq. 15; arXiv:2410.21611).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calogen.evaluate.metrics import EMPTY_BIN, Resampling

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

    The floor is what two samples of these sizes score if they are of one distribution: blocks of both are exchanged at
    random, half of each (those with the same particles where samples are paired), and the exchanged samples compared.
    Nothing has to be carried from halves of Geant4 to the whole, which for the challenge's hundred bins is wrong by
    several per cent with hundreds or thousands of showers. Where the samples differ in size, the floor is carried from
    equal sizes to theirs by the power of 1/n + 1/m that is seen between half and all of the showers.

    The power is quadratic in the difference, like the Jensen-Shannon divergence: drawing again from samples that
    already fluctuate counts their noise twice over, so twice the floor's variance is taken off the bootstrap's
    variance.
    """
    value = separation_power(*((generated.sum(axis=0), truth.sum(axis=0)) if totals is None else totals))
    first, second = resampling.draws(truth.shape[0])
    drawn = _powers(_weighted(first, generated), _weighted(second, truth))
    floors = _exchanged(generated, truth, resampling, 1.0)
    unequal = (resampling.n_generated + resampling.n_truth) ** 2 / (4 * resampling.n_generated * resampling.n_truth)
    if unequal > 1:
        halves = _exchanged(generated, truth, resampling, 0.5)
        means = (np.maximum(v.mean(axis=0), EMPTY_BIN) for v in (halves, floors))
        floors = floors * unequal ** np.clip(np.log2(np.divide(*means)), 0.0, 1.0)
    return Separation(_measured(value, drawn, floors), _measured(*(_mean(v) for v in (value, drawn, floors))))


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the layers, the last axis, kept as an axis."""
    return np.asarray(values.mean(axis=-1, keepdims=True))


def _exchanged(
    generated: NDArray[np.float64], truth: NDArray[np.float64], resampling: Resampling, share: float
) -> NDArray[np.float64]:
    """Separation powers `[replicas, layers]` of two samples that each have half of either one's blocks.

    Both samples together have a random `share` of all blocks. Where showers are paired, a sample that has a block of
    the generated showers lacks that of the truth: then both have the same particles.
    """
    rng = np.random.default_rng([resampling.seed, 5])
    blocks = truth.shape[0]
    half = max(1, round(blocks * share / 2))

    def halves() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        place = rng.permuted(np.tile(np.arange(blocks), (resampling.replicas, 1)), axis=1)
        return (place < half).astype(np.float64), ((place >= half) & (place < 2 * half)).astype(np.float64)

    first, second = halves()
    other_second, other_first = (first, second) if resampling.paired else halves()
    return _powers(
        _weighted(first, generated) + _weighted(other_first, truth),
        _weighted(second, generated) + _weighted(other_second, truth),
    )


def _weighted(weights: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of blocks `[replicas, layers, bins]` for weights `[replicas, blocks]`."""
    return (weights @ counts.reshape(counts.shape[0], -1)).reshape(weights.shape[0], *counts.shape[1:])


def _powers(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    """Separation powers `[replicas, layers]` of counts `[replicas, layers, bins]`, some replicas at a time."""
    step = max(1, PIECE_ENTRIES // p[0].size)
    return np.concatenate([separation_power(p[i : i + step], q[i : i + step]) for i in range(0, len(p), step)])


def _measured(value: NDArray[np.float64], drawn: NDArray[np.float64], floors: NDArray[np.float64]) -> Measured:
    """From replicas `[replicas, layers]` to errors and floors `[layers]`."""
    spread = floors.std(axis=0, ddof=1)
    error = np.sqrt(np.maximum(drawn.var(axis=0, ddof=1) - 2 * spread**2, spread**2))
    return Measured(value, error, floors.mean(axis=0), spread)
