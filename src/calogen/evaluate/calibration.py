"""Isotonic calibration: from what a classifier says to the probability that it means."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression


@dataclass(frozen=True, eq=False)
class Calibration:
    """A monotone map from logits to C, the probability of the truth where both classes are equally frequent.

    Straight lines between `logit [k]`, `probability [k]`; constant beyond them.
    """

    logit: NDArray[np.float64]
    probability: NDArray[np.float64]

    def __call__(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """C of any logits."""
        return np.interp(logits, self.logit, self.probability)


def calibrate(generated: NDArray[np.float64], truth: NDArray[np.float64]) -> Calibration:
    """The monotone step function closest to the labels of held-out logits `[n]`, `[m]` (Zadrozny and Elkan, 2002).

    Classes count equally whatever their sizes. One shower of each class is added at the lowest and at the highest
    logit: after k showers of one class alone the probability of the other is 1/(k + 2) (Laplace's rule) and not zero,
    so that no logarithm and no weight C/(1 - C) is infinite, and none has to be cut off.

    >>> calibrate(np.array([-1.0, -1.0]), np.array([1.0, 1.0])).probability
    array([0.25, 0.75])
    """
    low, high = min(generated.min(), truth.min()), max(generated.max(), truth.max())
    logits = np.concatenate([generated, truth, [low, low, high, high]])
    label = np.concatenate([np.zeros(generated.size), np.ones(truth.size), [0.0, 1.0, 0.0, 1.0]])
    total = generated.size + truth.size
    weight = np.where(label == 1, total / (2 * truth.size), total / (2 * generated.size))
    place, row = np.unique(logits, return_inverse=True)
    weights = np.bincount(row, weight)
    values = isotonic_regression(np.bincount(row, weight * label) / weights, weights=weights)
    knots = np.unique([*values.blocks[:-1], *(values.blocks[1:] - 1)])
    return Calibration(place[knots], values.x[knots])
