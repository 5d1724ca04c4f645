"""CaloChallenge HDF5 (arXiv:2410.21611): `incident_energies [N, 1]` and `showers [N, cells]`, both in MeV.

The number of cells tells the data set: 368 (1, photons), 533 (1, pions), 6480 (2) or 40500 (3); cells in the order
layer, angle, radius. Particles are perpendicular photons, charged pions and electrons; where others are written, the
datasets `direction` and `pdg` are added.
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
from calogen.data.formats.source import Events, Extent, Sink
from calogen.data.formats.voxel_rows import voxel_sink
from calogen.data.formats.writing import growing, new_file
from calogen.data.voxels import Voxels
from calogen.detector.catalog import CALOCHALLENGE_1_PHOTONS, CALOCHALLENGE_1_PIONS, CALOCHALLENGE_2, CALOCHALLENGE_3
from calogen.detector.geometry import Detector
from calogen.units import GEV_PER_MEV, MEV_PER_GEV

NAME = "calochallenge"
PARTICLES = {
    CALOCHALLENGE_1_PHOTONS.name: 22,
    CALOCHALLENGE_1_PIONS.name: 211,
    CALOCHALLENGE_2.name: 11,
    CALOCHALLENGE_3.name: 11,
}
DETECTORS = {d.n_cells: d for d in (CALOCHALLENGE_1_PHOTONS, CALOCHALLENGE_1_PIONS, CALOCHALLENGE_2, CALOCHALLENGE_3)}
LEAST_MEDIAN_MEV = 200.0
"""The challenge starts at 256 MeV; energies whose median is below are in GeV by the looks of it."""


def sniff(file: h5py.File) -> bool:
    """Whether the file has this layout."""
    return has(file, "incident_energies") and has(file, "showers")


class CaloChallengeSource:
    """An open file of one of the four data sets (or of `detector`, if its cells are as many).

    Raises:
        BadFile: a number of cells that is none of them.
    """

    units = "MeV (incident and voxel energies)"
    split: NDArray[Any] | None = None

    def __init__(self, file: h5py.File, detector: Detector | None = None) -> None:
        self._file = file
        self.provenance = plain_attributes(file)
        self._cells = dataset(file, "showers", kinds="f", ndim=2)
        n_cells = int(self._cells.shape[1])
        if detector is None and n_cells not in DETECTORS:
            known = ", ".join(f"{n} ({d.name})" for n, d in DETECTORS.items())
            raise BadFile(f"{file.filename}: showers: {n_cells} cells are no data set; known: {known}")
        self.detector = detector or DETECTORS[n_cells]
        if self.detector.n_cells != n_cells:
            raise BadFile(
                f"{file.filename}: showers: {n_cells} cells, but {self.detector.name!r} has {self.detector.n_cells}"
            )
        self._incident = IncidentColumns(
            file, "incident_energies", gev=GEV_PER_MEV, default_pdg=PARTICLES.get(self.detector.name, 11)
        )
        self.n_showers = self._incident.n
        same_length(file, {"showers": self._cells}, self.n_showers)

    def max_points(self) -> int:
        """No points: 0."""
        return 0

    def load(self, start: int, stop: int) -> Events:
        """Showers `start` to `stop`."""
        with blamed_on(self._file.filename, f"showers {start} to {stop}"):
            incident = self._incident.load(start, stop)
            if np.median(incident.energy) * MEV_PER_GEV < LEAST_MEDIAN_MEV:
                raise ValueError(
                    f"incident energies around {np.median(incident.energy) * MEV_PER_GEV:g} MeV look like GeV; "
                    "this format keeps MeV"
                )
            return Voxels(self._cells[start:stop] * np.float32(GEV_PER_MEV), incident, self.detector)


@contextmanager
def write(
    path: FilePath,
    detector: Detector,
    *,
    overwrite: bool = False,
    extent: Extent | None = None,
    provenance: dict[str, Any] | None = None,
) -> Iterator[Sink]:
    """A new file of this layout for voxels of any detector.

    Raises:
        ValueError: an existing file without `overwrite`, or showers that are not voxels.
    """
    with new_file(path, overwrite=overwrite) as file:
        pdg = PARTICLES.get(detector.name, 11)
        incident = IncidentRows(file, "incident_energies", gev=GEV_PER_MEV, default_pdg=pdg)
        yield voxel_sink(path, NAME, incident, growing(file, "showers", (detector.n_cells,), np.float32))
