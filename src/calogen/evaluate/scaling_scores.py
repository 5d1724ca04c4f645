"""Scores of a grid of token generators: loss, sliced Wasserstein distance and cost of each run, and the fitted laws."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calogen.data.showers import Showers
from calogen.evaluate.metrics import Score
from calogen.evaluate.observables import Binning, observe_all
from calogen.evaluate.scaling_fits import ScalingFit, TrainingCurve, fit_compute, fit_parameters_and_data
from calogen.evaluate.shower_distances import observables_of
from calogen.evaluate.sliced import sliced_score
from calogen.evaluate.solver_scores import same_spectrum


@dataclass(frozen=True)
class CurvePoint:
    """A validation while a run was trained: what had been spent by then, and the loss (nats a token)."""

    step: int
    tokens: int
    flops: float
    cpu_seconds: float
    loss: float


@dataclass(frozen=True)
class RunScore:
    """One run of the grid.

    `parameters`: of the network without its tables of the vocabulary (N), and `all_parameters` with them. `tokens`: of
    its training showers, their ends included (D). `flops`: of the training, see `scaling_study.counting`. `loss`: the
    best on the validation showers, nats a token. `distance`: sliced Wasserstein to the truth with error and floor, in
    standard deviations; None where too few showers were drawn. `cut`: showers that did not end.
    """

    size: str
    fraction: float
    width: int
    blocks: int
    parameters: int
    all_parameters: int
    showers: int
    tokens: int
    steps: int
    tokens_seen: int
    flops: float
    cpu_seconds: float
    loss: float
    best_step: int
    curve: tuple[CurvePoint, ...]
    distance: float | None = None
    distance_error: float | None = None
    distance_floor: float | None = None
    distance_floor_error: float | None = None
    cut: int = 0
    draw_cpu_seconds: float = 0.0

    @property
    def label(self) -> str:
        """Size and share of the data."""
        return f"{self.size}, {self.fraction:g}"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunScore:
        """What `dataclasses.asdict` made, through JSON."""
        return cls(**{**values, "curve": tuple(CurvePoint(**point) for point in values["curve"])})


@dataclass(frozen=True)
class ScalingStudy:
    """All runs of a grid that are finished, the laws fitted to them, and what failed.

    `unigram`: entropy of single tokens of the training showers, nats: the loss of who knows no context.
    """

    system: str
    detector: str
    data: str
    truth: str
    codes: int
    showers: int
    planned: int
    unigram: float
    runs: tuple[RunScore, ...]
    both: ScalingFit
    compute: ScalingFit
    notes: tuple[str, ...]
    provenance: Mapping[str, Any]

    @property
    def sizes(self) -> tuple[str, ...]:
        """By their parameters."""
        return tuple(dict.fromkeys(run.size for run in sorted(self.runs, key=lambda run: run.parameters)))

    @property
    def fractions(self) -> tuple[float, ...]:
        """Ascending."""
        return tuple(sorted({run.fraction for run in self.runs}))

    @property
    def irreducible(self) -> tuple[float, float, str] | None:
        """E, its error and the law it is of: of L(N, D), else of L(C); None where neither fixes it."""
        for fit in (self.both, self.compute):
            if fit.irreducible is not None:
                return fit.irreducible.value, fit.irreducible.error, fit.formula
        return None

    def closed(self, run: RunScore) -> tuple[float, float] | None:
        """Share of the learnable window (unigram - E) that a run has closed, and its error; None without E."""
        if self.irreducible is None:
            return None
        e, error, _ = self.irreducible
        window = self.unigram - e
        share = (self.unigram - run.loss) / window
        return share, abs(share) * error / window

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what is not a number is null."""
        values = asdict(self)
        for run, made in zip(self.runs, values["runs"], strict=True):
            closed = self.closed(run)
            made["window_closed"], made["window_closed_error"] = closed if closed is not None else (None, None)
        plain: dict[str, Any] = _finite(values)
        return plain


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def fitted_laws(runs: Sequence[RunScore]) -> tuple[ScalingFit, ScalingFit]:
    """L(N, D) of the runs, and L(C) of their curves."""
    both = fit_parameters_and_data(
        [run.parameters for run in runs], [run.tokens for run in runs], [run.loss for run in runs]
    )
    curves = [TrainingCurve([p.flops for p in run.curve], [p.loss for p in run.curve]) for run in runs]
    return both, fit_compute(curves)


def unigram_entropy(tokens: NDArray[np.integer], showers: int) -> float:
    """-sum p ln p of the tokens [T] of some showers and of their ends, nats.

    >>> round(unigram_entropy(np.array([0, 1, 0, 1]), 2) / math.log(3), 12)
    1.0
    """
    counts = np.append(np.bincount(tokens), showers)
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log(p)).sum())


class DistanceJudge:
    """The sliced Wasserstein distance of `calogen evaluate` of showers drawn for the particles of a truth.

    Args:
        truth: Geant4's showers.
        others: further ones, for the floor.
        paired: whether showers are drawn for the very particles of the truth. The floor is then that of the truth's
            halves, which are of particles as equal; else of the truth against others, if these have its spectrum.
        seed: of directions and resampling.
    """

    def __init__(self, truth: Showers, others: Showers, *, paired: bool, seed: int = 0) -> None:
        self.order = np.argsort(truth.incident.energy, kind="stable")
        self.paired, self.seed = paired, seed
        self.truth = self._features(truth)
        serves = not paired and len(others) >= len(truth) and same_spectrum(others.incident, truth.incident)
        self.others = self._features(others[: len(truth)], np.arange(len(truth))) if serves else None

    def score(self, showers: Showers) -> Score:
        """The distance of as many showers as the truth has.

        Raises:
            ValueError: too few of them.
        """
        return sliced_score(
            *(self.truth, self._features(showers)), paired=self.paired, independent=self.others, seed=self.seed
        )

    def _features(self, showers: Showers, order: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        observed = observe_all([showers], Binning.of(showers.detector), showers.detector)
        return observables_of(observed)[self.order if order is None else order]
