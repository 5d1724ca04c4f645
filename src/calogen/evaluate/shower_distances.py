"""Distances of the point-cloud judgement between whole samples of observables, which see what correlations do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from calogen.evaluate.features import moments, normalised
from calogen.evaluate.findings import Findings
from calogen.evaluate.frechet_scores import MIN_SHOWERS, frechet_score, kernel_score
from calogen.evaluate.neighbour_scores import prdc_scores
from calogen.evaluate.observables import Observed
from calogen.evaluate.parts import Batch, Rows, SamplePair
from calogen.evaluate.shower_features import shower_features
from calogen.evaluate.sliced import PROJECTIONS, sliced_score

OBSERVABLES = "observables"
TITLE = "Distances of samples in many observables"
TEXT = (
    "Every shower is a point of {d} observables: log10 of the incident energy, and the 25 of the CaloClouds 2 "
    "classifier (centre of gravity, hits, visible over incident energy, energy in ten groups of layers and of rings). "
    "Fréchet and kernel physics distance "
    "as jetnet defines them; sliced Wasserstein distance, the mean Wasserstein-1 distance along {projections} random "
    "directions in standard deviations of Geant4 (Bonneel et al. 2015); precision, recall, density and coverage of "
    "five nearest neighbours among standardised observables, which depend on the number of showers."
)


@dataclass(frozen=True)
class Distances:
    """Fréchet, kernel and sliced Wasserstein distance, precision, recall, density and coverage."""

    name: ClassVar[str] = "distances"

    def rows(self, batch: Batch) -> Rows:
        """Nothing: the observables of every shower suffice."""
        return {}

    def findings(self, pair: SamplePair) -> Findings:
        """The distances, where both samples have `MIN_SHOWERS`; a note where not."""
        made, true = (observables_of(s.observed) for s in (pair.generated, pair.truth))
        text = TEXT.format(d=made.shape[1], projections=PROJECTIONS)
        if min(len(made), len(true)) < MIN_SHOWERS:
            note = f"distances need at least {MIN_SHOWERS} showers of each sample, not {len(made)} and {len(true)}"
            return Findings(self.name, TITLE, text, notes=(note,))
        seed, paired = pair.seed, pair.paired
        mean, spread = moments(true)
        standard_true, standard_made = (normalised(v, spread, mean) for v in (true, made))
        scores = (
            frechet_score(true, made, observable=OBSERVABLES, seed=seed, paired=paired),
            kernel_score(true, made, observable=OBSERVABLES, seed=seed, paired=paired),
            sliced_score(true, made, observable=OBSERVABLES, seed=seed, paired=paired),
            *prdc_scores(standard_true, standard_made, observable=OBSERVABLES, seed=seed, paired=paired),
        )
        return Findings(self.name, TITLE, text, tuple(replace(s, title=OBSERVABLES) for s in scores))


def observables_of(observed: Observed) -> NDArray[np.float32]:
    """Few enough to leave a covariance known from a thousand showers."""
    values, _ = shower_features(observed, "caloclouds2")
    return np.concatenate([np.log10(observed.incident_energy, dtype=np.float32)[:, None], values], axis=1)
