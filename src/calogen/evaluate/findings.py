"""What one part of the judge found about one model: scores, curves and matrices, as plain records that become JSON.

Every protocol (CaloChallenge, point clouds, classifiers, angles, clusters, ...) returns `Findings`; the report draws
them without knowing which protocol they came from.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calogen.evaluate.metrics import Score

DIGITS = 6
"""Significant digits of curves and matrices in JSON."""


@dataclass(frozen=True, eq=False)
class Series:
    """One line of a figure: `y [n]` and its standard errors `[n]` (zeros where there are none)."""

    label: str
    y: NDArray[np.float64]
    error: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Curve:
    """One figure: series over `x`, bin edges `[n + 1]` of histograms or positions `[n]` of points.

    `series[0]` is the reference (Geant4) that a ratio panel divides by where `ratio` is set. Labels carry units.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    x: NDArray[np.float64]
    series: tuple[Series, ...]
    log_x: bool = False
    log_y: bool = False
    ratio: bool = True

    def __post_init__(self) -> None:
        for s in self.series:
            if s.y.shape != s.error.shape or s.y.size not in (self.x.size, self.x.size - 1):
                raise ValueError(
                    f"{self.name}: {s.label} has {s.y.size} values and {s.error.size} errors on {self.x.size} positions"
                )

    @property
    def binned(self) -> bool:
        """Whether `x` are edges."""
        return bool(self.series) and self.series[0].y.size == self.x.size - 1


@dataclass(frozen=True, eq=False)
class Matrix:
    """A matrix `values [rows, columns]` drawn in colour between `low` and `high`."""

    name: str
    title: str
    row_labels: tuple[str, ...]
    column_labels: tuple[str, ...]
    values: NDArray[np.float64]
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Findings:
    """One part of the judgement of one model.

    `name` is a short key (`calochallenge`, `classifier`, ...), `text` says in a sentence or two what was measured and
    by which definition, `notes` are remarks about this very comparison (too few showers, entries out of range, ...).
    `seconds` is what it took.
    """

    name: str
    title: str
    text: str
    scores: tuple[Score, ...] = ()
    curves: tuple[Curve, ...] = ()
    matrices: tuple[Matrix, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, the same however long they took; a number that does not exist is None."""
        return {
            "name": self.name,
            "title": self.title,
            "text": self.text,
            "scores": [s.to_dict() for s in self.scores],
            "curves": [_curve_dict(c) for c in self.curves],
            "matrices": [asdict(m) | {"values": rounded(m.values)} for m in self.matrices],
            "notes": list(self.notes),
        }


def rounded(values: NDArray[Any]) -> list[Any]:
    """Nested lists of `values` to `DIGITS` significant digits; NaN and infinities become None."""
    if values.ndim > 1:
        return [rounded(v) for v in values]
    return [float(f"{v:.{DIGITS}g}") if math.isfinite(v) else None for v in values.tolist()]


def _curve_dict(c: Curve) -> dict[str, Any]:
    text = {k: getattr(c, k) for k in ("name", "title", "x_label", "y_label", "log_x", "log_y", "ratio")}
    series = [{"label": s.label, "y": rounded(s.y), "error": rounded(s.error)} for s in c.series]
    return text | {"x": rounded(c.x), "series": series}
