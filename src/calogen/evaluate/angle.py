"""The direction of a shower from its hits: the energy-weighted principal axis, and how far it is from the particle's.

CaloClouds3's definition where it gives one: the first component of an energy-weighted principal component analysis of
the hits (cell centres, depth in mm), of all of them or of the 4 % of highest energy. It gives no sign: here the axis
points into the calorimeter (+z). theta is the angle from the beam (local x), phi the angle about the beam from the
normal, atan(y / z): both are smooth where particles enter, unlike angles about the normal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from calogen.data.showers import Showers
from calogen.evaluate.bootstrap import difference_score, ratio_score, with_error
from calogen.evaluate.findings import Curve, Findings, Series
from calogen.evaluate.metrics import Score
from calogen.evaluate.parts import MODEL, REFERENCE, Batch, Rows, SamplePair, present, spectrum

TOP_PERCENT = 4.0
"""Share of the hits, those of highest energy, that make the axis: the best one in CaloClouds3's scan (Fig. 10)."""
SCAN_PERCENT = (1.0, 2.0, 4.0, 10.0, 25.0, 50.0, 100.0)
MIN_AXIS_HITS = 3
"""Hits an axis is made of at least, whatever the share: two cells of one layer would make it lie in the layer."""
CENTRAL = (0.16, 0.84)
"""Half the distance of these quantiles is a Gaussian's standard deviation."""
MRAD = 1e3
TEXT = (
    "Principal axis of the hits, weighted with their energy, against the incident direction, in mrad: all hits, or "
    "the 4 % of highest energy in each shower (at least three). theta is the angle from the beam, phi the angle about"
    " it, `opening` the angle between axis and particle. Jensen-Shannon divergence of the errors' histograms in 30 "
    "bins of equal content, natural logarithm, no root. `width` is half the central 68 %, `quantile_68` holds 68 % of"
    " showers; their ratios to Geant4 should be one, differences of medians zero."
)
ERRORS: dict[str, str] = {"theta": "theta error", "phi": "phi error", "opening": "opening angle"}


def principal_axis(showers: Showers, percent: float = 100.0) -> NDArray[np.float64]:
    """Unit vectors `[N, 3]` along the energy-weighted principal axis of the top `percent` % of each shower's points.

    NaN where a shower has no two points in different places.

    >>> from calogen import ILD_ECAL, Incident, Showers
    >>> z = ILD_ECAL.z_mm[[2, 9, 20]]
    >>> line = Showers(0.5 * z, 0 * z, [2, 9, 20], [1e-3, 2e-3, 1e-3], [0, 3], Incident.gun(1), ILD_ECAL)
    >>> axis = principal_axis(line)[0]
    >>> round(float(axis[0] / axis[2]), 6)
    0.5

    Raises:
        ValueError: a share that is not above 0 and at most 100 %.
    """
    return principal_axes(showers, (percent,))[:, 0]


def principal_axes(showers: Showers, percents: tuple[float, ...]) -> NDArray[np.float64]:
    """`principal_axis` for several shares at once, `[N, len(percents), 3]`: points are sorted only once."""
    for percent in percents:
        if not 0 < percent <= 100:
            raise ValueError(f"the share of hits must be above 0 and at most 100 %, got {percent:g}")
    counts, first = showers.counts, showers.offsets[:-1]
    order = np.lexsort((-showers.energy, showers.shower_index))
    place = np.stack([showers.x, showers.y, showers.detector.z_mm[showers.layer]]).astype(np.float64)[:, order]
    energy = showers.energy[order].astype(np.float64)
    result = np.full((len(showers), len(percents), 3), np.nan)
    some = np.flatnonzero(counts > 1)
    for k, percent in enumerate(percents):
        used = np.clip(np.ceil(counts * (percent / 100)).astype(np.int64), MIN_AXIS_HITS, None)
        used = np.minimum(used, counts)[some]
        result[some, k] = _axes(place, energy, first[some], used)
    return result


