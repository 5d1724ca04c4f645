"""The challenge's cut: the cells of voxels that the readout sees."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calogen.data.voxels import Voxels
from calogen.detector.geometry import Detector
from calogen.evaluate.sparse_rows import SparseRows


def hits_of(voxels: Voxels) -> SparseRows:
    """The cells at or above the readout threshold, in GeV.

    >>> from calogen.data.incident import Incident
    >>> from calogen.detector.catalog import CALOCHALLENGE_2
    >>> energy = np.zeros((1, 6480), dtype=np.float32)
    >>> energy[0, :200:50] = 1e-6, 1e-3, 0.1, 2.0
    >>> hits_of(Voxels(energy, Incident.gun(1, pdg=11), CALOCHALLENGE_2)).cell.tolist()
    [50, 100, 150]
    """
    return SparseRows.of(voxels.energy, least_per_cell(voxels.detector))


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
