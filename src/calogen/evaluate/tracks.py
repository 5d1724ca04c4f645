"""Minimum ionising tracks in hadronic showers: the fraction of hits that are MIP-like and alone in their layer.

Charged hadrons between two interactions leave about one MIP in one cell of each layer they cross. CALICE looks for its
track segments among cells that very likely a single particle crossed (arXiv:1006.3734); here such hits are counted, not
joined. A model that smears showers has fewer, as deposits spill into neighbouring cells, or more, where they scatter
farther than cells are wide and end up alone: pions of 10 to 90 GeV in ILD, blurred by 15 mm, have 7 % less in the HCal
(tiles of 30 mm) and 11 % more in the ECal (5 mm). Neither side is good, and under a very wide blur both partly cancel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from calogen.data.projection import Hits
from calogen.detector.geometry import CartesianCells, Detector
from calogen.evaluate.blocks import block_count, dealt
from calogen.evaluate.bootstrap import NEARLY_ONE
from calogen.evaluate.findings import Curve, Findings, Series
from calogen.evaluate.metrics import Score
from calogen.evaluate.observables import block_sum
from calogen.evaluate.parts import MODEL, REFERENCE, Batch, Collected, Rows, SamplePair, present

MIP_THRESHOLDS = 2.0
"""A MIP in thresholds: they stand at half a MIP. Found peaks are at 1.96 (HCal) and 1.58 (ECal) of ILD's thresholds."""
HIGHEST_MIPS = 1.5
"""Most energy of a MIP-like hit, in MIPs: as far above the peak as the threshold is below it. It holds the peak and
little of the tail, where two particles in a cell (2 MIPs) begin."""
MIN_SHOWERS = 20
"""True showers with such a hit, and generated ones with any, below which a section is not scored: errors come from
drawing showers again, and some draws of fewer would have none."""
TITLE = "MIP tracks"
TEXT = (
    "Hits (cells above threshold) that a single minimum ionising particle may have made: of an energy of at most three"
    " thresholds, which stand at half a MIP, so up to 1.5 MIPs, with none of the eight neighbouring cells of the layer"
    " hit. Scored is their fraction of the hits of a section, as mean over the showers that have hits there, and of "
    "the hits of all showers together: that of the model over that of Geant4, less one."
)


def isolated(hits: Hits) -> NDArray[np.bool_]:
    """Which hits `[P]` have none of their eight neighbours in the layer hit; none in layers without square cells.

    >>> from calogen import ILD, Incident, Showers
    >>> from calogen.data.projection import project
    >>> x = [15.0, 75.0, 105.0]  # tiles of 30 mm: the second and the third touch
    >>> three = Showers(x, [15.0] * 3, [40] * 3, [5e-4] * 3, [0, 3], Incident.gun(1), ILD)
    >>> isolated(project(three)).tolist()
    [True, False, False]
    """
    detector = hits.showers.detector
    cells = [layer.cells for layer in detector.layers]
    n_x, n_y = np.array([(c.n_x, c.n_y) if isinstance(c, CartesianCells) else (0, 0) for c in cells], np.int64).T
    # One number a cell, with an empty column behind each row and an empty row behind each layer: no neighbours wrap.
    row = int(n_y.max()) + 1
    first = np.concatenate([[0], np.cumsum((n_x + 1) * row)])
    result = n_y[hits.showers.layer] > 0
    here = slice(None) if result.all() else np.flatnonzero(result)
    layer = hits.showers.layer[here]
    i_x, i_y = np.divmod(hits.cell[here] - detector.first_cell[layer], n_y[layer])
    result[here] = ~_crowded(hits.showers.shower_index[here] * first[-1] + first[layer] + i_x * row + i_y, row)
    return result


