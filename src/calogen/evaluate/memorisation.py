"""Whether a model repeats showers: those it was trained on, or its own.

Three questions to nearest neighbours among standardised features; each has a floor that no model which draws anew
exceeds, and each is answered with the error it has for such a model.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calogen.evaluate.features import checked, moments, normalised, row_blocks
from calogen.evaluate.metrics import Score
from calogen.evaluate.neighbours import BLOCK, neighbour_distances, squared

MAX_SHOWERS = 10_000
"""Generated and test showers that are looked at; of the training showers all are."""
MIN_SHOWERS = 100
"""Fewer showers than this do not tell a copy from an accident."""
REPEATED = 0.05
"""Share of Geant4 showers that lie closest to another: a generated shower as close to another counts as a repeat."""


class _Nearest(NamedTuple):
    """For each shower its squared distance `[n]` to the nearest of some others, and which of them that is."""

    distance: NDArray[np.float64]
    which: NDArray[np.intp]


def memorisation(
    generated: ArrayLike,
    training: ArrayLike,
    test: ArrayLike,
    *,
    observable: str = "high-level features",
    seed: int = 0,
    max_showers: int = MAX_SHOWERS,
) -> tuple[Score, Score, Score]:
    """Is the model's sample closer to its training set than independent Geant4 showers are?

    All distances are Euclidean in features that have mean 0 and standard deviation 1 in the training set. The scores:

    - `training_neighbours`: the rate at which a generated shower's nearest Geant4 shower is one of the training set,
      over that rate and the same for the test set, each rate per shower of the set. 1/2 for every model that draws
      anew, good or bad; 1 if all showers are copies, however many are in each set.
    - `training_distance`: the probability that a generated shower is nearer to its nearest training shower than a test
      shower is to its own. 1/2 for Geant4, 1 for copies; it sees a few copies among many training showers better, but
      exceeds 1/2 also for a model that only draws the most common showers (as shows in its coverage).
    - `repeats`: the share of generated showers as near to another generated one as the nearest 5 % of test showers to
      another test shower: 0.05 for Geant4, 1 if each is there twice.

    Training and test showers must be of one distribution. Where the generated showers are for the incident particles
    of the test showers, leave the incident energy out of the features: it alone would draw them to the test set.

    Args:
        generated: features of the model's showers `[m, d]`.
        training: those of the Geant4 showers it was trained on `[n, d]`, all: copies of one left out go unseen.
        test: those of other Geant4 showers of the same kind `[l, d]`.
        observable: what the features are.
        seed: of the showers taken where there are more than `max_showers`.
        max_showers: of the generated and of the test showers.

    Raises:
        ValueError: fewer than 100 showers, NaN, different numbers of features.
    """
    purpose = "the check for memorised showers"
    known, made = checked(training, generated, minimum=MIN_SHOWERS, purpose=purpose)
    _, held_out = checked(training, test, minimum=MIN_SHOWERS, purpose=purpose)
    rng = np.random.default_rng(seed)
    made, held_out = (v[np.sort(rng.permutation(len(v))[:max_showers])] for v in (made, held_out))
    mean, spread = moments(known)
    x, known, held_out = (normalised(v, spread, mean) for v in (made, known, held_out))
    to_known, to_held_out = _nearest(x, known), _nearest(x, held_out)
    return (
        _neighbour_score(observable, to_known, to_held_out, len(known), len(held_out)),
        _distance_score(observable, to_known.distance, _nearest(held_out, known).distance),
        _repeat_score(observable, x, held_out),
    )


def repeats(
    generated: ArrayLike,
    test: ArrayLike,
    *,
    observable: str = "high-level features",
    seed: int = 0,
    max_showers: int = MAX_SHOWERS,
) -> Score:
    """The score `repeats` of `memorisation` alone, which needs no training set; features standardised by the test set.

    Raises:
        ValueError: fewer than 100 showers, NaN, different numbers of features.
    """
    held_out, made = checked(test, generated, minimum=MIN_SHOWERS, purpose="the check for repeated showers")
    rng = np.random.default_rng(seed)
    made, held_out = (v[np.sort(rng.permutation(len(v))[:max_showers])] for v in (made, held_out))
    mean, spread = moments(held_out)
    return _repeat_score(observable, *(normalised(v, spread, mean) for v in (made, held_out)))


def _nearest(x: NDArray[np.float64], others: NDArray[np.float64]) -> _Nearest:
    tile = squared(x, others)
    distance, index = np.full(len(x), np.inf), np.zeros(len(x), dtype=np.intp)
    for rows in row_blocks(len(x), BLOCK):
        for columns in row_blocks(len(others), BLOCK):
            d = tile(rows, columns)
            best = d.argmin(axis=1)
            value = d[np.arange(len(d)), best]
            nearer = value < distance[rows]
            distance[rows] = np.where(nearer, value, distance[rows])
            index[rows] = np.where(nearer, best + columns.start, index[rows])
    return _Nearest(distance, index)


def _neighbour_score(observable: str, to_known: _Nearest, to_held_out: _Nearest, n: int, n_test: int) -> Score:
    """Its error is that under exchange of training and test showers, of which some are the nearest of many."""
    copied = to_known.distance < to_held_out.distance
    m = len(copied)
    rate_known, rate_test = float(copied.sum()) / n, float(m - copied.sum()) / n_test
    chosen = np.where(copied, to_known.which, n + to_held_out.which)
    together = math.sqrt(float(np.square(np.bincount(chosen).astype(np.float64)).sum()))
    p = n / (n + n_test)
    error = 0.25 * together / (m * math.sqrt(p * (1 - p)))
    value = rate_known / (rate_known + rate_test)
    return Score(observable, "training_neighbours", "", value, error, 0.5, error)


def _distance_score(observable: str, generated: NDArray[np.float64], test: NDArray[np.float64]) -> Score:
    """Mann and Whitney's statistic, with the error of DeLong et al. (Biometrics 44 (1988) 837)."""
    of_generated, of_test = _share_above(generated, test), _share_above(test, generated)
    m, n = len(generated), len(test)
    error = math.sqrt(float(of_generated.var(ddof=1)) / m + float(of_test.var(ddof=1)) / n)
    chance = math.sqrt((1 / m + 1 / n) / 12)
    return Score(observable, "training_distance", "", float(of_generated.mean()), max(error, chance), 0.5, chance)


def _share_above(values: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each value the share of others above it, ties by half."""
    ordered = np.sort(others)
    below, up_to = (np.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    return np.asarray(1 - 0.5 * (below + up_to) / len(others))


def _repeat_score(observable: str, generated: NDArray[np.float64], test: NDArray[np.float64]) -> Score:
    """At equal sizes, on which nearest distances depend."""
    size = min(len(generated), len(test))
    made, true = (np.sqrt(_nearest_other(v[:size])) for v in (generated, test))
    limit = float(np.quantile(true, REPEATED))
    share = float((made <= limit).mean())
    # Near pairs are mostly mutual, so they count once; the limit is as uncertain as the share below it.
    chance = math.sqrt(2 * REPEATED * (1 - REPEATED) / size)
    own = math.sqrt(2 * share * (1 - share) / size)
    return Score(observable, "repeats", "", share, math.hypot(max(own, chance), chance), REPEATED, chance)


def _nearest_other(x: NDArray[Any]) -> NDArray[np.float64]:
    return neighbour_distances(len(x), squared(x, x), 1)
