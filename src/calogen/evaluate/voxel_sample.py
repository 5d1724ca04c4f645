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
from calogen.evaluate.sparse_rows import SparseRows
from calogen.evaluate.spectrum import VoxelSpectrum
from calogen.evaluate.voxel_hits import hits_of

KEPT_SHOWERS = 2000
"""Whole showers kept of a sample, for distances between showers."""
KEPT_VOXELS = 1 << 24
"""Voxels of all showers that are made dense together, at most: 67 MB. Of data set 3 this is 414 showers."""
PORTION_VOXELS = 1 << 23
"""Voxels of a batch handled at once: what is kept of a larger one meanwhile would grow with it."""

VoxelStream = Voxels | Iterable[Voxels]
"""Showers in memory, or batches of them as a reader yields them."""


@dataclass(frozen=True, eq=False)
class VoxelSample:
    """One row of features a shower (about 4 kB), the spectrum of the voxels, and some random showers whole.

    `showers` are the hits (GeV) of the showers `kept_index`, ascending places in the stream; of two samples of equal
    length that were observed with one seed, the same places.
    """

    features: HighLevel
    spectrum: VoxelSpectrum
    showers: SparseRows
    kept_index: NDArray[np.int64]
    marks: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.features)

    @property
    def detector(self) -> Detector:
        """Where the showers are."""
        return self.features.detector

    @property
    def kept(self) -> NDArray[np.float32]:
        """Hits of some of the showers, dense `[n, cells]` GeV: the same ones however many are kept."""
        n = _dense_showers(self.detector)
        return self.showers[np.sort(np.argsort(self.marks, kind="stable")[:n])]


def _dense_showers(detector: Detector) -> int:
    return min(KEPT_SHOWERS, max(1, KEPT_VOXELS // detector.n_cells))


def observe_voxels(
    sample: VoxelStream, what: str = "sample", *, seed: int = 0, keep: int | None = KEPT_SHOWERS
) -> VoxelSample:
    """Read a sample once.

    Args:
        sample: voxels, or batches of them.
        what: its name in errors.
        seed: of the choice of showers that are kept whole: the same places of two samples of equal length.
        keep: how many these are, 6 or 8 bytes a hit; None is all. No fewer than distances between showers need.

    Raises:
        ValueError: no showers, batches of different detectors, energies no shower has, or a negative `keep`.
    """
    if keep is not None and keep < 0:
        raise ValueError(f"keep={keep} showers: give 0 or more, or None for all")
    parts: list[HighLevel] = []
    spectrum: VoxelSpectrum | None = None
    kept: _Reservoir | None = None
    for batch in _portions(sample):
        if spectrum is None or kept is None:
            spectrum, kept = VoxelSpectrum(batch.detector), _Reservoir(batch.detector, seed, keep)
        elif batch.detector != parts[0].detector:
            raise ValueError(f"the {what} mixes voxels of {parts[0].detector.name!r} and {batch.detector.name!r}")
        hits = hits_of(batch)
        parts.append(high_level(batch))
        spectrum.add(hits)
        kept.add(hits)
    if spectrum is None or kept is None:
        raise ValueError(f"the {what} is empty: no showers to judge")
    return VoxelSample(HighLevel.concatenate(parts), spectrum, *kept.result())


def _portions(sample: VoxelStream) -> Iterator[Voxels]:
    for batch in (sample,) if isinstance(sample, Voxels) else sample:
        step = max(1, PORTION_VOXELS // batch.detector.n_cells)
        if len(batch) <= step:
            yield batch
            continue
        yield from (batch[start : start + step] for start in range(0, len(batch), step))


class _Reservoir:
    """A uniform choice of the showers of a stream of unknown length: those of the smallest random marks."""

    def __init__(self, detector: Detector, seed: int, keep: int | None) -> None:
        self._limit = None if keep is None else max(keep, _dense_showers(detector))
        self._rng = np.random.default_rng([seed, 4])
        self._seen = 0
        self._marks = np.zeros(0)
        self._index = np.zeros(0, dtype=np.int64)
        self._parts: list[SparseRows] = []
        self._highest = np.inf

    def add(self, rows: SparseRows) -> None:
        """Offer the showers of a batch."""
        marks = self._rng.random(len(rows))
        chosen = np.flatnonzero(marks < self._highest)
        if chosen.size or not self._parts:
            self._parts.append(rows if chosen.size == len(rows) else rows.take(chosen))
            self._marks = np.concatenate([self._marks, marks[chosen]])
            self._index = np.concatenate([self._index, self._seen + chosen])
        self._seen += len(rows)
        if self._limit is not None and self._marks.size > 2 * self._limit:
            self._shrink(self._limit)

    def _shrink(self, limit: int) -> None:
        best = np.sort(np.argsort(self._marks, kind="stable")[:limit])
        self._parts = [SparseRows.concatenate(self._parts).take(best)]
        self._marks, self._index = self._marks[best], self._index[best]
        self._highest = float(self._marks.max(initial=0.0)) if best.size == limit else np.inf

    def result(self) -> tuple[SparseRows, NDArray[np.int64], NDArray[np.float64]]:
        """The chosen showers, their places in the stream (ascending) and their marks."""
        if self._limit is not None and self._marks.size > self._limit:
            self._shrink(self._limit)
        return SparseRows.concatenate(self._parts), self._index, self._marks


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
