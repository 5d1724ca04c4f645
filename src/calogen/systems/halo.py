"""The halo of a shower moved so that its centre of gravity lies where it should."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from calogen.systems.profile_targets import LEAST_ENERGY_GEV


def move_halo(
    x: NDArray[Any],
    y: NDArray[Any],
    energy: NDArray[Any],
    offsets: NDArray[Any],
    cog: NDArray[Any],
    halo_mm: float,
    *,
    wide: bool = False,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Shift points [P] by an amount that grows with the radius up to `halo_mm`, until each shower has its `cog`.

    Where showers may be `wide`, the radius is that for one of `NARROW_MM` mean radius and grows with the shower: the
    halo of a hadron's begins where a photon's has ended.

    Independent points fluctuate less than a shower does. The core of a shower lies on its axis whatever the halo
    does, so a rigid shift (as published) would blur the core to widen the centre of gravity.
    """
    counts = np.diff(offsets)

    def mean(values: NDArray[Any]) -> NDArray[Any]:
        return np.add.reduceat(values * weight, offsets[:-1])

    weight = energy / np.repeat(np.maximum(np.add.reduceat(energy, offsets[:-1]), LEAST_ENERGY_GEV), counts)
    radius = np.hypot(x, y)
    reach = np.full(len(counts), halo_mm)
    if wide:
        reach *= np.maximum(mean(radius) / NARROW_MM, 1.0)
    share = np.minimum(radius / np.repeat(reach, counts), 1.0)
    lever = np.maximum(mean(share), SHORTEST_LEVER)
    d_x, d_y = (cog[:, 0] - mean(x)) / lever, (cog[:, 1] - mean(y)) / lever
    return x + np.repeat(d_x, counts) * share, y + np.repeat(d_y, counts) * share


NARROW_MM = 12.0
"""Mean radius, weighted with energy, of photons of tens of GeV in ILD's ECal, for which a halo of 30 mm was chosen."""
SHORTEST_LEVER = 0.05
"""Least mean share that may move: a shower all core has no halo to move, and is not torn apart."""
