"""Errors of statistics of one number a shower, and the score of a ratio that should be one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calogen.evaluate.metrics import Score

Statistic = Callable[[NDArray[np.float64]], float]
"""From the numbers of some showers `[n]` to one number."""
RATIO_REPLICAS = 120
"""Resamplings behind the error of one statistic: it is known to 6 %."""

NEARLY_ONE = 1e-6
"""A ratio so near to one has the error of its logarithm."""


def resampled(
    values: NDArray[Any], statistic: Statistic, rng: np.random.Generator, replicas: int = RATIO_REPLICAS
) -> NDArray[np.float64]:
    """The statistic of samples drawn with replacement from `values [n]` (NaN left out), `[replicas]`."""
    known = np.asarray(values, dtype=np.float64)[np.isfinite(values)]
    n = known.size
    return np.array([statistic(known[rng.integers(0, n, n)]) for _ in range(replicas)])


def with_error(
    values: NDArray[Any], statistic: Statistic, rng: np.random.Generator, replicas: int = RATIO_REPLICAS
) -> tuple[float, float]:
    """The statistic of `values [n]` and the standard deviation of it when showers are drawn again."""
    known = np.asarray(values, dtype=np.float64)[np.isfinite(values)]
    if known.size < 2:
        return math.nan, math.nan
    return statistic(known), float(np.std(resampled(known, statistic, rng, replicas), ddof=1))


def ratio_score(
    observable: str,
    metric: str,
    title: str,
    generated: tuple[float, float],
    truth: tuple[float, float],
    n: tuple[int, int],
) -> Score:
    """Ratio of a statistic (value, error) of both samples to be compared with one, either side of it.

    The floor is exactly one: two Geant4 samples agree on average. `floor_error` is the ratio's standard deviation for
    two Geant4 samples of the `n` = (generated, true) showers. The error is such that ratio - 1 has the significance of
    ln(ratio): the same whichever sample is called the truth, where that of the ratio itself is larger below one.
    """
    (a, a_error), (b, b_error) = generated, truth
    ratio = a / b if b else math.nan
    error = math.hypot(a_error, ratio * b_error) / abs(b) if b else math.nan
    if ratio > 0 and abs(ratio - 1) > NEARLY_ONE:
        error *= (ratio - 1) / math.log(ratio) / ratio
    spread = abs(b_error / b) * math.sqrt(1 + n[1] / n[0]) if b else math.nan
    return Score(observable, metric, "", ratio, error, 1.0, spread, sense="both", title=title)


def difference_score(
    observable: str,
    metric: str,
    unit: str,
    title: str,
    generated: tuple[float, float],
    truth: tuple[float, float],
    n: tuple[int, int],
) -> Score:
    """Difference of a statistic (value, error) of both samples, to be compared with zero, either side of it."""
    (a, a_error), (b, b_error) = generated, truth
    spread = b_error * math.sqrt(1 + n[1] / n[0])
    return Score(observable, metric, unit, a - b, math.hypot(a_error, b_error), 0.0, spread, sense="both", title=title)
