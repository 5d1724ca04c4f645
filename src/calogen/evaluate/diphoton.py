"""Two particles side by side: how far apart they must be to be found as two clusters."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from calogen.data.incident import Incident
from calogen.data.projection import project
from calogen.data.showers import Showers
from calogen.evaluate.bootstrap import RATIO_REPLICAS
from calogen.evaluate.clusters import SEED_SHARE, Towers, cluster, towers_of
from calogen.evaluate.findings import Curve, Findings, Series
from calogen.evaluate.metrics import Score
from calogen.evaluate.parts import MODEL, REFERENCE, Batch, Rows, SamplePair

DISTANCE_CELLS = (0.0, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 8.0)
"""Distances in units of a tower's side; the interesting ones lie between one and four."""
ENERGY_CLASSES = 3
"""Equally populated classes of incident energy."""
MOST_PAIRS = 100
"""Pairs in each class: shares to 5 %."""
MIN_PAIRS = 20
"""A class with fewer is left out."""
WILSON_Z = 1.0
"""Standard deviations of the binomial interval."""
TEXT = (
    "Two showers of nearly the same energy are laid over each other at a distance d, in a random direction and at a "
    "random place within a cell (the same for both samples; tilts removed before), projected together and clustered. "
    "Shown is the mean number of clusters found; scored are the share of pairs found as two or more, averaged over "
    "the distances, and d_50, where half of them are. Differences to Geant4 should be zero; errors come from drawing "
    "pairs again."
)


def overlay(first: Showers, second: Showers, shift_mm: NDArray[Any], offset_mm: NDArray[Any] | None = None) -> Showers:
    """Showers i of both samples as one event, tilts removed, the second moved by `shift_mm [N, 2]` in x and y.

    The incident particle of an event is perpendicular and has the energy of both. `offset_mm [N, 2]` moves the event.

    >>> from calogen import ILD_ECAL, Incident, Showers
    >>> one = Showers([0.5], [0.5], [3], [1e-3], [0, 1], Incident.gun(1, energy=20), ILD_ECAL)
    >>> event = overlay(one, one, [[10.0, 0.0]])
    >>> event.x.tolist(), event.offsets.tolist(), float(event.incident.energy[0])
    ([0.5, 10.5], [0, 2], 40.0)

    Raises:
        ValueError: samples or shifts of different length.
    """
    n = len(first)
    shift = np.asarray(shift_mm, dtype=np.float64)
    offset = np.zeros((n, 2)) if offset_mm is None else np.asarray(offset_mm, dtype=np.float64)
    if len(second) != n or shift.shape != (n, 2) or offset.shape != (n, 2):
        raise ValueError(f"an overlay needs as many second showers and shifts [N, 2] as first ones, {n}")
    placed = [_moved(first.upright(), offset), _moved(second.upright(), offset + shift)]
    both = Showers.concatenate(placed)[np.arange(2 * n).reshape(2, n).T.ravel()]
    energy = first.incident.energy + second.incident.energy
    incident = Incident(energy, np.tile([0.0, 0.0, 1.0], (n, 1)), first.incident.pdg)
    return Showers(both.x, both.y, both.layer, both.energy, both.offsets[::2], incident, first.detector)


def _moved(s: Showers, by: NDArray[np.float64]) -> Showers:
    return replace(s, x=s.x + np.repeat(by[:, 0], s.counts), y=s.y + np.repeat(by[:, 1], s.counts))


def half_distance(distance: NDArray[Any], share: NDArray[Any]) -> float:
    """Distance at which the share of pairs found as two first reaches one half, linear between points; NaN if never.

    >>> import numpy as np
    >>> half_distance(np.array([0.0, 10.0, 20.0]), np.array([0.0, 0.25, 0.75]))
    15.0
    """
    above = np.flatnonzero(share >= 0.5)
    if not above.size:
        return math.nan
    k = int(above[0])
    if k == 0:
        return float(distance[0])
    part = (0.5 - share[k - 1]) / (share[k] - share[k - 1])
    return float(distance[k - 1] + part * (distance[k] - distance[k - 1]))


class _Found(NamedTuple):
    """Clusters found of each pair at each distance, `[pairs, distances]`."""

    number: NDArray[np.int64]

    @property
    def resolved(self) -> NDArray[np.bool_]:
        return np.asarray(self.number >= 2)


