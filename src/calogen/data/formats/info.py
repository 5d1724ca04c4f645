"""What a file is: format, detector, counts, ranges, particles, provenance, gathered in one pass of constant memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calogen.data.showers import Showers
from calogen.data.voxels import Voxels


@dataclass(frozen=True)
class Range:
    """Lowest, highest and mean value of a column, in its unit."""

    lowest: float
    highest: float
    mean: float
    unit: str


@dataclass(frozen=True)
class FileInfo:
    """What a file holds. Ranges are in calogen's units (GeV, mm, ns), `stored_units` says what the file keeps."""

    path: str
    format: str
    kind: str
    """`points` or `voxels`."""
    detector: str
    n_layers: int
    n_showers: int
    n_points: int
    """Points, or voxels with energy."""
    points_per_shower: Range
    stored_units: str
    size_bytes: int
    precision: str | None
    particles: dict[int, int]
    """PDG code -> number of showers."""
    splits: dict[str, int]
    """Part -> number of showers, where the file marks parts."""
    ranges: dict[str, Range]
    provenance: dict[str, Any] = field(default_factory=dict)


class _Running:
    def __init__(self, unit: str) -> None:
        self.unit, self.low, self.high, self.total, self.n = unit, np.inf, -np.inf, 0.0, 0

    def add(self, values: NDArray[Any]) -> None:
        if values.size:
            self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
            self.total += float(values.sum(dtype=np.float64))
            self.n += values.size

    def range(self) -> Range:
        if not self.n:
            return Range(float("nan"), float("nan"), float("nan"), self.unit)
        return Range(self.low, self.high, self.total / self.n, self.unit)


class Summary:
    """Counts and ranges of batches, added one after the other."""

    def __init__(self) -> None:
        self.n_showers = 0
        self.n_points = 0
        self.kind = "points"
        self.particles: dict[int, int] = {}
        self._counts = _Running("")
        self._ranges: dict[str, _Running] = {}

    def add(self, events: Showers | Voxels) -> None:
        """Add a batch."""
        self.n_showers += len(events)
        codes, numbers = np.unique(events.incident.pdg, return_counts=True)
        for code, number in zip(codes.tolist(), numbers.tolist(), strict=True):
            self.particles[code] = self.particles.get(code, 0) + number
        angle = np.degrees(np.arccos(np.clip(events.incident.direction[:, 2], -1, 1)))
        self._add("incident energy", "GeV", events.incident.energy)
        self._add("angle from the normal", "degrees", angle)
        if isinstance(events, Showers):
            self._add_points(events)
        else:
            self._add_voxels(events)

    def ranges(self) -> dict[str, Range]:
        """Range of each column so far."""
        return {name: running.range() for name, running in self._ranges.items()}

    def points_per_shower(self) -> Range:
        """Range of the counts so far."""
        return self._counts.range()

    def _add(self, name: str, unit: str, values: NDArray[Any]) -> None:
        self._ranges.setdefault(name, _Running(unit)).add(values)

    def _add_points(self, showers: Showers) -> None:
        self.n_points += showers.n_points
        self._counts.add(showers.counts)
        self._add("visible energy", "GeV", showers.visible_energy)
        for name, unit in (("x", "mm"), ("y", "mm"), ("layer", ""), ("energy", "GeV")):
            self._add(name, unit, getattr(showers, name))
        if showers.time is not None:
            self._add("time", "ns", showers.time)

    def _add_voxels(self, voxels: Voxels) -> None:
        self.kind = "voxels"
        hit = voxels.energy > 0
        self.n_points += int(hit.sum())
        self._counts.add(hit.sum(axis=1))
        self._add("visible energy", "GeV", voxels.energy.sum(axis=1, dtype=np.float64))
        self._add("energy", "GeV", voxels.energy[hit])
