"""One classifier of generated against true showers: its AUC and Jensen-Shannon divergence on a third sample."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata

from calogen.evaluate.calibration import calibrate
from calogen.evaluate.classifier_settings import ClassifierSettings
from calogen.evaluate.classifier_training import Epoch, Features, Progress, check, split, train


@dataclass(frozen=True, eq=False)
class Classified:
    """One training. `p_*` are calibrated probabilities C of being truth, on the third sample: `generated_rows [k]`.

    `validation` are logits of the validation part (generated, truth), from which C was calibrated; `sizes` count all
    showers of both samples.
    """

    auc: float
    auc_error: float
    jsd: float
    jsd_error: float
    p_generated: NDArray[np.float64]
    p_truth: NDArray[np.float64]
    generated_rows: NDArray[np.int64]
    truth_rows: NDArray[np.int64]
    logits_generated: NDArray[np.float64]
    logits_truth: NDArray[np.float64]
    validation: tuple[NDArray[np.float64], NDArray[np.float64]]
    sizes: tuple[int, int]
    epochs: tuple[Epoch, ...]
    best_epoch: int
    parameters: int
    seconds: float


def auc(generated: NDArray[np.float64], truth: NDArray[np.float64]) -> tuple[float, float]:
    """Probability that a true shower has the larger value than a generated one (ties count half), and its error.

    The error is that of DeLong, DeLong and Clarke-Pearson (1988) for independent showers: rather too large where both
    samples have the same incident particles. Where nothing overlaps it is that of half a shower misplaced.

    >>> auc(np.array([0.1, 0.2]), np.array([0.2, 0.4]))[0]
    0.875
    """
    n, m = generated.size, truth.size
    ranks = rankdata(np.concatenate([generated, truth]))
    above = (ranks[n:] - rankdata(truth)) / n
    below = 1 - (ranks[:n] - rankdata(generated)) / m
    variance = above.var(ddof=1) / m + below.var(ddof=1) / n if min(n, m) > 1 else 0.25
    return float(above.mean()), max(math.sqrt(variance), 0.5 / min(n, m))


def jsd(p_generated: NDArray[np.float64], p_truth: NDArray[np.float64]) -> tuple[float, float]:
    """Jensen-Shannon divergence in bits from calibrated C of both samples, and its sampling error.

    1 + (mean of log2 C over truth + mean of log2(1 - C) over generated) / 2: for classes of equal size the formula of
    the CaloChallenge and of CaloHadronic, which average over all showers at once.

    >>> jsd(np.array([0.5, 0.5]), np.array([0.5, 0.5]))
    (0.0, 0.0)
    """
    a, b = np.log2(p_truth), np.log2(1 - p_generated)
    variance = a.var() / a.size + b.var() / b.size
    return float(1 + (a.mean() + b.mean()) / 2), math.sqrt(variance) / 2


def classify(
    generated: Features,
    truth: Features,
    settings: ClassifierSettings,
    *,
    seed: int,
    repeat: int = 0,
    progress: Progress | None = None,
    device: str | torch.device = "cpu",
) -> Classified:
    """Train one classifier and apply it to the third sample.

    Args:
        generated: features `[n, d]`; anything with `shape` that gives rows by index (array, memory map, HDF5 set).
        truth: the same features `[m, d]`.
        settings: network and training, such as `PRESETS["fast"]`.
        seed: of split, weights and order.
        repeat: another training on another fold of the same split (`settings.folds` of them share no test shower).
        progress: told of each epoch.
        device: where the network is trained.

    Rows of both samples that have the same incident particle should have the same number: they then stay in one part.

    Raises:
        ValueError: features that do not match, too few showers, NaN.
    """
    check({"generated": generated, "truth": truth})
    return _classified(generated, truth, settings, seed, repeat, progress, device)


def classify_repeats(
    generated: Features,
    truth: Features,
    settings: ClassifierSettings,
    *,
    repeats: int = 5,
    seed: int = 0,
    progress: Progress | None = None,
    device: str | torch.device = "cpu",
) -> tuple[Classified, ...]:
    """`classify` on one fold after the other; with `settings.folds` repeats every shower is in a third sample once.

    Raises:
        ValueError: as `classify`, or no repeats.
    """
    if repeats < 1:
        raise ValueError(f"repeats={repeats}: a classifier must be trained at least once")
    check({"generated": generated, "truth": truth})
    return tuple(_classified(generated, truth, settings, seed, r, progress, device) for r in range(repeats))


def _classified(
    generated: Features,
    truth: Features,
    settings: ClassifierSettings,
    seed: int,
    repeat: int,
    progress: Progress | None,
    device: str | torch.device,
) -> Classified:
    start = time.perf_counter()
    parts = [split(rows.shape[0], settings, seed, repeat) for rows in (generated, truth)]
    trained = train((generated, truth), parts, settings, seed=seed, repeat=repeat, progress=progress, device=device)
    validation, test = ([z[:, 0] for z in logits] for logits in (trained.validation, trained.test))
    calibration = calibrate(validation[0], validation[1])
    p_generated, p_truth = (calibration(z) for z in test)
    area, divergence = auc(test[0], test[1]), jsd(p_generated, p_truth)
    return Classified(
        auc=area[0],
        auc_error=area[1],
        jsd=divergence[0],
        jsd_error=divergence[1],
        p_generated=p_generated,
        p_truth=p_truth,
        generated_rows=parts[0].test,
        truth_rows=parts[1].test,
        logits_generated=test[0],
        logits_truth=test[1],
        validation=(validation[0], validation[1]),
        sizes=(generated.shape[0], truth.shape[0]),
        epochs=trained.epochs,
        best_epoch=trained.best_epoch,
        parameters=trained.parameters,
        seconds=time.perf_counter() - start,
    )
