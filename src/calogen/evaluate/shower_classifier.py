"""The classifier of the point-cloud judgement: how well showers are recognised by their observables, and by which."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from calogen.evaluate.classifier import Classified, classify_repeats
from calogen.evaluate.classifier_scores import Floor, classify_halves, score_repeats
from calogen.evaluate.classifier_settings import PRESETS, ClassifierSettings
from calogen.evaluate.classifier_tails import Observables, classifier_tails
from calogen.evaluate.classifier_training import Progress
from calogen.evaluate.classifier_weights import weights_of
from calogen.evaluate.findings import Findings
from calogen.evaluate.parts import Batch, Rows, SamplePair
from calogen.evaluate.shower_features import Choice, shower_features

TITLES = {
    "caloclouds2": "Classifier of 25 observables (CaloClouds 2)",
    "calohadronic": "Classifier of five observables (CaloHadronic)",
    "all": "Classifier of all observables",
}


@dataclass(frozen=True)
class ShowerClassifier:
    """A part of the judgement: AUC and JSD of a classifier on `features`, and the observables of its extreme weights.

    `floor` "permuted" costs no training, "halves" as many again (see `score_repeats`).
    """

    features: Choice = "all"
    settings: ClassifierSettings = PRESETS["fast"]
    repeats: int = 5
    floor: Floor = "permuted"
    progress: Progress | None = None
    name: ClassVar[str] = "classifier"

    def rows(self, batch: Batch) -> Rows:
        """Nothing: the observables of every shower suffice."""
        return {}

    def findings(self, pair: SamplePair) -> Findings:
        """Scores of the classifier, its weights, and what the showers it recognises have in common.

        Raises:
            ValueError: too few showers.
        """
        observed = pair.generated.observed, pair.truth.observed
        (generated, _), (truth, _) = (shower_features(o, self.features) for o in observed)
        trained = classify_repeats(
            generated, truth, self.settings, repeats=self.repeats, seed=pair.seed, progress=self.progress
        )
        halves: tuple[Classified, ...] = ()
        if self.floor == "halves":
            halves = classify_halves(truth, self.settings, repeats=self.repeats, seed=pair.seed, progress=self.progress)
        key = f"{self.name}_{self.features}"
        scores = score_repeats(trained, self.settings, halves, seed=pair.seed, name=key, title=TITLES[self.features])
        # Without the first, the incident energy, which the comparison already takes into account.
        (generated, names), (truth, _) = ((x[:, 1:], n[1:]) for x, n in (shower_features(o, "all") for o in observed))
        incident = (o.incident_energy for o in observed)
        tails = classifier_tails(weights_of(trained), Observables(generated, truth, names, None, *incident), name=key)
        return replace(
            scores,
            text=f"{scores.text} {tails.text}",
            curves=scores.curves + tails.curves,
            matrices=tails.matrices,
            notes=scores.notes + tails.notes,
            seconds=scores.seconds + tails.seconds,
        )