@dataclass(frozen=True)
class Diphoton:
    """Separation of pairs in classes of energy. `distance_cells` are in units of a tower's side (a cell)."""

    distance_cells: tuple[float, ...] = DISTANCE_CELLS
    pairs: int = MOST_PAIRS
    seed_share: float = SEED_SHARE
    name: ClassVar[str] = "diphoton"

    def rows(self, batch: Batch) -> Rows:
        """Nothing: pairs are made of the showers that are kept as points."""
        return {}

    def findings(self, pair: SamplePair) -> Findings:
        """Number found against distance, class by class."""
        title = "Separation of two particles"
        towers = towers_of(pair)
        if towers is None:
            return Findings(self.name, title, TEXT, notes=("the cells are not square: no clustering",))
        distance = np.array(self.distance_cells) * towers.pitch_mm
        scores: list[Score] = []
        curves: list[Curve] = []
        notes: list[str] = []
        for k, limits in enumerate(_classes(pair.truth.kept.incident.energy)):
            where = f"{limits[0]:.3g} to {limits[1]:.3g} GeV"
            found = [
                self._found(s.kept, limits, distance, towers, [pair.seed, 33, k]) for s in (pair.generated, pair.truth)
            ]
            n = (len(found[0].number), len(found[1].number))
            if min(n) < MIN_PAIRS:
                notes.append(f"{where}: {n[0]} generated and {n[1]} true pairs; {MIN_PAIRS} are needed")
                continue
            scores += _scores(k, where, distance, found, np.random.default_rng([pair.seed, 34, k]))
            curves.append(_curve(k, where, distance, found))
        return Findings(self.name, title, TEXT, tuple(scores), tuple(curves), notes=tuple(notes))

    def _found(
        self, kept: Showers, limits: tuple[float, float], distance: NDArray[np.float64], towers: Towers, seed: list[int]
    ) -> _Found:
        energy = kept.incident.energy
        inside = np.flatnonzero((energy >= limits[0]) & (energy <= limits[1]))
        # Neighbours in energy are a pair; pairs are spread evenly over the class.
        inside = inside[np.argsort(energy[inside], kind="stable")]
        first = np.arange(0, inside.size - 1, 2)
        first = (
            first[np.linspace(0, first.size - 1, min(self.pairs, first.size)).astype(np.int64)] if first.size else first
        )
        a, b = kept[inside[first]], kept[inside[first + 1]]
        rng = np.random.default_rng(seed)
        phi, offset = rng.uniform(0, 2 * math.pi, self.pairs), rng.uniform(0, towers.pitch_mm, (self.pairs, 2))
        turn = np.stack([np.cos(phi), np.sin(phi)], axis=1)[: len(a)]
        events = (overlay(a, b, d * turn, offset[: len(a)]) for d in distance.tolist())
        number = [cluster(project(e).showers, towers, self.seed_share).number for e in events]
        return _Found(np.stack(number, axis=1))


def _classes(energy: NDArray[Any]) -> list[tuple[float, float]]:
    """Limits of equally populated classes; one class where all energies are nearly the same."""
    edges = np.quantile(energy.astype(np.float64), np.linspace(0, 1, ENERGY_CLASSES + 1))
    pairs = list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
    return list(dict.fromkeys((a * (1 - 1e-6), b * (1 + 1e-6)) for a, b in pairs))


def _scores(
    k: int, where: str, distance: NDArray[np.float64], found: list[_Found], rng: np.random.Generator
) -> list[Score]:
    n = (len(found[0].number), len(found[1].number))
    first, second = (rng.integers(0, size, (RATIO_REPLICAS, size)) for size in n)
    # Pairs of one place in both samples have nearly the same energy, distance and cell: they are drawn together.
    drawn = [f.resolved[i].mean(axis=1) for f, i in zip(found, (first, first if n[0] == n[1] else second), strict=True)]
    share = [f.resolved.mean(axis=0) for f in found]
    # Where all pairs agree, drawing them again shows no scatter; a binomial of their number still allows some.
    least = math.hypot(*(float(wilson_error(np.zeros(1), size)[0]) for size in n))
    title = f"Share found as two, {where}"
    means = (np.array([s.mean() for s in share]), np.stack([d.mean(axis=1) for d in drawn]))
    scores = [_difference(f"resolved_{k}", "", title, *means, least / distance.size, n)]
    halves = (
        np.array([half_distance(distance, s) for s in share]),
        np.array([[half_distance(distance, s) for s in d] for d in drawn]),
    )
    if np.isfinite(halves[0]).all():
        least *= float(np.diff(distance).min())
        scores.append(_difference(f"half_distance_{k}", "mm", f"Distance d_50, {where}", *halves, least, n))
    return scores


def _difference(
    name: str,
    unit: str,
    title: str,
    values: NDArray[np.float64],
    drawn: NDArray[np.float64],
    least: float,
    n: tuple[int, int],
) -> Score:
    """Of a number of both samples `[2]`, with what drawing pairs again `[2, replicas]` shows, at least `least`."""
    known = drawn[:, np.isfinite(drawn).all(axis=0)]
    together, own = (float(v.std(ddof=1)) if v.size > 1 else 0.0 for v in (known[0] - known[1], known[1]))
    apart = float(np.sqrt(known.var(axis=1, ddof=1).sum())) if known.shape[1] > 1 else 0.0
    spread = own * math.sqrt(1 + n[1] / n[0]) * (together / apart if apart > 0 else 1.0)
    error = max(together, least)
    return Score(name, "difference", unit, float(values[0] - values[1]), error, 0.0, max(spread, least), "both", title)


def _curve(k: int, where: str, distance: NDArray[np.float64], found: list[_Found]) -> Curve:
    series = []
    for label, f in ((REFERENCE, found[1]), (MODEL, found[0])):
        n = len(f.number)
        share = f.resolved.mean(axis=0)
        # Number found is one plus the share found as two, but for the rare third; so the interval is the share's.
        binomial = wilson_error(share, n)
        scatter = f.number.std(axis=0, ddof=1) / math.sqrt(n)
        series.append(Series(label, f.number.mean(axis=0), np.maximum(binomial, scatter)))
    return Curve(f"found_{k}", f"Clusters found of two, {where}", "distance [mm]", "clusters", distance, tuple(series))


def wilson_error(share: NDArray[Any], n: int) -> NDArray[np.float64]:
    """Half the width of the binomial (Wilson) interval of one standard deviation: not zero at shares of 0 and 1."""
    z2 = WILSON_Z**2
    return np.asarray(WILSON_Z / (1 + z2 / n) * np.sqrt(share * (1 - share) / n + z2 / (4 * n * n)))
