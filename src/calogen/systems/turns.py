"""The symmetry of rings and sectors: a shower of normal incidence looks alike when it is turned or mirrored."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from calogen.detector.geometry import Detector, PolarCells
from calogen.transforms import Standardize


class Turns:
    """Turns by sectors that all layers share, each also mirrored: 32 views of a shower in 16 sectors.

    True without a magnetic field, which would bend one way. Showers shown to a network in views drawn at random are
    as good as many times their number.

    Args:
        detector: all its layers have rings.

    Raises:
        ValueError: layers of squares.
    """

    def __init__(self, detector: Detector) -> None:
        layout: list[tuple[int, int]] = []
        for layer in detector.layers:
            if not isinstance(layer.cells, PolarCells):
                raise ValueError(
                    f"{detector.name!r} has square cells: showers in it cannot be turned; set turned=false"
                )
            layout.append((layer.cells.n_alpha, layer.cells.n_r))
        sectors = math.gcd(*(n for n, _ in layout if n > 1), 0) or 1
        views = [self._view(layout, turn / sectors, mirror) for turn in range(sectors) for mirror in (False, True)]
        self.table = np.unique(np.stack(views), axis=0)

    @staticmethod
    def _view(layout: list[tuple[int, int]], turn: float, mirror: bool) -> NDArray[np.int64]:
        """Which cell [V] is seen at each place."""
        first, parts = 0, []
        for sectors, rings in layout:
            places = (np.arange(sectors) + round(turn * sectors)) % sectors
            if mirror:
                places = sectors - 1 - places
            parts.append(first + (places[:, None] * rings + np.arange(rings)).ravel())
            first += sectors * rings
        return np.concatenate(parts)

    def __call__(self, energy: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Energies [N, V], each shower in a view of its own."""
        views = self.table[rng.integers(len(self.table), size=len(energy))]
        return np.take_along_axis(energy, views, axis=1)

    def average(self, stored: Standardize) -> None:
        """Make the numbers [V] of fitted voxels those of all views together."""
        views = torch.from_numpy(self.table).to(stored.shift.device)
        shift, scale = stored.shift.double(), stored.scale.double()
        mean = shift[views].mean(0)
        stored.shift.copy_(mean)
        stored.scale.copy_((scale[views] ** 2 + (shift[views] - mean) ** 2).mean(0).sqrt())
