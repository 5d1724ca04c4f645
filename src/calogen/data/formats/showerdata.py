"""ShowerData files (PyPI `showerdata`), read and written through that library.

Points are (x mm, y mm, layer, energy GeV[, time ns]); energies GeV; directions in the local frame. The detector is not
in the file: ILD (78 layers) unless given.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import showerdata
from numpy.typing import NDArray

from calogen.data.formats import heaps
from calogen.data.formats.hdf5 import (
    BadFile,
    FilePath,
    blamed_on,
    dataset,
    has,
    plain_attributes,
    same_length,
)
from calogen.data.formats.ragged import offsets_of, padded_block
from calogen.data.formats.source import Events, Extent, Sink, refuse
from calogen.data.formats.writing import replacing, require_room
from calogen.data.incident import Incident
from calogen.data.showers import Showers
from calogen.detector.catalog import ILD
from calogen.detector.geometry import Detector

NAME = "showerdata"
LAYER_ROUNDING = 0.1
"""ShowerData takes int(z + 0.1) for the layer of a point."""
COLUMNS = 4
POINT_ITEM_BYTES = 4
COLUMNS_WITH_TIME = 5


def sniff(file: h5py.File) -> bool:
    """Whether the file has this layout."""
    return has(file, "showers") and has(file, "num_points") and has(file, "energies")


class ShowerDataSource:
    """An open file of this layout; its detector is ILD unless given."""

    units = "x, y mm; layer; energies GeV; time ns"
    split: NDArray[Any] | None = None

    def __init__(self, file: h5py.File, detector: Detector | None = None) -> None:
        self._file = file
        self.detector = detector or ILD
        self.provenance = plain_attributes(file)
        self._counts = dataset(file, "num_points", kinds="iu", ndim=1)
        self.n_showers = int(self._counts.shape[0])
        others = {
            "showers": dataset(file, "showers", kinds="O", ndim=1),
            "energies": dataset(file, "energies", kinds="f", ndim=2),
            "directions": dataset(file, "directions", kinds="f", ndim=2),
            "pdg": dataset(file, "pdg", kinds="iu", ndim=1),
            "shower_ids": dataset(file, "shower_ids", kinds="iu", ndim=1),
        }
        same_length(file, others, self.n_showers)
        if h5py.check_vlen_dtype(others["showers"].dtype) != np.float32:
            raise BadFile(
                f"{file.filename}: showers: expected variable-length float32, found {others['showers'].dtype}"
            )
        self._check_shape(file)
        self._place = others["showers"].id.get_offset()
        if self._place is None:
            raise BadFile(f"{file.filename}: showers: not stored in one piece; write the file again with showerdata")

    def _check_shape(self, file: h5py.File) -> None:
        found = dataset(file, "shape", kinds="iu", ndim=1)
        shape = tuple(int(v) for v in found[:]) if found.shape == (3,) else ()
        widest = self.max_points()
        if len(shape) != 3 or shape[0] != self.n_showers or shape[2] not in (COLUMNS, COLUMNS_WITH_TIME):
            raise BadFile(
                f"{file.filename}: shape: {shape} does not describe {self.n_showers} showers of 4 or 5 columns"
            )
        self._columns = shape[2]
        stored = Path(file.filename).stat().st_size
        if shape[1] < widest or np.any(self._counts[:] < 0) or widest * COLUMNS * 4 > stored:
            raise BadFile(
                f"{file.filename}: num_points: up to {widest} points a shower do not fit shape {shape} or the file"
            )

    def max_points(self) -> int:
        """Points of the largest shower."""
        return int(self._counts[:].max(initial=0))

    def _check_points(self, start: int, counts: NDArray[np.int64]) -> None:
        """Refuse references to points that are damaged or of unannounced lengths, before HDF5 follows them."""
        with open(self._file.filename, "rb") as raw:
            raw.seek(self._place + start * heaps.REFERENCE.itemsize)
            references = np.frombuffer(raw.read(len(counts) * heaps.REFERENCE.itemsize), heaps.REFERENCE)
        different = np.flatnonzero(references["length"] != counts * self._columns)
        if len(different):
            i = int(different[0])
            raise ValueError(
                f"num_points of shower {start + i} is {counts[i]}, but it holds {references['length'][i]} numbers "
                f"({self._columns} a point)"
            )
        heaps.check_references(self._file.filename, references, POINT_ITEM_BYTES)

    def load(self, start: int, stop: int) -> Events:
        """Showers `start` to `stop`."""
        with blamed_on(self._file.filename, f"showers {start} to {stop}"):
            counts = self._counts[start:stop].astype(np.int64)
            width = int(counts.max(initial=0))
            self._check_points(start, counts)
            loaded = showerdata.load(self._file.filename, start, stop, max_points=width)
            points = loaded.points[np.arange(width) < counts[:, None]]
            layer = np.floor(points[:, 2] + LAYER_ROUNDING)
            return Showers(
                points[:, 0],
                points[:, 1],
                layer,
                points[:, 3],
                offsets_of(counts),
                Incident(loaded.energies[:, 0], loaded.directions, loaded.pdg),
                self.detector,
                points[:, 4] if points.shape[1] == COLUMNS_WITH_TIME else None,
            )


@contextmanager
def write(
    path: FilePath,
    detector: Detector,
    *,
    extent: Extent,
    overwrite: bool = False,
    provenance: dict[str, Any] | None = None,
) -> Iterator[Sink]:
    """A new file of this layout for `extent.n_showers` showers of at most `extent.max_points` points.

    Raises:
        ValueError: an existing file without `overwrite`, voxels, points of zero energy.
    """
    with replacing(path, overwrite=overwrite) as temporary:
        written = 0

        def append(events: Events) -> None:
            nonlocal written
            if not isinstance(events, Showers):
                refuse(path, "voxels", f"format {NAME} holds points; turn them into points first")
            batch = _as_showerdata(events, extent.max_points)
            require_room(temporary, batch.points.nbytes)
            if not written:
                shape = (extent.n_showers, extent.max_points, batch.points.shape[2])
                showerdata.create_empty_file(temporary, shape)
            showerdata.save_batch(batch, temporary, written)
            written += len(events)

        yield Sink(append)
        if written != extent.n_showers:
            raise ValueError(f"{path}: announced {extent.n_showers} showers, got {written}")


def _as_showerdata(showers: Showers, width: int) -> showerdata.Showers:
    columns = [showers.x, showers.y, showers.layer, showers.energy]
    if showers.time is not None:
        columns.append(showers.time)
    return showerdata.Showers(
        points=padded_block(showers, columns, width, front=False),
        energies=showers.incident.energy[:, None],
        directions=showers.incident.direction,
        pdg=showers.incident.pdg,
        num_points=showers.counts,
    )
