"""The compact layout of Geant4 sets: 0.1 mm integers and MeV in plain gzip HDF5 (`x_01mm`, `energy_mev`, ...).

Points: `offsets [N+1]`, `layer [P]`, `x_01mm`, `y_01mm` (int16, 0.1 mm from the entry point), `energy_mev [P]`. Voxels:
`ds2 [N, 6480]`, `ds3 [N, 40500]` in MeV (order layer, angle, radius). Both with `pdg`, `energy_gev`, `direction` and
an optional `split` (0 train, 1 validation, 2 test). The attribute `stack` names the detector.
"""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from calogen.data.formats.hdf5 import BadFile, blamed_on, dataset, has, plain_attributes, same_length
from calogen.data.formats.precision import decode_position
from calogen.data.formats.ragged import check_offsets
from calogen.data.formats.source import Events
from calogen.data.incident import Incident
from calogen.data.showers import Showers
from calogen.data.voxels import Voxels
from calogen.detector.catalog import CALOCHALLENGE_2, CALOCHALLENGE_3, CATALOG, ILD, ILD_ECAL
from calogen.detector.geometry import Detector
from calogen.units import GEV_PER_MEV

NAME = "compact"
VOXEL_SETS = {"ds2": CALOCHALLENGE_2, "ds3": CALOCHALLENGE_3}
STACKS = {"ild": ILD, "ild-ecal": ILD_ECAL}
DEFAULT_DETECTOR = ILD
POINT_COLUMNS = ("x_01mm", "y_01mm", "layer", "energy_mev")


def sniff(file: h5py.File) -> bool:
    """Whether the file has this layout."""
    return has(file, "energy_gev") and (has(file, "x_01mm") or any(has(file, name) for name in VOXEL_SETS))


class CompactSource:
    """An open file of this layout.

    The detector is the one given, else that of the attribute `stack`, else ILD; files of voxels give data set 2
    unless `detector` is that of data set 3.
    """

    units = "x, y 0.1 mm; point and voxel energies MeV; incident energies GeV"

    def __init__(self, file: h5py.File, detector: Detector | None = None) -> None:
        self._file = file
        self.provenance = plain_attributes(file)
        self._incident = {
            "energy_gev": dataset(file, "energy_gev", ndim=1),
            "direction": dataset(file, "direction", ndim=2),
            "pdg": dataset(file, "pdg", kinds="iu", ndim=1),
        }
        self.n_showers = int(self._incident["energy_gev"].shape[0])
        self.split = _split(file, self.n_showers)
        same_length(file, self._incident, self.n_showers)
        self._voxels = _voxel_set(file, detector)
        if self._voxels is None:
            self._open_points(file)
            self.detector = detector or STACKS.get(str(self.provenance.get("stack")), DEFAULT_DETECTOR)
        else:
            self.detector = VOXEL_SETS[self._voxels]
            self._cells = dataset(file, self._voxels, kinds="f", ndim=2)
            same_length(file, {self._voxels: self._cells}, self.n_showers)

    def _open_points(self, file: h5py.File) -> None:
        self._points = {name: dataset(file, name, ndim=1) for name in POINT_COLUMNS}
        same_length(file, self._points, self._points["x_01mm"].shape[0])
        self._offsets = dataset(file, "offsets", kinds="iu", ndim=1)
        same_length(file, {"offsets": self._offsets}, self.n_showers + 1)

    def load(self, start: int, stop: int) -> Events:
        """Showers `start` to `stop`."""
        with blamed_on(self._file.filename, f"showers {start} to {stop}"):
            incident = Incident(
                self._incident["energy_gev"][start:stop],
                self._incident["direction"][start:stop],
                self._incident["pdg"][start:stop],
            )
            if self._voxels is not None:
                return Voxels(self._cells[start:stop] * np.float32(GEV_PER_MEV), incident, self.detector)
            return self._load_points(start, stop, incident)

    def _load_points(self, start: int, stop: int, incident: Incident) -> Showers:
        offsets = self._offsets[start : stop + 1].astype(np.int64)
        check_offsets(offsets, self._points["x_01mm"].shape[0])
        part = slice(int(offsets[0]), int(offsets[-1]))
        return Showers(
            decode_position(self._points["x_01mm"][part]),
            decode_position(self._points["y_01mm"][part]),
            self._points["layer"][part],
            self._points["energy_mev"][part] * np.float32(GEV_PER_MEV),
            offsets - offsets[0],
            incident,
            self.detector,
        )


def _split(file: h5py.File, n: int) -> NDArray[Any] | None:
    if not has(file, "split"):
        return None
    found = dataset(file, "split", kinds="iu", ndim=1)
    same_length(file, {"split": found}, n)
    values: NDArray[Any] = found[:]
    return values


def _voxel_set(file: h5py.File, detector: Detector | None) -> str | None:
    present = [name for name in VOXEL_SETS if has(file, name)]
    if not present:
        return None
    if detector is None:
        return present[0]
    for name in present:
        if VOXEL_SETS[name] == detector:
            return name
    raise BadFile(
        f"{file.filename}: holds voxels {', '.join(present)}, none of detector {detector.name!r}; "
        f"use one of {', '.join(d.name for d in VOXEL_SETS.values() if d.name in CATALOG)}"
    )
