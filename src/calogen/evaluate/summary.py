"""Summary: what a file of showers holds, gathered batch by batch in constant memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calogen.data.incident import Incident
from calogen.data.showers import Showers
from calogen.data.voxels import Voxels


@dataclass
class Range:
    """Lowest, mean and highest of the values seen."""

    low: float = float("inf")
    high: float = float("-inf")
    total: float = 0.0
    n: int = 0

    def add(self, values: NDArray[Any]) -> None:
        """See more values."""
        if values.size:
            self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
            self.total, self.n = self.total + float(values.sum(dtype=np.float64)), self.n + values.size

    @property
    def mean(self) -> float:
        """Mean of the values; NaN if there were none."""
        return self.total / self.n if self.n else float("nan")


@dataclass
class Summary:
    """Counts and ranges over all showers. For voxels a "point" is a voxel with energy."""

    showers: int = 0
    pdg: Counter[int] = field(default_factory=Counter)
    energy_gev: Range = field(default_factory=Range)
    angle_deg: Range = field(default_factory=Range)
    points: Range = field(default_factory=Range)
    visible_gev: Range = field(default_factory=Range)
    point_energy_gev: Range = field(default_factory=Range)
    x_mm: Range = field(default_factory=Range)
    y_mm: Range = field(default_factory=Range)
    time_ns: Range = field(default_factory=Range)

    def add(self, events: Showers | Voxels) -> None:
        """See a batch."""
        counts = events.counts if isinstance(events, Showers) else np.count_nonzero(events.energy, axis=1)
        self._add_incident(events.incident)
        self.points.add(counts)
        self.visible_gev.add(events.energy_per_layer.sum(axis=1))
        self.point_energy_gev.add(events.energy[events.energy > 0])
        if isinstance(events, Showers):
            self._add_places(events)

    def _add_incident(self, incident: Incident) -> None:
        self.showers += len(incident)
        self.pdg.update(incident.pdg.tolist())
        self.energy_gev.add(incident.energy)
        self.angle_deg.add(np.degrees(np.arccos(np.clip(incident.direction[:, 2], -1, 1))))

    def _add_places(self, showers: Showers) -> None:
        self.x_mm.add(showers.x)
        self.y_mm.add(showers.y)
        if showers.time is not None:
            self.time_ns.add(showers.time)


def summarise(batches: Iterable[Showers | Voxels]) -> Summary:
    """The summary of all batches."""
    summary = Summary()
    for batch in batches:
        summary.add(batch)
    return summary
