"""Ragged columns in files: the offsets must agree with the points. And the padded blocks other formats keep."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from calogen.data.showers import Showers


def check_offsets(offsets: NDArray[np.int64], n_points: int) -> None:
    """Raise ValueError unless the offsets rise within 0 and the number of points."""
    if np.any(np.diff(offsets) < 0) or offsets[0] < 0 or offsets[-1] > n_points:
        raise ValueError(
            f"offsets must rise and stay within the {n_points} points; they go from {offsets[0]} to {offsets[-1]}, "
            f"smallest step {np.diff(offsets).min(initial=0)}"
        )


def largest_step(offsets: h5py.Dataset) -> int:
    """Points of the largest shower."""
    return int(np.diff(offsets[:].astype(np.int64)).max(initial=0))


def offsets_of(counts: NDArray[Any]) -> NDArray[np.int64]:
    """Offsets `[N+1]` of showers with these counts `[N]`."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def padded_block(showers: Showers, columns: list[NDArray[Any]], width: int, *, front: bool) -> NDArray[np.float32]:
    """The columns `[P]` as one block `[N, width, columns]`, zeros before (`front`) or after each shower's points.

    Raises:
        ValueError: a shower with more than `width` points, or a point without energy (it would read as padding).
    """
    counts = showers.counts
    if counts.max(initial=0) > width:
        i = int(counts.argmax())
        raise ValueError(f"shower {i} has {counts[i]} points, the padded layout room for {width}; raise max_points")
    if np.any(showers.energy == 0):
        raise ValueError("points of zero energy would read as padding in this format; remove them first")
    place = np.arange(width)
    mask = place >= width - counts[:, None] if front else place < counts[:, None]
    block = np.zeros((len(showers), width, len(columns)), dtype=np.float32)
    block[mask] = np.stack(columns, axis=-1)
    return block
