"""Precision, recall, density and coverage as scores: their floors and errors by exchange of showers.

Any division of both samples' showers into two has its four numbers from one table, the nearest neighbours of every
shower among all: so they are had for hundreds of divisions at the cost of two.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calogen.evaluate.features import checked, row_blocks
from calogen.evaluate.metrics import Score, Sense
from calogen.evaluate.neighbours import BLOCK, NEIGHBOURS, Prdc, squared

REPLICAS = 50
"""Exchanges behind floors and errors: standard deviations to 10 %."""
MAX_SHOWERS = 2000
"""Showers of each sample behind the scores."""
MIN_SHOWERS = 100
"""Fewer showers leave halves in which the fifth neighbour is no neighbour."""
LISTED = 24
"""Neighbours in the table for each of the k: of a quarter of all showers, k are then nearly always among them."""
SENSES: dict[str, Sense] = {"precision": "high", "recall": "high", "density": "both", "coverage": "high"}
OUT, TRUE, MADE = 0, 1, 2
"""Labels of showers that take no part, or are called true or generated."""


def prdc_scores(
    reference: ArrayLike,
    generated: ArrayLike,
    *,
    observable: str = "voxels",
    k: int = NEIGHBOURS,
    seed: int = 0,
    paired: bool = False,
    replicas: int = REPLICAS,
    max_showers: int = MAX_SHOWERS,
) -> tuple[Score, Score, Score, Score]:
    """Precision, recall, density and coverage with errors and floors, of equally many showers of both samples.

    Floors are means over random exchanges of showers between the samples, of which each then holds half of either:
    exact if they are of one distribution, and hardly different if not (a coverage of 1 - 2^-k and a density of 1 are
    those of any distribution). The floor's spread is that of the exchanges. The error is that, or what random halves
    of the samples show, carried to their sizes by what halves of exchanged samples show, if it is more.

    Args:
        reference: features of the true showers `[n, d]`.
        generated: those of the generated ones `[m, d]`.
        observable: what the features are.
        k: which neighbour.
        seed: same seed, same exchanges.
        paired: row i of both is of the same incident particle: only these are exchanged.
        replicas: exchanges.
        max_showers: of each sample, at random.

    Raises:
        ValueError: fewer than 100 showers, NaN, different numbers of features, paired samples of different lengths.
    """
    true, made = checked(reference, generated, minimum=MIN_SHOWERS, purpose="the scores of PRDC")
    if paired and len(true) != len(made):
        raise ValueError(f"paired samples must be of one length; there are {len(true)} true and {len(made)} generated")
    rng, n = np.random.default_rng(seed), min(len(true), len(made), max_showers)
    first = rng.permutation(len(true))[:n]
    second = first if paired else rng.permutation(len(made))[:n]
    table = _Table(np.concatenate([true[first], made[second]]), k)
    actual = np.repeat(np.array([TRUE, MADE], dtype=np.int8), n)
    exchanged = [_exchanged(actual, paired, rng) for _ in range(replicas)]
    floors = np.array([table.prdc(labels) for labels in exchanged])
    halves = np.array([table.prdc(_halved(actual, paired, rng)) for _ in range(replicas)])
    of_exchanged = np.array([[table.prdc(_halved(e, paired, rng)) for _ in range(2)] for e in exchanged])
    spread = floors.std(axis=0, ddof=1)
    by_halving = np.sqrt(0.5 * np.square(of_exchanged[:, 0] - of_exchanged[:, 1]).mean(axis=0))
    carried = np.divide(spread, by_halving, out=np.ones_like(spread), where=by_halving > 0)
    # Where nothing ever changed, one shower of n might have.
    least = 1 / n
    error = np.maximum(np.maximum(spread, carried * halves.std(axis=0, ddof=1)), least)
    floor, values = floors.mean(axis=0), table.prdc(actual)
    p, r, d, c = (
        Score(observable, name, "", values[i], float(error[i]), float(floor[i]), float(spread[i]), sense)
        for i, (name, sense) in enumerate(SENSES.items())
    )
    return p, r, d, c


def _exchanged(labels: NDArray[np.int8], paired: bool, rng: np.random.Generator) -> NDArray[np.int8]:
    """Labels `[2 n]` of true showers, then of generated ones, dealt anew: of each pair, or of all."""
    if paired:
        return np.asarray(rng.permuted(labels.reshape(2, -1), axis=0).ravel())
    return rng.permutation(labels)


def _halved(labels: NDArray[np.int8], paired: bool, rng: np.random.Generator) -> NDArray[np.int8]:
    """The same with half of each sample left out, where paired half of the pairs."""
    kept = np.zeros(labels.size, dtype=bool)
    n = labels.size // 2
    if paired:
        kept.reshape(2, n)[:, rng.permutation(n)[: n // 2]] = True
    else:
        for label in (TRUE, MADE):
            kept[rng.permutation(np.flatnonzero(labels == label))[: n // 2]] = True
    return np.where(kept, labels, OUT).astype(np.int8)


class _Table:
    """The nearest neighbours of each of N showers, in order: their indices and squared distances `[N, listed]`."""

    def __init__(self, points: NDArray[Any], k: int) -> None:
        self.points, self.k = points, k
        self.centre = points.mean(axis=0, dtype=np.float64)
        n = min(LISTED * k, len(points) - 1)
        self.index = np.empty((len(points), n), dtype=np.int32)
        tile = squared(points, points, self.centre)
        self.distance = np.empty((len(points), n), dtype=np.float32 if points.dtype == np.float32 else np.float64)
        for rows in row_blocks(len(points), BLOCK):
            d = tile(rows, slice(0, len(points)))
            d[np.arange(len(d)), np.arange(rows.start, rows.stop)] = np.inf
            nearest = np.argpartition(d, n - 1, axis=1)[:, :n]
            nearest = np.take_along_axis(nearest, np.take_along_axis(d, nearest, axis=1).argsort(axis=1), axis=1)
            self.index[rows], self.distance[rows] = nearest, np.take_along_axis(d, nearest, axis=1)

    def prdc(self, labels: NDArray[np.int8]) -> Prdc:
        """The four numbers where each shower is true, generated or left out."""
        density, coverage, precision = self._balls(labels, TRUE, MADE)
        return Prdc(precision, self._balls(labels, MADE, TRUE)[2], density, coverage)

    def _balls(self, labels: NDArray[np.int8], mine: int, other: int) -> tuple[float, float, float]:
        """Of the balls that reach to the k-th neighbour of one's own: others in each, over k and in proportion to
        the numbers; share of balls that hold any; share of the others that are in any.
        """
        own, others = np.flatnonzero(labels == mine), np.flatnonzero(labels == other)
        near, distance = labels[self.index[own]], self.distance[own]
        rank = np.cumsum(near == mine, axis=1, dtype=np.int16)
        radius = distance[np.arange(own.size), (rank >= self.k).argmax(axis=1)]
        inside = (near == other) & (distance < radius[:, None])
        unlisted = np.flatnonzero(rank[:, -1] < self.k)
        inside[unlisted] = False
        count, reached = inside.sum(axis=1), np.zeros(labels.size, dtype=bool)
        reached[self.index[own][inside]] = True
        for rows in row_blocks(unlisted.size, BLOCK):
            which = own[unlisted[rows]]
            within = self._inside(which, own, others)
            count[unlisted[rows]] = within.sum(axis=1)
            reached[others] |= within.any(axis=0)
        return float(count.sum()) / (self.k * others.size), float((count > 0).mean()), float(reached[others].mean())

    def _inside(self, which: NDArray[np.intp], own: NDArray[np.intp], others: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Which others are in the balls of `which` of one's own, whose k-th neighbour is not in the table."""
        everyone = slice(0, len(which))
        to_own = squared(self.points[which], self.points[own], self.centre)(everyone, slice(0, len(own)))
        to_own[np.arange(len(which)), np.searchsorted(own, which)] = math.inf
        radius = np.partition(to_own, self.k - 1, axis=1)[:, self.k - 1]
        to_others = squared(self.points[which], self.points[others], self.centre)(everyone, slice(0, len(others)))
        return np.asarray(to_others < radius[:, None])
