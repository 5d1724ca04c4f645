"""The point-cloud protocol: one sample judged against Geant4, every number with its error and its floor."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from calogen.detector.geometry import Detector
from calogen.evaluate.blocks import BLOCKS, FINE_BINS, Blocked, of_rows, of_values
from calogen.evaluate.evaluation import FORMAT, EnergyBin, Evaluation, HistogramPair, Losses, Row
from calogen.evaluate.incidents import (
    DIFFERENT_INCIDENT_P,
    MIN_SHOWERS,
    SAME_INCIDENT_TOLERANCE,
    Sample,
    aligned_order,
    batches_of,
    cautions,
    check_same_detector,
    check_sizes,
    shuffled,
)
from calogen.evaluate.metrics import Resampling, Score
from calogen.evaluate.observables import OBSERVABLES, Binning, Observed, observe_all, quantile_edges, shower_edges

__all__ = [
    "BLOCKS",
    "COARSE_BINS",
    "DECADES_GEV",
    "DIFFERENT_INCIDENT_P",
    "FINE_BINS",
    "FORMAT",
    "MIN_SHOWERS",
    "PROFILE_BINS",
    "REPLICAS",
    "SAME_INCIDENT_TOLERANCE",
    "EnergyBin",
    "Evaluation",
    "HistogramPair",
    "Losses",
    "Row",
    "Sample",
    "Score",
    "evaluate",
    "judge",
    "judge_aligned",
]

REPLICAS = 300
"""Resamplings behind each error and floor: they give standard deviations to 4 %."""
COARSE_BINS = 30
"""Bins of equal content of the added, coarser centre-of-gravity rows."""
DECADES_GEV = (0.1, 1.0, 10.0, 100.0, 1000.0, 10_000.0)
PROFILE_BINS = 8
"""Bins of equal content in incident energy of the response figure."""


def evaluate(
    generated: Sample,
    truth: Sample,
    *,
    floor_sample: Sample | None = None,
    seed: int = 0,
    replicas: int = REPLICAS,
) -> Evaluation:
    """Judge generated showers against Geant4 after projection into the detector's cells and its thresholds.

    Args:
        generated: showers of the model, best drawn for the incident particles of the truth.
        truth: showers of Geant4, of the same detector.
        floor_sample: another independent Geant4 sample; its distance to the truth, carried to the compared sizes, is
            then the floor instead of the distance between halves of the truth.
        seed: of the resampling.
        replicas: number of resamplings.

    Raises:
        ValueError: different detectors or particle types, or too few showers.
    """
    detector, truth_batches = batches_of(truth, "truth")
    generated_detector, generated_batches = batches_of(generated, "generated sample")
    check_same_detector(generated_detector, detector)
    binning = Binning.of(detector)
    true = observe_all(truth_batches, binning, detector)
    gen = observe_all(generated_batches, binning, detector)
    extra = None
    if floor_sample is not None:
        extra = observe_all(batches_of(floor_sample, "floor sample")[1], binning, detector)
    return judge(gen, true, detector, binning, floor=extra, seed=seed, replicas=replicas)


def judge(
    gen: Observed,
    true: Observed,
    detector: Detector,
    binning: Binning,
    *,
    floor: Observed | None = None,
    seed: int = 0,
    replicas: int = REPLICAS,
) -> Evaluation:
    """`evaluate` for samples that are already observed (so one truth serves many generated samples)."""
    check_sizes(gen, true, floor)
    first, second, paired = aligned_order(gen, true, seed)
    return judge_aligned(gen[first], true[second], paired, detector, binning, floor=floor, seed=seed, replicas=replicas)


def judge_aligned(
    gen: Observed,
    true: Observed,
    paired: bool,
    detector: Detector,
    binning: Binning,
    *,
    floor: Observed | None = None,
    seed: int = 0,
    replicas: int = REPLICAS,
) -> Evaluation:
    """`judge` for samples that are already checked and in the order of `aligned_order`."""
    resampling = Resampling(len(gen), len(true), paired, replicas, seed, 0 if floor is None else len(floor))
    samples = [gen, true] if floor is None else [gen, true, shuffled(floor, seed)]
    blocked = [_blocked(name, samples, detector, binning) for name in (*OBSERVABLES, *_COARSE)]
    rows = tuple(_row(b, resampling) for b in blocked)
    return Evaluation(
        detector=detector.name,
        n_generated=len(gen),
        n_truth=len(true),
        same_incidents=paired,
        scores=rows,
        histograms=tuple(_histogram(b, len(gen), len(true)) for b in blocked),
        decades=_energy_bins(gen, true, np.array(DECADES_GEV), paired),
        response=_energy_bins(gen, true, _profile_edges(true), paired),
        generated_losses=_losses(gen),
        truth_losses=_losses(true),
        warnings=(*cautions(gen, true), *_floor_warnings(rows)),
        seed=seed,
    )


# ---- scores ----

_COARSE = {f"{name}_coarse": name for name in ("cog_x", "cog_y")}
"""Centres of gravity again in few bins of equal content: the published 2,000 bins mostly measure their floor."""

BELOW_FLOOR_SIGMA = -4.0
"""Independent samples come this far below the floor practically never."""


def _blocked(name: str, samples: list[Observed], detector: Detector, binning: Binning) -> Blocked:
    source = _COARSE.get(name, name)
    values = [getattr(s, source) for s in samples]
    if OBSERVABLES[source].counted != "showers":
        return of_rows(name, values, binning.edges(name), log=name == "cell_energy")
    coarse = name in _COARSE
    edges = quantile_edges(values[1], COARSE_BINS) if coarse else shower_edges(name, samples[1], detector.n_layers)
    return of_values(name, values, edges)


def _row(b: Blocked, resampling: Resampling) -> Row:
    observable = OBSERVABLES[_COARSE.get(b.name, b.name)]
    coarse = b.name in _COARSE
    title = f"{observable.title} ({COARSE_BINS} equal bins)" if coarse else observable.title
    return Row(b.name, title, not coarse, b.divergence(resampling), b.wasserstein(resampling))


def _floor_warnings(rows: tuple[Row, ...]) -> tuple[str, ...]:
    below = sum(s.significance < BELOW_FLOOR_SIGMA for r in rows for s in (r.jsd, r.wasserstein))
    if not below:
        return ()
    return (
        f"{below} of {2 * len(rows)} scores lie more than {-BELOW_FLOOR_SIGMA:g} sigma below the floor of independent "
        "samples: the two samples are not independent",
    )


def _histogram(b: Blocked, n_generated: int, n_truth: int) -> HistogramPair:
    o = OBSERVABLES[_COARSE.get(b.name, b.name)]
    generated, generated_error = _per_shower(b.generated, n_generated)
    truth, truth_error = _per_shower(b.truth, n_truth)
    return HistogramPair(
        b.name, o.title, o.axis, o.unit, o.counted, b.edges, generated, generated_error, truth, truth_error
    )


def _per_shower(blocks: NDArray[np.float64], n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean content per shower and its standard error from the scatter between blocks; flow entries left off."""
    inside = blocks[:, 1:-1]
    error = inside.std(axis=0, ddof=1) * math.sqrt(blocks.shape[0]) / n
    return inside.sum(axis=0) / n, error


