"""The compact layout of Geant4 sets: 0.1 mm integers and MeV in plain gzip HDF5 (`x_01mm`, `energy_mev`, ...).

Points: `offsets [N+1]`, `layer [P]`, `x_01mm`, `y_01mm` (int16, 0.1 mm from the entry point), `energy_mev [P]`. Voxels:
`ds2 [N, 6480]`, `ds3 [N, 40500]` in MeV (order layer, angle, radius). Both with `pdg`, `energy_gev`, `direction` and
an optional `split` (0 train, 1 validation, 2 test). The attribute `stack` names the detector.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from calogen.data.formats.hdf5 import BadFile, FilePath, blamed_on, dataset, has, plain_attributes, same_length
from calogen.data.formats.precision import decode_position, encode_position
from calogen.data.formats.ragged import check_offsets, largest_step
from calogen.data.formats.source import Events, Extent, Sink, refuse
from calogen.data.formats.writing import extend, growing, new_file
from calogen.data.incident import Incident
from calogen.data.showers import Showers
from calogen.data.voxels import Voxels
from calogen.detector.catalog import CALOCHALLENGE_2, CALOCHALLENGE_3, CATALOG, ILD, ILD_ECAL
from calogen.detector.geometry import Detector
from calogen.units import GEV_PER_MEV, MEV_PER_GEV

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
            self.detector = _stack_detector(file, self.provenance.get("stack"), detector)
        else:
            self.detector = VOXEL_SETS[self._voxels]
            self._cells = dataset(file, self._voxels, kinds="f", ndim=2)
            same_length(file, {self._voxels: self._cells}, self.n_showers)

    def _open_points(self, file: h5py.File) -> None:
        self._points = {name: dataset(file, name, ndim=1) for name in POINT_COLUMNS}
        same_length(file, self._points, self._points["x_01mm"].shape[0])
        self._offsets = dataset(file, "offsets", kinds="iu", ndim=1)
        same_length(file, {"offsets": self._offsets}, self.n_showers + 1)

    def max_points(self) -> int:
        """Points of the largest shower (0 for voxels)."""
        return largest_step(self._offsets) if self._voxels is None else 0

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


def _stack_detector(file: h5py.File, stack: Any, given: Detector | None) -> Detector:
    stored = STACKS.get(str(stack))
    if stored is not None and given is not None and stored != given:
        raise BadFile(f"{file.filename}: showers of detector {stored.name!r}, where {given.name!r} is expected")
    return given or stored or DEFAULT_DETECTOR


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


@contextmanager
def write(
    path: FilePath,
    detector: Detector,
    *,
    overwrite: bool = False,
    extent: Extent | None = None,
    provenance: dict[str, Any] | None = None,
) -> Iterator[Sink]:
    """A new file of this layout: points of ILD or its ECal (positions rounded to 0.1 mm), or voxels (`ds2`, `ds3`).

    Raises:
        ValueError: an existing file without `overwrite`, another detector, times.
    """
    stacks = {d.name: name for name, d in STACKS.items()}
    voxel_sets = {d.name: name for name, d in VOXEL_SETS.items()}
    if detector not in (*STACKS.values(), *VOXEL_SETS.values()):
        refuse(path, f"detector {detector.name!r}", f"format {NAME} knows {', '.join((*stacks, *voxel_sets))}")
    with new_file(path, overwrite=overwrite) as file:
        for name, value in (provenance or {}).items():
            file.attrs[name] = value if isinstance(value, int | float | str) else json.dumps(value, default=str)
        file.attrs["stack"] = stacks.get(detector.name, "par04")
        rows = {
            "energy_gev": growing(file, "energy_gev", (), np.float32),
            "direction": growing(file, "direction", (3,), np.float32),
            "pdg": growing(file, "pdg", (), np.int32),
        }
        add = _voxel_adder(file, voxel_sets[detector.name]) if detector.name in voxel_sets else _point_adder(file)

        def append(events: Events) -> None:
            if isinstance(events, Voxels) != (detector.name in voxel_sets):
                refuse(path, type(events).__name__.lower(), f"format {NAME} keeps this detector otherwise")
            if isinstance(events, Showers) and events.time is not None:
                refuse(path, "times", f"format {NAME} has no place for them")
            add(events)
            extend(rows["energy_gev"], events.incident.energy)
            extend(rows["direction"], events.incident.direction)
            extend(rows["pdg"], events.incident.pdg)

        yield Sink(append)


def _voxel_adder(file: h5py.File, name: str) -> Callable[[Any], None]:
    cells = growing(file, name, (VOXEL_SETS[name].n_cells,), np.float32)

    def add(voxels: Voxels) -> None:
        extend(cells, voxels.energy * np.float32(MEV_PER_GEV))

    return add


def _point_adder(file: h5py.File) -> Callable[[Any], None]:
    types = {"x_01mm": np.int16, "y_01mm": np.int16, "layer": np.uint8, "energy_mev": np.float32}
    columns = {name: growing(file, name, (), dtype) for name, dtype in types.items()}
    offsets = growing(file, "offsets", (), np.int64)
    extend(offsets, np.zeros(1, np.int64))

    def add(showers: Showers) -> None:
        first = columns["layer"].shape[0]
        extend(columns["x_01mm"], encode_position(showers.x))
        extend(columns["y_01mm"], encode_position(showers.y))
        extend(columns["layer"], showers.layer)
        extend(columns["energy_mev"], showers.energy * np.float32(MEV_PER_GEV))
        extend(offsets, showers.offsets[1:] + first)

    return add
