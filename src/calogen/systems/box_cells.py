"""One hit a cell: places of a regular box rounded to its cells, and hits that share one moved apart along the depth.

Of the hits of a shower in one cell the brightest stays, and the others move, brighter ones first, each to the free
cell that is next in this order:

1. in its column, by layers: +1, -1, +2, -2, ... (arXiv:2501.05534), inside the box;
2. where the column is full, in the other columns, nearest first (then smaller x, smaller y), by layers in each:
   0, +1, -1, +2, -2, ...

That is the way `depth`. By the way `nearest` it is the nearest free cell in all directions, counted in cells; of some
as near one in the same column, then the deeper. In the core of showers columns are full, and hits that move along the
depth end at its ends: drawn photons had 3 to 5 times the energy in the first two layers, where 7 % of the hits moved.

No hit is lost, no energy changes, and only hits that shared a cell move. Equally bright hits take turns by their cells,
so the result does not depend on the order of hits, nor on other showers. (The published code loses track of which cells
are taken and leaves duplicates, and hits outside of the box.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from calogen.detector.geometry import CartesianCells, Detector

Integers = NDArray[np.int64]

Way = Literal["depth", "nearest"]
"""Where hits that share a cell go; see the head of this file."""

CELLS_AT_ONCE = 1 << 22
"""Cells of the showers that are looked at together: 16 MB for who has them."""

FREE = np.iinfo(np.int32).max
"""What has a cell that nobody has: a rank behind all."""

TAKEN = -1
"""Rank of a hit that stays."""


@dataclass(frozen=True)
class Box:
    """A regular box of cells; cell (i_x, i_y) of layer l is number (l n_x + i_x) n_y + i_y, as a detector has them."""

    n_x: int
    n_y: int
    n_layers: int

    @classmethod
    def of(cls, detector: Detector) -> Box:
        """The cells of a detector.

        Raises:
            ValueError: cells that are no squares, or not the same in all layers.
        """
        cells = detector.layers[0].cells
        if not isinstance(cells, CartesianCells) or any(layer.cells != cells for layer in detector.layers):
            raise ValueError(
                f"{detector.name!r} is no regular box: all layers need the same square cells; "
                "convert the showers to one, such as box-30"
            )
        return cls(cells.n_x, cells.n_y, detector.n_layers)

    @property
    def n_cells(self) -> int:
        """Cells in all."""
        return self.n_x * self.n_y * self.n_layers

    def cell(self, i_x: Integers, i_y: Integers, layer: Integers) -> Integers:
        """Numbers [P] of cells."""
        return (layer * self.n_x + i_x) * self.n_y + i_y

    def place(self, cell: Integers) -> tuple[Integers, Integers, Integers]:
        """i_x, i_y, layer [P] of cells [P]."""
        column, i_y = np.divmod(cell, self.n_y)
        layer, i_x = np.divmod(column, self.n_x)
        return i_x, i_y, layer

    @cached_property
    def layers_in_turn(self) -> Integers:
        """For each layer all layers [L, L], nearest first, of two the deeper: l, l + 1, l - 1, l + 2, ..."""
        every = np.arange(self.n_layers)
        step = every[None, :] - every[:, None]
        return np.argsort(2 * np.abs(step) - (step > 0), axis=1, kind="stable")

    @cached_property
    def columns_in_turn(self) -> Integers:
        """Steps to all other columns [(2 n_x - 1)(2 n_y - 1) - 1, 2], nearest first; some lead out of the box."""
        d_x, d_y = np.meshgrid(np.arange(1 - self.n_x, self.n_x), np.arange(1 - self.n_y, self.n_y), indexing="ij")
        steps = np.stack([d_x.ravel(), d_y.ravel()], axis=1)
        order = np.lexsort((steps[:, 1], steps[:, 0], (steps**2).sum(1)))
        return steps[order][1:]

    @cached_property
    def cells_in_turn(self) -> Integers:
        """Steps to all other cells [(2 n_x - 1)(2 n_y - 1)(2 L - 1), 3], nearest first; the first is none at all."""
        ranges = (np.arange(1 - n, n) for n in (self.n_x, self.n_y, self.n_layers))
        d_x, d_y, d_z = (d.ravel() for d in np.meshgrid(*ranges, indexing="ij"))
        order = np.lexsort((d_y, d_x, -d_z, d_x**2 + d_y**2, d_x**2 + d_y**2 + d_z**2))
        return np.stack([d_x, d_y, d_z], axis=1)[order]


class Rounded(NamedTuple):
    """Cells [P] of hits, and how many of each shower [N] were outside of the box, in whose nearest cells they are."""

    cell: Integers
    outside: Integers


def rounded(places: NDArray[Any], offsets: Integers, box: Box) -> Rounded:
    """The cells in which hits are.

    Args:
        places: [P, 3] i_x, i_y, layer; the middle of a cell is a whole number.
        offsets: shower i has the hits `offsets[i] : offsets[i + 1]`.
        box: of cells.

    Raises:
        ValueError: NaN or infinite places.
    """
    if not np.isfinite(places).all():
        hit = int(np.flatnonzero(~np.isfinite(places).all(axis=1))[0])
        raise ValueError(f"hit {hit} is at {places[hit].tolist()} cells; places must be finite")
    last = np.array([box.n_x, box.n_y, box.n_layers]) - 1
    whole = np.rint(places)
    inside = np.clip(whole, 0, last)
    beyond = np.concatenate([[0], np.cumsum((inside != whole).any(axis=1))])
    return Rounded(box.cell(*inside.astype(np.int64).T), np.diff(beyond[offsets]))


def apart(cell: Integers, energy: NDArray[Any], offsets: Integers, box: Box, way: Way = "depth") -> Integers:
    """Cells [P] such that no two hits of a shower share one; see the head of this file.

    Args:
        cell: of each hit [P].
        energy: [P], by which the brighter is known.
        offsets: shower i has the hits `offsets[i] : offsets[i + 1]`.
        box: of cells.
        way: where hits go that share a cell.

    Raises:
        ValueError: cells outside of the box, energies that are NaN, lengths that disagree, or a shower of more hits
            than there are cells.
    """
    _check(cell, energy, offsets, box)
    result = cell.copy()
    for first, last in _groups(len(offsets) - 1, max(1, CELLS_AT_ONCE // box.n_cells)):
        hits = slice(offsets[first], offsets[last])
        shower = np.repeat(np.arange(last - first), np.diff(offsets[first : last + 1]))
        _settle(shower, result[hits], energy[hits], last - first, box, way)
    return result


def _check(cell: Integers, energy: NDArray[Any], offsets: Integers, box: Box) -> None:
    if cell.shape != energy.shape or cell.ndim != 1 or offsets[0] != 0 or offsets[-1] != len(cell):
        raise ValueError(
            f"{cell.shape} cells, {energy.shape} energies and offsets from {offsets[0]} to {offsets[-1]} do not fit"
        )
    if np.isnan(energy).any():
        raise ValueError(f"energy of hit {int(np.flatnonzero(np.isnan(energy))[0])} is NaN")
    if cell.size and not 0 <= cell.min() <= cell.max() < box.n_cells:
        raise ValueError(f"cells from {cell.min()} to {cell.max()}; the box has 0 to {box.n_cells - 1}")
    counts = np.diff(offsets)
    if counts.max(initial=0) > box.n_cells:
        shower = int(counts.argmax())
        raise ValueError(
            f"shower {shower} has {counts[shower]} hits, more than the {box.n_cells} cells of the box: "
            "they cannot have one each; use a larger box or draw fewer hits"
        )


def _groups(n: int, size: int) -> Iterator[tuple[int, int]]:
    for start in range(0, n, size):
        yield start, min(start + size, n)


def _settle(shower: Integers, cell: Integers, energy: NDArray[Any], n: int, box: Box, way: Way) -> None:
    """Move hits of n showers apart, in place: all [P], showers from 0."""
    where = shower * box.n_cells + cell
    taken = np.bincount(where, minlength=n * box.n_cells)
    shared = np.flatnonzero(taken[where] > 1)
    if not shared.size:
        return
    owner = np.where(taken > 0, np.int32(TAKEN), np.int32(FREE))
    order = shared[np.lexsort((-energy[shared], where[shared]))]
    behind = np.flatnonzero(where[order][1:] == where[order][:-1]) + 1  # the first of each cell stays
    movers = order[behind]
    # Rank in all showers does as well as rank in each: their cells never meet.
    rank = np.empty(len(movers), dtype=np.int32)
    rank[np.lexsort((cell[movers], -energy[movers]))] = np.arange(len(movers), dtype=np.int32)
    cell[movers] = _cells_in_turn(shower[movers], cell[movers], rank, owner, box, way)


def _cells_in_turn(
    shower: Integers, cell: Integers, rank: NDArray[np.int32], owner: NDArray[np.int32], box: Box, way: Way
) -> Integers:
    """The cells [M] of hits that take turns, each the first in its order that is free when its turn comes.

    All try at once. A cell goes to the hit of the lowest rank that ever tries it, and whom it was taken from goes on
    from there (deferred acceptance: with one ranking for all cells this ends as taking turns does).

    Args:
        shower: of each [M].
        cell: where they are [M]; those of one cell are together, the lower ranks first.
        rank: whose turn it is [M], 0 to M - 1.
        owner: rank of what has each cell of each shower [n cells]; changed in place.
        box: of cells.
        way: the order in which they try.
    """
    hit_of = np.argsort(rank)
    origin = shower * box.n_cells + cell
    group = np.cumsum(np.concatenate([[0], origin[1:] != origin[:-1]]))[: len(cell)]
    attempt, tried = np.zeros(len(cell), dtype=np.int64), np.empty(len(cell), dtype=np.int64)
    i_x, i_y, layer = box.place(cell)
    attempted = _along_depth if way == "depth" else _around
    active = np.arange(len(cell))
    while active.size:
        attempt[active] = _next_attempts(attempt[active] + 1, active, group[active], box)
        found, inside = attempted(i_x[active], i_y[active], layer[active], attempt[active], box)
        trying = active[inside]
        where = shower[trying] * box.n_cells + found[inside]
        tried[trying] = found[inside]
        before = owner[where]
        np.minimum.at(owner, where, rank[trying])
        won = owner[where] == rank[trying]
        bumped = hit_of[before[won & (before != FREE)]]
        inside[inside] = won
        active = np.sort(np.concatenate([active[~inside], bumped]), kind="stable")
    return tried


def _next_attempts(attempt: Integers, hit: Integers, group: Integers, box: Box) -> Integers:
    """The attempts [A] that hits may start at: all in one cell try in one order, so each ends behind those before it.

    Args:
        attempt: each hit's own [A].
        hit: their numbers [A], rising; those of a group follow each other.
        group: the cell they are from [A], rising.
        box: of cells.
    """
    above = group * (box.n_cells * BEYOND + hit[-1] + 1)  # more than any attempt, or any step between two hits
    ahead = np.maximum.accumulate(attempt - hit + above)
    return ahead + hit - above


BEYOND = 8
"""Attempts of one hit, in units of the cells of the box, are fewer: steps lead out of it on all sides."""


def _along_depth(
    i_x: Integers, i_y: Integers, layer: Integers, attempt: Integers, box: Box
) -> tuple[Integers, NDArray[np.bool_]]:
    """The cells [M] that hits try the `attempt`-th time, from 1, and whether they are inside the box."""
    column, turn = np.divmod(attempt, box.n_layers)
    steps = box.columns_in_turn[np.maximum(column, 1) - 1] * (column > 0)[:, None] if column.any() else None
    if steps is not None:
        i_x, i_y = i_x + steps[:, 0], i_y + steps[:, 1]
    inside = (i_x >= 0) & (i_x < box.n_x) & (i_y >= 0) & (i_y < box.n_y)
    return box.cell(i_x, i_y, box.layers_in_turn[layer, turn]), inside


def _around(
    i_x: Integers, i_y: Integers, layer: Integers, attempt: Integers, box: Box
) -> tuple[Integers, NDArray[np.bool_]]:
    """As `_along_depth`, the nearest cells first."""
    x, y, z = (start + step for start, step in zip((i_x, i_y, layer), box.cells_in_turn[attempt].T, strict=True))
    inside = (x >= 0) & (x < box.n_x) & (y >= 0) & (y < box.n_y) & (z >= 0) & (z < box.n_layers)
    return box.cell(x, y, z), inside