# ---- means ----


def _profile_edges(true: Observed) -> NDArray[np.float64]:
    edges = quantile_edges(true.incident_energy.astype(np.float64), PROFILE_BINS)
    return np.array([edges[0], np.inf]) if edges.size < 2 else np.append(edges[:-1], np.nextafter(edges[-1], np.inf))


def _energy_bins(gen: Observed, true: Observed, edges_gev: NDArray[np.float64], paired: bool) -> tuple[EnergyBin, ...]:
    bins = []
    for quantity in ("visible_energy", "hits"):
        for low, high in pairwise(edges_gev.tolist()):
            a, b = (_inside(s, quantity, low, high) for s in (gen, true))
            if len(a) > 1 and len(b) > 1:
                bins.append(_energy_bin(quantity, low, high, a, b, paired and len(a) == len(b)))
    return tuple(bins)


def _inside(s: Observed, quantity: str, low: float, high: float) -> NDArray[np.float64]:
    here = (s.incident_energy >= low) & (s.incident_energy < high)
    return np.asarray(getattr(s, quantity)[here], dtype=np.float64)


def _energy_bin(
    quantity: str, low: float, high: float, a: NDArray[np.float64], b: NDArray[np.float64], paired: bool
) -> EnergyBin:
    mean_a, mean_b = float(a.mean()), float(b.mean())
    error_a, error_b = (float(v.std(ddof=1)) / math.sqrt(v.size) for v in (a, b))
    ratio = mean_a / mean_b if mean_b > 0 else math.nan
    # Pairs share their incident energy: only the scatter of their difference counts.
    scatter = float((a - ratio * b).std(ddof=1)) / math.sqrt(a.size) if paired else math.hypot(error_a, ratio * error_b)
    error = scatter / mean_b if mean_b > 0 else math.nan
    return EnergyBin(quantity, low, high, a.size, b.size, mean_a, error_a, mean_b, error_b, ratio, error)


def _losses(s: Observed) -> Losses:
    return Losses(
        int(s.outside_points.sum()),
        float(s.outside_energy.sum()),
        int(s.dropped_cells.sum()),
        float(s.dropped_energy.sum()),
        int(np.sum(s.hits == 0)),
        float(s.visible_energy.sum()),
    )
