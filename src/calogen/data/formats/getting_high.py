"""The Getting High layout: group `30x30` with `energy [N, 1]` (GeV) and `layers [N, 30, 30, 30]` (MeV; layer, x, y).

Perpendicular photons in the 30 x 30 x 30 box; where others are written, `direction` and `pdg` are added to the group.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from calogen.data.formats.hdf5 import BadFile, FilePath, blamed_on, dataset, has, plain_attributes, same_length
from calogen.data.formats.particles import IncidentColumns, IncidentRows
from calogen.data.formats.source import Events, Extent, Sink, refuse
from calogen.data.formats.voxel_rows import voxel_sink
from calogen.data.formats.writing import growing, new_file
from calogen.data.voxels import Voxels
from calogen.detector.catalog import BOX_30
from calogen.detector.geometry import Detector
from calogen.units import GEV_PER_MEV

NAME = "getting-high"
GROUP = "30x30"
GRID = (30, 30, 30)
PDG = 22


def sniff(file: h5py.File) -> bool:
    """Whether the file has this layout."""
    return has(file, f"{GROUP}/layers") and has(file, f"{GROUP}/energy")


class GettingHighSource:
    """An open file of this layout; the detector is the box unless one of the same grid is given."""

    units = "incident energies GeV; voxel energies MeV"
    split: NDArray[Any] | None = None

    def __init__(self, file: h5py.File, detector: Detector | None = None) -> None:
        self._file = file
        self.provenance = plain_attributes(file)
        self.detector = detector or BOX_30
        self._cells = dataset(file, f"{GROUP}/layers", kinds="f", ndim=4)
        if self._cells.shape[1:] != GRID or self.detector.n_cells != np.prod(GRID):
            raise BadFile(
                f"{file.filename}: {GROUP}/layers: cells {self._cells.shape[1:]} do not fit {self.detector.name!r} "
                f"with {self.detector.n_cells} cells; expected {GRID}"
            )
        self._incident = IncidentColumns(
            file, f"{GROUP}/energy", gev=1.0, default_pdg=PDG, direction=f"{GROUP}/direction", pdg=f"{GROUP}/pdg"
        )
        self.n_showers = self._incident.n
        same_length(file, {f"{GROUP}/layers": self._cells}, self.n_showers)

    def max_points(self) -> int:
        """No points: 0."""
        return 0

    def load(self, start: int, stop: int) -> Events:
        """Showers `start` to `stop`."""
        with blamed_on(self._file.filename, f"showers {start} to {stop}"):
            cells = self._cells[start:stop].reshape(stop - start, -1)
            return Voxels(cells * np.float32(GEV_PER_MEV), self._incident.load(start, stop), self.detector)


@contextmanager
def write(
    path: FilePath,
    detector: Detector,
    *,
    overwrite: bool = False,
    extent: Extent | None = None,
    provenance: dict[str, Any] | None = None,
) -> Iterator[Sink]:
    """A new file of this layout for voxels of a 30 x 30 x 30 box.

    Raises:
        ValueError: an existing file without `overwrite`, showers that are not voxels, or another grid.
    """
    if detector.n_cells != np.prod(GRID):
        refuse(path, f"voxels of {detector.name!r}", f"format {NAME} has {GRID} cells")
    with new_file(path, overwrite=overwrite) as file:
        incident = IncidentRows(
            file, f"{GROUP}/energy", gev=1.0, default_pdg=PDG, direction=f"{GROUP}/direction", pdg=f"{GROUP}/pdg"
        )
        yield voxel_sink(path, NAME, incident, growing(file, f"{GROUP}/layers", GRID, np.float32))
