"""Linearity and resolution: mean and width of the visible energy of the central 90 % of showers, by incident energy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from calogen.evaluate.bootstrap import RATIO_REPLICAS, difference_score, ratio_score
from calogen.evaluate.findings import Curve, Findings, Series
from calogen.evaluate.metrics import Score
from calogen.evaluate.observables import Observed, quantile_edges
from calogen.evaluate.parts import MODEL, REFERENCE, Batch, Rows, SamplePair

CORE = (0.05, 0.95)
"""Quantiles between which showers count: the 90 % core of CaloHadronic."""
MIN_BIN = 100
"""Fewest true showers of an energy bin: a width to 7 %."""
MOST_BINS = 8
FIXED_ENERGIES = 12
"""A truth of at most so many different energies is binned by energy, not by quantiles."""
TEXT = (
    "Visible energy over incident energy, of the central 90 % of showers (5 to 95 %) in bins of incident energy: its "
    "mean (linearity) and its standard deviation over its mean (resolution), with errors from drawing showers again; "
    "a and b of a (+) b / sqrt(E / GeV) are fitted to the resolution. Ratios to Geant4 should be one."
)


class Resolution(NamedTuple):
    """Mean and sigma / mean of the core of a sample, each with its standard error."""

    mean: float
    mean_error: float
    value: float
    error: float


def core(values: NDArray[Any]) -> NDArray[np.float64]:
    """The values between the 5 % and the 95 % quantile, sorted."""
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    return ordered[math.floor(CORE[0] * ordered.size) : math.ceil(CORE[1] * ordered.size)]


def resolution(values: NDArray[Any]) -> Resolution:
    """sigma / mu of the 90 % core of `values [n]` with CaloHadronic's standard errors.

    sigma_e = sqrt((mu_4 - (n - 3) / (n - 1) sigma^4) / n) / (2 sigma), and the error of the ratio is
    sqrt(sigma_e^2 / mu^2 + mu_e^2 sigma^2 / mu^4) with mu_e = sigma / sqrt(n); the published code has sigma_e in place
    of sigma in the second term. The formulas hold for a window fixed beforehand; as the window follows the sample they
    are too small (for a Gaussian by a fifth for the mean, by two fifths for the width), so scores take their errors
    from resampling.

    >>> import numpy as np
    >>> r = resolution(np.linspace(0.9, 1.1, 1001))
    >>> round(r.mean, 3), round(r.value, 3)
    (1.0, 0.052)

    Raises:
        ValueError: fewer than four values.
    """
    inside = core(values)
    n = inside.size
    if n < 4:
        raise ValueError(f"a resolution needs at least 4 showers in the core, got {n}")
    mu, sigma = float(inside.mean()), float(inside.std(ddof=1))
    mu_error = sigma / math.sqrt(n)
    fourth = float(np.mean((inside - mu) ** 4))
    spread = math.sqrt(max(fourth - (n - 3) / (n - 1) * sigma**4, 0.0) / n)
    sigma_error = spread / (2 * sigma) if sigma > 0 else 0.0
    return Resolution(mu, mu_error, sigma / mu, math.hypot(sigma_error / mu, mu_error * sigma / mu**2))


def stochastic_fit(energy_gev: NDArray[Any], values: NDArray[Any], errors: NDArray[Any]) -> tuple[float, float]:
    """a and b of sigma / mu = a (+) b / sqrt(E / GeV), both >= 0, by least squares of the squares.

    >>> import numpy as np
    >>> energy = np.array([5.0, 20.0, 80.0])
    >>> a, b = stochastic_fit(energy, np.hypot(0.01, 0.16 / np.sqrt(energy)), np.full(3, 1e-3))
    >>> round(a, 6), round(b, 6)
    (0.01, 0.16)
    """
    weight = 1 / np.maximum(2 * values * errors, 1e-12)
    design = np.stack([weight, weight / energy_gev], axis=1)
    squares, _ = nnls(design, weight * values**2)
    return math.sqrt(squares[0]), math.sqrt(squares[1])


@dataclass(frozen=True)
class Response:
    """Linearity and resolution against Geant4."""

    name: ClassVar[str] = "response"

    def rows(self, batch: Batch) -> Rows:
        """Nothing of its own: energies are always observed."""
        return {}

    def findings(self, pair: SamplePair) -> Findings:
        """Ratios of mean and resolution in bins of energy, and of the two terms of the fit."""
        gen, true = pair.generated.observed, pair.truth.observed
        bins = energy_bins(true.incident_energy, min(len(gen), len(true)))
        rng = np.random.default_rng([pair.seed, 21])
        kept = [b for b in bins if min(_inside(s, b).sum() for s in (gen, true)) >= MIN_BIN // 2]
        if not kept:
            note = f"no bin of incident energy has {MIN_BIN // 2} showers of both samples: no response"
            return Findings(self.name, "Linearity and resolution", TEXT, notes=(note,))
        measured = [_Measured.of(s, kept, rng) for s in (gen, true)]
        scores = [s for i, b in enumerate(kept) for s in _bin_scores(i, b, *measured)]
        if len(kept) > 2:
            scores += _term_scores(*measured)
        notes = (
            (f"{len(bins) - len(kept)} bins of incident energy have too few showers",) if len(kept) < len(bins) else ()
        )
        curves = () if len(kept) < 2 else (_curve("mean", *measured), _curve("resolution", *measured))
        return Findings(self.name, "Linearity and resolution", TEXT, tuple(scores), curves, notes=notes)


def energy_bins(energy_gev: NDArray[Any], showers: int | None = None) -> list[tuple[float, float]]:
    """Ranges [low, high) of incident energy of equal content, or one for each fixed energy.

    Each has at least `MIN_BIN` of `showers`, the smaller sample's number, if that has this spectrum.
    """
    n = energy_gev.size if showers is None else showers
    energy = energy_gev.astype(np.float64)
    fixed = np.unique(energy)
    if fixed.size <= FIXED_ENERGIES:
        return [(e * (1 - 1e-6), e * (1 + 1e-6)) for e in fixed.tolist()]
    edges = quantile_edges(energy, max(1, min(MOST_BINS, n // MIN_BIN)))
    edges[-1] = np.nextafter(edges[-1], np.inf)
    return list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))


def _inside(s: Observed, limits: tuple[float, float]) -> NDArray[np.bool_]:
    return np.asarray((s.incident_energy >= limits[0]) & (s.incident_energy < limits[1]))


def _mean_and_width(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean and sigma / mean of exactly 90 % of the showers: the outermost count in part.

    Whole showers would be up to 4 % more of a bin of 50, whose width would seem larger by as much than one of 500.
    """
    ordered, n = np.sort(values), values.size
    place = np.arange(n)
    share = np.clip(np.minimum(place + 1, CORE[1] * n) - np.maximum(place, CORE[0] * n), 0.0, 1.0)
    total = share.sum()
    mean = share @ ordered / total
    width = np.sqrt(share @ (ordered - mean) ** 2 / (total - 1))
    return np.array([mean, width / mean if mean > 0 else np.nan])


