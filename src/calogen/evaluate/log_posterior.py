"""Several models in one competition: to which of them a classifier of many classes gives the showers of Geant4."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from calogen.evaluate.classifier_settings import ClassifierSettings
from calogen.evaluate.classifier_training import (
    MIN_SHOWERS,
    Features,
    Progress,
    Subset,
    balanced_loss,
    check,
    split,
    train,
)
from calogen.evaluate.findings import Findings, Matrix
from calogen.evaluate.metrics import Score

CONTROL = "Geant4 (control)"
TEMPERATURES = (0.05, 20.0)
"""Range in which the logits' common scale is fitted."""
TEXT = (
    "One classifier is trained to tell the {k} samples apart (classes counting equally; best epoch by validation loss; "
    "one temperature fitted on the validation part) and is shown Geant4 showers it has not seen. The log-posterior of "
    "a model is the mean over these of ln p(model | shower): higher is closer to Geant4, and -ln {k} = {chance:.3f} is "
    "what all have where nothing can be told apart. {control} Means of {repeats} trainings."
)


def log_posteriors(
    submissions: Mapping[str, Features],
    truth: Features,
    settings: ClassifierSettings,
    *,
    control: bool = True,
    repeats: int = 3,
    seed: int = 0,
    progress: Progress | None = None,
    device: str | torch.device = "cpu",
) -> Findings:
    """The multi-class score of the CaloChallenge (arXiv:2410.21611): mean log-posterior of Geant4 showers.

    Args:
        submissions: features `[n, d]` of each model's showers by name.
        truth: the same features of Geant4.
        settings: network and training.
        control: half of the truth competes as one more class; its log-posterior on the other half is the floor of all
            (a perfect model shares it). The published numbers have no such class: without it there is no floor.
        repeats: trainings, each with another part of each sample held out; the errors need two at least.
        seed: of everything random.
        progress: told of each epoch.
        device: where the network is trained.

    Raises:
        ValueError: fewer than two classes, features that do not match, too few showers, NaN.
    """
    start = time.perf_counter()
    samples, judged = _classes(submissions, truth, control, seed)
    if repeats < 1 or len(samples) < 2:
        raise ValueError(f"{len(samples)} classes and {repeats} trainings; a competition needs two and one at least")
    values, confusion = np.zeros((repeats, len(samples))), np.zeros((len(samples) + 1, len(samples)))
    sampling = np.zeros_like(values)
    for r in range(repeats):
        posterior, mixed = _compete(samples, judged, settings, seed, r, progress, device)
        values[r], sampling[r] = posterior.mean(axis=0), posterior.std(axis=0) / math.sqrt(posterior.shape[0])
        confusion += np.vstack([mixed, np.exp(posterior).mean(axis=0)]) / repeats
    # Trainings share most of their showers: what they scatter by is not divided by their number.
    error = np.sqrt(sampling.mean(axis=0) ** 2 + (values.var(axis=0, ddof=1) if repeats > 1 else 0))
    names = tuple(samples)
    scores = _scores(names, values.mean(axis=0), error)
    said = f"{CONTROL} is half of the truth in the competition; its value is the floor." if control else "No control."
    k = len(samples)
    return Findings(
        "log_posterior",
        "Log-posterior of all models",
        TEXT.format(k=k, chance=-math.log(k), control=said, repeats=repeats),
        scores,
        matrices=(
            Matrix("posteriors", "Mean posterior of each class", (*names, "Geant4"), names, confusion, 0.0, 1.0),
        ),
        seconds=time.perf_counter() - start,
    )


def _classes(
    submissions: Mapping[str, Features], truth: Features, control: bool, seed: int
) -> tuple[dict[str, Features], Features]:
    """All classes of the competition, and the true showers that are judged."""
    if CONTROL in submissions:
        raise ValueError(f"{CONTROL!r} is the name of the truth's own class; give the submission another")
    samples = dict(submissions)
    check(samples | {"truth": truth})
    if not control:
        return samples, truth
    m = truth.shape[0]
    if m < 2 * MIN_SHOWERS:
        raise ValueError(f"the truth has {m} showers; a control needs at least {2 * MIN_SHOWERS}: use control=False")
    order = np.random.default_rng([seed, 16]).permutation(m)
    samples[CONTROL] = Subset(truth, np.sort(order[: m // 2]))
    return samples, Subset(truth, np.sort(order[m // 2 :]))


def _compete(
    samples: Mapping[str, Features],
    judged: Features,
    settings: ClassifierSettings,
    seed: int,
    repeat: int,
    progress: Progress | None,
    device: str | torch.device,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log-posteriors `[judged, k]` of the true showers, and mean posteriors `[k, k]` of each class's third sample."""
    parts = [split(s.shape[0], settings, seed, repeat) for s in samples.values()]
    trained = train(list(samples.values()), parts, settings, seed=seed, repeat=repeat, progress=progress, device=device)
    validation, test = ([_wide(z) for z in logits] for logits in (trained.validation, trained.test))
    low, high = (math.log(t) for t in TEMPERATURES)
    fit = minimize_scalar(lambda u: balanced_loss([z / math.exp(u) for z in validation]), bounds=(low, high))
    temperature = math.exp(fit.x)
    truth = _wide(trained.apply(judged, settings.batch))
    mixed = np.stack([np.exp(log_softmax(z / temperature, axis=1)).mean(axis=0) for z in test])
    return log_softmax(truth / temperature, axis=1), mixed


def _wide(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """One logit a class: a single one is that of the second against the first."""
    return np.hstack([np.zeros_like(logits), logits]) if logits.shape[1] == 1 else logits


def _scores(names: tuple[str, ...], values: NDArray[np.float64], error: NDArray[np.float64]) -> tuple[Score, ...]:
    floor, floor_error = math.nan, math.nan
    if CONTROL in names:
        floor, floor_error = float(values[names.index(CONTROL)]), float(error[names.index(CONTROL)])
    return tuple(
        Score(
            name,
            "log_posterior",
            "nat",
            float(v),
            float(e) if math.isnan(floor_error) else math.hypot(float(e), floor_error),
            floor,
            floor_error,
            sense="high",
            title=name,
        )
        for name, v, e in zip(names, values, error, strict=True)
        if name != CONTROL
    )
