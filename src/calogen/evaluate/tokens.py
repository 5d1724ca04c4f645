"""What is lost between showers and their reconstruction from tokens (or any autoencoder): OmniJet-alpha's Fig. 1.

Both samples hold the same showers, so differences are taken shower by shower and point by point.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from calogen.data.projection import project
from calogen.data.showers import Showers
from calogen.detector.geometry import CartesianCells, Detector
from calogen.evaluate.findings import Curve, Findings, Series
from calogen.evaluate.incidents import SAME_INCIDENT_TOLERANCE
from calogen.evaluate.metrics import Score
from calogen.evaluate.parts import Batch, Rows, SamplePair

Pairing = Literal["order", "nearest"]
"""How points are paired: point k with point k, or each reconstructed point with the nearest original one."""
REPLICAS = 200
"""Resamplings behind an error: it is known to 5 %."""
DRAWN_BINS = 60
"""Bins of a drawn histogram of differences."""
DRAWN_TAIL = 5e-3
"""Share of differences beyond either end of a drawn histogram."""
MATCHED_AT_ONCE = 512
"""Showers whose points are searched at once."""
APART = 1e6
"""Distance in cells at which different showers lie in the search, far beyond any shower."""
TEXT = (
    "Reconstructed minus original, of the same showers: points in place and in the logarithm of their energy (root "
    "mean square and mean), then what the readout sees of each shower. The floor of a resolution in place is what "
    "cells cannot tell: their side over sqrt(12); the floor of all others is zero. Errors come from drawing showers "
    "again."
)


@dataclass(frozen=True)
class TokenResolution:
    """`judge_tokens` as a part of the judgement: of the showers that both samples kept, at the same places.

    Only on request: it is for a file of reconstructions against the file they were made of.
    """

    pairing: Pairing | None = None
    name: ClassVar[str] = "tokens"

    def rows(self, batch: Batch) -> Rows:
        """Nothing: the kept showers suffice."""
        return {}

    def findings(self, pair: SamplePair) -> Findings:
        """Resolutions in place and energy.

        Raises:
            ValueError: the samples are not the same showers in the same order.
        """
        return judge_tokens(pair.truth.kept, pair.generated.kept, seed=pair.seed, pairing=self.pairing)


def judge_tokens(
    original: Showers, reconstructed: Showers, *, seed: int = 0, pairing: Pairing | None = None
) -> Findings:
    """Resolution of a reconstruction.

    Args:
        original: showers before.
        reconstructed: the same showers after, in the same order.
        seed: of the resampling.
        pairing: by default `order` where all showers have kept their number of points, otherwise `nearest`.

    Raises:
        ValueError: showers of other particles or of another detector, or `order` for showers of other lengths.
    """
    start = time.perf_counter()
    _check(original, reconstructed)
    same_counts = np.array_equal(original.offsets, reconstructed.offsets)
    if pairing == "order" and not same_counts:
        raise ValueError("points cannot be paired in order: a shower has another number of points; pair the nearest")
    pairing = pairing or ("order" if same_counts else "nearest")
    partner = np.arange(original.n_points) if pairing == "order" else nearest(original, reconstructed)
    rng = np.random.default_rng([seed, 41])
    n = len(original)
    scores: list[Score] = []
    curves: list[Curve] = []
    for name, (words, unit, difference, floor) in _differences(original, reconstructed, partner).items():
        scores += _point_scores(name, words, unit, difference, reconstructed.shower_index, n, floor, rng)
        curves.append(_curve(name, words, unit, difference, "points"))
    for name, (words, unit, difference) in _shower_differences(original, reconstructed).items():
        scores += _point_scores(name, words, unit, difference, np.arange(n), n, 0.0, rng)
        curves.append(_curve(name, words, unit, difference, "showers"))
    notes = [f"points are paired by {'their order' if pairing == 'order' else 'the nearest original point'}"]
    if not same_counts:
        notes.append(f"{original.n_points} original and {reconstructed.n_points} reconstructed points")
    return Findings(
        "tokens",
        "Token resolution",
        TEXT,
        tuple(scores),
        tuple(curves),
        notes=tuple(notes),
        seconds=time.perf_counter() - start,
    )


def nearest(original: Showers, reconstructed: Showers) -> NDArray[np.int64]:
    """For each reconstructed point the nearest original one of its shower, in units of cells and layers.

    >>> from calogen import ILD_ECAL, Incident, Showers
    >>> a = Showers([0, 50], [0, 0], [3, 3], [1e-3, 2e-3], [0, 2], Incident.gun(1), ILD_ECAL)
    >>> b = Showers([49, 1, 2], [0, 0, 0], [3, 3, 4], [1e-3] * 3, [0, 3], Incident.gun(1), ILD_ECAL)
    >>> nearest(a, b).tolist()
    [1, 0, 0]

    Raises:
        ValueError: a shower that had no points and has some now.
    """
    grown = np.flatnonzero((original.counts == 0) & (reconstructed.counts > 0))
    if grown.size:
        raise ValueError(f"shower {grown[0]} had no points, its reconstruction has some; leave empty showers out")
    found = [np.zeros(0, dtype=np.int64)]
    for first in range(0, len(original), MATCHED_AT_ONCE):
        a, b = (s[first : first + MATCHED_AT_ONCE] for s in (original, reconstructed))
        if a.n_points and b.n_points:
            _, index = cKDTree(_scaled(a)).query(_scaled(b))
            found.append(np.asarray(index, dtype=np.int64) + int(original.offsets[first]))
    return np.concatenate(found)


def _scaled(s: Showers) -> NDArray[np.float64]:
    pitch = np.array([_pitch(s.detector, i) or 1.0 for i in range(s.detector.n_layers)])[s.layer]
    return np.stack([s.x / pitch, s.y / pitch, s.layer.astype(np.float64), APART * s.shower_index], axis=1)


def _pitch(detector: Detector, layer: int) -> float | None:
    cells = detector.layers[layer].cells
    return cells.pitch_mm if isinstance(cells, CartesianCells) else None


def _check(original: Showers, reconstructed: Showers) -> None:
    if original.detector != reconstructed.detector:
        raise ValueError(
            f"reconstructed showers are of detector {reconstructed.detector.name!r}, the original of "
            f"{original.detector.name!r}; they must be the same showers"
        )
    a, b = original.incident, reconstructed.incident
    if len(a) != len(b) or not np.allclose(a.energy, b.energy, rtol=SAME_INCIDENT_TOLERANCE, atol=0):
        raise ValueError(
            f"{len(b)} reconstructed showers are not of the particles of the {len(a)} original ones; give the same "
            "showers in the same order"
        )
    if not len(a) or not original.n_points or not reconstructed.n_points:
        raise ValueError("there are no points to compare; give showers with points")


def _differences(
    original: Showers, reconstructed: Showers, partner: NDArray[np.int64]
) -> dict[str, tuple[str, str, NDArray[np.float64], float]]:
    """Words, unit, difference `[P]` and floor of each coordinate; points of zero energy have no logarithm (NaN)."""
    pitch = _pitch(original.detector, 0)
    cell = pitch / math.sqrt(12) if pitch else 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(reconstructed.energy.astype(np.float64) / original.energy[partner])
    return {
        "x": ("x", "mm", (reconstructed.x - original.x[partner]).astype(np.float64), cell),
        "y": ("y", "mm", (reconstructed.y - original.y[partner]).astype(np.float64), cell),
        "z": ("layer", "layers", (reconstructed.layer - original.layer[partner]).astype(np.float64), 1 / math.sqrt(12)),
        "ln_energy": ("ln(energy)", "", np.where(np.isfinite(ratio), ratio, np.nan), 0.0),
    }


def _shower_differences(original: Showers, reconstructed: Showers) -> dict[str, tuple[str, str, NDArray[np.float64]]]:
    a, b = (project(s).showers for s in (original, reconstructed))
    with np.errstate(divide="ignore", invalid="ignore"):
        energy = np.asarray(b.visible_energy / a.visible_energy - 1)
        hits = b.counts / a.counts - 1.0
        centre = [_centre(b, k) - _centre(a, k) for k in ("x", "y", "layer")]
    return {
        "visible_energy": ("visible energy (relative)", "", energy),
        "hits": ("hits (relative)", "", hits),
        "cog_x": ("centre of gravity x", "mm", centre[0]),
        "cog_y": ("centre of gravity y", "mm", centre[1]),
        "cog_z": ("centre of gravity z", "layers", centre[2]),
    }


def _centre(s: Showers, axis: str) -> NDArray[np.float64]:
    return np.asarray(np.bincount(s.shower_index, s.energy * getattr(s, axis), len(s)) / s.visible_energy)


def _point_scores(
    name: str,
    words: str,
    unit: str,
    difference: NDArray[np.float64],
    shower: NDArray[np.int64],
    n: int,
    floor: float,
    rng: np.random.Generator,
) -> list[Score]:
    """Root mean square and mean of the differences, with errors from drawing showers."""
    known = np.isfinite(difference)
    if not known.any():
        return []
    d, owner = difference[known], shower[known]
    sums = np.stack([np.bincount(owner, weights=w, minlength=n) for w in (np.ones_like(d), d, d * d)])
    drawn = rng.multinomial(n, np.full(n, 1 / n), size=REPLICAS) @ sums.T
    with np.errstate(divide="ignore", invalid="ignore"):
        mean, square = drawn[:, 1] / drawn[:, 0], drawn[:, 2] / drawn[:, 0]
    title = words[0].upper() + words[1:]
    rms, rms_error = math.sqrt(float(np.mean(d * d))), float(np.nanstd(np.sqrt(square), ddof=1))
    bias_error = float(np.nanstd(mean, ddof=1))
    return [
        Score(name, "rms", unit, rms, rms_error, floor, 0.0, title=title),
        Score(name, "bias", unit, float(d.mean()), bias_error, 0.0, 0.0, sense="both", title=title),
    ]


def _curve(name: str, words: str, unit: str, difference: NDArray[Any], what: str) -> Curve:
    known = difference[np.isfinite(difference)]
    if name == "z":
        reach = int(np.abs(known).max(initial=0)) + 1
        edges = np.arange(-reach - 0.5, reach + 1.0)
    else:
        low, high = np.quantile(known, [DRAWN_TAIL, 1 - DRAWN_TAIL]) if known.size else (0.0, 0.0)
        edges = np.linspace(low - 1e-9, high + 1e-9, DRAWN_BINS + 1)
    share = np.histogram(known, edges)[0] / max(known.size, 1)
    error = np.sqrt(share * (1 - share) / max(known.size, 1))
    axis = f"difference in {words} [{unit}]" if unit else f"difference in {words}"
    series = (Series("reconstructed - original", share, error),)
    return Curve(f"token_{name}", f"Resolution in {words}", axis, f"share of {what}", edges, series, ratio=False)
