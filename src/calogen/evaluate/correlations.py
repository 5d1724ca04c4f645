"""Linear correlations between the observables of a shower, and between its layers: matrices and how far they differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from calogen.evaluate.blocks import block_count, linear_score
from calogen.evaluate.findings import Findings, Matrix
from calogen.evaluate.metrics import Distance, Score
from calogen.evaluate.parts import MODEL, REFERENCE, Batch, Collected, Rows, SamplePair

CONSTANT = 1e-6
"""A column whose standard deviation is below this share of its size has no correlation."""
MOST_LAYERS = 100
"""Deeper detectors are too large a matrix for a page: their layers are joined."""
TEXT = (
    "Pearson coefficients between observables of the same shower (as in OmniJet-alpha and Getting High: first and "
    "second moments along each axis, visible and incident energy, hits, shares of the three thirds of the layers) and"
    " between layer energies. The score is the mean absolute difference of the coefficients off the diagonal."
)


def pearson(values: NDArray[Any]) -> NDArray[np.float64]:
    """Pearson matrix `[k, k]` of columns `[n, k]`; NaN in rows and columns of a constant.

    >>> import numpy as np
    >>> pearson(np.array([[1.0, 2.0], [2.0, 0.0], [3.0, -2.0]])).round(6).tolist()
    [[1.0, -1.0], [-1.0, 1.0]]
    """
    x = np.asarray(values, dtype=np.float64)
    scaled = (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), np.finfo(np.float64).tiny)
    return _coefficients(_sums(scaled)[None], x.shape[1])[0]


def _sums(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Number, sums and sums of products of rows `[n, k]`, in one vector `[1 + k + k * k]`."""
    return np.concatenate([[x.shape[0]], x.sum(axis=0), (x.T @ x).ravel()])


