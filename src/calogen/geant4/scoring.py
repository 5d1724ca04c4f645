"""From deposits to points: sub-cells with a random offset, a point at the place of the highest deposit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from calogen.detector.geometry import OUTSIDE, Detector
from calogen.geant4.stack import Stack
from calogen.units import GEV_PER_MEV

MIN_POINT_GEV = 1e-5 * GEV_PER_MEV
"""Points below are dropped, as in the showers CaloClouds3 trains on (specification of the shared truth)."""

HALF_WIDTH_MM = 1500.0
"""Deposits farther from the entry point, in x or y, are not kept (half width of the readout in the catalog)."""

_INDEX_BITS = 20  # of a sub-cell's number along x or y: enough for 1 m in steps of a micrometre


class Steps(NamedTuple):
    """Deposits of one event: `x, y` mm, `layer`, `energy` GeV, `time` ns where it is kept, all `[S]`."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    layer: NDArray[np.int64]
    energy: NDArray[np.float64]
    time: NDArray[np.float64] | None = None


class Lost(NamedTuple):
    """Energy that was deposited but not kept, GeV (a number for one event, `[n]` for several): `outside` the
    readout, and `faint`, in points or cells below threshold.
    """

    outside: Any
    faint: Any


class Points(NamedTuple):
    """Merged deposits of one event, `[P]`: `x, y` mm, `energy` GeV and `time` ns in float32, `layer` int16."""

    x: NDArray[np.float32]
    y: NDArray[np.float32]
    layer: NDArray[np.int16]
    energy: NDArray[np.float32]
    time: NDArray[np.float32] | None
    lost: Lost


class Cells(NamedTuple):
    """Energies of one event in a detector's cells, `[cells]` GeV."""

    energy: NDArray[np.float32]
    lost: Lost


def merge(steps: Steps, subcell_mm: NDArray[np.float64], offset: NDArray[np.float64]) -> Points:
    """Sum the deposits of each sub-cell.

    `subcell_mm [L]` is the sub-cell of each layer, `offset [2]` in [0, 1) moves their grid, in sub-cells
    (random per event in the published recipe, so that no grid survives in the average shower). A point has the
    place and the time of its highest deposit.
    """
    near = (np.abs(steps.x) <= HALF_WIDTH_MM) & (np.abs(steps.y) <= HALF_WIDTH_MM)
    outside = float(steps.energy[~near].sum())
    steps = Steps(*(None if column is None else column[near] for column in steps))  # type: ignore[arg-type]
    size = subcell_mm[steps.layer]
    half = 1 << (_INDEX_BITS - 1)
    i_x = np.floor(steps.x / size + offset[0]).astype(np.int64) + half
    i_y = np.floor(steps.y / size + offset[1]).astype(np.int64) + half
    cell = (((steps.layer << _INDEX_BITS) | i_x) << _INDEX_BITS) | i_y
    order = np.lexsort((-steps.energy, cell))
    first = np.flatnonzero(np.diff(cell[order], prepend=-1))
    energy = np.add.reduceat(steps.energy[order], first) if first.size else steps.energy
    keep = energy >= MIN_POINT_GEV
    highest = order[first][keep]
    return Points(
        _on_grid(steps.x[highest]),
        _on_grid(steps.y[highest]),
        steps.layer[highest].astype(np.int16),
        energy[keep].astype(np.float32),
        None if steps.time is None else _on_grid(steps.time[highest]),
        Lost(outside, float(energy[~keep].sum())),
    )


def _on_grid(values: NDArray[Any]) -> NDArray[np.float32]:
    """Multiples of 1/1024 mm or ns: no detector sees more, and files shrink without the noise of the last bits."""
    return (np.round(values * GRID) / GRID).astype(np.float32)


GRID = 1024.0


def voxelize(steps: Steps, detector: Detector) -> Cells:
    """Deposits summed straight into the detector's cells, zero below each layer's threshold."""
    energy = np.zeros(detector.n_cells)
    outside, faint = 0.0, 0.0
    for i, layer in enumerate(detector.layers):
        mine = steps.layer == i
        index = layer.cells.index(steps.x[mine], steps.y[mine])
        hit = index != OUTSIDE
        outside += float(steps.energy[mine][~hit].sum())
        first = int(detector.first_cell[i])
        cells = np.bincount(index[hit], weights=steps.energy[mine][hit], minlength=layer.cells.n_cells)
        below = cells < layer.threshold_gev
        faint += float(cells[below].sum())
        cells[below] = 0.0
        energy[first : first + layer.cells.n_cells] = cells
    return Cells(energy.astype(np.float32), Lost(outside, faint))


def subcell_mm(stack: Stack, subcells: Sequence[int] | None = None) -> NDArray[np.float64]:
    """Sub-cell size of every layer, `[L]` mm: readout pitch over the number of sub-cells along a side.

    `subcells` gives one number a layer (default: the stack's own). Raises ValueError on another length.
    """
    numbers = stack.subcells if subcells is None else tuple(subcells)
    if len(numbers) != stack.n_layers or min(numbers) < 1:
        raise ValueError(f"sub-cells {numbers} must be {stack.n_layers} numbers of at least 1, one a layer")
    return np.asarray(stack.cell_mm) / np.asarray(numbers)