def _crowded(key: NDArray[np.int64], row: int) -> NDArray[np.bool_]:
    """Which of ascending numbers of cells have a neighbour: one beside them, or three in the next or last row."""
    crowded = np.zeros(key.size + 1, dtype=bool)
    beside = np.flatnonzero(np.diff(key) == 1)
    crowded[beside] = crowded[beside + 1] = True
    end = np.append(key, np.iinfo(np.int64).max)
    at = np.searchsorted(key, key + (row - 1))
    for _ in range(3):
        touching = np.flatnonzero(end[at] <= key + (row + 1))
        crowded[touching] = crowded[at[touching]] = True
        at = np.minimum(at + 1, key.size)
    return crowded[:-1]


def track_hits(hits: Hits) -> NDArray[np.bool_]:
    """Which hits `[P]` are isolated and MIP-like: not above `HIGHEST_MIPS` (nor below threshold, as no hit is)."""
    s = hits.showers
    highest = HIGHEST_MIPS * MIP_THRESHOLDS * s.detector.threshold_gev
    return np.asarray(isolated(hits) & (s.energy <= highest[s.layer]))


def obstacle(detector: Detector, section: str) -> str | None:
    """Why no tracks are looked for in a section; None where they are."""
    layers = [detector.layers[i] for i in detector.layers_of(section)]
    if not all(isinstance(layer.cells, CartesianCells) for layer in layers):
        return "the cells are not square, so no neighbours are defined"
    if min(layer.threshold_gev for layer in layers) <= 0:
        return "no readout threshold, so nothing says what a MIP is"
    return None


@dataclass(frozen=True)
class Tracks:
    """Fraction of isolated MIP-like hits in the sections of a detector that has several."""

    name: ClassVar[str] = "tracks"

    def rows(self, batch: Batch) -> Rows:
        """Isolated MIP-like hits of each layer, `layers [N, layers]`; all hits of each layer are always observed."""
        hits = batch.hits.showers
        detector = hits.detector
        if len(detector.sections) < 2 or all(obstacle(detector, s) for s in detector.sections):
            return {}
        found = track_hits(batch.hits)
        n_layers = detector.n_layers
        flat = np.bincount(
            batch.shower[found] * n_layers + hits.layer[found].astype(np.int64), minlength=len(hits) * n_layers
        )
        return {"layers": flat.reshape(len(hits), n_layers).astype(np.float32)}

    def findings(self, pair: SamplePair) -> Findings:
        """Both fractions of each section, and the fraction by layer."""
        detector = pair.detector
        if len(detector.sections) < 2:
            note = f"{detector.name} has one section: tracks are looked for where hadrons have several"
            return Findings(self.name, TITLE, TEXT, notes=(note,))
        scores: list[Score] = []
        curves: list[Curve | None] = []
        notes: list[str] = []
        for section in detector.sections:
            if why := obstacle(detector, section):
                notes.append(f"{section}: {why}")
                continue
            gen, true = (_Section.of(s, detector.layers_of(section)) for s in (pair.generated, pair.truth))
            found, note = _scores(section, gen, true, pair)
            scores += found
            notes.append(f"{section}: {note}")
            curves.append(_by_layer(section, detector.layers_of(section), gen, true))
        return Findings(self.name, TITLE, TEXT, tuple(scores), present(curves), notes=tuple(notes))


class _Section(NamedTuple):
    """Isolated MIP-like hits and all hits of the layers of one section, `[N, layers]` each."""

    tracks: NDArray[np.float64]
    hits: NDArray[np.float64]

    @classmethod
    def of(cls, sample: Collected, layers: NDArray[np.int64]) -> _Section:
        per_layer = sample.observed.hits_per_layer[:, 1:-1]
        tracks = sample.rows[Tracks.name]["layers"]
        return cls(tracks[:, layers].astype(np.float64), per_layer[:, layers].astype(np.float64))

    @property
    def of_showers(self) -> NDArray[np.float64]:
        """Fraction of each shower's hits, and whether it has any, `[N, 2]`: the ratio of their sums is the mean."""
        tracks, hits = self.of_hits.T
        return np.stack([tracks / np.maximum(hits, 1.0), hits > 0], axis=1)

    @property
    def of_hits(self) -> NDArray[np.float64]:
        """Isolated MIP-like hits and all hits of each shower, `[N, 2]`."""
        return np.stack([self.tracks.sum(axis=1), self.hits.sum(axis=1)], axis=1)


