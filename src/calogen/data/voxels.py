"""Voxels: dense energies on a detector's regular cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calogen.data.incident import Incident
from calogen.detector.geometry import CartesianCells, Detector, PolarCells


@dataclass(frozen=True)
class Voxels:
    """N showers as `energy [N, cells]` GeV in the detector's cell order (layer by layer), with their particles.

    Raises:
        ValueError: shapes that disagree with the detector, NaN, infinite or negative energies.
    """

    energy: NDArray[Any]
    incident: Incident
    detector: Detector

    def __post_init__(self) -> None:
        object.__setattr__(self, "energy", np.ascontiguousarray(self.energy, dtype=np.float32))
        expected = (len(self.incident), self.detector.n_cells)
        if self.energy.shape != expected:
            raise ValueError(
                f"voxels of {self.detector.name!r} need shape {expected} (showers, cells), got {self.energy.shape}"
            )
        if not np.isfinite(self.energy.sum(dtype=np.float64)):
            raise ValueError("voxel energies must be finite; found NaN or infinity")
        if self.energy.size and self.energy.min() < 0:
            raise ValueError(f"voxel energies must not be negative; the lowest is {self.energy.min()} GeV")

    def __len__(self) -> int:
        return len(self.incident)

    def __getitem__(self, which: Any) -> Voxels:
        return Voxels(self.energy[which], self.incident[which], self.detector)

    def grid(self) -> NDArray[np.float32]:
        """The energies as `[N, layers, n_alpha, n_r]` (polar) or `[N, layers, n_x, n_y]`.

        Raises:
            ValueError: layers of different cells.
        """
        cells = {layer.cells for layer in self.detector.layers}
        if len(cells) > 1:
            raise ValueError(f"the layers of {self.detector.name!r} have different cells: there is no common grid")
        shape = _shape(cells.pop())
        return self.energy.reshape(len(self), self.detector.n_layers, *shape)

    @property
    def energy_per_layer(self) -> NDArray[np.float64]:
        """Energy in each layer, `[N, layers]` GeV."""
        return np.add.reduceat(self.energy, self.detector.first_cell[:-1], axis=1, dtype=np.float64)


def _shape(cells: CartesianCells | PolarCells) -> tuple[int, int]:
    return (cells.n_x, cells.n_y) if isinstance(cells, CartesianCells) else (cells.n_alpha, cells.n_r)
