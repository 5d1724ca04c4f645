"""Observables per section (ECal, HCal) and of the whole shower: energy, hits, start layer, moments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from calogen.detector.geometry import Detector
from calogen.evaluate.findings import Curve, Findings
from calogen.evaluate.metrics import Score
from calogen.evaluate.parts import Batch, Rows, SamplePair, present, spectrum

TOTAL = "total"
"""Name of the whole detector among the sections."""

QUANTITIES: dict[str, tuple[str, str]] = {
    "energy": ("visible energy", "GeV"),
    "hits": ("hits", ""),
    "start_layer": ("layer of the most energetic cell", ""),
    "cog_x": ("centre of gravity x", "mm"),
    "cog_y": ("centre of gravity y", "mm"),
    "cog_z": ("centre of gravity z", "layers"),
    "width_x": ("width x", "mm"),
    "width_y": ("width y", "mm"),
    "width_z": ("width z", "layers"),
}
"""What is measured of each section, in words and with its unit."""
IN_TABLE = ("energy", "hits", "cog_x", "cog_y", "cog_z")
"""What the published table already scores for the whole shower."""
TEXT = (
    "Each section alone, and the whole shower, of cells above threshold. The start layer is the layer of the cell of "
    "highest energy. Centres of gravity and widths (energy-weighted means and standard deviations) are taken from the"
    " shower axis, tilt removed, depth in layers. Jensen-Shannon divergence in 30 bins of equal content, natural "
    "logarithm, no root; Wasserstein-1 distance in standard deviations of Geant4."
)


def labels(detector: Detector) -> tuple[str, ...]:
    """The whole detector, and its sections where there are several."""
    return (TOTAL, *detector.sections) if len(detector.sections) > 1 else (TOTAL,)


def observe_sections(batch: Batch) -> Rows:
    """Numbers `[N]` called `SECTION/QUANTITY`, and `SECTION/start_layer_sum`: the layer of highest energy.

    The latter is what CaloHadronic's code calls the start layer (its text takes the cell). All but energy and hits are
    NaN for a shower without hits there.
    """
    hits, up = batch.hits.showers, batch.upright
    detector, n = hits.detector, len(hits)
    names = detector.sections
    of_layer = np.array([names.index(layer.section) for layer in detector.layers])
    key = batch.shower * len(names) + of_layer[hits.layer]
    sums = _sums(key, n, len(names), hits.energy, up.x, up.y, hits.layer)
    highest, layer = _highest_cell(key, (n, len(names)), hits.energy, hits.layer)
    per_layer = hits.energy_per_layer
    rows: dict[str, NDArray[Any]] = {}
    for label in labels(detector):
        chosen = list(range(len(names))) if label == TOTAL else [names.index(label)]
        best = np.argmax(highest[:, chosen], axis=1)
        empty = highest[:, chosen].max(axis=1) <= 0
        start = np.where(empty, np.nan, layer[:, chosen][np.arange(n), best])
        inside = np.isin(of_layer, chosen)
        summed = np.where(empty, np.nan, np.argmax(np.where(inside, per_layer, -1.0), axis=1))
        values = _moments(sums[:, :, chosen].sum(axis=2)) | {"start_layer": start, "start_layer_sum": summed}
        rows |= {f"{label}/{k}": v for k, v in values.items()}
    return rows


def _sums(
    key: NDArray[np.int64],
    n: int,
    sections: int,
    energy: NDArray[Any],
    x: NDArray[Any],
    y: NDArray[Any],
    layer: NDArray[Any],
) -> NDArray[np.float64]:
    """Hits, energy, and energy-weighted sums of x, y, layer and their squares: `[8, N, sections]`."""
    e = energy.astype(np.float64)
    places = [x.astype(np.float64), y.astype(np.float64), layer + 0.5]
    weights = [None, e, *(e * v for v in places), *(e * v**2 for v in places)]
    flat = [np.bincount(key, weights=w, minlength=n * sections) for w in weights]
    return np.stack(flat).astype(np.float64).reshape(8, n, sections)


def _moments(sums: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
    hits, energy = sums[0], sums[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean, square = sums[2:5] / energy, sums[5:8] / energy
    width = np.sqrt(np.maximum(square - mean**2, 0))
    axes = ("x", "y", "z")
    return (
        {"energy": energy, "hits": hits.astype(np.int64)}
        | {f"cog_{a}": m for a, m in zip(axes, mean, strict=True)}
        | {f"width_{a}": w for a, w in zip(axes, width, strict=True)}
    )


def _highest_cell(
    key: NDArray[np.int64], shape: tuple[int, int], energy: NDArray[Any], layer: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Highest cell energy `[N, sections]` and its layer (the first of equals); 0 and 0 where there are no hits."""
    groups = shape[0] * shape[1]
    highest = np.zeros(groups)
    np.maximum.at(highest, key, energy)
    first = np.flatnonzero(energy == highest[key])[::-1]
    where = np.zeros(groups, dtype=np.int64)
    where[key[first]] = layer[first]
    return highest.reshape(shape), where.reshape(shape)


@dataclass(frozen=True)
class Sections:
    """Distributions of the section observables; those of the whole shower only where the table lacks them."""

    name: ClassVar[str] = "sections"

    def rows(self, batch: Batch) -> Rows:
        """Nothing of its own: the sections are always observed."""
        return {}

    def findings(self, pair: SamplePair) -> Findings:
        """Scores and histograms, section by section."""
        scores: list[Score] = []
        curves: list[Curve | None] = []
        notes: list[str] = []
        for label in labels(pair.detector):
            for quantity, (words, unit) in QUANTITIES.items():
                if label == TOTAL and quantity in IN_TABLE:
                    continue
                key = f"{label}/{quantity}"
                gen, true = pair.generated.sections[key], pair.truth.sections[key]
                title = f"{'' if label == TOTAL else f'{label}: '}{words}"
                title = title[0].upper() + title[1:]
                found = pair.scores(key, title, gen, true)
                if not found:
                    notes.append(f"{title}: no hits in one of the samples, no score")
                    continue
                scores += found
                axis = f"{words} [{unit}]" if unit else words
                curves.append(spectrum(key, title, axis, gen, true, whole=quantity == "start_layer"))
            notes += _without_hits(pair, label)
        return Findings(self.name, "Sections", TEXT, tuple(scores), present(curves), notes=tuple(notes))


def _without_hits(pair: SamplePair, label: str) -> list[str]:
    empty = [int(np.sum(s.sections[f"{label}/hits"] == 0)) for s in (pair.generated, pair.truth)]
    if not any(empty):
        return []
    counts = f"{empty[0]} generated and {empty[1]} true showers"
    return [f"{label}: {counts} without hits are left out of all but energy and hits"]
