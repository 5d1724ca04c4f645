"""What every format offers: a `Source` that loads any range of showers, a `Sink` that takes batches."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Protocol, Self

from numpy.typing import NDArray

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

    def load(self, start: int, stop: int) -> Events:
        """Showers `start` to `stop`; reads little more than them."""
        ...


class Sink(Protocol):
    """A file being written; it appears under its name when the block ends well, and not at all otherwise."""

    def append(self, events: Any) -> None:
        """Add a batch."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
