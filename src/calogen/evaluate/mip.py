"""The peak of minimum ionising particles in the cell energy spectrum of each section: where it is, how far it moved."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d, uniform_filter1d

from calogen.detector.geometry import Detector
from calogen.evaluate.blocks import block_count, dealt
from calogen.evaluate.findings import Curve, Findings, Series
from calogen.evaluate.metrics import Score
from calogen.evaluate.observables import block_sum
from calogen.evaluate.parts import MODEL, REFERENCE, Batch, Rows, SamplePair
from calogen.units import MEV_PER_GEV

REACH = 6.0
"""The window of the search ends at so many thresholds: they stand at half a MIP."""
WINDOW_BINS = 44
"""Logarithmic bins of the window: 4 % each, far below the width of a Landau peak."""
FIT_BINS = 7
"""Bins on either side of the peak at which the weight of the parabola's fit (in logarithms) has fallen to zero."""
RECENTRED = 10
"""Fits, each about the vertex of the one before: by then the peak stays where it is."""
EDGE = 5
"""Bins at either end of the window in which no peak is looked for."""
SMOOTHING = 5
"""Neighbouring bins averaged to find the highest."""
MIN_CELLS = 2000
"""Cells in the window below which no peak is looked for."""
TEXT = (
    "Most probable cell energy (highest local maximum of dN/dE) between threshold and six thresholds, where minimum "
    "ionising particles make a peak in a sampling calorimeter: the vertex of a parabola through the logarithm of the "
    "spectrum. The score is the peak's place relative to Geant4's, less one. A model that puts the peak elsewhere, or"
    " none, has wrong cell energies whatever its sums."
)


def window(detector: Detector, section: str) -> NDArray[np.float64] | None:
    """Edges of the search in GeV; None for a section without threshold."""
    thresholds = detector.threshold_gev[detector.layers_of(section)]
    low = float(thresholds.max())
    return np.geomspace(low, REACH * low, WINDOW_BINS + 1) if low > 0 else None


