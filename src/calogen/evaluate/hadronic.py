"""The tables of the CaloHadronic paper: Wasserstein distances and quantile divergences, defined so they hold.

Its code scores the cell energies again under the name of hits, leaves distances in the observable's own units though
the text calls them normalised, and takes radii for weights: those rows are not reproduced. What its definition does say
- five slices, 25 quantiles of Geant4 - is given beside ours as `slices`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from calogen.evaluate.blocks import block_count, dealt, of_rows, of_values, squared_score
from calogen.evaluate.findings import Findings
from calogen.evaluate.metrics import EMPTY_BIN, Score
from calogen.evaluate.observables import block_histogram, block_sum, quantile_edges
from calogen.evaluate.parts import Batch, Collected, Rows, SamplePair

QUANTILES = 25
"""Bins of equal content of Geant4 in which the quantile divergence is taken."""
HALF_AN_ENTRY = 0.5
"""Content given to an empty bin: that n showers left it empty says only that it holds less than about one in n."""
SLICES = 5
"""Parts of a sample over which the paper averages."""
TEXT = (
    "Wasserstein-1 distance in standard deviations of Geant4, and Kullback-Leibler divergence of Geant4 from the "
    "model in at most 25 bins of equal Geant4 content (natural logarithm, entries beyond them in the outer bins), "
    "both of the whole samples. Profiles are energy-weighted, cell energies as log10. `slices` are the paper's "
    "definition: means over five disjoint fifths, the distance in the observable's own unit."
)


class _Column(NamedTuple):
    title: str
    unit: str
    of: Callable[[Collected], NDArray[Any]]


VALUES: dict[str, _Column] = {
    "e_sum": _Column("Visible energy", "GeV", lambda s: s.observed.visible_energy),
    "n_hits": _Column("Hits", "", lambda s: s.observed.hits),
    "cog_x": _Column("Centre of gravity x", "mm", lambda s: s.observed.cog_x),
    "cog_y": _Column("Centre of gravity y", "mm", lambda s: s.observed.cog_y),
    "cog_z": _Column("Centre of gravity z", "layers", lambda s: s.observed.cog_z),
    "start_layer": _Column("Start layer (cell of highest energy)", "", lambda s: s.sections["total/start_layer"]),
    "start_layer_sum": _Column("Start layer (highest layer sum)", "", lambda s: s.sections["total/start_layer_sum"]),
}
"""Columns with one number a shower."""
PROFILES: dict[str, tuple[str, str]] = {
    "e_cell": ("Cell energy", "cell_energy"),
    "e_long": ("Longitudinal profile", "energy_per_layer"),
    "e_radial": ("Radial profile", "energy_per_radius"),
}
"""Columns with one histogram a shower, with the name of the observable."""


def quantile_divergence(p: NDArray[Any], q: NDArray[Any]) -> NDArray[np.float64]:
    """Kullback-Leibler divergence of the truth `q` from `p`, counts `[..., bins]`: sum q ln(q / p), natural logarithm.

    A bin that only `p` leaves empty counts as `HALF_AN_ENTRY`, so the divergence stays finite and no
    single shower decides it.

    >>> round(float(quantile_divergence(np.array([1, 1]), np.array([3, 1]))), 6)
    0.130812
    """
    p, q = (np.asarray(v, dtype=np.float64) for v in (p, q))
    p = np.where((p > 0) | (q == 0), p, HALF_AN_ENTRY)
    p, q = (v / np.maximum(v.sum(axis=-1, keepdims=True), EMPTY_BIN) for v in (p, q))
    here = q > 0
    return np.asarray(np.sum(q * np.log(np.where(here, q, 1.0) / np.where(here, p, 1.0)), axis=-1))


@dataclass(frozen=True)
class Hadronic:
    """Both metrics of every column, `slices` (the paper's definition) for columns with one number a shower."""

    slices: bool = True
    name: ClassVar[str] = "hadronic"

    def rows(self, batch: Batch) -> Rows:
        """Nothing of its own: all columns are always observed."""
        return {}

    def findings(self, pair: SamplePair) -> Findings:
        """The two tables."""
        scores: list[Score] = []
        notes: list[str] = []
        for key, column in VALUES.items():
            gen, true = (column.of(s).astype(np.float64) for s in (pair.generated, pair.truth))
            scores += (replace(s, title=column.title) for s in _value_scores(key, gen, true, pair))
            if self.slices:
                scores += (replace(s, title=column.title) for s in slice_scores(key, column.unit, gen, true, pair.seed))
        for key, (title, observable) in PROFILES.items():
            scores += (replace(s, title=title) for s in _profile_scores(key, observable, pair))
        if self.slices and min(len(pair.generated), len(pair.truth)) // SLICES < QUANTILES:
            notes.append(f"fewer than {SLICES * QUANTILES} showers: no scores by slices")
        return Findings(self.name, "Hadronic tables", TEXT, tuple(scores), notes=tuple(notes))


def _value_scores(key: str, gen: NDArray[np.float64], true: NDArray[np.float64], pair: SamplePair) -> list[Score]:
    edges = outer(quantile_edges(true, QUANTILES))
    blocks = block_count(gen.size, true.size)
    counts = [block_histogram(v, dealt(v.size, blocks), blocks, edges) for v in (gen, true)]
    return [
        of_values(key, (gen, true), edges).wasserstein(pair.resampling),
        squared_score(key, "quantile_kl", "nat", quantile_divergence, counts[0], counts[1], pair.resampling),
    ]


def outer(edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inner edges, open at both ends; one edge more where all values are one."""
    return np.concatenate([[-np.inf], edges[1:-1] if edges.size > 2 else edges[:1], [np.inf]])


def _profile_scores(key: str, observable: str, pair: SamplePair) -> list[Score]:
    rows = [getattr(s.observed, observable) for s in (pair.generated, pair.truth)]
    edges = pair.truth.binning.edges(observable)
    blocks = block_count(rows[0].shape[0], rows[1].shape[0])
    counts = [block_sum(r, dealt(r.shape[0], blocks), blocks) for r in rows]
    grouped = [_grouped(c, counts[1].sum(axis=0)) for c in counts]
    return [
        of_rows(key, rows, edges, log=observable == "cell_energy").wasserstein(pair.resampling),
        squared_score(key, "quantile_kl", "nat", quantile_divergence, grouped[0], grouped[1], pair.resampling),
    ]


def _grouped(counts: NDArray[np.float64], truth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Neighbouring bins `[blocks, bins]` joined to at most `QUANTILES` of nearly equal content of the truth."""
    middle = (np.cumsum(truth) - 0.5 * truth) / max(float(truth.sum()), EMPTY_BIN)
    group = np.minimum((middle * QUANTILES).astype(np.int64), QUANTILES - 1)
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    return np.asarray(np.add.reduceat(counts, starts, axis=1), dtype=np.float64)


# ---- the paper's definition ----


def slice_scores(key: str, unit: str, gen: NDArray[np.float64], true: NDArray[np.float64], seed: int) -> list[Score]:
    """Means over five slices of the unnormalised Wasserstein distance and of the 25-quantile divergence.

    The floor is the mean over the ten pairs of slices of the truth, which have the size of those compared. The paper
    quotes the standard deviation over slices; here it is that of the mean, the floor's included. A quantile that stays
    empty in a slice would make the published divergence infinite; it counts as `HALF_AN_ENTRY`.
    """
    gen, true = gen[np.isfinite(gen)], true[np.isfinite(true)]
    size = min(gen.size, true.size) // SLICES
    if size < QUANTILES:
        return []
    rng = np.random.default_rng([seed, 22])
    a, b = (rng.permutation(v)[: SLICES * size].reshape(SLICES, size) for v in (gen, true))
    metrics = (("wasserstein_slices", unit, _slice_wasserstein), ("quantile_kl_slices", "nat", _slice_divergence))
    return [_slice_score(key, metric, unit_, distance, a, b) for metric, unit_, distance in metrics]


def _slice_score(
    key: str,
    metric: str,
    unit: str,
    distance: Callable[[NDArray[np.float64], NDArray[np.float64]], float],
    gen: NDArray[np.float64],
    true: NDArray[np.float64],
) -> Score:
    values = np.array([distance(a, b) for a, b in zip(gen, true, strict=True)])
    floor = np.array([distance(true[i], true[j]) for i, j in combinations(range(SLICES), 2)])
    spread = float(floor.std(ddof=1))
    error = math.hypot(max(float(values.std(ddof=1)), spread), spread) / math.sqrt(SLICES)
    return Score(key, metric, unit, float(values.mean()), error, float(floor.mean()), spread / math.sqrt(SLICES))


def _slice_wasserstein(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(np.mean(np.abs(np.sort(a) - np.sort(b))))


def _slice_divergence(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    edges = outer(quantile_edges(b, QUANTILES))
    first, second = (np.histogram(v, edges)[0] for v in (a, b))
    return float(quantile_divergence(first, second))
