"""The CaloChallenge protocol (arXiv:2410.21611) for voxels of any detector: every number with its error and floor.

    batches of Voxels -> features and spectrum -> blocks of showers -> separation powers of histograms
                                               -> correlations of layers, FPD, KPD, precision, recall, density, coverage

Samples are read once. Classifiers, which train, are a part of their own.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from calogen.evaluate.challenge_distances import correlation_findings, distance_findings
from calogen.evaluate.challenge_histograms import GROUPS, Histograms, dataset_of, feature_histograms, voxel_histogram
from calogen.evaluate.findings import Curve, Findings, Series
from calogen.evaluate.incidents import cautions
from calogen.evaluate.metrics import Score
from calogen.evaluate.parts import MODEL, REFERENCE
from calogen.evaluate.separation import Measured, Separation, separation
from calogen.evaluate.voxel_sample import VoxelPair, VoxelSample, VoxelStream, observe_voxels

__all__ = ["VoxelSample", "dataset_of", "judge_observed", "judge_voxels", "observe_voxels"]

REPLICAS = 300
"""Resamplings behind each error and floor: they give standard deviations to 4 %."""
NAME, METRIC, FLOOR = "calochallenge", "separation", "Geant4 against Geant4"
DROPPED_SHARE = 0.01
"""It is said where this share of entries more than in Geant4 is outside the bins, which the challenge ignores."""
TEXT = (
    "Separation power 1/2 sum (p - q)^2 / (p + q) of the challenge's histograms of cells above threshold: the mean "
    "over layers, and each layer in the figures. Entries outside the bins are dropped before normalising, so empty "
    "layers show in the sparsity only. Errors come from drawing whole showers again; the floor is what two samples of "
    "these sizes score if they are of one distribution (showers exchanged between model and Geant4 at random)."
)


def judge_voxels(
    generated: VoxelStream, truth: VoxelStream, *, seed: int = 0, replicas: int = REPLICAS
) -> tuple[Findings, ...]:
    """Judge generated voxels against Geant4 by the protocol of the CaloChallenge.

    Args:
        generated: showers of the model, best drawn for the incident particles of the truth.
        truth: showers of Geant4, of the same detector.
        seed: of the resampling.
        replicas: number of resamplings.

    Raises:
        ValueError: different detectors or particle types, too few showers, or no energy above threshold.
    """
    true = observe_voxels(truth, "truth", seed=seed)
    made = observe_voxels(generated, "generated sample", seed=seed)
    return judge_observed(made, true, seed=seed, replicas=replicas)


def judge_observed(
    generated: VoxelSample, truth: VoxelSample, *, seed: int = 0, replicas: int = REPLICAS
) -> tuple[Findings, ...]:
    """`judge_voxels` for samples that are already observed (so one truth serves many generated samples).

    Separation powers, correlations of layer energies, and distances between samples of features, in this order.
    """
    pair = VoxelPair.of(generated, truth, seed=seed, replicas=replicas)
    return separation_findings(pair), correlation_findings(pair), distance_findings(pair)


def separation_findings(pair: VoxelPair) -> Findings:
    """Separation powers of the ten groups of histograms, each layer's in figures, and the worst histograms."""
    start = time.perf_counter()
    made, true = pair.generated.features, pair.truth.features
    scores, histograms, by_layer, notes = [], [], [], cautions(made, true)
    for group in GROUPS:
        binned = feature_histograms(group, made, true, pair.blocks, pair.n_blocks)
        found = separation(binned.generated, binned.truth, pair.resampling)
        scores.append(_score(binned, found.mean))
        worst = int(np.argmax((found.layers.value - found.layers.floor) / found.layers.error.clip(1e-300)))
        histograms.append(_histogram(binned, worst))
        if binned.layers:
            by_layer += [_by_layer(binned, found), _profile(binned, group.values(made), group.values(true))]
        notes += _remarks(binned)
    binned = voxel_histogram(pair.generated.spectrum, pair.truth.spectrum, pair.blocks, pair.n_blocks)
    found = separation(binned.generated, binned.truth, pair.resampling, binned.totals)
    scores.append(_score(binned, found.mean))
    histograms.append(_histogram(binned, 0))
    notes += _remarks(binned)
    return Findings(
        NAME,
        "CaloChallenge histograms",
        TEXT,
        tuple(scores),
        (*histograms, *by_layer),
        notes=tuple(notes),
        seconds=time.perf_counter() - start,
    )


def _score(h: Histograms, mean: Measured) -> Score:
    value, error, floor, spread = (float(v[0]) for v in (mean.value, mean.error, mean.floor, mean.floor_error))
    title = f"{h.title} (mean of {len(h.layers)} layers)" if h.layers else h.title
    return Score(h.name, METRIC, "", value, error, floor, spread, title=title)


def _remarks(h: Histograms) -> list[str]:
    notes = []
    if h.left_out:
        layers = ", ".join(map(str, h.left_out))
        notes.append(f"{h.title}: layers {layers} have no energy above threshold in Geant4 and are left out")
    made, true = h.dropped
    if made - true > DROPPED_SHARE:
        notes.append(
            f"{h.title}: {made:.1%} of the model's entries lie outside the bins ({true:.1%} of Geant4's); "
            "the challenge's definition leaves them out"
        )
    return notes


def _histogram(h: Histograms, which: int) -> Curve:
    """One histogram as shares of its entries: that of the layer where the model is farthest from Geant4."""
    layer = f", layer {h.layers[which]}" if h.layers else ""
    log = h.name in ("layer_energy", "voxel_energy")
    made, true = h.whole
    return Curve(
        f"{h.name}_histogram",
        f"{h.title}{layer}" + (" (the worst)" if layer else ""),
        f"{h.axis} [{h.unit}]" if h.unit else h.axis,
        "share of entries",
        h.edges[which],
        (_shares(REFERENCE, h.truth[:, which], true[which]), _shares(MODEL, h.generated[:, which], made[which])),
        log_x=log,
        log_y=True,
    )


def _shares(label: str, blocks: NDArray[np.float64], total: NDArray[np.float64]) -> Series:
    """Shares with the errors that the scatter between blocks `[blocks, bins]` gives."""
    n = max(float(total.sum()), 1.0)
    return Series(label, total / n, blocks.std(axis=0, ddof=1) * np.sqrt(blocks.shape[0]) / n)


def _by_layer(h: Histograms, found: Separation) -> Curve:
    m = found.layers
    return Curve(
        f"{h.name}_separation",
        f"{h.title}: separation power by layer",
        "layer",
        "separation power",
        np.array(h.layers, dtype=np.float64),
        (Series(FLOOR, m.floor, m.floor_error), Series(MODEL, m.value, m.error)),
        log_y=True,
        ratio=False,
    )


def _profile(h: Histograms, made: NDArray[np.float64], true: NDArray[np.float64]) -> Curve:
    return Curve(
        f"{h.name}_mean",
        f"{h.title}: mean by layer",
        "layer",
        f"mean {h.axis} [{h.unit}]" if h.unit else f"mean {h.axis}",
        np.array(h.layers, dtype=np.float64),
        (_means(REFERENCE, true, h.layers), _means(MODEL, made, h.layers)),
        log_y=h.name == "layer_energy",
        ratio=h.name not in ("centre_x", "centre_y"),
    )


def _means(label: str, values: NDArray[np.float64], layers: Sequence[int]) -> Series:
    chosen = values[:, list(layers)]
    return Series(label, chosen.mean(axis=0), chosen.std(axis=0, ddof=1) / np.sqrt(len(chosen)))
