"""The spectrum of voxel energies of a stream, binned after the fact: the bins depend on the largest voxel of the truth.

Energies are kept as they are up to a limit. Beyond it they are counted by the leading bits of their float32 (sign-free
floats sort like integers), so finely that any later bin edge is right to 8e-6 of its energy. Beside these totals each
shower has a coarse row of counts, so that showers can be dealt into blocks for errors and floors.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calogen.data.voxels import Voxels
from calogen.detector.catalog import DS23_THRESHOLD_GEV
from calogen.detector.geometry import Detector
from calogen.evaluate.sparse_rows import SparseRows
from calogen.evaluate.voxel_hits import hits_of, least_energy

FINE_PER_OCTAVE = 1 << 16
"""Counters between an energy and its double, for the totals."""
COARSE_PER_OCTAVE = 16
"""Counters between an energy and its double, in the row of each shower: 1 kB a shower."""
TOP_OCTAVE = 17
"""Voxels of 2^17 GeV = 131 TeV and more are no shower of the field."""
KEPT_VALUES = 1 << 23
"""Energies kept as they are: 34 MB."""
PIECE_SHOWERS, PIECE_VALUES = 16, 1 << 16
"""Handled at once, so that they stay in the processor's cache."""

_MANTISSA_BITS, _EXPONENT_BIAS = 23, 127  # of float32


def lowest_edge(threshold_gev: float) -> float:
    """Where logarithmic bins of energies begin: at the threshold; where there is none, at that of data sets 2 and 3."""
    return float(least_energy(threshold_gev if threshold_gev > 0 else DS23_THRESHOLD_GEV))


