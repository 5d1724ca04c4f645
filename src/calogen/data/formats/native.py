"""calogen's own HDF5: columns of points with offsets, compressed, checksummed, extended shard by shard.

Layout (format version 1): attributes `format`, `format_version`, `kind` (points or voxels), `precision`,
`detector` (JSON), `provenance` (JSON), `units`; datasets `incident/energy [N]` GeV, `incident/direction [N, 3]`,
`incident/pdg [N]`. Points: `offsets [N+1]` and one group a column, `points/x`, `y` (mm), `layer`, `energy` (GeV)
and optionally `time` (ns), whose `bytes` are frames of 65,536 points (see `frames`) and whose `index [frames, 3]`
gives for each its first byte, its number of bytes and their checksum. Voxels: `voxels/energy [N, cells]` GeV.

All checksums (word sums of frames, Fletcher-32 of the other datasets, those of the HDF5 1.10 metadata) are verified on
reading. With `precision="compact"` positions are kept to 0.1 mm and energies to 0.05 %; else nothing is lost.
"""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from calogen.data.formats import columns
from calogen.data.formats.hdf5 import (
    BadFile,
    FilePath,
    blamed_on,
    dataset,
    fixed_text,
    has,
    json_attribute,
    same_length,
    text_attribute,
)
from calogen.data.formats.precision import PRECISIONS, Precision
from calogen.data.formats.ragged import check_offsets, largest_step
from calogen.data.formats.source import Events, Extent
from calogen.data.formats.writing import LIBRARY_VERSIONS, extend, replacing
from calogen.data.incident import Incident
from calogen.data.showers import Showers
from calogen.data.voxels import Voxels
from calogen.detector.geometry import Detector

NAME = "calogen"
FORMAT_VERSION = 1
UNITS = "x, y mm; energy GeV; time ns; incident energy GeV"

CHUNK_SHOWERS = 4096
"""Rows a chunk of the incident columns and offsets."""
CHUNK_VOXEL_BYTES = 1 << 20
"""Aim for the chunks of voxels: whole showers, about 1 MiB."""

DEFLATE_LEVEL = 4  # for all but the points; higher levels take longer and gain a few per cent

INCIDENT = {"energy": np.float32, "direction": np.float32, "pdg": np.int32}
POINT_COLUMNS = ("x", "y", "layer", "energy")
TIME = "time"


def sniff(file: h5py.File) -> bool:
    """Whether the file is one of ours."""
    return text_attribute(file, "format") == NAME


class NativeSource:
    """An open file of ours.

    Raises:
        BadFile: a newer version, or anything missing or inconsistent.
    """

    units = UNITS
    split: NDArray[Any] | None = None

    def __init__(self, file: h5py.File, detector: Detector | None = None) -> None:
        self._file = file
        version = file.attrs.get("format_version")
        if version != FORMAT_VERSION:
            raise BadFile(f"{file.filename}: format version {version}; this calogen reads version {FORMAT_VERSION}")
        self.detector = _stored_detector(file, detector)
        self.provenance = json_attribute(file, "provenance") or {}
        self.precision = _stored_precision(file)
        self._incident = {k: dataset(file, f"incident/{k}", ndim=2 if k == "direction" else 1) for k in INCIDENT}
        self.n_showers = int(self._incident["energy"].shape[0])
        same_length(file, self._incident, self.n_showers)
        self.kind = text_attribute(file, "kind")
        if self.kind == "voxels":
            self._cells = dataset(file, "voxels/energy", kinds="f", ndim=2)
            same_length(file, {"voxels/energy": self._cells}, self.n_showers)
        else:
            self._open_points(file)

    def _open_points(self, file: h5py.File) -> None:
        self._offsets = dataset(file, "offsets", kinds="iu", ndim=1)
        same_length(file, {"offsets": self._offsets}, self.n_showers + 1)
        names = POINT_COLUMNS + ((TIME,) if has(file, f"points/{TIME}") else ())
        stored = {k: self.precision.stored(k) for k in names}
        self._points = columns.ColumnReader(file, stored, n_points=int(self._offsets[-1]))

    def max_points(self) -> int:
        """Points of the largest shower (0 for voxels)."""
        return 0 if self.kind == "voxels" else largest_step(self._offsets)

    def load(self, start: int, stop: int) -> Events:
        """Showers `start` to `stop`; decodes only the chunks they lie in."""
        with blamed_on(self._file.filename, f"showers {start} to {stop}"):
            incident = Incident(**{k: d[start:stop] for k, d in self._incident.items()})
            if self.kind == "voxels":
                return Voxels(self._cells[start:stop], incident, self.detector)
            offsets = self._offsets[start : stop + 1].astype(np.int64)
            check_offsets(offsets, self._points.n_points)
            stored = self._points.load(int(offsets[0]), int(offsets[-1]))
            values = {k: self.precision.decode(k, v) for k, v in stored.items()}
            return Showers(**values, offsets=offsets - offsets[0], incident=incident, detector=self.detector)


