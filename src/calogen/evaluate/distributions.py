"""The point-cloud table as findings: its divergences and distances, its histograms and the mean response."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calogen.evaluate.evaluation import EnergyBin, Evaluation, HistogramPair, Row
from calogen.evaluate.findings import Curve, Findings, Series
from calogen.evaluate.metrics import Score
from calogen.units import MEV_PER_GEV

NAME = "distributions"
TEXT = (
    "Histograms of the readout cells above threshold, in the bins of the published table: Jensen-Shannon (JS) "
    "divergence with natural logarithm and no square root, and Wasserstein-1 distance in standard deviations of "
    "Geant4. Errors come from drawing whole showers again; the floor is what two Geant4 samples of these sizes score. "
    "Centres of gravity are distances from the shower axis (tilt removed)."
)
REFERENCE, MODEL = "Geant4", "model"
COARSE = "_coarse"
"""Ending of rows that stand in the table once more in coarser bins."""
MOST_BINS = 60
"""Narrower published bins are joined to at most so many where a histogram is handed on to be drawn."""
TAIL = 2e-3
"""Share of the entries left outside the drawn range at each end of a long axis."""
LOG_COUNTS = ("cell_energy", "energy_per_radius", "hits_per_radius")
_COUNTED = {"showers": "share of showers", "cells": "hits per shower", "energy": "energy per shower [GeV]"}


def distributions(evaluation: Evaluation) -> Findings:
    """Scores of the table's rows, histograms as curves with a ratio, and the response by incident energy.

    Rows of an observable in coarser bins have the divergence alone: the Wasserstein distance knows no bins, and that
    of the fine row is theirs.
    """
    scores = [replace(s, title=r.title) for r in evaluation.scores for s in _metrics(r)]
    curves = [_histogram(h) for h in evaluation.histograms if not h.name.endswith(COARSE)]
    curves += [c for q in ("visible_energy", "hits") if (c := _response(q, evaluation.response))]
    return Findings(NAME, "Distributions", TEXT, tuple[Score, ...](scores), tuple(curves))


def _metrics(r: Row) -> tuple[Score, ...]:
    return (r.jsd,) if r.observable.endswith(COARSE) else (r.jsd, r.wasserstein)


def _histogram(h: HistogramPair) -> Curve:
    edges, generated, generated_error, truth, truth_error = joined(h)
    scale, unit = (MEV_PER_GEV, "MeV") if h.name == "cell_energy" else (1.0, h.unit)
    return Curve(
        h.name,
        h.title,
        f"{h.axis} [{unit}]" if unit else h.axis,
        _COUNTED[h.counted],
        edges * scale,
        (Series(REFERENCE, truth, truth_error), Series(MODEL, generated, generated_error)),
        log_x=h.name == "cell_energy",
        log_y=h.name in LOG_COUNTS,
    )


def joined(h: HistogramPair) -> tuple[NDArray[np.float64], ...]:
    """Edges, generated and true contents with errors, over the range of the entries, in at most `MOST_BINS` bins."""
    n, total = h.truth.size, h.truth + h.generated
    if n <= MOST_BINS or h.name == "cell_energy":
        first, last = _occupied(total, 0.0)
        contents = (h.generated, h.generated_error, h.truth, h.truth_error)
        return h.edges[first : last + 1], *(c[first:last] for c in contents)
    first, last = _occupied(total, TAIL if h.counted == "showers" else 0.0)
    step = max(1, -(-(last - first) // MOST_BINS))
    last = min(n, first + -(-(last - first) // step) * step)
    starts = np.arange(first, last, step)
    sums = [np.add.reduceat(v[:last], starts) for v in (h.generated, h.truth)]
    errors = [np.sqrt(np.add.reduceat(e[:last] ** 2, starts)) for e in (h.generated_error, h.truth_error)]
    return np.append(h.edges[starts], h.edges[last]), sums[0], errors[0], sums[1], errors[1]


def _occupied(total: NDArray[np.float64], tail: float) -> tuple[int, int]:
    """First bin and one past the last that hold all but `tail` of the total at each end."""
    if not total.sum() > 0:
        return 0, total.size
    share = np.cumsum(total) / total.sum()
    first = int(np.searchsorted(share, tail, side="right"))
    last = int(np.searchsorted(share, 1 - max(tail, 1e-12), side="left")) + 1
    return max(0, first - 1), min(total.size, last + 1)


def _response(quantity: str, bins: tuple[EnergyBin, ...]) -> Curve | None:
    chosen = [b for b in bins if b.quantity == quantity and math.isfinite(b.high_gev)]
    if len(chosen) < 2:
        return None
    words, unit = ("visible energy", " [GeV]") if quantity == "visible_energy" else ("hits", "")

    def column(of: Any) -> NDArray[np.float64]:
        return np.array([of(b) for b in chosen], dtype=np.float64)

    return Curve(
        f"response_{quantity}",
        f"Mean {words} by incident energy",
        "incident energy [GeV]",
        f"mean {words}{unit}",
        column(lambda b: math.sqrt(b.low_gev * b.high_gev)),
        # The error of the difference stands on the model's side: both samples may share their incident energies.
        (
            Series(REFERENCE, column(lambda b: b.truth), np.zeros(len(chosen))),
            Series(MODEL, column(lambda b: b.generated), column(lambda b: b.ratio_error * b.truth)),
        ),
        log_x=True,
    )
