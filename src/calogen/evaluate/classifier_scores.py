"""AUC and JSD of repeated classifiers as scores: with errors, with a floor, and with the figures that explain them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from calogen.evaluate.calibration import calibrate
from calogen.evaluate.classifier import Classified, auc, classify_repeats, jsd
from calogen.evaluate.classifier_settings import ClassifierSettings
from calogen.evaluate.classifier_training import MIN_SHOWERS, Features, Progress, Subset
from calogen.evaluate.findings import Curve, Findings, Series
from calogen.evaluate.metrics import Score
from calogen.evaluate.parts import MODEL, REFERENCE

OUTPUT_BINS = 25
"""Bins of the classifier's output in the figures."""
PERMUTATIONS = 200
"""Exchanges of labels behind the floor "permuted": they give its standard deviation to 5 %."""
INVERTED_SIGMA = 3.0
"""An AUC so far below its floor says that the samples are not independent."""
TEXT = (
    "A {network} is trained to tell both samples apart ({shares} for training, validation and scores); the epoch of "
    "the lowest validation loss is kept and its output calibrated by isotonic regression on the validation part. AUC: "
    "area under the ROC curve on the third part (0.5: nothing recognised, 1: everything). JSD: 1 + (mean of log2 C "
    "over true showers + mean of log2(1 - C) over generated ones) / 2 in bits, classes counting equally (0 to 1; a "
    "lower bound of the divergence of the samples in these features; negative where calibration costs more than is "
    "recognised). Values are means of {repeats}; errors hold the size of the samples and the spread of the trainings. "
    "Floor: {floor}."
)
FLOORS = {
    "halves": "the same with two halves of the truth",
    "permuted": "the same trained classifiers with the labels of their held-out showers exchanged at random",
}

Floor = Literal["halves", "permuted"]


def classifier_score(
    generated: Features,
    truth: Features,
    settings: ClassifierSettings,
    *,
    repeats: int = 5,
    seed: int = 0,
    floor: Floor = "halves",
    name: str = "classifier",
    title: str = "Classifier",
    progress: Progress | None = None,
    device: str | torch.device = "cpu",
) -> Findings:
    """AUC and JSD of a classifier with errors and floor; see `classify` for the samples, `score_repeats` for the rest.

    Raises:
        ValueError: as `classify`; or a truth too small to be halved.
    """
    trained = classify_repeats(generated, truth, settings, repeats=repeats, seed=seed, progress=progress, device=device)
    halves: tuple[Classified, ...] = ()
    if floor == "halves":
        halves = classify_halves(truth, settings, repeats=repeats, seed=seed, progress=progress, device=device)
    return score_repeats(trained, settings, halves, seed=seed, name=name, title=title)


