"""Points to cells to voxels and back: energies are summed, counted where they fall outside, never lost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calogen.data.showers import Showers
from calogen.data.voxels import Voxels
from calogen.detector.geometry import OUTSIDE, Cells, Detector

CHUNK_POINTS = 1 << 18
"""Points handled at once: their keys and energies stay in the processor's cache."""


@dataclass(frozen=True)
class Hits:
    """What the readout sees of showers, and what it does not.

    `showers` has one point per cell above threshold, at the cell's centre, ordered by layer and cell;
    `cell [P]` is its index in the detector's cell order. `outside_points [N]`, `outside_energy [N]` GeV:
    points beyond the cells; `dropped_cells [N]`, `dropped_energy [N]` GeV: cells below threshold.
    """

    showers: Showers
    cell: NDArray[np.int64]
    outside_points: NDArray[np.int64]
    outside_energy: NDArray[np.float64]
    dropped_cells: NDArray[np.int64]
    dropped_energy: NDArray[np.float64]


def project(
    showers: Showers, detector: Detector | None = None, *, thresholds_gev: NDArray[Any] | float | None = None
) -> Hits:
    """Sum points into the cells of `detector` (the showers' own by default) and keep cells above threshold.

    Args:
        showers: points in mm from the entry point, tilt not removed.
        detector: another readout of as many layers (for example the 30 x 30 x 30 box for ILD ECal showers).
        thresholds_gev: one per layer or one for all, instead of the detector's; a cell needs at least this.

    >>> from calogen import ILD_ECAL, Incident, Showers
    >>> two = Showers([1, 2, 9], [1, 1, 1], [3, 3, 3], [2e-4, 3e-4, 1e-5], [0, 3], Incident.gun(1), ILD_ECAL)
    >>> hits = project(two)
    >>> hits.showers.counts.tolist(), int(hits.dropped_cells[0])
    ([1], 1)

    Raises:
        ValueError: a detector with another number of layers.
    """
    detector = detector or showers.detector
    if detector.n_layers != showers.detector.n_layers:
        raise ValueError(
            f"showers of {showers.detector.name!r} have {showers.detector.n_layers} layers; "
            f"they do not fit {detector.name!r} with {detector.n_layers}"
        )
    limits = detector.threshold_gev if thresholds_gev is None else thresholds_gev
    limits = np.broadcast_to(np.asarray(limits, dtype=np.float64), (detector.n_layers,))
    parts = [_project_chunk(showers, i, j, detector, limits) for i, j in _chunks(showers.offsets)]
    return _join(parts, showers, detector)


def voxelize(showers: Showers, detector: Detector | None = None) -> tuple[Voxels, NDArray[np.float64]]:
    """Sum points into dense voxels, without threshold; second: the energy outside the cells, `[N]` GeV."""
    hits = project(showers, detector, thresholds_gev=0.0)
    energy = np.zeros((len(showers), hits.showers.detector.n_cells), dtype=np.float32)
    energy[hits.showers.shower_index, hits.cell] = hits.showers.energy
    return Voxels(energy, showers.incident, hits.showers.detector), hits.outside_energy


def points_of(voxels: Voxels, *, seed: int | None = None) -> Showers:
    """One point for each voxel with energy: at its centre, or with a `seed` spread uniformly over the cell."""
    shower, cell = np.nonzero(voxels.energy)
    detector = voxels.detector
    x, y = _places(cell, detector, seed)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(shower, minlength=len(voxels)))])
    layer = _layer_of(cell, detector)
    return Showers(x, y, layer, voxels.energy[shower, cell], offsets, voxels.incident, detector)


def spread(hits: Hits, *, seed: int) -> Showers:
    """The hits with each point moved to a uniformly drawn place in its cell."""
    s = hits.showers
    x, y = _places(hits.cell, s.detector, seed)
    return Showers(x, y, s.layer, s.energy, s.offsets, s.incident, s.detector, s.time)


def cell_index(x_mm: NDArray[Any], y_mm: NDArray[Any], layer: NDArray[Any], detector: Detector) -> NDArray[np.int64]:
    """Cell of each point `[P]` in the detector's cell order; `OUTSIDE` beyond the readout."""
    first = detector.first_cell[:-1]
    result = np.empty(x_mm.shape[0], dtype=np.int64)
    for cells, here in _by_cells(layer, detector):
        local = cells.index(x_mm[here], y_mm[here])
        result[here] = np.where(local == OUTSIDE, OUTSIDE, local + first[layer[here]])
    return result


