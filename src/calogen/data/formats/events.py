"""The padded `events` layouts of CaloClouds and CaloHadronic: zeros before each shower's points, and `energy [N, 1]`.

CaloClouds: `events [N, 4, P]` or `[N, P, 4]`, rows x, y, z, energy (GeV) in the axes of the disk frame
(`hdf5:xyz==local:yzx`): the second is the depth, given as a layer number (also between whole numbers: floor(z + 0.1))
or in mm (from the front face, or from the beam line of ILD); optional `p_norm_local [N, 3]`. CaloHadronic:
`events [N, 4 or 5, P]`, rows x mm, y (layer 0-77), z mm, energy (GeV), time (ns), P = 5000. A point of exactly zero
energy is padding. Neither names its detector or particles: ILD ECal unless given and photons, ILD unless given and
charged pions; where other particles are written, `pdg` is added.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from calogen.data.formats.hdf5 import BadFile, FilePath, blamed_on, dataset, has, plain_attributes, same_length
from calogen.data.formats.particles import IncidentColumns, IncidentRows
from calogen.data.formats.ragged import offsets_of, padded_block
from calogen.data.formats.source import Events, Extent, Sink, refuse
from calogen.data.formats.writing import extend, growing, new_file
from calogen.data.showers import Showers
from calogen.detector.catalog import ILD, ILD_ECAL, ILD_FRONT_MM
from calogen.detector.geometry import Detector

LAYER_ROUNDING = 0.1
"""A depth in layer numbers belongs to layer floor(z + 0.1), as in CaloClouds3's data sets and ShowerData."""


@dataclass(frozen=True)
class Layout:
    """What differs between the two: name, default detector and particle, and whether times may follow."""

    name: str
    detector: Detector
    pdg: int
    rows: tuple[int, ...]


CALOCLOUDS = Layout("caloclouds", ILD_ECAL, 22, (4,))
CALOHADRONIC = Layout("calohadronic", ILD, 211, (4, 5))
HADRONIC_ONLY = ("n_points_ecal", "n_points_hcal")
"""Datasets that only CaloHadronic's files have."""
Y, Z, X = 0, 1, 2
"""Rows of the disk frame that hold the local y, z (depth) and x."""
DIRECTION = "p_norm_local"


def sniff_calohadronic(file: h5py.File) -> bool:
    """Whether the file is one of CaloHadronic: it counts points per section, or keeps times."""
    if not _padded(file):
        return False
    return any(has(file, name) for name in HADRONIC_ONLY) or file["events"].shape[1] == CALOHADRONIC.rows[1]


def sniff_caloclouds(file: h5py.File) -> bool:
    """Whether the file is one of CaloClouds."""
    return _padded(file)


def _padded(file: h5py.File) -> bool:
    return has(file, "events") and has(file, "energy") and getattr(file["events"], "ndim", 0) == 3


def calohadronic_source(file: h5py.File, detector: Detector | None = None) -> EventsSource:
    """An open CaloHadronic file; ILD and charged pions unless given."""
    return EventsSource(file, CALOHADRONIC, detector)


def caloclouds_source(file: h5py.File, detector: Detector | None = None) -> EventsSource:
    """An open CaloClouds file; ILD ECal and photons unless given."""
    return EventsSource(file, CALOCLOUDS, detector)


class EventsSource:
    """An open file of one of the layouts."""

    units = "x, y mm; depth as layer number or mm; energies GeV; time ns"
    split: NDArray[Any] | None = None

    def __init__(self, file: h5py.File, layout: Layout, detector: Detector | None = None) -> None:
        self._file = file
        self._layout = layout
        self.detector = detector or layout.detector
        self.provenance = plain_attributes(file)
        self._events = dataset(file, "events", kinds="f", ndim=3)
        self._rows_first = self._events.shape[1] in layout.rows
        if not self._rows_first and self._events.shape[2] not in layout.rows:
            raise BadFile(
                f"{file.filename}: events: shape {self._events.shape} has no axis of length "
                f"{' or '.join(map(str, layout.rows))} (x, y, z, energy)"
            )
        self._incident = IncidentColumns(file, "energy", gev=1.0, default_pdg=layout.pdg, direction=DIRECTION)
        self.n_showers = self._incident.n
        same_length(file, {"events": self._events}, self.n_showers)

    def max_points(self) -> int:
        """The padded width."""
        return int(self._events.shape[2 if self._rows_first else 1])

    def load(self, start: int, stop: int) -> Events:
        """Showers `start` to `stop`."""
        with blamed_on(self._file.filename, f"showers {start} to {stop}"):
            block = self._events[start:stop].astype(np.float32, copy=False)
            if not self._rows_first:
                block = block.transpose(0, 2, 1)
            real = block[:, 3] != 0
            rows = [block[:, i][real] for i in range(block.shape[1])]
            return Showers(
                rows[X],
                rows[Y],
                layer_of(rows[Z], self.detector),
                rows[3],
                offsets_of(real.sum(axis=1)),
                self._incident.load(start, stop),
                self.detector,
                rows[4] if len(rows) > 4 else None,
            )


