"""One file a format; here: which formats there are, and the doors common to all.

>>> list(FORMATS)
['calogen', 'compact', 'showerdata', 'calochallenge', 'getting-high', 'calohadronic', 'caloclouds']
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from calogen.data.formats import calochallenge, compact, events, getting_high, native, plausible, showerdata
from calogen.data.formats.hdf5 import BadFile, FilePath, blamed_on, open_read
from calogen.data.formats.info import FileInfo, Summary
from calogen.data.formats.source import SPLITS, Events, Extent, Sink, Source
from calogen.data.formats.writing import refuse_existing
from calogen.data.showers import Showers
from calogen.data.voxels import Voxels
from calogen.detector.geometry import Detector

__all__ = [
    "FORMATS",
    "BadFile",
    "Extent",
    "FileInfo",
    "Format",
    "Sink",
    "Source",
    "batches",
    "convert",
    "info",
    "open_source",
    "read",
    "sniff",
    "write",
]

SHOWERS_PER_BATCH = 1000
"""Showers in memory at a time where a file is streamed: about 30 MB of photons, 160 MB of the largest voxels."""


@dataclass(frozen=True)
class Format:
    """A file format: how to recognise it, read it and write it.

    `sink(path, detector, overwrite=, extent=, provenance=, ...)` is a context manager of something with `append`.
    """

    name: str
    title: str
    sniff: Callable[[h5py.File], bool]
    source: Callable[[h5py.File, Detector | None], Source]
    sink: Callable[..., Any]


FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format(native.NAME, "calogen's own", native.sniff, native.NativeSource, native.Writer),
        Format(compact.NAME, "0.1 mm integers", compact.sniff, compact.CompactSource, compact.write),
        Format(showerdata.NAME, "ShowerData", showerdata.sniff, showerdata.ShowerDataSource, showerdata.write),
        Format(
            calochallenge.NAME,
            "CaloChallenge 1-3",
            calochallenge.sniff,
            calochallenge.CaloChallengeSource,
            calochallenge.write,
        ),
        Format(
            getting_high.NAME,
            "Getting High, 30 x 30 x 30",
            getting_high.sniff,
            getting_high.GettingHighSource,
            getting_high.write,
        ),
        Format(
            events.CALOHADRONIC.name,
            "CaloHadronic events",
            events.sniff_calohadronic,
            events.calohadronic_source,
            events.write_calohadronic,
        ),
        Format(
            events.CALOCLOUDS.name,
            "CaloClouds events",
            events.sniff_caloclouds,
            events.caloclouds_source,
            events.write_caloclouds,
        ),
    )
}
"""In the order in which a file is tried."""


def _format(name: str) -> Format:
    if name not in FORMATS:
        raise ValueError(f"unknown format {name!r}; known: {', '.join(FORMATS)}")
    return FORMATS[name]


def _sniffed(file: h5py.File) -> Format:
    for candidate in FORMATS.values():
        if candidate.sniff(file):
            return candidate
    keys = ", ".join(list(file)[:8])
    raise BadFile(f"{file.filename}: none of the known formats ({', '.join(FORMATS)}); it holds: {keys or 'nothing'}")


def sniff(path: FilePath) -> str:
    """Name of the format of a file.

    Raises:
        BadFile: not HDF5, or no known format.
    """
    with open_read(path) as file, blamed_on(path):
        return _sniffed(file).name


@contextmanager
def open_source(path: FilePath, *, detector: Detector | None = None, format: str | None = None) -> Iterator[Source]:
    """An open file of any format; `detector` where the file does not say it (or must agree with what it says).

    Raises:
        BadFile: the file is not usable, or holds no showers.
    """
    with _opened(path, detector, format) as (_, source):
        yield source


@contextmanager
def _opened(path: FilePath, detector: Detector | None, format: str | None) -> Iterator[tuple[Format, Source]]:
    with open_read(path) as file:
        given = _format(format) if format else None
        with blamed_on(path):
            chosen = given or _sniffed(file)
            source = chosen.source(file, detector)
        if source.n_showers == 0:
            raise BadFile(f"{os.fspath(path)}: the file holds no showers")
        yield chosen, _Checked(path, source) if chosen.name != native.NAME else source


class _Checked:
    """A source of a foreign format, whose energies are checked for a wrong unit."""

    def __init__(self, path: FilePath, source: Source) -> None:
        self._path, self._source = path, source
        self.detector, self.n_showers, self.units = source.detector, source.n_showers, source.units
        self.provenance, self.split = source.provenance, source.split

    def max_points(self) -> int:
        return self._source.max_points()

    def load(self, start: int, stop: int) -> Events:
        events = self._source.load(start, stop)
        with blamed_on(self._path, f"showers {start} to {stop}"):
            plausible.check_units(events)
        return events


def read(
    path: FilePath,
    *,
    detector: Detector | None = None,
    format: str | None = None,
    start: int = 0,
    stop: int | None = None,
    split: str | None = None,
) -> Any:
    """Showers or voxels of a file of any format.

    Args:
        path: the file.
        detector: its detector, where the file does not name it; each format states its default.
        format: name of the format (recognised by itself if not given).
        start, stop: range of showers; only these are read.
        split: `train`, `validation` or `test`: only that part, for files that mark it.

    Raises:
        BadFile: the file is not usable; one line says what, where and what would be right.
    """
    with open_source(path, detector=detector, format=format) as source:
        stop = source.n_showers if stop is None else min(stop, source.n_showers)
        if not 0 <= start <= stop:
            raise ValueError(f"{os.fspath(path)}: no showers {start} to {stop}; the file has {source.n_showers}")
        return _part(path, source, start, stop, split)


def _part(path: FilePath, source: Source, start: int, stop: int, split: str | None) -> Events:
    events = source.load(start, stop)
    if split is None:
        return events
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; use {', '.join(SPLITS)}")
    if source.split is None:
        raise ValueError(f"{os.fspath(path)}: marks no splits; read it whole")
    return events[source.split[start:stop] == SPLITS[split]]


def batches(
    path: FilePath,
    showers_per_batch: int = SHOWERS_PER_BATCH,
    *,
    detector: Detector | None = None,
    format: str | None = None,
    split: str | None = None,
) -> Iterator[Any]:
    """The showers or voxels of a file, batch by batch, in constant memory (see `read`)."""
    if showers_per_batch < 1:
        raise ValueError(f"batches need at least one shower, got {showers_per_batch}")
    with open_source(path, detector=detector, format=format) as source:
        for start in range(0, source.n_showers, showers_per_batch):
            yield _part(path, source, start, min(start + showers_per_batch, source.n_showers), split)


def write(
    path: FilePath,
    events: Showers | Voxels,
    *,
    format: str = native.NAME,
    overwrite: bool = False,
    provenance: dict[str, Any] | None = None,
    **options: Any,
) -> None:
    """Write showers or voxels to a file of a format; further options are those of the format's writer.

    Raises:
        ValueError: an existing file without `overwrite`, or a format that cannot hold these.
    """
    widest = int(events.counts.max(initial=0)) if isinstance(events, Showers) else 0
    sink = _format(format).sink(
        path,
        events.detector,
        overwrite=overwrite,
        provenance=provenance,
        extent=Extent(len(events), widest),
        **options,
    )
    with sink as opened:
        opened.append(events)


def convert(
    source: FilePath,
    target: FilePath,
    *,
    format: str = native.NAME,
    detector: Detector | None = None,
    source_format: str | None = None,
    overwrite: bool = False,
    provenance: dict[str, Any] | None = None,
    showers_per_batch: int = SHOWERS_PER_BATCH,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> int:
    """Write the showers of one file to another of any format, batch by batch; returns how many.

    Args:
        source, target: the files; `target` appears only when all is written.
        format: format of `target`.
        detector: detector of `source`, where it does not name it.
        source_format: format of `source` (recognised by itself if not given).
        overwrite: replace an existing `target`.
        provenance: kept in the header of `target`; that of `source` is kept beside it as `source_provenance`.
        showers_per_batch: showers in memory at a time.
        progress: called after each batch with showers done and in all.
        options: further options of the writer (`precision="compact"`).

    Raises:
        BadFile: `source` is not usable.
        ValueError: `target` exists, or its format cannot hold these showers.
    """
    refuse_existing(target, overwrite=overwrite)
    chosen = _format(format)
    with open_source(source, detector=detector, format=source_format) as opened:
        n = opened.n_showers
        kept = {**(provenance or {}), "source": Path(source).name, "source_provenance": opened.provenance}
        with blamed_on(source):
            extent = Extent(n, opened.max_points())
        with chosen.sink(
            target, opened.detector, overwrite=overwrite, provenance=kept, extent=extent, **options
        ) as sink:
            for start in range(0, n, showers_per_batch):
                stop = min(start + showers_per_batch, n)
                sink.append(opened.load(start, stop))
                if progress is not None:
                    progress(stop, n)
    return n


def info(
    path: FilePath,
    *,
    detector: Detector | None = None,
    format: str | None = None,
    showers_per_batch: int = SHOWERS_PER_BATCH,
) -> FileInfo:
    """What a file holds, in one pass of constant memory.

    Raises:
        BadFile: the file is not usable.
    """
    with _opened(path, detector, format) as (chosen, source):
        summary = Summary()
        for start in range(0, source.n_showers, showers_per_batch):
            summary.add(source.load(start, min(start + showers_per_batch, source.n_showers)))
        precision = getattr(source, "precision", None)
        split = source.split
        return FileInfo(
            path=os.fspath(path),
            format=chosen.name,
            kind=summary.kind,
            detector=source.detector.name,
            n_layers=source.detector.n_layers,
            n_showers=summary.n_showers,
            n_points=summary.n_points,
            points_per_shower=summary.points_per_shower(),
            stored_units=source.units,
            size_bytes=Path(path).stat().st_size,
            precision=None if precision is None else precision.name,
            particles=dict(sorted(summary.particles.items())),
            splits={} if split is None else {name: int((split == number).sum()) for name, number in SPLITS.items()},
            ranges=summary.ranges(),
            provenance=source.provenance,
        )
