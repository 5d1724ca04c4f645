"""What a judgement of showers holds: scores, histograms and means as plain records that become JSON and come back."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calogen.evaluate.metrics import Score

FORMAT = 1
"""Version of the JSON layout."""


@dataclass(frozen=True)
class Row:
    """One observable: its scores, and whether it stands in the published table."""

    observable: str
    title: str
    published: bool
    jsd: Score
    wasserstein: Score


@dataclass(frozen=True, eq=False)
class HistogramPair:
    """Contents per shower of both samples `[bins]` with their errors, on `edges [bins + 1]` in `unit`."""

    name: str
    title: str
    axis: str
    unit: str
    counted: str
    edges: NDArray[np.float64]
    generated: NDArray[np.float64]
    generated_error: NDArray[np.float64]
    truth: NDArray[np.float64]
    truth_error: NDArray[np.float64]


@dataclass(frozen=True)
class EnergyBin:
    """Means of one quantity (`visible_energy` GeV or `hits`) for incident energies in [low, high) GeV."""

    quantity: str
    low_gev: float
    high_gev: float
    n_generated: int
    n_truth: int
    generated: float
    generated_error: float
    truth: float
    truth_error: float
    ratio: float
    ratio_error: float


@dataclass(frozen=True)
class Losses:
    """What the readout of a sample left out: points beyond the cells, cells below threshold, showers without hits."""

    points_outside: int
    energy_outside_gev: float
    cells_below_threshold: int
    energy_below_threshold_gev: float
    empty_showers: int
    energy_kept_gev: float


@dataclass(frozen=True, eq=False)
class Evaluation:
    """All numbers of one comparison. `same_incidents`: both samples have the same incident particles."""

    detector: str
    n_generated: int
    n_truth: int
    same_incidents: bool
    scores: tuple[Row, ...]
    histograms: tuple[HistogramPair, ...]
    decades: tuple[EnergyBin, ...]
    response: tuple[EnergyBin, ...]
    generated_losses: Losses
    truth_losses: Losses
    warnings: tuple[str, ...]
    seed: int

    def rows(self) -> list[dict[str, Any]]:
        """The table as plain values: observable, and for both metrics value, error, floor, floor error and verdict."""
        return [
            {"observable": r.title, "published": r.published}
            | {f"{s.metric}_{k}": v for s in (r.jsd, r.wasserstein) for k, v in _score_dict(s).items()}
            for r in self.scores
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "format": FORMAT,
            "detector": self.detector,
            "n_generated": self.n_generated,
            "n_truth": self.n_truth,
            "same_incidents": self.same_incidents,
            "seed": self.seed,
            "warnings": list(self.warnings),
            "scores": [_row_dict(r) for r in self.scores],
            "decades": [asdict(b) for b in self.decades],
            "response": [asdict(b) for b in self.response],
            "generated_losses": asdict(self.generated_losses),
            "truth_losses": asdict(self.truth_losses),
            "histograms": [_histogram_dict(h) for h in self.histograms],
        }

    def to_json(self) -> str:
        """JSON text of all numbers; a number that does not exist is null."""
        return json.dumps(_without_nan(self.to_dict()), indent=1, allow_nan=False)

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> Evaluation:
        """The inverse of `to_dict`.

        Raises:
            ValueError: another format, or keys that are missing.
        """
        if d.get("format") != FORMAT:
            raise ValueError(f"scores of format {d.get('format')!r} cannot be read; this version reads {FORMAT}")
        try:
            return cls(
                detector=d["detector"],
                n_generated=d["n_generated"],
                n_truth=d["n_truth"],
                same_incidents=d["same_incidents"],
                seed=d["seed"],
                warnings=tuple(d["warnings"]),
                scores=tuple(_row_from(r) for r in d["scores"]),
                decades=tuple(EnergyBin(**_with_nan(b)) for b in d["decades"]),
                response=tuple(EnergyBin(**_with_nan(b)) for b in d["response"]),
                generated_losses=Losses(**d["generated_losses"]),
                truth_losses=Losses(**d["truth_losses"]),
                histograms=tuple(_histogram_from(h) for h in d["histograms"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"scores are incomplete: {type(error).__name__} {error}") from error


# ---- plain values ----


def _score_dict(s: Score) -> dict[str, Any]:
    return {
        "value": s.value,
        "error": s.error,
        "floor": s.floor,
        "floor_error": s.floor_error,
        "excess": s.excess,
        "significance": s.significance,
        "indistinguishable": s.indistinguishable,
    }


def _row_dict(r: Row) -> dict[str, Any]:
    scores = {s.metric: {"unit": s.unit} | _score_dict(s) for s in (r.jsd, r.wasserstein)}
    return {"observable": r.observable, "title": r.title, "published": r.published} | scores


def _row_from(d: dict[str, Any]) -> Row:
    def score(metric: str) -> Score:
        s = _with_nan(d[metric])
        numbers = (s[k] for k in ("value", "error", "floor", "floor_error"))
        return Score(d["observable"], metric, s["unit"], *numbers)

    return Row(d["observable"], d["title"], d["published"], score("jsd"), score("wasserstein"))


_ARRAYS = ("edges", "generated", "generated_error", "truth", "truth_error")


def _histogram_dict(h: HistogramPair) -> dict[str, Any]:
    text = {k: getattr(h, k) for k in ("name", "title", "axis", "unit", "counted")}
    return text | {k: [float(f"{v:.6g}") for v in getattr(h, k)] for k in _ARRAYS}


def _histogram_from(d: dict[str, Any]) -> HistogramPair:
    fields: dict[str, Any] = {k: np.array(v) if k in _ARRAYS else v for k, v in d.items()}
    return HistogramPair(**fields)


def _without_nan(value: Any) -> Any:
    match value:
        case dict():
            return {k: _without_nan(v) for k, v in value.items()}
        case list() | tuple():
            return [_without_nan(v) for v in value]
        case float() if not math.isfinite(value):
            return None
        case _:
            return value


def _with_nan(d: dict[str, Any]) -> dict[str, Any]:
    return {k: math.nan if v is None else v for k, v in d.items()}
