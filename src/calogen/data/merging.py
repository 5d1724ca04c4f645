"""Points merged on a finer grid than the cells: what a model of independent points should learn from.

Deposits of one particle lie close together. A model that draws its points independently scatters them and
lights too many cells; merged at about half a cell, a point is one independent deposit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calogen.data.showers import Showers


def merge(showers: Showers, pitch_mm: ArrayLike, *, seed: int) -> Showers:
    """Sum the points of each shower and layer that share a square of `pitch_mm`, at the place of the largest.

    The pitch is one for all layers or one for each [L]. The grid has a random offset per shower. Energies are
    conserved; times keep the earliest.

    Raises:
        ValueError: a pitch that is not positive.
    """
    pitches = np.broadcast_to(np.asarray(pitch_mm, dtype=np.float64), (showers.detector.n_layers,))
    if not (pitches > 0).all():
        raise ValueError(f"the merging pitch must be a positive length in mm, got {pitches.min():g}")
    if showers.n_points == 0:
        return showers
    offset = np.random.default_rng([seed, len(showers)]).random((2, len(showers)))
    shower, pitch = showers.shower_index, pitches[showers.layer]
    i_x = np.floor(showers.x / pitch + offset[0][shower]).astype(np.int64)
    i_y = np.floor(showers.y / pitch + offset[1][shower]).astype(np.int64)
    i_x -= i_x.min()
    i_y -= i_y.min()
    key = (shower * showers.detector.n_layers + showers.layer) * (int(i_x.max()) + 1) + i_x
    key = key * (int(i_y.max()) + 1) + i_y
    order = np.lexsort((-showers.energy, key))
    key = key[order]
    starts = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
    largest = order[starts]
    energy = np.add.reduceat(showers.energy[order].astype(np.float64), starts)
    time = None if showers.time is None else np.minimum.reduceat(showers.time[order], starts)
    counts = np.bincount(shower[largest], minlength=len(showers))
    return Showers(
        showers.x[largest],
        showers.y[largest],
        showers.layer[largest],
        energy,
        np.concatenate([[0], np.cumsum(counts)]),
        showers.incident,
        showers.detector,
        time,
    )


def brighter(showers: Showers, least_gev: NDArray[Any]) -> Showers:
    """The points of at least `least_gev` [L] in their layer; the others are left out.

    For targets of a model: a quarter of the deposits in a hadronic calorimeter are far below its threshold and hold
    less than a percent of the energy. The caller compares `n_points` and `visible_energy` with those before.
    """
    kept = showers.energy >= least_gev[showers.layer]
    counts = np.bincount(showers.shower_index[kept], minlength=len(showers))
    return Showers(
        showers.x[kept],
        showers.y[kept],
        showers.layer[kept],
        showers.energy[kept],
        np.concatenate([[0], np.cumsum(counts)]),
        showers.incident,
        showers.detector,
        None if showers.time is None else showers.time[kept],
    )


def with_energy(showers: Showers) -> Showers:
    """The points that have energy: the others are nothing, and have no logarithm."""
    if (showers.energy > 0).all():
        return showers
    return brighter(showers, np.full(showers.detector.n_layers, np.finfo(np.float32).tiny))