class VoxelSpectrum:
    """Counts of the voxels above threshold of a growing sample; `add` batches, then ask for `counts` in any bins.

    `lowest_gev` is where bins begin: the lowest threshold of the detector (see `lowest_edge`). `highest_gev` is the
    largest voxel so far, `n_voxels` counts all that are hit, also below `lowest_gev`.
    """

    def __init__(self, detector: Detector, *, kept_values: int = KEPT_VALUES) -> None:
        self.lowest_gev = min(lowest_edge(t) for t in detector.threshold_gev)
        self.highest_gev = 0.0
        self.n_voxels = 0
        self._bottom_octave = int(np.frexp(self.lowest_gev)[1]) - 1
        self._octaves = TOP_OCTAVE - self._bottom_octave
        self._kept_values = kept_values
        self._values: list[NDArray[np.float32]] = []
        self._n_values = 0
        self._fine: NDArray[np.int64] | None = None
        self._rows: list[NDArray[Any]] = []

    def add(self, voxels: Voxels | SparseRows) -> None:
        """Count one batch, of which the hits suffice (`voxel_hits.hits_of`).

        Raises:
            ValueError: a voxel that no shower can have.
        """
        hits = hits_of(voxels) if isinstance(voxels, Voxels) else voxels
        values, offsets = hits.value, hits.offsets
        highest = float(values.max(initial=0))
        if highest >= 2.0**TOP_OCTAVE:
            raise ValueError(f"a voxel of {highest:g} GeV is above {2.0**TOP_OCTAVE:g} GeV: check its energy unit")
        self.highest_gev = max(self.highest_gev, highest)
        self.n_voxels += values.size
        if values.min(initial=np.inf) < self.lowest_gev:
            inside = values >= np.float32(self.lowest_gev)
            offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(inside)])[offsets]
            values = values[inside]
        self._rows.append(self._coarse(values, offsets))
        self._values.append(values)
        self._n_values += values.size
        if self._n_values > self._kept_values:
            self._fold()

    def _coarse(self, values: NDArray[np.float32], offsets: NDArray[np.int64]) -> NDArray[Any]:
        """The coarse counts of each shower, `[N, counters]`; the energies of shower i begin at `offsets[i]`."""
        n, width = offsets.size - 1, self._octaves * COARSE_PER_OCTAVE
        rows = np.zeros((n, width), dtype=np.uint16 if np.diff(offsets).max(initial=0) < 1 << 16 else np.uint32)
        for start in range(0, n, PIECE_SHOWERS):
            bounds = offsets[start : start + PIECE_SHOWERS + 1]
            key = self._key(values[bounds[0] : bounds[-1]], COARSE_PER_OCTAVE)
            key += np.repeat(np.arange(bounds.size - 1) * width, np.diff(bounds))
            counted = np.bincount(key, minlength=(bounds.size - 1) * width)
            rows[start : start + PIECE_SHOWERS] = counted.reshape(-1, width)
        return rows

    def counts(self, edges_gev: NDArray[np.float64]) -> NDArray[np.float64]:
        """Voxels in each bin of ascending edges `[bins + 1]`, the last bin with its upper edge; others are left out."""
        below = self._kept_below(edges_gev)
        if self._fine is not None:
            cumulative = np.concatenate([[0], np.cumsum(self._fine)])
            place = np.rint(self._place(edges_gev, FINE_PER_OCTAVE)).astype(np.int64)
            place[-1] += edges_gev[-1] >= self.highest_gev
            below += cumulative[np.clip(place, 0, self._fine.size)]
        return np.diff(below)

    def _kept_below(self, edges_gev: NDArray[np.float64]) -> NDArray[np.float64]:
        """Kept energies below each edge, below or at the last. Only those in a counter with an edge are compared."""
        size = self._octaves * COARSE_PER_OCTAVE
        place = np.clip(self._place(edges_gev, COARSE_PER_OCTAVE), 0, size - 1).astype(np.int64)
        compare = np.zeros(size, dtype=np.bool_)
        compare[place] = True
        compared = [np.zeros(0, np.float32)]
        for values in self._values:
            for start in range(0, values.size, PIECE_VALUES):
                piece = values[start : start + PIECE_VALUES]
                compared.append(piece[np.flatnonzero(compare[self._key(piece, COARSE_PER_OCTAVE)])])
        counted = self.rows.sum(axis=0, dtype=np.int64)
        if self._fine is not None:
            counted -= self._fine.reshape(size, -1).sum(axis=1)
        near = np.sort(np.concatenate(compared))
        below = np.searchsorted(near, edges_gev, side="left")
        below[-1] = np.searchsorted(near, edges_gev[-1], side="right")
        elsewhere = np.cumsum(np.where(compare, 0, counted))  # where no edge is, all of a counter are on one side of it
        return np.asarray(below + elsewhere[place], dtype=np.float64)

    def block_counts(
        self, edges_gev: NDArray[np.float64], block: NDArray[np.int64], n_blocks: int
    ) -> NDArray[np.float64]:
        """Voxels of each block of showers, `[blocks, bins]`; `block [N]` says where each shower belongs.

        A coarse counter that an edge cuts is shared between its sides. For errors and floors: totals come from
        `counts`.
        """
        order = np.argsort(block, kind="stable")
        ends = np.searchsorted(block[order], np.arange(n_blocks + 1))
        rows = self.rows
        summed = [rows[order[a:b]].sum(axis=0, dtype=np.int64) for a, b in pairwise(ends)]
        cumulative = np.pad(np.cumsum(summed, axis=1), ((0, 0), (1, 1)), mode="constant", constant_values=0)
        cumulative[:, -1] = cumulative[:, -2]
        place = np.clip(self._place(edges_gev, COARSE_PER_OCTAVE), 0, rows.shape[1])
        if edges_gev[0] <= self.lowest_gev:
            place[0] = 0
        if edges_gev[-1] >= self.highest_gev:
            place[-1] = rows.shape[1]
        counter = place.astype(np.int64)
        share = place - counter
        below = cumulative[:, counter] * (1 - share) + cumulative[:, counter + 1] * share
        return np.diff(below, axis=1)

    @property
    def rows(self) -> NDArray[Any]:
        """The coarse counts of every shower, `[N, counters]`."""
        if len(self._rows) > 1:
            self._rows = [np.concatenate(self._rows)]
        return self._rows[0] if self._rows else np.zeros((0, self._octaves * COARSE_PER_OCTAVE), np.uint16)

    def _key(self, values: NDArray[np.float32], per_octave: int) -> NDArray[np.int64]:
        """Counter of each energy: its exponent and the leading bits of its mantissa."""
        shift = _MANTISSA_BITS - per_octave.bit_length() + 1
        first = (self._bottom_octave + _EXPONENT_BIAS) * per_octave
        return (values.view(np.int32) >> shift).astype(np.int64) - first

    def _place(self, edges_gev: NDArray[np.float64], per_octave: int) -> NDArray[np.float64]:
        """Counter in which each edge lies, and how far in it."""
        mantissa, exponent = np.frexp(edges_gev)
        return np.asarray((exponent - 1 - self._bottom_octave + 2 * mantissa - 1) * per_octave)

    def _fold(self) -> None:
        """Move the kept energies into the fine counters."""
        if self._fine is None:
            self._fine = np.zeros(self._octaves * FINE_PER_OCTAVE, dtype=np.int64)
        keys = self._key(np.concatenate(self._values), FINE_PER_OCTAVE)
        first = int(keys.min())
        counted = np.bincount(keys - first)
        self._fine[first : first + counted.size] += counted
        self._values, self._n_values = [], 0


def voxel_spectrum(batches: Sequence[Voxels]) -> VoxelSpectrum:
    """The spectrum of some batches in memory.

    >>> from calogen.data.incident import Incident
    >>> from calogen.detector.catalog import CALOCHALLENGE_2
    >>> energy = np.zeros((1, 6480), dtype=np.float32)
    >>> energy[0, :3] = 0.001, 0.5, 2.0
    >>> spectrum = voxel_spectrum([Voxels(energy, Incident.gun(1, pdg=11), CALOCHALLENGE_2)])
    >>> spectrum.counts(np.array([0.01, 1.0, 2.0])).tolist()
    [1.0, 1.0]
    """
    spectrum = VoxelSpectrum(batches[0].detector)
    for batch in batches:
        spectrum.add(batch)
    return spectrum
