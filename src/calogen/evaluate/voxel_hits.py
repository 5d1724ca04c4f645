"""The cells of voxels that the readout sees: the challenge's cut, and what is left of a batch after it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calogen.data.incident import Incident
from calogen.data.voxels import Voxels
from calogen.detector.geometry import Detector
from calogen.evaluate.sparse_rows import SparseRows, sparse_and_counts


@dataclass(frozen=True, eq=False)
class VoxelHits:
    """Cells at or above the readout threshold of N showers, in GeV, and their number in each layer `[N, layers]`."""

    cells: SparseRows
    per_layer: NDArray[np.int64]
    incident: Incident
    detector: Detector

    @classmethod
    def of(cls, voxels: Voxels) -> VoxelHits:
        """The hits of some voxels.

        >>> from calogen.detector.catalog import CALOCHALLENGE_2
        >>> energy = np.zeros((1, 6480), dtype=np.float32)
        >>> energy[0, :200:50] = 1e-6, 1e-3, 0.1, 2.0
        >>> hits = VoxelHits.of(Voxels(energy, Incident.gun(1, pdg=11), CALOCHALLENGE_2))
        >>> hits.cells.cell.tolist(), hits.per_layer[0, :3].tolist()
        ([50, 100, 150], [2, 1, 0])
        """
        detector = voxels.detector
        cells, counts = sparse_and_counts(voxels.energy, least_per_cell(detector), detector.first_cell[:-1])
        return cls(cells, counts, voxels.incident, detector)

    def __len__(self) -> int:
        return len(self.incident)


def least_energy(threshold_gev: float) -> np.float32:
    """Lowest energy that counts as a hit: the threshold itself, or anything above zero where there is none."""
    return max(np.float32(threshold_gev), np.finfo(np.float32).smallest_subnormal)


def least_per_cell(detector: Detector) -> NDArray[np.float32] | np.float32:
    """`least_energy` of every cell in the detector's order; one number where all layers have the same."""
    least = [least_energy(float(t)) for t in detector.threshold_gev]
    if len(set(least)) == 1:
        return least[0]
    return np.repeat(np.array(least, dtype=np.float32), detector.cells_per_layer)


def cut(energy: NDArray[np.float32], detector: Detector) -> NDArray[np.float32]:
    """Voxels `[N, cells]` GeV with those below their layer's threshold set to zero: the challenge's cut."""
    return np.where(energy >= least_per_cell(detector), energy, np.float32(0))