def _axes(
    place: NDArray[np.float64], energy: NDArray[np.float64], first: NDArray[np.int64], used: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Axes of the runs of `used` points from `first` on; places `[3, P]`."""

    def summed(values: NDArray[np.float64]) -> NDArray[np.float64]:
        # A last element of zero lets the last run end behind the points.
        runs = np.stack([first, first + used], axis=1).ravel()
        return np.asarray(np.add.reduceat(np.append(values, 0.0), runs)[::2])

    total = summed(energy)
    total = np.where(total > 0, total, np.nan)
    mean = np.stack([summed(energy * v) / total for v in place])
    run = np.repeat(np.arange(first.size), used)
    points = np.arange(run.size) + np.repeat(first - np.concatenate([[0], np.cumsum(used)[:-1]]), used)
    centred = place[:, points] - mean[:, run]
    weight = energy[points]
    covariance = np.empty((first.size, 3, 3))
    for i in range(3):
        for j in range(i + 1):
            entry = np.bincount(run, weights=weight * centred[i] * centred[j], minlength=first.size) / total
            covariance[:, i, j] = covariance[:, j, i] = entry
    known: NDArray[np.bool_] = np.asarray(np.isfinite(covariance).all(axis=(1, 2)))
    values, vectors = np.linalg.eigh(np.where(known[:, None, None], covariance, 0.0))
    axis = vectors[:, :, 2] * np.where(vectors[:, 2, 2] < 0, -1.0, 1.0)[:, None]
    return np.asarray(np.where((known & (values[:, 2] > 0))[:, None], axis, np.nan))


def angular_errors(axis: NDArray[Any], direction: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """Errors of axes against directions `[..., 3]`, in rad: `theta`, `phi` (axis minus direction) and `opening`.

    >>> import numpy as np
    >>> e = angular_errors(np.array([0.0, 0.6, 0.8]), np.array([0.0, 0.0, 1.0]))
    >>> [round(float(e[k]), 4) for k in ("theta", "phi", "opening")]
    [0.0, 0.6435, 0.6435]
    """
    a, d = np.broadcast_arrays(np.asarray(axis, dtype=np.float64), np.asarray(direction, dtype=np.float64))
    sine = np.linalg.norm(np.cross(a, d), axis=-1)
    theta, phi = zip(*(_angles(v) for v in (a, d)), strict=True)
    turned = (phi[0] - phi[1] + np.pi) % (2 * np.pi) - np.pi
    return {"theta": theta[0] - theta[1], "phi": turned, "opening": np.arctan2(sine, np.sum(a * d, axis=-1))}


def _angles(v: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.arctan2(np.hypot(v[..., 1], v[..., 2]), v[..., 0]), np.arctan2(v[..., 1], v[..., 2])


def _width(values: NDArray[np.float64]) -> float:
    low, high = np.quantile(values, CENTRAL)
    return float(0.5 * (high - low))


def _median(values: NDArray[np.float64]) -> float:
    return float(np.median(values))


def _quantile_68(values: NDArray[np.float64]) -> float:
    return float(np.quantile(values, 0.68))


STATISTICS: dict[str, tuple[str, Callable[[NDArray[np.float64]], float]]] = {
    "theta": ("width", _width),
    "phi": ("width", _width),
    "opening": ("quantile_68", _quantile_68),
}
"""The one number that sums up each error, and how it is taken."""


@dataclass(frozen=True)
class Angle:
    """Errors of the axis made of the top `percent` % of the hits and of all, and a scan over the share."""

    percent: float = TOP_PERCENT
    scan: tuple[float, ...] = SCAN_PERCENT
    name: ClassVar[str] = "angle"

    @property
    def percents(self) -> tuple[float, ...]:
        """All shares that are measured, ascending."""
        return tuple(sorted({*self.scan, self.percent, 100.0}))

    def rows(self, batch: Batch) -> Rows:
        """Errors `[N, shares]` in mrad."""
        axes = principal_axes(batch.hits.showers, self.percents)
        errors = angular_errors(axes, batch.hits.showers.incident.direction[:, None])
        return {k: (MRAD * v).astype(np.float32) for k, v in errors.items()}

    def findings(self, pair: SamplePair) -> Findings:
        """Scores for the chosen share and for all hits; histograms; the scan."""
        gen, true = (s.rows[self.name] for s in (pair.generated, pair.truth))
        scores: list[Score] = []
        curves: list[Curve | None] = []
        for percent in dict.fromkeys((self.percent, 100.0)):
            k = self.percents.index(percent)
            hits = "all hits" if percent == 100 else f"top {percent:g} % of hits"
            for key, words in ERRORS.items():
                name, title = f"{key}_{percent:g}", f"{words[0].upper()}{words[1:]}, {hits}"
                a, b = gen[key][:, k], true[key][:, k]
                scores += pair.scores(name, title, a, b)
                scores += _summary(name, key, title, a, b, pair.seed)
                curves.append(spectrum(name, title, f"{words} [mrad]", a, b))
        curves.append(self._scan(gen, true, pair.seed))
        return Findings(self.name, "Angle", TEXT, tuple(scores), present(curves), notes=self._notes(gen, true))

    def _scan(self, gen: Rows, true: Rows, seed: int) -> Curve:
        rng = np.random.default_rng([seed, 24])
        places = [self.percents.index(p) for p in self.scan]
        series = []
        for label, rows in ((REFERENCE, true), (MODEL, gen)):
            measured = [with_error(rows["opening"][:, k], _quantile_68, rng) for k in places]
            series.append(Series(label, np.array([v for v, _ in measured]), np.array([e for _, e in measured])))
        return Curve(
            "scan",
            "Opening angle by the share of hits",
            "hits of highest energy used [%]",
            "68 % quantile of the opening angle [mrad]",
            np.array(self.scan),
            tuple(series),
            log_x=True,
        )

    def _notes(self, gen: Rows, true: Rows) -> tuple[str, ...]:
        undefined = [int(np.isnan(r["opening"][:, -1]).sum()) for r in (gen, true)]
        if not any(undefined):
            return ()
        return (f"{undefined[0]} generated and {undefined[1]} true showers have no axis (fewer than two hits)",)


def _summary(name: str, key: str, title: str, gen: NDArray[Any], true: NDArray[Any], seed: int) -> list[Score]:
    metric, statistic = STATISTICS[key]
    rng = np.random.default_rng([seed, 25])
    n = (int(np.isfinite(gen).sum()), int(np.isfinite(true).sum()))
    if min(n) < 2:
        return []
    measured = [with_error(v, statistic, rng) for v in (gen, true)]
    scores = [ratio_score(name, f"{metric}_ratio", title, measured[0], measured[1], n)]
    if key != "opening":
        a, b = (with_error(v, _median, rng) for v in (gen, true))
        scores.append(difference_score(name, "median_difference", "mrad", title, a, b, n))
    return scores