def peak(counts: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Place of the peak of dN/dE of histograms `[..., bins]` on logarithmic `edges`; NaN where none is inside.

    >>> import numpy as np
    >>> edges = np.geomspace(0.1, 0.6, 45)
    >>> middle = np.sqrt(edges[1:] * edges[:-1])
    >>> density = np.exp(-0.5 * (np.log(middle / 0.2) / 0.3) ** 2)
    >>> round(float(peak(1e6 * density * np.diff(edges), edges)), 4)
    0.2
    """
    flat = np.atleast_2d(np.asarray(counts, dtype=np.float64))
    width = np.diff(edges) / np.diff(edges).mean()
    smooth = uniform_filter1d(flat / width, SMOOTHING, axis=1)
    # Low energies from neutrons and photons may rise above the peak towards the threshold: only a local maximum is one.
    local = smooth == maximum_filter1d(smooth, 2 * EDGE + 1, axis=1)
    local[:, :EDGE] = local[:, -EDGE:] = False
    highest = np.argmax(np.where(local, smooth, -1.0), axis=1)
    centre, found = _vertices(flat, width, np.where(local.any(axis=1), highest, flat.shape[1] // 2))
    place = edges[0] * np.exp(math.log(edges[1] / edges[0]) * (centre + 0.5))
    return np.asarray(np.where(local.any(axis=1) & found, place, np.nan).reshape(np.shape(counts)[:-1]))


def _vertices(
    counts: NDArray[np.float64], width: NDArray[np.float64], start: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Maxima, in bins, of parabolas through ln(counts / width) about themselves; is there one near `start`?

    A fit about the highest bin would jump with it, as the peak is not symmetric; about its own vertex, with weights
    that fall smoothly, it moves as the spectrum does.
    """
    bins = np.arange(counts.shape[1])
    filled = np.maximum(counts, 1.0)
    target = np.log(filled / width)
    centre, found = start.astype(np.float64), np.ones(start.size, dtype=bool)
    for _ in range(RECENTRED):
        offset = bins - centre[:, None]
        weight = filled * np.maximum(1 - (offset / FIT_BINS) ** 2, 0)
        design = np.stack([np.ones_like(offset), offset, offset**2], axis=2)
        weighted = design * weight[:, :, None]
        fitted = np.linalg.solve(weighted.mT @ design, weighted.mT @ target[:, :, None])[:, :, 0]
        found = fitted[:, 2] < 0
        vertex = -0.5 * fitted[:, 1] / np.where(found, fitted[:, 2], -np.inf)
        centre = np.clip(centre + np.clip(vertex, -EDGE, EDGE), EDGE, bins.size - 1 - EDGE)
    inside = (centre > EDGE) & (centre < bins.size - 1 - EDGE)
    near = np.abs(bins - centre[:, None]) <= EDGE
    return centre, found & inside & (np.abs(centre - start) <= FIT_BINS) & ((counts > 0) | ~near).all(axis=1)


@dataclass(frozen=True)
class MipPeak:
    """Shift of the peak in every section that has a threshold."""

    name: ClassVar[str] = "mip"

    def rows(self, batch: Batch) -> Rows:
        """Cells per bin of the window, `[N, bins]` for each section."""
        hits = batch.hits.showers
        rows = {}
        for section in hits.detector.sections:
            edges = window(hits.detector, section)
            if edges is None:
                continue
            here = np.isin(hits.layer, hits.detector.layers_of(section))
            bins = np.searchsorted(edges, hits.energy[here], side="right") - 1
            inside = (bins >= 0) & (bins < WINDOW_BINS)
            flat = np.bincount(
                batch.shower[here][inside] * WINDOW_BINS + bins[inside], minlength=len(hits) * WINDOW_BINS
            )
            rows[section] = flat.reshape(len(hits), WINDOW_BINS).astype(np.float32)
        return rows

    def findings(self, pair: SamplePair) -> Findings:
        """The peaks, their shift and the spectra around them."""
        scores: list[Score] = []
        curves: list[Curve] = []
        notes: list[str] = []
        for section in pair.detector.sections:
            edges = window(pair.detector, section)
            if edges is None:
                notes.append(f"{section}: no readout threshold, so no peak is looked for")
                continue
            rows = [s.rows[self.name][section] for s in (pair.generated, pair.truth)]
            if rows[1].sum() < MIN_CELLS:
                notes.append(f"{section}: {int(rows[1].sum())} true cells near threshold; a peak needs {MIN_CELLS}")
                continue
            blocks = block_count(len(pair.generated), len(pair.truth))
            counts = [block_sum(r, dealt(r.shape[0], blocks), blocks) for r in rows]
            score, note = _shift(section, counts, edges, pair)
            scores += [score] if score else []
            notes.append(note)
            curves.append(_spectra(section, rows, edges))
        return Findings(self.name, "MIP peak", TEXT, tuple(scores), tuple(curves), notes=tuple(notes))


def _shift(
    section: str, counts: list[NDArray[np.float64]], edges: NDArray[np.float64], pair: SamplePair
) -> tuple[Score | None, str]:
    gen, true = (float(peak(c.sum(axis=0), edges)) for c in counts)
    if not math.isfinite(true):
        return None, f"{section}: Geant4 has no peak between {_mev(edges[0])} and {_mev(edges[-1])}"
    if not math.isfinite(gen):
        return None, f"{section}: Geant4's peak is at {_mev(true)}, the model has none"
    drawn = [peak(d @ c, edges) for d, c in zip(pair.resampling.draws(counts[0].shape[0]), counts, strict=True)]
    error = float(np.nanstd(drawn[0] / drawn[1], ddof=1))
    spread = float(np.nanstd(drawn[1], ddof=1)) / true * math.sqrt(1 + len(pair.truth) / len(pair.generated))
    score = Score(
        f"mip_peak_{section}",
        "shift",
        "",
        gen / true - 1,
        error,
        0.0,
        spread,
        sense="both",
        title=f"MIP peak, {section}",
    )
    return score, f"{section}: the peak is at {_mev(true)} in Geant4 and at {_mev(gen)} in the model"


def _mev(energy_gev: float) -> str:
    return f"{energy_gev * MEV_PER_GEV:.3g} MeV"


def _spectra(section: str, rows: list[NDArray[np.float32]], edges: NDArray[np.float64]) -> Curve:
    series = []
    step = np.diff(edges) * MEV_PER_GEV
    for label, r in ((REFERENCE, rows[1]), (MODEL, rows[0])):
        mean, scatter = r.mean(axis=0, dtype=np.float64), r.std(axis=0, dtype=np.float64)
        series.append(Series(label, mean / step, scatter / math.sqrt(r.shape[0]) / step))
    title = f"Cell energies near the MIP peak, {section}"
    return Curve(
        f"mip_{section}",
        title,
        "cell energy [MeV]",
        "cells per shower and MeV",
        edges * MEV_PER_GEV,
        tuple(series),
        log_x=True,
    )
