"""Single showers as displays draw them: their cells, the box they stand in, and showers of the same particle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from particle import Particle

from calogen.data.incident import Incident
from calogen.data.projection import project
from calogen.data.showers import Showers
from calogen.detector.geometry import PolarCells
from calogen.units import MEV_PER_GEV

MAX_HITS = 20_000
"""Hits drawn of one event, the most energetic first; more would make a page slow, and it is said beneath."""
COVERAGE = 0.96
"""Share of the hits that the box holds sideways."""
MIN_HALF_WIDTH_MM = 30.0
SAME_ENERGY = 1e-4
"""Relative difference of incident energies up to which two showers count as of the same particle."""
SAME_DIRECTION = 1e-3
"""The same of directions, as the length between unit vectors."""
NEAR_ENERGY, NEAR_DIRECTION = 0.1, 0.1
"""Differences in energy (relative) and direction (rad) that count alike where the nearest particle is sought."""
FOREIGN = 1e3
"""Distance added to particles of another type."""


@dataclass(frozen=True, eq=False)
class Event:
    """One shower in cells: `x, y [hits]` mm, `layer [hits]`, `energy [hits]` MeV; the rest names and frames it.

    `profile [layers]` MeV holds all hits, also where only `MAX_HITS` of `total_hits` are drawn. `polar` where the
    cells are rings and sectors about the axis.
    """

    x: NDArray[Any]
    y: NDArray[Any]
    layer: NDArray[np.int64]
    energy: NDArray[Any]
    profile: NDArray[np.float64]
    incident_gev: float
    particle: str
    direction: tuple[float, float, float]
    layers_mm: NDArray[np.float64]
    total_hits: int
    polar: bool

    @property
    def z(self) -> NDArray[np.float64]:
        """Depth of each hit, mm."""
        return self.layers_mm[self.layer]


def event(showers: Showers, index: int) -> Event:
    """Shower `index` as its readout cells above threshold.

    Raises:
        ValueError: no such shower.
    """
    if not 0 <= index < len(showers):
        raise ValueError(f"there is no event {index}: the showers are numbered 0 to {len(showers) - 1}")
    one = project(showers[index : index + 1]).showers
    best = np.sort(np.argsort(-one.energy, kind="stable")[:MAX_HITS])
    energy = one.energy * MEV_PER_GEV
    x, y, z = (float(v) for v in one.incident.direction[0])
    return Event(
        one.x[best],
        one.y[best],
        one.layer[best].astype(np.int64),
        energy[best],
        np.bincount(one.layer, weights=energy, minlength=one.detector.n_layers).astype(np.float64),
        float(one.incident.energy[0]),
        Particle.from_pdgid(int(one.incident.pdg[0])).name,
        (x, y, z),
        one.detector.z_mm,
        one.n_points,
        isinstance(one.detector.layers[0].cells, PolarCells),
    )


def title(e: Event) -> str:
    """Particle, energy and hits in words."""
    hits = f"{e.total_hits:,} hits" + (f" ({e.energy.size:,} drawn)" if e.energy.size < e.total_hits else "")
    return f"{e.particle} {e.incident_gev:.1f} GeV, {hits}, {e.profile.sum() / MEV_PER_GEV:.3g} GeV visible"


@dataclass(frozen=True)
class Frame:
    """The box that events are drawn in: (lowest, highest) of x, y and z in mm."""

    x: tuple[float, float]
    y: tuple[float, float]
    z: tuple[float, float]

    @classmethod
    def around(cls, events: Sequence[Event]) -> Frame:
        """The box of the layers that the events reach (of all, without any hit), and of nearly all hits sideways."""
        x, y, z = (np.concatenate([getattr(e, k) for e in events]) for k in "xyz")
        layers = events[0].layers_mm
        depth = float(z.max(initial=float(layers[0]))) if z.size else float(layers[-1])
        return cls(_covering(x), _covering(y), (0.0, depth))

    @property
    def centre(self) -> NDArray[np.float64]:
        """Middle of the box."""
        return np.array([sum(self.x), sum(self.y), sum(self.z)]) / 2

    @property
    def half_size(self) -> float:
        """Half its longest side, mm."""
        return max(b - a for a, b in (self.x, self.y, self.z)) / 2


def _covering(values: NDArray[Any]) -> tuple[float, float]:
    if not values.size:
        return -MIN_HALF_WIDTH_MM, MIN_HALF_WIDTH_MM
    low, high = np.quantile(values, [1 - COVERAGE, COVERAGE])
    middle, half = 0.5 * (low + high), max(0.5 * (high - low), MIN_HALF_WIDTH_MM)
    return float(middle - half), float(middle + half)


DEFAULT_RANGE_MEV = (0.1, 100.0)
"""Half a MIP, the readout threshold of ILD's ECal, to the core of a shower: where there is no hit to go by."""
LOW_SHARE, HIGH_SHARE = 0.02, 0.999
"""Shares of the hits below the lowest colour and below the highest one, before rounding out to decades."""


def energy_range_mev(events: Sequence[Event]) -> tuple[float, float]:
    """Whole decades that hold the energies of nearly all hits: the ends of the colour scale."""
    energy = np.concatenate([e.energy for e in events])
    energy = energy[energy > 0]
    if not energy.size:
        return DEFAULT_RANGE_MEV
    low, high = np.log10(np.quantile(energy, [LOW_SHARE, HIGH_SHARE]))
    first = int(np.floor(low + 1e-9))
    return 10.0**first, 10.0 ** max(int(np.ceil(high - 1e-9)), first + 1)


@dataclass(frozen=True)
class Row:
    """Events to stand side by side, each with its label; `number` is that of the first in its file."""

    number: int
    events: tuple[tuple[str, Event], ...]


def matched(truth: Showers, models: Sequence[tuple[str, Showers]], count: int) -> list[Row]:
    """`count` showers of the truth spread over its energies, each with every model's shower of the same particle.

    Where a model has no shower of that particle, the nearest in energy and direction stands there, and is labelled so.

    Raises:
        ValueError: samples without showers, or of different detectors.
    """
    for label, sample in (("the truth", truth), *models):
        if not len(sample):
            raise ValueError(f"{label} holds no showers to display")
        if sample.detector != truth.detector:
            raise ValueError(f"{label} is of detector {sample.detector.name!r}, the truth of {truth.detector.name!r}")
    order = np.argsort(truth.incident.energy, kind="stable")
    places = np.unique(np.linspace(0.02, 0.98, count) * (len(order) - 1)).round().astype(int)
    rows = []
    for i in order[np.unique(places)].tolist():
        row = [("Geant4", event(truth, i))]
        for label, sample in models:
            j, same = _partner(truth.incident, i, sample.incident)
            row.append((label if same else f"{label} (nearest particle)", event(sample, j)))
        rows.append(Row(i, tuple(row)))
    return rows


def _partner(truth: Incident, i: int, other: Incident) -> tuple[int, bool]:
    """The other sample's shower of the same particle (the same number, if it is), else the nearest one."""
    energy = truth.energy[i]
    far = np.abs(other.energy - energy) / energy
    turned = np.linalg.norm(other.direction - truth.direction[i], axis=1)
    same = (far <= SAME_ENERGY) & (other.pdg == truth.pdg[i]) & (turned <= SAME_DIRECTION)
    if i < len(other) and same[i]:
        return i, True
    if same.any():
        return int(np.argmax(same)), True
    distance = np.hypot(far / NEAR_ENERGY, turned / NEAR_DIRECTION) + np.where(other.pdg == truth.pdg[i], 0.0, FOREIGN)
    return int(np.argmin(distance)), False