def layer_of(depth: NDArray[Any], detector: Detector) -> NDArray[Any]:
    """Layer of each point from its depth: layer numbers if all are below the number of layers, else mm.

    Depths in mm belong to the nearest layer; they count from the front face, or from the beam line where all are beyond
    ILD's front face.

    Raises:
        ValueError: depths that are not finite, negative or behind the last layer.
    """
    if not depth.size:
        return depth.astype(np.int16)
    low, high = float(depth.min()), float(depth.max())
    if low >= -LAYER_ROUNDING and high < detector.n_layers:
        return np.minimum(np.floor(depth + LAYER_ROUNDING), detector.n_layers - 1)
    z = detector.z_mm
    gap = float(np.diff(z).max(initial=detector.layers[0].thickness_mm))
    local = depth - ILD_FRONT_MM if low > ILD_FRONT_MM else depth
    if not (local.min() >= z[0] - gap and local.max() <= z[-1] + gap):
        raise ValueError(
            f"depths from {low:g} to {high:g} are neither layers of {detector.name!r} (0 to {detector.n_layers - 1}) "
            f"nor mm within it ({z[0]:.1f} to {z[-1]:.1f})"
        )
    return np.searchsorted((z[1:] + z[:-1]) / 2, local)


def write_calohadronic(path: FilePath, detector: Detector, **options: Any) -> Any:
    """A new CaloHadronic file (context manager of a `Sink`); options as for `write`."""
    return write(path, detector, CALOHADRONIC, **options)


def write_caloclouds(path: FilePath, detector: Detector, **options: Any) -> Any:
    """A new CaloClouds file (context manager of a `Sink`); options as for `write`."""
    return write(path, detector, CALOCLOUDS, **options)


@contextmanager
def write(
    path: FilePath,
    detector: Detector,
    layout: Layout,
    *,
    extent: Extent,
    overwrite: bool = False,
    provenance: dict[str, Any] | None = None,
) -> Iterator[Sink]:
    """A new file of a layout, padded to `extent.max_points`; the depth is written as layer number.

    Raises:
        ValueError: an existing file without `overwrite`, voxels, points of zero energy, times in CaloClouds' layout.
    """
    with new_file(path, overwrite=overwrite) as file:
        incident = IncidentRows(file, "energy", gev=1.0, default_pdg=layout.pdg, direction=DIRECTION)
        counts = growing(file, "n_points", (), np.int32)
        hadronic = [growing(file, name, (), np.int32) for name in HADRONIC_ONLY if layout is CALOHADRONIC]
        is_ecal = np.array([layer.section == "ecal" for layer in detector.layers])

        def append(events: Events) -> None:
            if not isinstance(events, Showers):
                refuse(path, "voxels", f"format {layout.name} holds points; turn them into points first")
            rows = [events.y, events.layer, events.x, events.energy]
            if events.time is not None:
                rows.append(events.time)
            if len(rows) not in layout.rows:
                refuse(path, "times", f"format {layout.name} has no place for them")
            block = padded_block(events, rows, extent.max_points, front=True).transpose(0, 2, 1)
            if "events" not in file:
                growing(file, "events", block.shape[1:], np.float32)
            extend(file["events"], block)
            incident.append(events.incident)
            extend(counts, events.counts)
            per_layer = events.counts_per_layer if hadronic else None
            for rows_of, inside in zip(hadronic, (is_ecal, ~is_ecal), strict=False):
                extend(rows_of, per_layer[:, inside].sum(axis=1) if per_layer is not None else events.counts)

        yield Sink(append)
