"""What classifiers of voxel showers look at, and the observables by which their weights are told in words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calogen.evaluate.high_level import (
    LOG_FLOOR_MEV,
    NO_ENERGY_GEV,
    HighLevel,
    angular_layers,
)
from calogen.evaluate.sparse_rows import SparseRows
from calogen.evaluate.voxel_sample import VoxelSample
from calogen.units import MEV_PER_GEV


@dataclass(frozen=True, eq=False)
class CellFeatures:
    """A matrix of features `[N, before + cells + after]`: scaled cells between two matrices of few columns.

    Cells are stored sparsely; rows are made dense when they are read.
    """

    before: NDArray[np.float32]
    cells: SparseRows
    after: NDArray[np.float32]

    @property
    def shape(self) -> tuple[int, int]:
        """(N, columns)."""
        return len(self.cells), self.before.shape[1] + self.cells.n_cells + self.after.shape[1]

    def __getitem__(self, rows: Any) -> NDArray[np.float32]:
        index = np.arange(len(self.cells))[rows]
        first, stop = self.before.shape[1], self.before.shape[1] + self.cells.n_cells
        dense = np.zeros((index.size, self.shape[1]), dtype=np.float32)
        dense[:, :first], dense[:, stop:] = self.before[index], self.after[index]
        self.cells.put(index, dense[:, first:stop])
        return dense


def low_level(sample: VoxelSample) -> CellFeatures:
    """`high_level.low_level_features` of the showers that the sample kept whole, never dense together."""
    incident = sample.features.incident_energy[sample.kept_index]
    per_shower = np.repeat(incident, np.diff(sample.showers.offsets))
    cells = replace(sample.showers, value=sample.showers.value / per_shower)
    return CellFeatures(_log10_mev(incident, 0.0)[:, None], cells, np.zeros((len(cells), 0), np.float32))


def low_level_normalised(sample: VoxelSample) -> CellFeatures:
    """`high_level.low_level_normalised` of the hits of the showers that the sample kept whole."""
    detector, showers = sample.detector, sample.showers
    layer_energy = sample.features.layer_energy[sample.kept_index]
    counts = sample.features.layer_hits[sample.kept_index]
    share = np.repeat((1 / (layer_energy + NO_ENERGY_GEV)).ravel(), counts.ravel())  # hits lie layer by layer
    cells = replace(showers, value=(showers.value * share).astype(np.float32))
    incident = sample.features.incident_energy[sample.kept_index]
    after = _log10_mev(layer_energy, LOG_FLOOR_MEV).reshape(-1, detector.n_layers)
    return CellFeatures(_log10_mev(incident, 0.0)[:, None], cells, after)


def _log10_mev(energy_gev: NDArray[Any], floor_mev: float) -> NDArray[np.float32]:
    mev = np.asarray(energy_gev, dtype=np.float64) * MEV_PER_GEV
    return np.log10(mev + floor_mev).astype(np.float32)


def tail_observables(f: HighLevel) -> tuple[NDArray[np.float32], tuple[str, ...], tuple[str, ...]]:
    """Numbers `[N, k]` of each shower by which recognised showers are described, their names and units.

    Visible energy and hits; and of each layer energy, hits, mean radius and its width, and where layers have sectors
    mean and width in x and y.
    """
    angular = angular_layers(f.detector)
    every = np.arange(f.detector.n_layers)
    groups: list[tuple[str, str, NDArray[np.int64], NDArray[Any]]] = [
        ("energy in layer {}", "GeV", every, f.layer_energy),
        ("hits in layer {}", "", every, f.layer_hits),
        ("mean radius in layer {}", "mm", every, f.centre_r),
        ("width of the radius in layer {}", "mm", every, f.width_r),
        ("width in x in layer {}", "mm", angular, f.width_x),
        ("width in y in layer {}", "mm", angular, f.width_y),
        # Around zero, so that ratios to Geant4 mean nothing: not named like a family of layers.
        ("mean x (layer {})", "mm", angular, f.centre_x),
        ("mean y (layer {})", "mm", angular, f.centre_y),
    ]
    names, units = ["visible energy", "hits"], ["GeV", ""]
    values: list[NDArray[Any]] = [f.visible_energy[:, None], f.hits[:, None]]
    for name, unit, layers, v in groups:
        names += [name.format(i) for i in layers]
        units += [unit] * layers.size
        values.append(v[:, layers])
    return np.concatenate(values, axis=1, dtype=np.float32), tuple(names), tuple(units)
