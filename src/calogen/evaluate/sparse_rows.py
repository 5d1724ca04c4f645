"""Rows of cells of which few have energy: only these are stored, and dense rows are made when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

PIECE_CELLS = 1 << 17
"""Cells looked through at once: what is known of them stays in the processor's cache."""


@dataclass(frozen=True, eq=False)
class SparseRows:
    """A matrix `[N, n_cells]` of float32, by its entries that are not zero.

    Row i has the energies `value[a:b]` in the cells `cell[a:b]` (ascending, uint16 or uint32), a and b being
    `offsets[i]` and `offsets[i + 1]`: 6 or 8 bytes an entry.

    >>> rows = SparseRows.of(np.array([[0.0, 2.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 3.0]], dtype=np.float32))
    >>> rows.cell.tolist(), rows[1:].tolist()
    ([1, 0, 2], [[0.0, 0.0, 0.0], [1.0, 0.0, 3.0]])
    """

    offsets: NDArray[np.int64]
    cell: NDArray[Any]
    value: NDArray[np.float32]
    n_cells: int

    @classmethod
    def of(cls, dense: NDArray[np.float32], least: NDArray[np.float32] | np.float32 | None = None) -> SparseRows:
        """The entries of `dense [N, cells]` that are `least` or more (of each cell, or of all); above 0 without it."""
        limit = np.finfo(np.float32).smallest_subnormal if least is None else least
        n, width = dense.shape
        kind = np.uint16 if width <= 1 << 16 else np.uint32
        step = max(1, PIECE_CELLS // max(width, 1))
        above = np.empty((step, width), dtype=np.bool_)
        counts = np.zeros(n, dtype=np.int64)
        cells, values = [np.zeros(0, kind)], [np.zeros(0, np.float32)]
        for start in range(0, n, step):
            piece = dense[start : start + step]
            here = np.flatnonzero(np.greater_equal(piece, limit, out=above[: len(piece)]))
            rows = np.arange(len(piece) + 1) * width
            own = np.diff(np.searchsorted(here, rows))
            counts[start : start + step] = own
            cells.append((here - np.repeat(rows[:-1], own)).astype(kind))
            values.append(piece.reshape(-1)[here])
        return cls(_offsets(counts), np.concatenate(cells), np.concatenate(values), width)

    @classmethod
    def concatenate(cls, parts: Sequence[SparseRows]) -> SparseRows:
        """The rows of all parts, one after the other.

        Raises:
            ValueError: no parts, or parts of different numbers of cells.
        """
        if len({p.n_cells for p in parts}) != 1:
            raise ValueError(
                f"rows of {sorted({p.n_cells for p in parts})} cells cannot be joined; one width is needed"
            )
        if len(parts) == 1:
            return parts[0]
        counts = np.concatenate([np.diff(p.offsets) for p in parts])
        cell, value = np.concatenate([p.cell for p in parts]), np.concatenate([p.value for p in parts])
        return cls(_offsets(counts), cell, value, parts[0].n_cells)

    @property
    def shape(self) -> tuple[int, int]:
        """(N, cells)."""
        return len(self), self.n_cells

    def __len__(self) -> int:
        return self.offsets.size - 1

    def __getitem__(self, rows: Any) -> NDArray[np.float32]:
        """Some rows, an index array or a slice, dense `[n, cells]`."""
        index = np.arange(len(self))[rows]
        dense = np.zeros((index.size, self.n_cells), dtype=np.float32)
        self.put(index, dense)
        return dense

    def put(self, index: NDArray[np.int64], dense: NDArray[np.float32]) -> None:
        """Write the entries of the rows `index [n]` into `dense [n, cells]`, which may be part of a wider matrix."""
        entries, counts = self._entries(index)
        dense[np.repeat(np.arange(index.size), counts), self.cell[entries]] = self.value[entries]

    def take(self, rows: Any) -> SparseRows:
        """Some rows, as sparse as they are."""
        entries, counts = self._entries(np.arange(len(self))[rows])
        return SparseRows(_offsets(counts), self.cell[entries], self.value[entries], self.n_cells)

    def _entries(self, index: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Places of the entries of some rows, one row after the other, and how many each row has."""
        counts = self.offsets[index + 1] - self.offsets[index]
        shift = self.offsets[index] - _offsets(counts)[:-1]
        return np.arange(counts.sum()) + np.repeat(shift, counts), counts


def _offsets(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
