"""What models of point clouds see of showers: upright, merged to about a cell, without what is far too faint."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from calogen.data.merging import brighter, merge, with_energy
from calogen.data.showers import Showers
from calogen.detector.geometry import CartesianCells, Detector
from calogen.systems.points import across


class CloudView:
    """Showers as targets, made once for each set of showers.

    Args:
        detector: whose cells and thresholds are the units of the next two.
        merge_cells: points of a layer are merged on a grid of this many cells; 0: they are as in the file.
        least_threshold: points below this share of their layer's threshold are left out; 0: only those without energy.
        across_axis: lengths in the plane of incidence are those across the particle's axis.
    """

    def __init__(self, detector: Detector, merge_cells: float, least_threshold: float, across_axis: bool) -> None:
        self.merge_mm = merge_cells * _pitches(detector) if merge_cells > 0 else None
        self.least_gev = least_threshold * np.array([layer.threshold_gev for layer in detector.layers])
        self.across_axis = across_axis
        self.made: dict[int, tuple[Showers, Showers]] = {}

    def __call__(self, showers: Showers) -> Showers:
        """The view, in the order of layers within each shower."""
        held = self.made.get(id(showers))
        if held is None or held[0] is not showers:
            self.made[id(showers)] = held = (showers, self._make(showers))
        return held[1]

    def left_out(self, showers: Showers) -> float:
        """Share of the deposited energy in points that are too faint to be modelled."""
        deposited = float(showers.energy.sum(dtype=np.float64))
        return 1 - float(self(showers).energy.sum(dtype=np.float64)) / deposited if deposited > 0 else 0.0

    def _make(self, showers: Showers) -> Showers:
        s = with_energy(showers.upright())
        if self.merge_mm is not None:
            s = merge(s, self.merge_mm, seed=0)
        if (self.least_gev > 0).any():
            s = brighter(s, self.least_gev)
        return self._sorted(s)

    def _sorted(self, s: Showers) -> Showers:
        x, y = across(s.x, s.y, s.incident.direction, s.counts) if self.across_axis else (s.x, s.y)
        order = np.lexsort((s.layer, s.shower_index))
        time = None if s.time is None else s.time[order]
        return Showers(x[order], y[order], s.layer[order], s.energy[order], s.offsets, s.incident, s.detector, time)

    def __getstate__(self) -> dict[str, Any]:
        """Other processes make their own: views are larger than what they are made of."""
        return self.__dict__ | {"made": {}}


def _pitches(detector: Detector) -> NDArray[np.float64]:
    """Width of the cells of each layer [L], mm.

    Raises:
        ValueError: cells that are no squares.
    """
    cells = [layer.cells for layer in detector.layers]
    if not all(isinstance(c, CartesianCells) for c in cells):
        raise ValueError(f"{detector.name!r}: points can be merged on square cells only; set merge_cells=0")
    return np.array([c.pitch_mm for c in cells if isinstance(c, CartesianCells)])
