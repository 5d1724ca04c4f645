"""A simple reconstruction: cells summed along the shower axis into towers, towers joined to their highest neighbour.

Every tower points at the highest of its eight neighbours and itself; what hangs together is one cluster, so each
cluster has one tower that is higher than all around it. A cluster counts if this tower holds at least `SEED_SHARE` of
the event's visible energy: a photon's core does, its fluctuations do not. This is the nearest-neighbour clustering of
the field (ATLAS' topological clusters with splitting at every local maximum, and no cut on neighbours beyond the
readout's threshold), without its calibration: enough to ask whether two samples are reconstructed alike.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from calogen.data.projection import project
from calogen.data.showers import Showers
from calogen.detector.geometry import CartesianCells, Detector
from calogen.evaluate.blocks import of_values
from calogen.evaluate.bootstrap import difference_score, with_error
from calogen.evaluate.findings import Curve, Findings, Series
from calogen.evaluate.metrics import Resampling, Score
from calogen.evaluate.observables import quantile_edges
from calogen.evaluate.parts import EQUAL_BINS, MODEL, REFERENCE, Batch, Rows, SamplePair, present, spectrum

SEED_SHARE = 0.05
"""Least share of the event's visible energy in the tower that makes a cluster: Geant4 photons of 10 to 100 GeV then
never fall into two, and two of equal energy are told apart from about two cells on."""
MAIN_SHARE = 0.9
"""The first section alone is clustered where it holds this share of the truth's energy (photons)."""
CLUSTERED_AT_ONCE = 256
"""Showers clustered at once: their towers take tens of megabytes."""
MIN_CLUSTERED = 20
"""Showers below which nothing is scored."""
TEXT = (
    "Cells above threshold are summed along the shower axis into towers of one cell; every tower joins the highest of"
    " its eight neighbours; what hangs together is a cluster if its highest tower holds 5 % of the visible energy. Of"
    " single particles: number of clusters, and energy of the largest over the incident energy (not calibrated)."
)


class Clusters(NamedTuple):
    """Clusters of N showers: the number that count `[N]` and the energy of the largest `[N]` GeV (0 if none)."""

    number: NDArray[np.int64]
    largest: NDArray[np.float64]


@dataclass(frozen=True)
class Towers:
    """Which layers are clustered, and the side of a tower in mm."""

    layers: tuple[int, ...]
    pitch_mm: float

    @classmethod
    def of(cls, detector: Detector, energy_per_layer: NDArray[Any]) -> Towers | None:
        """The first section where it holds nearly all energy, otherwise all layers in towers of the coarsest cells.

        None for a detector with other than square cells.
        """
        first = detector.layers_of(detector.sections[0])
        share = energy_per_layer[first].sum() / max(float(energy_per_layer.sum()), 1e-300)
        layers = first if share >= MAIN_SHARE else np.arange(detector.n_layers)
        cells = [detector.layers[i].cells for i in layers]
        pitches = [c.pitch_mm for c in cells if isinstance(c, CartesianCells)]
        if len(pitches) < len(cells):
            return None
        return cls(tuple(layers.tolist()), max(pitches))


def cluster(hits: Showers, towers: Towers, seed_share: float = SEED_SHARE) -> Clusters:
    """Clusters of projected showers, tilts removed.

    >>> from calogen import ILD_ECAL, Incident, Showers
    >>> x = [0.5, 0.5, 40.5]
    >>> two = Showers(x, [0.5] * 3, [3, 4, 3], [2e-3, 1e-3, 2e-3], [0, 3], Incident.gun(1), ILD_ECAL)
    >>> found = cluster(two, Towers(tuple(range(30)), 5.0))
    >>> int(found.number[0]), round(float(found.largest[0]), 6)
    (2, 0.003)

    Raises:
        ValueError: a share of energy outside (0, 1].
    """
    if not 0 < seed_share <= 1:
        raise ValueError(f"the share of energy that makes a cluster must be above 0 and at most 1, got {seed_share:g}")
    parts = [
        _cluster(hits[i : i + CLUSTERED_AT_ONCE], towers, seed_share) for i in range(0, len(hits), CLUSTERED_AT_ONCE)
    ]
    if not parts:
        return Clusters(np.zeros(0, dtype=np.int64), np.zeros(0))
    return Clusters(*(np.concatenate(v) for v in zip(*parts, strict=True)))


def _cluster(hits: Showers, towers: Towers, seed_share: float) -> Clusters:
    n = len(hits)
    up = hits.upright()
    here = np.isin(hits.layer, towers.layers)
    shower, energy = hits.shower_index[here], hits.energy[here].astype(np.float64)
    if not shower.size:
        return Clusters(np.zeros(n, dtype=np.int64), np.zeros(n))
    place, sides = _places(up.x[here], up.y[here], towers.pitch_mm)
    tower, inverse = np.unique(shower * (sides[0] * sides[1]) + place, return_inverse=True)
    height = np.bincount(inverse, weights=energy, minlength=tower.size).astype(np.float64)
    joined = _components(tower, height, sides[1])
    of_shower = tower // (sides[0] * sides[1])
    n_clusters = int(joined.max()) + 1
    total = np.bincount(joined, weights=height, minlength=n_clusters)
    peak = np.zeros(n_clusters)
    np.maximum.at(peak, joined, height)
    owner = np.zeros(n_clusters, dtype=np.int64)
    owner[joined] = of_shower
    visible = np.bincount(of_shower, weights=height, minlength=n)
    counts = peak >= seed_share * visible[owner]
    largest = np.zeros(n)
    np.maximum.at(largest, owner[counts], total[counts])
    return Clusters(np.bincount(owner[counts], minlength=n), largest)


