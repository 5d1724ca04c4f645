"""Optimal transport within groups: noise is paired with points so that the paths between them are short (AllShowers).

Straight paths that cross teach a velocity field the mean of both; paired paths hardly cross, and a few steps of a
solver follow them. The idea is of Tong et al. (arXiv:2302.00482) for batches; AllShowers (arXiv:2601.11716) pairs
within a layer of a shower, where points are alike but for their features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist


def match(x: NDArray[Any], z: NDArray[Any], group_sizes: NDArray[Any] | Sequence[int]) -> NDArray[Any]:
    """Noise z with its rows permuted within consecutive groups, so that Σ |x_i - z_i| of each group is least.

    The distance is euclidean, not squared, as published. The assignment is exact. Noise that was drawn independently
    of x keeps its distribution: a permutation of it within a group is as likely before as after.

    Args:
        x: points [P, F].
        z: noise [P, F].
        group_sizes: rows of each group, one group after the other, sum P; for AllShowers points of each layer of each
            shower. Empty groups are fine.

    Raises:
        ValueError: if shapes and group sizes do not fit each other, or numbers are not finite.

    >>> match(np.array([[0.0], [1.0], [5.0]]), np.array([[1.1], [0.1], [7.0]]), [2, 1]).tolist()
    [[0.1], [1.1], [7.0]]
    """
    sizes = np.asarray(group_sizes, dtype=np.int64)
    if x.ndim != 2 or x.shape != z.shape:
        raise ValueError(f"points {list(x.shape)} and noise {list(z.shape)} must both be [P, F]")
    if sizes.ndim != 1 or (sizes < 0).any() or sizes.sum() != len(x):
        raise ValueError(f"group sizes {list(sizes.shape)} with sum {sizes.sum()} do not cut {len(x)} points")
    if not (np.isfinite(x).all() and np.isfinite(z).all()):
        raise ValueError("points and noise to match must be finite")
    first = np.cumsum(sizes) - sizes
    order = np.arange(len(x))
    _match_pairs(x, z, first[sizes == 2], order)
    many = sizes > 2
    x64, z64 = x.astype(np.float64), z.astype(np.float64)
    for a, n in zip(first[many].tolist(), sizes[many].tolist(), strict=True):
        _, column = linear_sum_assignment(cdist(x64[a : a + n], z64[a : a + n]))
        order[a : a + n] = a + column
    return z[order]


def _match_pairs(x: NDArray[Any], z: NDArray[Any], a: NDArray[np.int64], order: NDArray[np.int64]) -> None:
    """Swap in `order` the rows a and a + 1 of those groups of two whose paths are shorter crossed."""
    b = a + 1

    def distance(i: NDArray[np.int64], j: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.linalg.norm(x[i].astype(np.float64) - z[j], axis=1)

    swap = distance(a, b) + distance(b, a) < distance(a, a) + distance(b, b)
    order[a[swap]], order[b[swap]] = b[swap], a[swap]
