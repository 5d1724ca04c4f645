"""Distances of the CaloChallenge between whole samples: layer correlations, FPD, KPD and nearest neighbours."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from calogen.evaluate.blocks import linear_score
from calogen.evaluate.correlations import mean_difference, pearson
from calogen.evaluate.findings import Findings, Matrix
from calogen.evaluate.frechet_scores import MIN_SHOWERS, frechet_score, kernel_score
from calogen.evaluate.high_level import classifier_features
from calogen.evaluate.neighbour_scores import prdc_scores
from calogen.evaluate.neighbours import log_voxels
from calogen.evaluate.parts import MODEL, REFERENCE
from calogen.evaluate.voxel_sample import VoxelPair

PAIR_TITLE = "Correlations of layer energies"
CORRELATION_TEXT = (
    "Pearson coefficients between the energies of layers, over showers. The score is the mean absolute difference of "
    "the coefficients off the diagonal."
)
DISTANCE_TEXT = (
    "Fréchet and kernel physics distance of the challenge's high-level features (log10 of the incident energy among "
    "them), as jetnet defines them; precision, recall, density and coverage of whole showers (log10 of voxels, five "
    "nearest neighbours), which depend on the number of showers."
)


def correlation_findings(pair: VoxelPair) -> Findings:
    """Pearson matrices of the layer energies of both samples, and how far they differ."""
    start = time.perf_counter()
    made, true = (s.features.layer_energy for s in (pair.generated, pair.truth))
    layers = np.flatnonzero(true.std(axis=0) > 0)
    centre, spread = true[:, layers].mean(axis=0), true[:, layers].std(axis=0)
    scaled = [(v[:, layers] - centre) / spread for v in (made, true)]
    sums = [_block_sums(v, block, pair.n_blocks) for v, block in zip(scaled, pair.blocks, strict=True)]
    distance = mean_difference(layers.size)
    score = linear_score("layer_energy", "pearson", "", distance, sums[0], sums[1], pair.resampling)
    a, b = (pearson(v) for v in scaled)
    labels = tuple(str(i) for i in layers)
    largest = max(float(np.nanmax(np.abs(a - b))), 0.05)
    matrices = tuple(
        Matrix(f"layer_energy_{kind}", f"{PAIR_TITLE}: {words}", labels, labels, values, -limit, limit)
        for kind, words, values, limit in (
            ("truth", REFERENCE, b, 1.0),
            ("generated", MODEL, a, 1.0),
            ("difference", f"{MODEL} - {REFERENCE}", a - b, largest),
        )
    )
    return Findings(
        "layer_correlations",
        PAIR_TITLE,
        CORRELATION_TEXT,
        (replace(score, title=PAIR_TITLE),),
        matrices=matrices,
        seconds=time.perf_counter() - start,
    )


def _block_sums(values: NDArray[np.float64], block: NDArray[np.int64], n_blocks: int) -> NDArray[np.float64]:
    """Number, sums and sums of products of the rows `[N, k]` of each block, `[blocks, 1 + k + k k]`."""
    rows = []
    for i in range(n_blocks):
        v = values[block == i]
        rows.append(np.concatenate([[len(v)], v.sum(axis=0), (v.T @ v).ravel()]))
    return np.stack(rows)


def distance_findings(pair: VoxelPair) -> Findings:
    """FPD, KPD, precision, recall, density and coverage."""
    start = time.perf_counter()
    name, title = "challenge_distances", "FPD, KPD and nearest neighbours"
    samples = (pair.generated, pair.truth)
    if min(map(len, samples)) < MIN_SHOWERS:
        note = f"{title} need at least {MIN_SHOWERS} showers of each sample"
        return Findings(name, title, DISTANCE_TEXT, notes=(note,))
    made, true = (classifier_features(s.features).values[order] for s, order in zip(samples, pair.orders, strict=True))
    seed, paired = pair.resampling.seed, pair.resampling.paired
    kept_made, kept_true = (log_voxels(s.kept) for s in samples)
    scores = (
        frechet_score(true, made, seed=seed, paired=paired),
        kernel_score(true, made, seed=seed, paired=paired),
        *prdc_scores(kept_true, kept_made, seed=seed, paired=_kept_in_pairs(pair)),
    )
    return Findings(name, title, DISTANCE_TEXT, scores, seconds=time.perf_counter() - start)


def _kept_in_pairs(pair: VoxelPair) -> bool:
    """Whether row k of both samples' kept showers is of the same incident particle: both files are in one order."""
    one_order = np.array_equal(*pair.orders)
    return pair.resampling.paired and one_order and np.array_equal(pair.generated.kept_index, pair.truth.kept_index)
