"""Ragged columns in files: the offsets must agree with the points."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def check_offsets(offsets: NDArray[np.int64], n_points: int) -> None:
    """Raise ValueError unless the offsets rise within 0 and the number of points."""
    if np.any(np.diff(offsets) < 0) or offsets[0] < 0 or offsets[-1] > n_points:
        raise ValueError(
            f"offsets must rise and stay within the {n_points} points; they go from {offsets[0]} to {offsets[-1]}, "
            f"smallest step {np.diff(offsets).min(initial=0)}"
        )
