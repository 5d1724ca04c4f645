"""Repeated showers as a part of the judgement: of the model's own, and of those it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from calogen.evaluate.findings import Findings
from calogen.evaluate.incidents import check_same_detector
from calogen.evaluate.memorisation import MIN_SHOWERS, memorisation, repeats
from calogen.evaluate.parts import Batch, Collected, Rows, SamplePair
from calogen.evaluate.shower_features import INCIDENT_FEATURES, shower_features

NAME, TITLE, OBSERVABLES = "copies", "Repeated and memorised showers", "all observables"
TEXT = (
    "Nearest neighbours among standardised observables, the incident particle left out. repeats: the share of "
    "generated showers as near to another generated one as the nearest 5 % of Geant4 showers to another (0.05 for "
    "Geant4, 1 if every shower is there twice)."
)
TRAINING_TEXT = (
    " training_neighbours: how much more often the nearest Geant4 shower of a generated one is of the training set "
    "than of the truth, per shower of each (0.5: no copies; 1: all are copies). training_distance: the probability "
    "that a generated shower is nearer to the training set than a true one is (0.5 for Geant4, 1 for copies)."
)
NO_TRAINING = "Copies of training showers were not looked for: the training set was not given (--training)."


@dataclass(frozen=True, eq=False)
class Copies:
    """Does the model repeat showers? `training` are the Geant4 showers it was trained on, where they are known."""

    training: Collected | None = None
    name: ClassVar[str] = NAME

    def rows(self, batch: Batch) -> Rows:
        """Nothing: the observables of every shower suffice."""
        return {}

    def findings(self, pair: SamplePair) -> Findings:
        """Shares of repeated showers.

        Raises:
            ValueError: training showers of another detector.
        """
        known = None
        if self.training is not None:
            check_same_detector(self.training.detector, pair.detector)
            known = _observables(self.training)
        return copies(_observables(pair.generated), _observables(pair.truth), known, seed=pair.seed)


def copies(
    generated: NDArray[Any], truth: NDArray[Any], training: NDArray[Any] | None = None, *, seed: int = 0
) -> Findings:
    """Findings on repeated showers from features `[n, d]` without the incident particle (see `memorisation`)."""
    text = TEXT if training is None else TEXT + TRAINING_TEXT
    samples: Sequence[NDArray[Any]] = [generated, truth, *([] if training is None else [training])]
    if min(map(len, samples)) < MIN_SHOWERS:
        counts = ", ".join(str(len(s)) for s in samples)
        note = (
            f"repeated showers are looked for among at least {MIN_SHOWERS} showers of each sample; there are {counts}"
        )
        return Findings(NAME, TITLE, text, notes=(note,))
    if training is None:
        found = (repeats(generated, truth, observable=OBSERVABLES, seed=seed),)
        return Findings(NAME, TITLE, text, _titled(found), notes=(NO_TRAINING,))
    return Findings(NAME, TITLE, text, _titled(memorisation(generated, training, truth, seed=seed)))


def _titled(scores: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(replace(s, observable=NAME, title=OBSERVABLES) for s in scores)


def _observables(sample: Collected) -> NDArray[np.float32]:
    return shower_features(sample.observed, "all")[0][:, INCIDENT_FEATURES:]