def _by_cells(layer: NDArray[Any], detector: Detector) -> Iterator[tuple[Cells, slice | NDArray[np.int64]]]:
    """The points of each kind of cells; all of them at once where every layer has the same."""
    kinds = list(dict.fromkeys(part.cells for part in detector.layers))
    if len(kinds) == 1:
        yield kinds[0], slice(None)
        return
    kind = np.array([kinds.index(part.cells) for part in detector.layers])[layer]
    for i, cells in enumerate(kinds):
        yield cells, np.flatnonzero(kind == i)


def _places(
    cell: NDArray[np.int64], detector: Detector, seed: int | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`x, y` in mm of cells: their centres, or with a seed a uniform draw inside each."""
    layer = _layer_of(cell, detector)
    in_layer = cell - detector.first_cell[layer]
    x, y = np.empty(cell.shape[0]), np.empty(cell.shape[0])
    u = None if seed is None else np.random.default_rng(seed).random((2, cell.shape[0]))
    for cells, here in _by_cells(layer, detector):
        if u is None:
            x[here], y[here] = cells.centre(in_layer[here])
        else:
            x[here], y[here] = cells.spread(in_layer[here], u[0, here], u[1, here])
    return x, y


@dataclass(frozen=True)
class _Chunk:
    """Cells of a run of showers; `shower` counts from the run's first."""

    shower: NDArray[np.int64]
    cell: NDArray[np.int64]
    energy: NDArray[np.float64]
    time: NDArray[Any] | None
    outside_points: NDArray[np.int64]
    outside_energy: NDArray[Any]
    dropped_cells: NDArray[np.int64]
    dropped_energy: NDArray[Any]


def _chunks(offsets: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Runs of whole showers of about `CHUNK_POINTS` points."""
    n = offsets.shape[0] - 1
    edges = [0]
    while edges[-1] < n:
        nxt = int(np.searchsorted(offsets, offsets[edges[-1]] + CHUNK_POINTS, side="right")) - 1
        edges.append(min(n, max(nxt, edges[-1] + 1)))
    return list(pairwise(edges))


def _project_chunk(s: Showers, start: int, stop: int, detector: Detector, limits: NDArray[np.float64]) -> _Chunk:
    points = slice(int(s.offsets[start]), int(s.offsets[stop]))
    n = stop - start
    shower = np.repeat(np.arange(n), np.diff(s.offsets[start : stop + 1]))
    energy = s.energy[points].astype(np.float64)
    cell = cell_index(s.x[points], s.y[points], s.layer[points], detector)
    outside = cell == OUTSIDE
    outside_points = np.bincount(shower[outside], minlength=n)
    outside_energy = np.bincount(shower[outside], weights=energy[outside], minlength=n)
    time = None if s.time is None else s.time[points]
    if outside.any():
        inside = ~outside
        shower, cell, energy = shower[inside], cell[inside], energy[inside]
        time = None if time is None else time[inside]

    key = shower * detector.n_cells + cell
    order = np.argsort(key)
    key, energy = key[order], energy[order]
    starts = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]])) if key.size else np.zeros(0, np.int64)
    total = np.add.reduceat(energy, starts) if key.size else np.zeros(0)
    # The readout's clock starts with the first deposit in the cell.
    time = None if time is None else (np.minimum.reduceat(time[order], starts) if key.size else time)
    shower, cell = np.divmod(key[starts], detector.n_cells)
    low = total < limits[_layer_of(cell, detector)]
    kept = ~low
    return _Chunk(
        shower[kept],
        cell[kept],
        total[kept],
        None if time is None else time[kept],
        outside_points,
        outside_energy,
        np.bincount(shower[low], minlength=n),
        np.bincount(shower[low], weights=total[low], minlength=n),
    )


def _layer_of(cell: NDArray[np.int64], detector: Detector) -> NDArray[np.int64]:
    per_layer = detector.cells_per_layer
    if (per_layer == per_layer[0]).all():
        return cell // per_layer[0]
    return np.searchsorted(detector.first_cell, cell, side="right") - 1


def _join(parts: list[_Chunk], s: Showers, detector: Detector) -> Hits:
    def joined(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(p, name) for p in parts]) if parts else np.zeros(0, dtype=np.int64)

    cell = joined("cell").astype(np.int64)
    layer = _layer_of(cell, detector)
    x, y = _places(cell, detector)
    n_hits = [np.bincount(p.shower, minlength=p.outside_points.shape[0]) for p in parts]
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(n_hits))]) if parts else np.zeros(1, dtype=np.int64)
    time = None if s.time is None else joined("time")
    showers = Showers(x, y, layer, joined("energy"), offsets, s.incident, detector, time)
    return Hits(
        showers,
        cell,
        joined("outside_points"),
        joined("outside_energy"),
        joined("dropped_cells"),
        joined("dropped_energy"),
    )