def _coefficients(sums: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Pearson matrices `[..., k, k]` of sums `[..., 1 + k + k * k]` of columns of about unit variance."""
    n = np.maximum(sums[..., :1], 1.0)
    mean = sums[..., 1 : k + 1] / n
    product = sums[..., k + 1 :].reshape(*sums.shape[:-1], k, k) / n[..., None]
    covariance = product - mean[..., :, None] * mean[..., None, :]
    variance = np.maximum(np.diagonal(covariance, axis1=-2, axis2=-1), 0)
    variance = np.where(variance > CONSTANT**2, variance, np.nan)
    return np.asarray(covariance / np.sqrt(variance[..., :, None] * variance[..., None, :]))


def mean_difference(k: int) -> Distance:
    """Mean absolute difference of the coefficients off the diagonal, from sums `[..., 1 + k + k * k]`.

    A coefficient that does not exist in either sample (a column is constant there) counts as zero.
    """
    upper = np.triu_indices(k, 1)

    def distance(p: NDArray[Any], q: NDArray[Any]) -> NDArray[np.float64]:
        a, b = (np.nan_to_num(_coefficients(np.asarray(v), k)[..., upper[0], upper[1]]) for v in (p, q))
        return np.asarray(np.abs(a - b).mean(axis=-1))

    return distance


def columns(s: Collected) -> dict[str, NDArray[np.float64]]:
    """The observables of each shower `[N]` by their label; sections' energies where there are several."""
    o, sec = s.observed, s.sections
    thirds = np.array_split(o.energy_per_layer[:, 1:-1].astype(np.float64), 3, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = [t.sum(axis=1) / o.visible_energy for t in thirds]
    names = s.detector.sections if len(s.detector.sections) > 1 else ()
    named = {
        "E_inc": o.incident_energy,
        "E_vis": o.visible_energy,
        "hits": o.hits,
        "start": sec["total/start_layer"],
        **{f"m1_{a}": sec[f"total/cog_{a}"] for a in "xyz"},
        **{f"m2_{a}": sec[f"total/width_{a}"] for a in "xyz"},
        **{f"E{i + 1}/E": share for i, share in enumerate(shares)},
        **{f"E_{name}": sec[f"{name}/energy"] for name in names},
        **{f"hits_{name}": sec[f"{name}/hits"] for name in names},
    }
    return {k: np.asarray(v, dtype=np.float64) for k, v in named.items()}


def layer_columns(s: Collected) -> dict[str, NDArray[Any]]:
    """Energies of the layers, neighbours joined where there are more than `MOST_LAYERS`."""
    energy = s.observed.energy_per_layer[:, 1:-1]
    step = -(-energy.shape[1] // MOST_LAYERS)
    starts = np.arange(0, energy.shape[1], step)
    return {str(start): v for start, v in zip(starts.tolist(), np.add.reduceat(energy, starts, axis=1).T, strict=True)}


@dataclass(frozen=True)
class Correlations:
    """Pearson matrices of both samples and their difference, of observables and of layers."""

    name: ClassVar[str] = "correlations"

    def rows(self, batch: Batch) -> Rows:
        """Nothing of its own: all columns are always observed."""
        return {}

    def findings(self, pair: SamplePair) -> Findings:
        """Two scores and six matrices."""
        scores: list[Score] = []
        matrices: list[Matrix] = []
        notes: list[str] = []
        for name, title, of in (
            ("observables", "Correlations of observables", columns),
            ("layers", "Correlations of layer energies", layer_columns),
        ):
            gen, true, kept, note = _usable(of(pair.generated), of(pair.truth), pair.paired)
            notes += note
            if len(kept) < 2:
                notes.append(f"{title}: fewer than two columns vary")
                continue
            scores.append(replace(_score(name, gen, true, pair), title=title))
            matrices += _matrices(name, title, kept, gen, true)
        return Findings(self.name, "Correlations", TEXT, tuple(scores), matrices=tuple(matrices), notes=tuple(notes))


def _usable(
    gen: dict[str, NDArray[Any]], true: dict[str, NDArray[Any]], paired: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32], list[str], list[str]]:
    """Columns that vary in both samples, of showers where all are known, in units of the truth's spread."""
    kept = [k for k in true if all(_varies(s[k]) for s in (gen, true))]
    notes = (
        [f"{', '.join(gone)}: constant, so without correlation"] if (gone := [k for k in true if k not in kept]) else []
    )
    if not kept:
        return np.zeros((0, 0), np.float32), np.zeros((0, 0), np.float32), kept, notes
    known = [np.all([np.isfinite(s[k]) for k in kept], axis=0) for s in (gen, true)]
    if paired:  # A pair stays a pair.
        known = [known[0] & known[1]] * 2
    lost = [int(np.sum(~k)) for k in known]
    notes += [f"{lost[0]} generated and {lost[1]} true showers without hits are left out"] if any(lost) else []
    scale = {k: (true[k][known[1]].mean(dtype=np.float64), true[k][known[1]].std(dtype=np.float64)) for k in kept}
    a, b = (
        np.stack([((s[k][here] - scale[k][0]) / scale[k][1]).astype(np.float32) for k in kept], axis=1)
        for s, here in zip((gen, true), known, strict=True)
    )
    return a, b, kept, notes


def _varies(values: NDArray[Any]) -> bool:
    known = values[np.isfinite(values)].astype(np.float64)
    return bool(known.size > 1 and known.std() > CONSTANT * math.sqrt(float(np.mean(known**2))))


def _score(name: str, gen: NDArray[np.float32], true: NDArray[np.float32], pair: SamplePair) -> Score:
    blocks = block_count(gen.shape[0], true.shape[0])
    # Showers are dealt into blocks in turn.
    sums = [np.stack([_sums(x[b::blocks].astype(np.float64)) for b in range(blocks)]) for x in (gen, true)]
    distance = mean_difference(gen.shape[1])
    return linear_score(name, "pearson", "", distance, sums[0], sums[1], pair.resampling)


def _matrices(
    name: str, title: str, labels: Sequence[str], gen: NDArray[np.float32], true: NDArray[np.float32]
) -> list[Matrix]:
    a, b = pearson(gen), pearson(true)
    largest = max(float(np.nanmax(np.abs(a - b))), 0.05)
    return [
        Matrix(f"{name}_{kind}", f"{title}: {words}", tuple(labels), tuple(labels), values, -limit, limit)
        for kind, words, values, limit in (
            ("truth", REFERENCE, b, 1.0),
            ("generated", MODEL, a, 1.0),
            ("difference", f"{MODEL} - {REFERENCE}", a - b, largest),
        )
    ]