def _places(x: NDArray[Any], y: NDArray[Any], pitch: float) -> tuple[NDArray[np.int64], tuple[int, int]]:
    """Index of the tower of each hit in a grid with an empty border, and the grid's two sides."""
    i, j = (np.floor(v.astype(np.float64) / pitch).astype(np.int64) for v in (x, y))
    i, j = i - i.min() + 1, j - j.min() + 1
    sides = (int(i.max()) + 2, int(j.max()) + 2)
    return i * sides[1] + j, sides


def _components(tower: NDArray[np.int64], height: NDArray[np.float64], side: int) -> NDArray[np.int64]:
    """Cluster of each tower; `tower` are sorted grid indices. Equal heights yield to the later index."""
    target = np.arange(tower.size)
    best = height.copy()
    for step in (-side - 1, -side, -side + 1, -1, 1, side - 1, side, side + 1):
        at = np.minimum(np.searchsorted(tower, tower + step), tower.size - 1)
        there = tower[at] == tower + step
        higher = there & ((height[at] > best) | ((height[at] == best) & (at > target)))
        best, target = np.where(higher, height[at], best), np.where(higher, at, target)
    links = coo_array((np.ones(tower.size, dtype=np.int8), (np.arange(tower.size), target)), shape=(tower.size,) * 2)
    return np.asarray(connected_components(links, directed=False)[1], dtype=np.int64)


@dataclass(frozen=True)
class SingleClusters:
    """Single particles as clusters: how many, and how much of the energy the largest has."""

    seed_share: float = SEED_SHARE
    name: ClassVar[str] = "clusters"

    def rows(self, batch: Batch) -> Rows:
        """Nothing: the showers that are kept as points are clustered."""
        return {}

    def findings(self, pair: SamplePair) -> Findings:
        """Scores of the largest cluster's energy, mean number of clusters, and their distributions."""
        title = "Single-particle clusters"
        towers = towers_of(pair)
        if towers is None:
            return Findings(self.name, title, TEXT, notes=("the cells are not square: no clustering",))
        n = (len(pair.generated.kept), len(pair.truth.kept))
        if min(n) < MIN_CLUSTERED:
            return Findings(self.name, title, TEXT, notes=(f"clusters need {MIN_CLUSTERED} showers",))
        gen, true = (cluster(project(s.kept).showers, towers, self.seed_share) for s in (pair.generated, pair.truth))
        ratio = [c.largest / s.kept.incident.energy for c, s in ((gen, pair.generated), (true, pair.truth))]
        resampling = Resampling(n[0], n[1], False, pair.replicas, pair.seed)
        blocked = of_values("cluster_energy", ratio, quantile_edges(ratio[1], EQUAL_BINS))
        energy = "Energy of the largest cluster / incident energy"
        scores: list[Score] = [
            replace(s, title=energy) for s in (blocked.divergence(resampling), blocked.wasserstein(resampling))
        ]
        rng = np.random.default_rng([pair.seed, 31])
        a, b = (with_error(c.number.astype(np.float64), _mean, rng) for c in (gen, true))
        scores.append(difference_score("cluster_number", "difference", "", "Mean number of clusters", a, b, n))
        curves: list[Curve | None] = [
            spectrum("cluster_energy", energy, "largest cluster / incident energy", ratio[0], ratio[1]),
            _numbers(gen.number, true.number),
        ]
        notes = (f"{n[0]} generated and {n[1]} true showers were clustered in towers of {towers.pitch_mm:.4g} mm",)
        return Findings(self.name, title, TEXT, tuple(scores), present(curves), notes=notes)


def towers_of(pair: SamplePair) -> Towers | None:
    """What is clustered, by the truth's energies."""
    return Towers.of(pair.detector, pair.truth.observed.energy_per_layer[:, 1:-1].sum(axis=0, dtype=np.float64))


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean())


def _numbers(gen: NDArray[np.int64], true: NDArray[np.int64]) -> Curve:
    highest = int(max(gen.max(), true.max()))
    edges = np.arange(highest + 2, dtype=np.float64) - 0.5
    series = []
    for label, values in ((REFERENCE, true), (MODEL, gen)):
        p = np.histogram(values, edges)[0] / values.size
        series.append(Series(label, p, np.sqrt(p * (1 - p) / values.size)))
    return Curve(
        "cluster_number", "Clusters of a single particle", "clusters", "share of showers", edges, tuple(series)
    )
