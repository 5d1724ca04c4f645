"""Scores of the solvers of a flow: how well a classifier tells their showers from Geant4's, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from calogen.data.incident import Incident
from calogen.data.projection import voxelize
from calogen.data.showers import Showers
from calogen.detector.geometry import PolarCells
from calogen.evaluate.classifier import classify_repeats
from calogen.evaluate.classifier_scores import classify_halves, mean_auc
from calogen.evaluate.classifier_settings import PRESETS, ClassifierSettings
from calogen.evaluate.classifier_training import MIN_SHOWERS
from calogen.evaluate.high_level import HighLevel, classifier_features, high_level
from calogen.evaluate.incidents import DIFFERENT_INCIDENT_P
from calogen.evaluate.observables import Binning, observe_all
from calogen.evaluate.shower_classifier import in_steps
from calogen.evaluate.shower_features import shower_features

PORTION = 256
"""Showers whose voxels are dense at once."""


@dataclass(frozen=True)
class SolverScore:
    """One solver of one flow.

    `evaluations`: of the velocity for each shower, counted (of an autoregressive flow: for each of its elements).
    `auc`: of the high-level classifier, with its error. `cpu_ms_per_shower`: processor time of the whole system.
    """

    flow: str
    solver: str
    setting: str
    evaluations: float
    auc: float
    auc_error: float
    cpu_ms_per_shower: float
    fit_seconds: float | None = None


@dataclass(frozen=True)
class Floor:
    """The AUC of Geant4 against Geant4 by the same classifier, and of how many showers."""

    auc: float
    error: float
    showers: int
    text: str


@dataclass(frozen=True)
class SolverStudy:
    """All solvers of a state's flows against one truth; without a floor where there are too few showers for one."""

    state: str
    system: str
    detector: str
    truth: str
    showers: int
    repeats: int
    features: str
    scores: tuple[SolverScore, ...]
    floor: Floor | None
    notes: tuple[str, ...]
    provenance: Mapping[str, Any]

    @property
    def flows(self) -> tuple[str, ...]:
        """Their names, in order."""
        return tuple(dict.fromkeys(score.flow for score in self.scores))

    def of(self, flow: str) -> dict[str, list[SolverScore]]:
        """The scores of one flow by solver, each with its evaluations growing."""
        solvers = dict.fromkeys(score.solver for score in self.scores if score.flow == flow)
        return {
            name: sorted(
                (s for s in self.scores if (s.flow, s.solver) == (flow, name)), key=lambda score: score.evaluations
            )
            for name in solvers
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


class HighLevelJudge:
    """Tells showers from those of a truth by high-level features, with the small networks of the judge.

    Voxels in rings and sectors are judged by the features of the CaloChallenge, others by all observables of points.

    Args:
        truth: Geant4's showers, as points.
        voxels: whether each point is a cell.
        repeats: trainings, each with another part held out.
        seed: of splits and weights.

    Raises:
        ValueError: too few showers, or no repeats.
    """

    def __init__(self, truth: Showers, *, voxels: bool, repeats: int = 3, seed: int = 0) -> None:
        if len(truth) < MIN_SHOWERS:
            raise ValueError(f"{len(truth)} showers of the truth: a classifier needs at least {MIN_SHOWERS}")
        if repeats < 1:
            raise ValueError(f"repeats={repeats}: a classifier must be trained at least once")
        self.rings = voxels and isinstance(truth.detector.layers[0].cells, PolarCells)
        self.repeats, self.seed = repeats, seed
        self.truth = self.features(truth)
        self.incident = truth.incident

    @property
    def text(self) -> str:
        """What it looks at."""
        kind = "high-level features of the CaloChallenge" if self.rings else "observables of points"
        return f"{self.truth.shape[1]} {kind}"

    def features(self, showers: Showers) -> NDArray[np.float32]:
        """Features of each shower [N, d]."""
        portions = (showers[start : start + PORTION] for start in range(0, len(showers), PORTION))
        if self.rings:
            return classifier_features(HighLevel.concatenate([high_level(voxelize(p)[0]) for p in portions])).values
        detector = showers.detector
        return shower_features(observe_all(portions, Binning.of(detector), detector), "all")[0]

    def settings(self, showers: int) -> ClassifierSettings:
        """The classifier's, for so many showers of both samples."""
        return PRESETS["fast-high"] if self.rings else in_steps(PRESETS["fast"], showers)

    def auc(self, showers: Showers) -> tuple[float, float]:
        """AUC against the truth, and its error: of the sample's size and of the spread of trainings.

        Raises:
            ValueError: too few showers, or features that are not finite.
        """
        settings = self.settings(len(showers) + len(self.truth))
        features = self.features(showers)
        return mean_auc(
            classify_repeats(features, self.truth, settings, repeats=self.repeats, seed=self.seed), settings
        )

    def floor(self, others: Showers | None) -> Floor | None:
        """The AUC of other Geant4 showers of such particles, at most as many as those of the truth.

        Without enough of them that of two halves of the truth; None where it is too small to be halved.
        """
        if others is not None and len(others) >= MIN_SHOWERS and same_spectrum(others.incident, self.incident):
            chosen = np.sort(np.random.default_rng([self.seed, 19]).permutation(len(others))[: len(self.truth)])
            return Floor(*self.auc(others[chosen]), len(chosen), "other Geant4 showers against the truth")
        if len(self.truth) < 2 * MIN_SHOWERS:
            return None
        settings = self.settings(len(self.truth))
        halves = classify_halves(self.truth, settings, repeats=self.repeats, seed=self.seed)
        return Floor(*mean_auc(halves, settings), len(self.truth) // 2, "two halves of the truth")


def same_spectrum(a: Incident, b: Incident) -> bool:
    """Whether energies and directions of two samples of particles may come from one distribution."""
    columns = zip((a.energy, *a.direction.T[:2]), (b.energy, *b.direction.T[:2]), strict=True)
    spread = [(x, y) for x, y in columns if np.ptp(np.concatenate([x, y])) > 0]
    return all(float(ks_2samp(x, y, method="asymp").pvalue) >= DIFFERENT_INCIDENT_P for x, y in spread)