def _scores(section: str, gen: _Section, true: _Section, pair: SamplePair) -> tuple[list[Score], str]:
    known, filled = int((true.of_hits[:, 0] > 0).sum()), int((gen.of_hits[:, 1] > 0).sum())
    if known < MIN_SHOWERS:
        return [], f"{known} true showers have an isolated MIP-like hit; a score needs {MIN_SHOWERS}"
    if filled < MIN_SHOWERS:
        return [], f"{filled} generated showers have a hit; a score needs {MIN_SHOWERS}"
    columns = (
        (f"track_fraction_{section}", f"Isolated MIPs, mean fraction of a shower's hits, {section}", "of_showers"),
        (f"track_share_{section}", f"Isolated MIPs, share of all hits, {section}", "of_hits"),
    )
    scores = [_score(name, title, getattr(gen, of), getattr(true, of), pair) for name, title, of in columns]
    means = [float(_ratio(s.of_showers.sum(axis=0))) for s in (true, gen)]
    note = f"{means[0]:.3g} of a shower's hits are isolated MIPs in Geant4 and {means[1]:.3g} in the model"
    empty = [int((s.of_hits[:, 1] == 0).sum()) for s in (gen, true)]
    if any(empty):
        note += f"; left out of this mean are {empty[0]} generated and {empty[1]} true showers without hits"
    return scores, note


def _score(name: str, title: str, gen: NDArray[np.float64], true: NDArray[np.float64], pair: SamplePair) -> Score:
    """Ratio of a fraction, of `[N, 2]` numerators and denominators, less one.

    Blocks of showers are drawn anew for the error; it is such that the score has the significance of the logarithm of
    the ratio, as that of `bootstrap.ratio_score`. The floor is exactly zero; `floor_error` is the spread of the ratio
    of halves of the truth, carried to the samples' sizes.
    """
    blocks = block_count(len(gen), len(true))
    first, second = (block_sum(v, dealt(len(v), blocks), blocks) for v in (gen, true))
    halves = pair.resampling.splits(blocks)
    spread = float(np.std(_ratio(halves[0] @ second) / _ratio(halves[1] @ second), ddof=1))
    spread *= math.sqrt(pair.resampling.size_ratio)
    draws = pair.resampling.draws(blocks)
    ratio = float(_ratio(first.sum(axis=0)) / _ratio(second.sum(axis=0)))
    error = float(np.std(_ratio(draws[0] @ first) / _ratio(draws[1] @ second), ddof=1))
    if ratio > 0 and abs(ratio - 1) > NEARLY_ONE:
        error *= (ratio - 1) / math.log(ratio) / ratio
    if ratio == 0:  # none at all: they do not fluctuate, as many as Geant4 has would
        error = spread
    return Score(name, "relative_difference", "", ratio - 1, error, 0.0, spread, sense="both", title=title)


def _ratio(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of numerators and denominators `[..., 2]`; zero over zero is NaN."""
    top, bottom = sums[..., 0], sums[..., 1]
    return np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom > 0)


def _by_layer(section: str, layers: NDArray[np.int64], gen: _Section, true: _Section) -> Curve | None:
    """Fraction of all hits of each layer; None for a section of one layer."""
    if layers.size < 2:
        return None
    return Curve(
        f"tracks_{section}",
        f"Isolated MIPs by layer, {section}",
        "layer",
        "fraction of the layer's hits",
        layers.astype(np.float64),
        (_series(REFERENCE, true), _series(MODEL, gen)),
    )


def _series(label: str, s: _Section) -> Series:
    """Fractions with the errors of a ratio of two means over showers; NaN in a layer without hits."""
    sums: NDArray[Any] = np.stack([s.tracks.sum(axis=0), s.hits.sum(axis=0)], axis=1)
    fraction = _ratio(sums)
    residual = np.sqrt(((s.tracks - fraction * s.hits) ** 2).sum(axis=0))
    return Series(label, fraction, residual / np.where(sums[:, 1] > 0, sums[:, 1], np.nan))
