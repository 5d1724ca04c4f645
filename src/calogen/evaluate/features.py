"""Two samples of showers as rows of features: checked once, and brought to a common scale."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

ROWS = 4096
"""Rows worked on at a time."""


def checked(
    reference: ArrayLike, generated: ArrayLike, *, minimum: int, purpose: str
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Both samples as arrays `[showers, features]`.

    Raises:
        ValueError: not two-dimensional, different numbers of features, none, fewer than `minimum` showers, NaN or
            infinities.
    """
    a, b = (_sample(x, name, minimum, purpose) for x, name in ((reference, "reference"), (generated, "generated")))
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"{purpose}: the reference has {a.shape[1]} features a shower, the generated sample {b.shape[1]}; "
            "compute the same features for both"
        )
    return a, b


def _sample(values: ArrayLike, name: str, minimum: int, purpose: str) -> NDArray[Any]:
    x = np.asarray(values)
    if x.ndim != 2 or x.shape[1] == 0 or x.dtype.kind not in "fiu":
        raise ValueError(
            f"{purpose}: the {name} sample must be numbers [showers, features], got {x.dtype} of shape {x.shape}"
        )
    if len(x) < minimum:
        raise ValueError(f"{purpose} needs at least {minimum} showers; the {name} sample has {len(x)}")
    # A sum is not finite where an entry is not, and needs no second array of this size.
    if not np.isfinite(x.sum(dtype=np.float64)):
        row, column = np.argwhere(~np.isfinite(x))[0]
        raise ValueError(
            f"{purpose}: feature {column} of shower {row} of the {name} sample is {x[row, column]}; "
            "give finite features"
        )
    return x


def largest(values: NDArray[Any]) -> NDArray[np.float64]:
    """Largest absolute value of each feature `[d]`; 1 for features that are zero everywhere."""
    scale = np.maximum(values.max(axis=0), -values.min(axis=0).astype(np.float64))
    return np.where(scale == 0, 1.0, scale)


def moments(values: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each feature `[d]`; 1 as deviation of features that are constant."""
    mean = values.mean(axis=0, dtype=np.float64)
    square = np.zeros_like(mean)
    for block in row_blocks(len(values)):
        square += np.square(values[block] - mean).sum(axis=0)
    spread = np.sqrt(square / len(values))
    return mean, np.where(spread == 0, 1.0, spread)


def normalised(
    values: NDArray[Any], scale: NDArray[np.float64], centre: NDArray[np.float64] | float = 0.0
) -> NDArray[np.float64]:
    """(values - centre) / scale in float64 `[n, d]`."""
    x = values.astype(np.float64)
    x -= centre
    x /= scale
    return x


def row_blocks(n: int, rows: int = ROWS) -> Iterator[slice]:
    """0 to n in slices of at most `rows`."""
    return (slice(start, min(start + rows, n)) for start in range(0, n, rows))
