"""One file a format, each `sniff / read / write` in batches; here: which formats there are, and the common doors.

>>> sorted(FORMATS)
['calogen', 'compact']
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import h5py

from calogen.data.formats import compact, native
from calogen.data.formats.hdf5 import BadFile, FilePath, blamed_on, open_read
from calogen.data.formats.source import SPLITS, Events, Sink, Source
from calogen.data.showers import Showers
from calogen.data.voxels import Voxels
from calogen.detector.geometry import Detector

__all__ = ["FORMATS", "BadFile", "Format", "Sink", "Source", "batches", "open_source", "read", "sniff", "write"]

SHOWERS_PER_BATCH = 1000
"""Showers in memory at a time where a file is streamed: about 30 MB of photons, 160 MB of the largest voxels."""


@dataclass(frozen=True)
class Format:
    """A file format: how to recognise it, read it and, where possible, write it."""

    name: str
    sniff: Callable[[h5py.File], bool]
    source: Callable[[h5py.File, Detector | None], Source]
    sink: Callable[..., Sink] | None = None


FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format(native.NAME, native.sniff, native.NativeSource, native.Writer),
        Format(compact.NAME, compact.sniff, compact.CompactSource),
    )
}


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
    with open_read(path) as file:
        return _sniffed(file).name


@contextmanager
def open_source(path: FilePath, *, detector: Detector | None = None, format: str | None = None) -> Iterator[Source]:
    """An open file of any format; `detector` where the file does not say it (or must agree with what it says)."""
    with open_read(path) as file:
        chosen = _format(format) if format else _sniffed(file)
        with blamed_on(path):
            source = chosen.source(file, detector)
        yield source


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
            raise ValueError(f"{path}: no showers {start} to {stop}; the file has {source.n_showers}")
        return _part(path, source, start, stop, split)


def _part(path: FilePath, source: Source, start: int, stop: int, split: str | None) -> Events:
    events = source.load(start, stop)
    if split is None:
        return events
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; use {', '.join(SPLITS)}")
    if source.split is None:
        raise ValueError(f"{path}: marks no splits; read it whole")
    return events[source.split[start:stop] == SPLITS[split]]


def batches(
    path: FilePath,
    showers_per_batch: int = SHOWERS_PER_BATCH,
    *,
    detector: Detector | None = None,
    format: str | None = None,
    split: str | None = None,
) -> Iterator[Any]:
    """The showers or voxels of a file, batch by batch, in constant memory."""
    if showers_per_batch < 1:
        raise ValueError(f"batches need at least one shower, got {showers_per_batch}")
    with open_source(path, detector=detector, format=format) as source:
        for start in range(0, source.n_showers, showers_per_batch):
            yield _part(path, source, start, min(start + showers_per_batch, source.n_showers), split)


def write(
    path: FilePath, events: Showers | Voxels, *, format: str = native.NAME, overwrite: bool = False, **options: Any
) -> None:
    """Write showers or voxels to a file of a format; further options are those of the format's writer.

    Raises:
        ValueError: an existing file without `overwrite`, or a format that cannot hold these.
    """
    chosen = _format(format)
    if chosen.sink is None:
        raise ValueError(f"format {format!r} can be read but not written")
    with chosen.sink(path, events.detector, overwrite=overwrite, **options) as sink:
        sink.append(events)
