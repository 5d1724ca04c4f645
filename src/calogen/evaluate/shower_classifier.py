"""The classifier of the point-cloud judgement: how well showers are recognised by their observables, and by which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from calogen.evaluate.classifier import Classified, classify_repeats
from calogen.evaluate.classifier_scores import Floor, classify_halves, score_repeats
from calogen.evaluate.classifier_settings import PRESETS, ClassifierSettings
from calogen.evaluate.classifier_tails import Observables, classifier_tails
from calogen.evaluate.classifier_training import MIN_SHOWERS, Progress
from calogen.evaluate.classifier_weights import weights_of
from calogen.evaluate.findings import Findings
from calogen.evaluate.log_posterior import log_posteriors
from calogen.evaluate.observables import Observed
from calogen.evaluate.parts import Batch, Rows, SamplePair
from calogen.evaluate.shower_features import Choice, plain_observables, shower_features

REPEATS = 5
"""Trainings of each classifier: with the default split every shower is in a third sample once."""

FAST_STEPS = 200
"""Steps of an epoch of `fast` at most: of many showers its batches are larger, so that minutes suffice."""

Size = Literal["fast", "published"]

PUBLISHED: dict[Choice, str] = {"all": "published-high", "caloclouds2": "caloclouds2", "calohadronic": "calohadronic"}
TITLES: dict[Choice, str] = {
    "caloclouds2": "Classifier of 25 observables (CaloClouds 2)",
    "calohadronic": "Classifier of five observables (CaloHadronic)",
    "all": "Classifier of all observables",
}


@dataclass(frozen=True)
class ShowerClassifier:
    """A classifier on `features`; that of all observables also says what the showers of extreme weight have in common.

    `floor` "permuted" costs no training, "halves" as many again (see `score_repeats`).
    """

    features: Choice = "all"
    settings: ClassifierSettings = PRESETS["fast"]
    repeats: int = REPEATS
    floor: Floor = "permuted"
    progress: Progress | None = None

    @property
    def name(self) -> str:
        """`classifier_all` and so on."""
        return f"classifier_{self.features}"

    def rows(self, batch: Batch) -> Rows:
        """Nothing: the observables of every shower suffice."""
        return {}

    def findings(self, pair: SamplePair) -> Findings:
        """AUC and JSD, weights and their tails; a note where there are fewer than `MIN_SHOWERS`."""
        observed = pair.generated.observed, pair.truth.observed
        (generated, names), (truth, _) = (shower_features(o, self.features) for o in observed)
        title = TITLES[self.features]
        if min(len(generated), len(truth)) < self.least:
            note = f"a classifier needs at least {self.least} showers of each sample: {len(generated)} and {len(truth)}"
            return Findings(self.name, title, f"{len(names)} observables of each shower.", notes=(note,))
        settings = in_steps(self.settings, len(generated) + len(truth))
        repeats, seed = self.repeats, pair.seed
        trained = classify_repeats(generated, truth, settings, repeats=repeats, seed=seed, progress=self.progress)
        halves: tuple[Classified, ...] = ()
        if self.floor == "halves":
            halves = classify_halves(truth, settings, repeats=repeats, seed=seed, progress=self.progress)
        del generated, truth  # the tails look at the observables anew
        scores = score_repeats(trained, settings, halves, seed=seed, name=self.name, title=title)
        scores = replace(scores, text=f"{len(names)} observables of each shower. {scores.text}")
        return scores if self.features != "all" else self._with_tails(scores, trained, pair)

    @property
    def least(self) -> int:
        """Showers that each sample must have."""
        return MIN_SHOWERS if self.floor == "permuted" else 2 * MIN_SHOWERS

    def _with_tails(self, scores: Findings, trained: tuple[Classified, ...], pair: SamplePair) -> Findings:
        made, true = pair.generated.observed, pair.truth.observed
        (a, names, units), (b, _, _) = plain_observables(made), plain_observables(true)
        seen = Observables(a, b, names, units, made.incident_energy, true.incident_energy)
        tails = classifier_tails(weights_of(trained), seen, name=self.name)
        return replace(
            scores,
            text=f"{scores.text} {tails.text}",
            curves=scores.curves + tails.curves,
            matrices=tails.matrices,
            notes=scores.notes + tails.notes,
            seconds=scores.seconds + tails.seconds,
        )


def in_steps(settings: ClassifierSettings, showers: int) -> ClassifierSettings:
    """The settings `fast` with batches so large that an epoch has no more than `FAST_STEPS`; others as they are.

    >>> in_steps(PRESETS["fast"], 2_000).batch, in_steps(PRESETS["fast"], 200_000).batch
    (128, 600)
    """
    if settings != PRESETS["fast"]:
        return settings
    trained = showers * (1 - settings.validation_share - settings.test_share)
    return replace(settings, batch=max(settings.batch, round(trained / FAST_STEPS)))


def shower_classifiers(
    size: Size = "fast", repeats: int = REPEATS, progress: Progress | None = None
) -> tuple[ShowerClassifier, ...]:
    """The classifiers of the judgement, with small networks or with the published ones.

    Nothing is published on all observables: their large network is that of the CaloChallenge.
    """
    published: dict[Choice, str] = {
        "all": "published-high",
        "caloclouds2": "caloclouds2",
        "calohadronic": "calohadronic",
    }
    presets = {choice: "fast" if size == "fast" else name for choice, name in published.items()}
    return tuple(ShowerClassifier(c, PRESETS[p], repeats, progress=progress) for c, p in presets.items())


def shower_competition(
    models: Mapping[str, Observed],
    truth: Observed,
    size: Size = "fast",
    *,
    repeats: int = REPEATS,
    seed: int = 0,
    progress: Progress | None = None,
) -> Findings:
    """`log_posteriors` of several models by all observables.

    Raises:
        ValueError: too few showers, or a model called as the control is.
    """
    settings = PRESETS["fast" if size == "fast" else PUBLISHED["all"]]
    features = {name: shower_features(o, "all")[0] for name, o in models.items()}
    true = shower_features(truth, "all")[0]
    settings = in_steps(settings, len(true) + sum(map(len, features.values())))
    return log_posteriors(features, true, settings, repeats=repeats, seed=seed, progress=progress)
