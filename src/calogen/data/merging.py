"""Points merged on a finer grid than the cells: what a model of independent points should learn from.

Deposits of one particle lie close together. A model that draws its points independently scatters them and
lights too many cells; merged at about half a cell, a point is one independent deposit.
"""

from __future__ import annotations

import numpy as np

from calogen.data.showers import Showers


def merge(showers: Showers, pitch_mm: float, *, seed: int) -> Showers:
    """Sum the points of each shower and layer that share a square of `pitch_mm`, at the place of the largest.

    The grid has a random offset per shower. Energies are conserved; times keep the earliest.

    Raises:
        ValueError: a pitch that is not positive.
    """
    if not pitch_mm > 0:
        raise ValueError(f"the merging pitch must be a positive length in mm, got {pitch_mm}")
    if showers.n_points == 0:
        return showers
    offset = np.random.default_rng([seed, len(showers)]).random((2, len(showers))) * pitch_mm
    shower = showers.shower_index
    i_x = np.floor((showers.x + offset[0][shower]) / pitch_mm).astype(np.int64)
    i_y = np.floor((showers.y + offset[1][shower]) / pitch_mm).astype(np.int64)
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