class _Measured(NamedTuple):
    """Per energy bin: mean incident energy, showers, [mean, resolution], and these again for each replica."""

    energy: NDArray[np.float64]
    showers: NDArray[np.int64]
    value: NDArray[np.float64]
    replicas: NDArray[np.float64]

    @classmethod
    def of(cls, s: Observed, bins: list[tuple[float, float]], rng: np.random.Generator) -> _Measured:
        masks = [_inside(s, b) for b in bins]
        ratio = np.asarray(s.visible_energy, dtype=np.float64) / s.incident_energy
        drawn = []
        for mask in masks:
            inside = ratio[mask]
            n = inside.size
            drawn.append([_mean_and_width(inside[rng.integers(0, n, n)]) for _ in range(RATIO_REPLICAS)])
        return cls(
            np.array([float(s.incident_energy[m].mean(dtype=np.float64)) for m in masks]),
            np.array([int(m.sum()) for m in masks]),
            np.array([_mean_and_width(ratio[m]) for m in masks]),
            np.array(drawn),
        )

    @property
    def error(self) -> NDArray[np.float64]:
        return np.asarray(self.replicas.std(axis=1, ddof=1), dtype=np.float64)


_WORDS = ("mean", "resolution")


def _bin_scores(i: int, limits: tuple[float, float], gen: _Measured, true: _Measured) -> list[Score]:
    low, high = limits
    where = f"{true.energy[i]:.3g} GeV" if high < low * 1.00001 else f"{low:.3g} to {high:.3g} GeV"
    n = (int(gen.showers[i]), int(true.showers[i]))
    titles = (f"Linearity, {where}", f"Resolution, {where}")
    return [
        ratio_score(
            f"{word}_{i}",
            "ratio",
            title,
            (float(gen.value[i, k]), float(gen.error[i, k])),
            (float(true.value[i, k]), float(true.error[i, k])),
            n,
        )
        for k, (word, title) in enumerate(zip(_WORDS, titles, strict=True))
    ]


def _term_scores(gen: _Measured, true: _Measured) -> list[Score]:
    n = (int(gen.showers.sum()), int(true.showers.sum()))
    (a, a_error), (b, b_error) = _terms(gen), _terms(true)
    names = (("constant_term", "", "Constant term a"), ("stochastic_term", "sqrt(GeV)", "Stochastic term b"))
    return [
        difference_score(
            name, "difference", unit, title, (float(a[k]), float(a_error[k])), (float(b[k]), float(b_error[k])), n
        )
        for k, (name, unit, title) in enumerate(names)
    ]


def _terms(m: _Measured) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """a and b, and their errors from fits to the replicas."""
    error = m.error[:, 1]
    fits = np.array([stochastic_fit(m.energy, m.replicas[:, r, 1], error) for r in range(RATIO_REPLICAS)])
    return np.array(stochastic_fit(m.energy, m.value[:, 1], error)), fits.std(axis=0, ddof=1)


def _curve(what: str, gen: _Measured, true: _Measured) -> Curve:
    k = _WORDS.index(what)
    words = (("Linearity", "mean visible / incident energy"), ("Resolution", "sigma / mean of the visible energy"))[k]
    return Curve(
        what,
        words[0],
        "incident energy [GeV]",
        f"{words[1]} (90 % core)",
        true.energy,
        (
            Series(REFERENCE, true.value[:, k], true.error[:, k]),
            Series(MODEL, gen.value[:, k], gen.error[:, k]),
        ),
        log_x=True,
    )
