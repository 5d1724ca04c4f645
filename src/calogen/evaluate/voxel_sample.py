"""What the judge keeps of a stream of voxels, and two such samples side by side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calogen.data.voxels import Voxels
from calogen.detector.geometry import Detector
from calogen.evaluate.blocks import block_count, dealt
from calogen.evaluate.high_level import HighLevel, high_level
from calogen.evaluate.incidents import aligned_order, check_same_detector, check_sizes
from calogen.evaluate.metrics import Resampling
from calogen.evaluate.spectrum import VoxelSpectrum

KEPT_SHOWERS = 2000
"""Whole showers kept of a sample, for distances between showers."""
KEPT_VOXELS = 1 << 24
"""Voxels of all kept showers together, at most: 67 MB. Of data set 3 this is 414 showers."""

VoxelStream = Voxels | Iterable[Voxels]
"""Showers in memory, or batches of them as a reader yields them."""


@dataclass(frozen=True, eq=False)
class VoxelSample:
    """One row of features a shower (about 4 kB), the spectrum of the voxels, and the voxels of some random showers.

    `kept [n, cells]` GeV, as they were read.
    """

    features: HighLevel
    spectrum: VoxelSpectrum
    kept: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.features)

    @property
    def detector(self) -> Detector:
        """Where the showers are."""
        return self.features.detector


def observe_voxels(sample: VoxelStream, what: str = "sample", *, seed: int = 0) -> VoxelSample:
    """Read a sample once.

    Args:
        sample: voxels, or batches of them.
        what: its name in errors.
        seed: of the choice of showers that are kept whole.

    Raises:
        ValueError: no showers, batches of different detectors, or energies no shower has.
    """
    parts: list[HighLevel] = []
    spectrum: VoxelSpectrum | None = None
    kept: _Reservoir | None = None
    for batch in _batches(sample):
        if spectrum is None or kept is None:
            spectrum, kept = VoxelSpectrum(batch.detector), _Reservoir(batch.detector, seed)
        elif batch.detector != parts[0].detector:
            raise ValueError(f"the {what} mixes voxels of {parts[0].detector.name!r} and {batch.detector.name!r}")
        parts.append(high_level(batch))
        spectrum.add(batch)
        kept.add(batch)
    if spectrum is None or kept is None:
        raise ValueError(f"the {what} is empty: no showers to judge")
    return VoxelSample(HighLevel.concatenate(parts), spectrum, kept.showers)


def _batches(sample: VoxelStream) -> Iterator[Voxels]:
    return iter((sample,)) if isinstance(sample, Voxels) else iter(sample)


class _Reservoir:
    """A uniform choice of the showers of a stream of unknown length: those of the smallest random marks."""

    def __init__(self, detector: Detector, seed: int) -> None:
        self._size = min(KEPT_SHOWERS, max(1, KEPT_VOXELS // detector.n_cells))
        self._rng = np.random.default_rng([seed, 4])
        self._marks = np.zeros(0)
        self._rows: list[NDArray[np.float32]] = []

    def add(self, voxels: Voxels) -> None:
        """Offer the showers of a batch."""
        marks = self._rng.random(len(voxels))
        missing = self._size - self._marks.size
        self._marks = np.concatenate([self._marks, marks[:missing]])
        self._rows += [row.copy() for row in voxels.energy[:missing]]
        for i in range(max(missing, 0), len(voxels)):
            worst = int(self._marks.argmax())
            if marks[i] < self._marks[worst]:
                self._marks[worst], self._rows[worst] = marks[i], voxels.energy[i].copy()

    @property
    def showers(self) -> NDArray[np.float32]:
        """The chosen showers."""
        return np.stack(self._rows) if self._rows else np.zeros((0, 0), np.float32)


@dataclass(frozen=True, eq=False)
class VoxelPair:
    """Two samples, the orders in which their showers belong together, and the block of each shower.

    `orders` are those of `incidents.aligned_order`; `blocks` are `[N]` of the generated sample and `[M]` of the truth.
    """

    generated: VoxelSample
    truth: VoxelSample
    orders: tuple[NDArray[np.int64], NDArray[np.int64]]
    blocks: tuple[NDArray[np.int64], NDArray[np.int64]]
    n_blocks: int
    resampling: Resampling

    @classmethod
    def of(cls, generated: VoxelSample, truth: VoxelSample, *, seed: int, replicas: int) -> VoxelPair:
        """Put two samples side by side.

        Raises:
            ValueError: different detectors or particle types, too few showers, or no energy above threshold.
        """
        check_same_detector(generated.detector, truth.detector)
        check_sizes(generated.features, truth.features)
        first, second, paired = aligned_order(generated.features, truth.features, seed)
        n = block_count(len(generated), len(truth))
        resampling = Resampling(len(generated), len(truth), paired, replicas, seed)
        return cls(generated, truth, (first, second), (_in_blocks(first, n), _in_blocks(second, n)), n, resampling)


def _in_blocks(order: NDArray[np.int64], n_blocks: int) -> NDArray[np.int64]:
    """Block of each shower where showers are dealt in this order."""
    block = np.empty(order.size, dtype=np.int64)
    block[order] = dealt(order.size, n_blocks)
    return block
