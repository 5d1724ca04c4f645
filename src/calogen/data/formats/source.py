"""What every format offers: a `Source` that loads any range of showers, a `Sink` that takes batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from numpy.typing import NDArray

from calogen.data.formats.hdf5 import FilePath
from calogen.data.showers import Showers
from calogen.data.voxels import Voxels
from calogen.detector.geometry import Detector

Events = Showers | Voxels

SPLITS = {"train": 0, "validation": 1, "test": 2}
"""Numbers of the parts of a set, as the `split` column of files stores them."""


class Source(Protocol):
    """An open file: its detector, how many showers it holds, and any range of them."""

    detector: Detector
    n_showers: int
    units: str
    """Units as stored in the file (in memory they are always GeV and mm)."""
    provenance: dict[str, Any]
    split: NDArray[Any] | None
    """Part of each shower (`SPLITS`), where the file says it."""

    def max_points(self) -> int:
        """Points of the largest shower, or a bound on it (0 for voxels)."""
        ...

    def load(self, start: int, stop: int) -> Events:
        """Showers `start` to `stop`; reads little more than them."""
        ...


@dataclass(frozen=True)
class Extent:
    """What is known of the showers before they are written; padded layouts need it."""

    n_showers: int
    max_points: int


@dataclass(frozen=True)
class Sink:
    """A file being written: `append` adds a batch of showers (or voxels)."""

    append: Callable[[Any], None]


def refuse(path: FilePath, what: str, why: str) -> NoReturn:
    """Raise ValueError: `path` cannot take something, and why."""
    raise ValueError(f"{path}: {what} cannot be written: {why}")
