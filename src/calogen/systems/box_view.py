"""Showers as hits in the cells of a regular box: from points or voxels, in a named order, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from calogen.data.incident import Incident
from calogen.data.projection import project
from calogen.data.showers import Showers
from calogen.data.voxels import Voxels
from calogen.detector.geometry import Detector
from calogen.systems.box_cells import Box, Integers

Order = Literal["energy", "layer"]
"""Of the hits of a shower: brightest first; or front to back, and brightest first in each layer."""


@dataclass(frozen=True)
class BoxHits:
    """Hits of N showers: cells [P] in the detector's order, energies [P] float32 GeV, and offsets [N + 1].

    Raises:
        ValueError: a detector that is no regular box, lengths that disagree, cells that are not of it, energies that
            are not positive, or two hits of a shower in one cell.
    """

    cell: Integers
    energy: NDArray[np.float32]
    offsets: Integers
    incident: Incident
    detector: Detector

    def __post_init__(self) -> None:
        object.__setattr__(self, "cell", np.ascontiguousarray(self.cell, dtype=np.int64))
        object.__setattr__(self, "energy", np.ascontiguousarray(self.energy, dtype=np.float32))
        object.__setattr__(self, "offsets", np.ascontiguousarray(self.offsets, dtype=np.int64))
        _check(self)

    def __len__(self) -> int:
        return len(self.incident)

    @property
    def box(self) -> Box:
        """The cells."""
        return Box.of(self.detector)

    @property
    def counts(self) -> Integers:
        """Hits of each shower [N]."""
        return np.diff(self.offsets)

    @property
    def shower_index(self) -> Integers:
        """Shower of each hit [P]."""
        return np.repeat(np.arange(len(self)), self.counts)

    def places(self) -> NDArray[np.float64]:
        """i_x, i_y and layer of each hit [P, 3]."""
        return np.stack(self.box.place(self.cell), axis=1).astype(np.float64)

    def in_order(self, order: Order) -> BoxHits:
        """The same hits in another order; equally bright ones by their cells.

        Raises:
            ValueError: an unknown order.
        """
        if order not in get_args(Order):
            raise ValueError(f"unknown order of hits {order!r}; use {' or '.join(map(repr, get_args(Order)))}")
        keys: tuple[NDArray[Any], ...] = (self.cell, -self.energy, self.shower_index)
        if order == "layer":
            keys = (self.cell, -self.energy, self.box.place(self.cell)[2], self.shower_index)
        at = np.lexsort(keys)
        return BoxHits(self.cell[at], self.energy[at], self.offsets, self.incident, self.detector)

    def voxels(self) -> Voxels:
        """The showers as dense voxels."""
        energy = np.zeros((len(self), self.detector.n_cells), dtype=np.float32)
        energy[self.shower_index, self.cell] = self.energy
        return Voxels(energy, self.incident, self.detector)

    def showers(self) -> Showers:
        """The showers as points in the middle of their cells, as ordered here."""
        box, cells = self.box, self.detector.layers[0].cells
        i_x, i_y, layer = box.place(self.cell)
        x, y = cells.centre(i_x * box.n_y + i_y)
        return Showers(x, y, layer, self.energy, self.offsets, self.incident, self.detector)


def hits_of(showers: Showers, order: Order = "energy") -> BoxHits:
    """What the readout sees of showers in a box: cells at or above its thresholds; what lies outside is not seen."""
    Box.of(showers.detector)
    found = project(showers)
    lit = found.showers.energy > 0  # a threshold of 0 lets cells through that hold nothing
    offsets = np.concatenate([[0], np.cumsum(np.bincount(found.showers.shower_index[lit], minlength=len(showers)))])
    hits = BoxHits(found.cell[lit], found.showers.energy[lit], offsets, showers.incident, showers.detector)
    return hits.in_order(order)


def hits_of_voxels(voxels: Voxels, order: Order = "energy") -> BoxHits:
    """The voxels with energy, whatever the threshold."""
    shower, cell = np.nonzero(voxels.energy)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(shower, minlength=len(voxels)))])
    hits = BoxHits(cell, voxels.energy[shower, cell], offsets, voxels.incident, voxels.detector)
    return hits.in_order(order)


def _check(hits: BoxHits) -> None:
    box, p = Box.of(hits.detector), len(hits.cell)
    if hits.cell.shape != hits.energy.shape or hits.cell.ndim != 1 or hits.offsets.shape != (len(hits) + 1,):
        raise ValueError(
            f"{len(hits)} showers need cells and energies [P] and offsets [{len(hits) + 1}], "
            f"got {hits.cell.shape}, {hits.energy.shape} and {hits.offsets.shape}"
        )
    if hits.offsets[0] != 0 or hits.offsets[-1] != p or (np.diff(hits.offsets) < 0).any():
        raise ValueError(
            f"offsets must rise from 0 to the {p} hits; they go from {hits.offsets[0]} to {hits.offsets[-1]}"
        )
    if p and not 0 <= hits.cell.min() <= hits.cell.max() < box.n_cells:
        raise ValueError(f"cells from {hits.cell.min()} to {hits.cell.max()}; the box has 0 to {box.n_cells - 1}")
    if not bool((np.isfinite(hits.energy) & (hits.energy > 0)).all()):
        bad = int(np.flatnonzero(~(np.isfinite(hits.energy) & (hits.energy > 0)))[0])
        raise ValueError(f"energy of hit {bad} is {hits.energy[bad]} GeV; hits need a finite energy above 0")
    where = np.sort(hits.shower_index * box.n_cells + hits.cell)
    twice = np.flatnonzero(where[1:] == where[:-1])
    if twice.size:
        shower, cell = divmod(int(where[twice[0]]), box.n_cells)
        raise ValueError(f"shower {shower} has two hits in cell {cell}; add their energies or move them apart")