def classify_halves(
    truth: Features,
    settings: ClassifierSettings,
    *,
    repeats: int = 5,
    seed: int = 0,
    progress: Progress | None = None,
    device: str | torch.device = "cpu",
) -> tuple[Classified, ...]:
    """The same classifier between two random halves of the truth (one truth serves many generated samples).

    Raises:
        ValueError: too few showers to be halved.
    """
    m = truth.shape[0]
    if m < 2 * MIN_SHOWERS:
        raise ValueError(
            f"the truth has {m} showers; a floor from its halves needs at least {2 * MIN_SHOWERS}; use floor='permuted'"
        )
    order = np.random.default_rng([seed, 14]).permutation(m)
    first, second = (Subset(truth, np.sort(half)) for half in (order[: m // 2], order[m // 2 :]))
    return classify_repeats(first, second, settings, repeats=repeats, seed=seed, progress=progress, device=device)


def score_repeats(
    trained: Sequence[Classified],
    settings: ClassifierSettings,
    halves: Sequence[Classified] = (),
    *,
    seed: int = 0,
    name: str = "classifier",
    title: str = "Classifier",
) -> Findings:
    """Findings of trainings on one pair of samples.

    Without `halves` the floor is that of exchanged labels: each training's held-out showers are dealt to the classes
    at random, its logits calibrated and scored again. That costs no training; AUC then has the floor 0.5 and the error
    of its sample. With `halves` (`classify_halves`) the floor is the mean of these trainings, which have half as many
    showers to learn from; its JSD, which is what calibration costs, is carried to the compared sizes as 1/n + 1/m. Its
    error is part of the score's.

    The error of a mean over R trainings is that of the third samples together, and the spread that trainings have
    beyond it. An AUC below its floor is as good as one at its floor.
    """
    measured = {"auc": mean_auc(trained, settings)}
    measured["jsd"] = _mean([(c.jsd, c.jsd_error) for c in trained], settings.folds)
    if halves:
        carried = sum(1 / n for n in trained[0].sizes) / sum(1 / n for n in halves[0].sizes)
        floors = {"auc": mean_auc(halves, settings)}
        value, error = _mean([(c.jsd, c.jsd_error) for c in halves], settings.folds)
        floors["jsd"] = (value * carried, error * carried)
        errors = {k: math.hypot(measured[k][1], floors[k][1]) for k in floors}
    else:
        floors = _permuted(trained, settings.folds, seed)
        errors = {k: max(measured[k][1], floors[k][1]) for k in floors}
    scores = tuple(
        Score(name, k, unit, measured[k][0], errors[k], *floors[k], sense="low", title=title)
        for k, unit in (("auc", ""), ("jsd", "bit"))
    )
    return Findings(
        name,
        title,
        _text(trained, settings, "halves" if halves else "permuted"),
        scores,
        (_output_curve(name, trained), _calibration_curve(name, trained)),
        notes=_notes(trained, scores[0], settings),
        seconds=sum(c.seconds for c in (*trained, *halves)),
    )


def mean_auc(trained: Sequence[Classified], settings: ClassifierSettings) -> tuple[float, float]:
    """AUC of repeated trainings on one pair of samples, and its error (see `score_repeats`)."""
    return _mean([(c.auc, c.auc_error) for c in trained], settings.folds)


def _mean(values: Sequence[tuple[float, float]], folds: int) -> tuple[float, float]:
    """Mean of the scores of repeats and its error, from their own errors and from their spread."""
    value, sampling = np.array([v for v, _ in values]), np.array([e for _, e in values])
    variance = float(np.mean(sampling**2))
    beyond = max(float(value.var(ddof=1)) - variance, 0.0) if value.size > 1 else 0.0
    return float(value.mean()), math.sqrt(variance / min(value.size, folds) + beyond / value.size)


def _permuted(trained: Sequence[Classified], folds: int, seed: int) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of both scores when labels mean nothing."""
    areas, divergences = np.zeros((2, len(trained), PERMUTATIONS))
    rng = np.random.default_rng([seed, 15])
    for r, c in enumerate(trained):
        for i in range(PERMUTATIONS):
            validation = _dealt(*c.validation, rng)
            test = _dealt(c.logits_generated, c.logits_truth, rng)
            calibration = calibrate(*validation)
            areas[r, i] = auc(*test)[0]
            divergences[r, i] = jsd(calibration(test[0]), calibration(test[1]))[0]
    scale = math.sqrt(len(trained) / min(len(trained), folds))  # repeats beyond the folds see the same showers again
    return {
        "auc": (0.5, float(areas.mean(axis=0).std(ddof=1)) * scale),
        "jsd": (float(divergences.mean()), float(divergences.mean(axis=0).std(ddof=1)) * scale),
    }


def _dealt(
    a: NDArray[np.float64], b: NDArray[np.float64], rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    both = rng.permutation(np.concatenate([a, b]))
    return both[: a.size], both[a.size :]


# ---- words and figures ----


def _text(trained: Sequence[Classified], settings: ClassifierSettings, floor: Floor) -> str:
    kind = "dense network" if settings.network == "dnn" else "3D ResNet"
    train_share = 1 - settings.validation_share - settings.test_share
    shares = ", ".join(f"{100 * s:.0f} %" for s in (train_share, settings.validation_share, settings.test_share))
    times = "one training" if len(trained) == 1 else f"{len(trained)} trainings on shifted parts"
    network = f"{kind} of {trained[0].parameters:,} parameters"
    return TEXT.format(network=network, shares=shares, repeats=times, floor=FLOORS[floor])


def _notes(trained: Sequence[Classified], area: Score, settings: ClassifierSettings) -> tuple[str, ...]:
    notes = []
    if len(trained) == 1:
        notes.append("One training only: the error does not hold the spread of trainings.")
    last = sum(c.best_epoch == settings.epochs for c in trained)
    if last:
        notes.append(
            f"{last} of {len(trained)} trainings were still improving after {settings.epochs} epochs: more epochs may "
            "recognise more."
        )
    if area.significance < -INVERTED_SIGMA:
        notes.append(
            f"AUC is {-area.significance:.1f} standard deviations below its floor, which independent samples do not "
            "do: the same showers may be in both."
        )
    return tuple(notes)


def _joined(trained: Sequence[Classified], of: Callable[[Classified], NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.concatenate([of(c) for c in trained])


def _output_curve(name: str, trained: Sequence[Classified]) -> Curve:
    edges = np.linspace(0, 1, OUTPUT_BINS + 1)
    series = []
    for label, values in (
        (REFERENCE, _joined(trained, lambda c: c.p_truth)),
        (MODEL, _joined(trained, lambda c: c.p_generated)),
    ):
        share = np.histogram(values, edges)[0] / values.size
        series.append(Series(label, share, np.sqrt(share * (1 - share) / values.size)))
    axis = "calibrated output C (probability of Geant4)"
    return Curve(
        f"{name}_output", "Output of the classifier", axis, "share of showers", edges, tuple(series), ratio=False
    )


def _calibration_curve(name: str, trained: Sequence[Classified]) -> Curve:
    """Share of truth among third-sample showers of each output: on the diagonal where the output is a probability."""
    g, t = _joined(trained, lambda c: c.p_generated), _joined(trained, lambda c: c.p_truth)
    edges = np.unique(np.quantile(np.concatenate([g, t]), np.linspace(0, 1, 11)))
    if edges.size < 2:
        edges = np.array([edges[0] - 1e-3, edges[0] + 1e-3])
    counts = [np.histogram(v, edges)[0].astype(np.float64) for v in (g, t)]
    a, b = counts[0] / g.size, counts[1] / t.size
    filled = counts[0] + counts[1] > 0
    share = np.divide(b, a + b, out=np.full_like(a, np.nan), where=filled)
    total = np.maximum(counts[0] + counts[1], 1)
    middle = 0.5 * (edges[1:] + edges[:-1])
    zero = np.zeros_like(middle)
    observed = Series("observed", share, np.sqrt(np.maximum(share * (1 - share), 0) / total))
    expected = Series("expected", middle, zero)
    return Curve(
        f"{name}_calibration",
        "Calibration of the classifier",
        "calibrated output C",
        "share of Geant4 showers",
        edges,
        (expected, observed),
        ratio=False,
    )