def _stored_detector(file: h5py.File, expected: Detector | None) -> Detector:
    description = json_attribute(file, "detector")
    if not isinstance(description, dict):
        raise BadFile(f"{file.filename}: attribute detector: missing or not a JSON object")
    with blamed_on(file.filename, "attribute detector"):
        stored = Detector.from_dict(description)
    if expected is not None and stored != expected:
        raise BadFile(f"{file.filename}: showers of detector {stored.name!r}, where {expected.name!r} is expected")
    return stored


def _stored_precision(file: h5py.File) -> Precision:
    name = text_attribute(file, "precision")
    if name not in PRECISIONS:
        raise BadFile(f"{file.filename}: attribute precision: {name!r} is not one of {', '.join(PRECISIONS)}")
    return PRECISIONS[name]


class Writer:
    """Showers or voxels written batch by batch; the file appears under its name when the block ends well.

    Args:
        path: the file.
        detector: detector of all batches.
        provenance: command, seed, versions: whatever JSON holds; kept in the header.
        precision: `exact` (lossless) or `compact` (positions to 0.1 mm, energies to 0.05 %).
        overwrite: replace an existing file.
        extent: not needed here (other formats must know their size beforehand).
        append: extend an existing file (a copy of it, which takes its place at the end: a crash loses nothing).

    >>> import tempfile; from pathlib import Path
    >>> from calogen import ILD_ECAL, Incident, Showers
    >>> one = Showers([0.5], [0.0], [3], [1e-3], [0, 1], Incident.gun(1), ILD_ECAL)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with Writer(Path(folder) / "one.h5", ILD_ECAL, provenance={"seed": 1}) as w:
    ...         w.append(one)

    Raises:
        ValueError: an existing file without `overwrite`, a folder that does not exist, batches of another detector.
    """

    def __init__(
        self,
        path: FilePath,
        detector: Detector,
        *,
        provenance: dict[str, Any] | None = None,
        precision: str = "exact",
        overwrite: bool = False,
        append: bool = False,
        extent: Extent | None = None,
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"precision {precision!r} is unknown; use {' or '.join(PRECISIONS)}")
        self._path = Path(path)
        self._detector = detector
        self._provenance = provenance or {}
        self._precision = PRECISIONS[precision]
        self._extends = append and self._path.exists()
        self._overwrite = overwrite or self._extends
        self._kind: str | None = None
        self._n_points = 0
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            temporary = stack.enter_context(replacing(self._path, overwrite=self._overwrite))
            if self._extends:
                shutil.copyfile(self._path, temporary)
            self._file = stack.enter_context(
                h5py.File(temporary, "r+" if self._extends else "w", libver=LIBRARY_VERSIONS)
            )
            if self._extends:
                self._resume()
            else:
                self._start()
            stack.push(self._finish)
            self._cleanup = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.__exit__(kind, error, trace)

    def _finish(self, kind: type[BaseException] | None, *_: Any) -> None:
        if kind is not None:
            return
        if self._kind is None:
            self._create_points(timed=False)
        if self._kind == "points":
            self._columns.finish()

    def append(self, events: Events) -> None:
        """Add a batch of showers (or of voxels; a file holds one of the two)."""
        if events.detector != self._detector:
            raise ValueError(
                f"{self._path}: showers of detector {events.detector.name!r} do not belong into a file of "
                f"{self._detector.name!r}"
            )
        kind = "voxels" if isinstance(events, Voxels) else "points"
        if self._kind is None:
            if isinstance(events, Showers):
                self._create_points(timed=events.time is not None)
            else:
                self._create_voxels()
        if kind != self._kind:
            raise ValueError(f"{self._path}: a file of {self._kind} takes no {kind}")
        if isinstance(events, Showers):
            self._append_points(events)
        else:
            extend(self._file["voxels/energy"], events.energy)
        for name in INCIDENT:
            extend(self._file[f"incident/{name}"], getattr(events.incident, name))

    def _start(self) -> None:
        attributes = self._file.attrs
        attributes["format"] = fixed_text(NAME)
        attributes["format_version"] = FORMAT_VERSION
        attributes["precision"] = fixed_text(self._precision.name)
        attributes["units"] = fixed_text(UNITS)
        attributes["detector"] = fixed_text(json.dumps(self._detector.to_dict()))
        attributes["provenance"] = fixed_text(json.dumps(self._provenance, default=str))
        for name, dtype in INCIDENT.items():
            _create_rows(self._file, f"incident/{name}", (3,) if name == "direction" else (), dtype, CHUNK_SHOWERS)

    def _resume(self) -> None:
        source = NativeSource(self._file, self._detector)
        if source.precision.name != self._precision.name:
            raise ValueError(
                f"{self._path}: kept with precision {source.precision.name!r}, not {self._precision.name!r}"
            )
        self._kind = source.kind
        if self._kind == "points":
            self._n_points = int(self._file["offsets"][-1])
            timed = has(self._file, f"points/{TIME}")
            self._columns = columns.ColumnWriter(
                self._file, self._column_types(timed=timed), self._precision.target_share, self._n_points
            )

    def _column_types(self, *, timed: bool) -> dict[str, np.dtype[Any]]:
        return {name: self._precision.stored(name) for name in POINT_COLUMNS + ((TIME,) if timed else ())}

    def _create_points(self, *, timed: bool) -> None:
        self._kind = "points"
        self._file.attrs["kind"] = fixed_text(self._kind)
        self._columns = columns.ColumnWriter(self._file, self._column_types(timed=timed), self._precision.target_share)
        for name in self._columns.types:
            self._file[f"points/{name}"].attrs["meaning"] = fixed_text(self._precision.meaning(name))
        _create_rows(self._file, "offsets", (), np.int64, CHUNK_SHOWERS)
        extend(self._file["offsets"], np.zeros(1, np.int64))

    def _create_voxels(self) -> None:
        self._kind = "voxels"
        self._file.attrs["kind"] = fixed_text(self._kind)
        n_cells = self._detector.n_cells
        rows = max(1, CHUNK_VOXEL_BYTES // (n_cells * np.dtype(np.float32).itemsize))
        _create_rows(self._file, "voxels/energy", (n_cells,), np.float32, rows)

    def _append_points(self, showers: Showers) -> None:
        if (TIME in self._columns.types) != (showers.time is not None):
            raise ValueError(f"{self._path}: showers with times and without do not mix in one file")
        with blamed_on(self._path, f"precision {self._precision.name}"):
            values = {k: self._precision.encode(k, getattr(showers, k)) for k in self._columns.types}
        self._columns.append(values)
        extend(self._file["offsets"], showers.offsets[1:] + self._n_points)
        self._n_points += showers.n_points


def _create_rows(file: h5py.File, name: str, tail: tuple[int, ...], dtype: Any, rows: int) -> None:
    file.create_dataset(
        name,
        shape=(0, *tail),
        maxshape=(None, *tail),
        dtype=dtype,
        chunks=(rows, *tail),
        shuffle=True,
        compression="gzip",
        compression_opts=DEFLATE_LEVEL,
        fletcher32=True,
    )
