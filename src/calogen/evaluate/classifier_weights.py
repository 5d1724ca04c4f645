"""Weights w = C/(1 - C) of every shower: how they are distributed, for the showers of a third sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calogen.evaluate.classifier import Classified
from calogen.evaluate.findings import Curve, Series
from calogen.evaluate.parts import MODEL, REFERENCE

WEIGHT_BINS = 40
"""Logarithmic bins of the weights."""


@dataclass(frozen=True, eq=False)
class Weights:
    """Natural logarithms of w, `generated [n]` and `truth [m]`; NaN for showers that no third sample held.

    w is the density of the truth over that of the generator: showers below 1 are made too often, those above too
    rarely. Reweighted by w, the generated sample follows the truth as far as the classifier sees.
    """

    generated: NDArray[np.float64]
    truth: NDArray[np.float64]


def weights_of(trained: Sequence[Classified]) -> Weights:
    """Weights of all showers that were in a third sample; the mean of ln w where several trainings held a shower.

    >>> from calogen.evaluate.classifier import classify
    >>> from calogen.evaluate.classifier_settings import ClassifierSettings
    >>> settings = ClassifierSettings(hidden=(4,), epochs=1, batch=100)
    >>> x = np.random.default_rng(0).normal(size=(400, 2))
    >>> weights = weights_of([classify(x[:200], x[200:], settings, seed=0)])
    >>> weights.generated.shape, int(np.isfinite(weights.generated).sum())
    ((200,), 40)
    """
    sums = [np.zeros(n) for n in trained[0].sizes]
    times = [np.zeros(n) for n in trained[0].sizes]
    for c in trained:
        for k, (rows, p) in enumerate(((c.generated_rows, c.p_generated), (c.truth_rows, c.p_truth))):
            sums[k][rows] += np.log(p) - np.log1p(-p)
            times[k][rows] += 1
    means = [np.divide(s, t, out=np.full_like(s, np.nan), where=t > 0) for s, t in zip(sums, times, strict=True)]
    return Weights(means[0], means[1])


def weight_curve(weights: Weights, name: str = "classifier_weights") -> Curve:
    """Shares of showers of both samples in logarithmic bins of w (CaloDREAM, arXiv:2405.09629, Fig. 10).

    A narrow peak at 1 in both is a good generator; a tail of generated showers at small w are showers that are made
    but do not happen, one of true showers at large w are showers that happen but are not made.
    """
    known = [w[np.isfinite(w)] for w in (weights.truth, weights.generated)]
    reach = max(float(np.abs(np.concatenate(known)).max(initial=0)), math.log(2)) * (1 + 1e-9)
    edges = np.linspace(-reach, reach, WEIGHT_BINS + 1)
    series = []
    for label, values in zip((REFERENCE, MODEL), known, strict=True):
        share = np.histogram(values, edges)[0] / max(values.size, 1)
        series.append(Series(label, share, np.sqrt(share * (1 - share) / max(values.size, 1))))
    return Curve(
        name,
        "Weights of the classifier",
        "w = C/(1 - C)",
        "share of showers",
        np.exp(edges),
        tuple(series),
        log_x=True,
        log_y=True,
    )
