"""Voxels written as the layouts of others keep them: one row of MeV a shower, beside its incident particle."""

from __future__ import annotations

import h5py
import numpy as np

from calogen.data.formats.hdf5 import FilePath
from calogen.data.formats.particles import IncidentRows
from calogen.data.formats.source import Events, Sink, refuse
from calogen.data.formats.writing import extend
from calogen.data.voxels import Voxels
from calogen.units import MEV_PER_GEV


def voxel_sink(path: FilePath, format: str, incident: IncidentRows, cells: h5py.Dataset) -> Sink:
    """A sink that adds voxels to `cells [N, ...]` (whatever the shape of its rows) and particles to `incident`."""

    def append(events: Events) -> None:
        if not isinstance(events, Voxels):
            refuse(path, "points", f"format {format} holds voxels; project them first")
        incident.append(events.incident)
        extend(cells, events.energy.reshape(-1, *cells.shape[1:]) * np.float32(MEV_PER_GEV))

    return Sink(append)
