"""What nearest neighbours say of two samples: precision, recall, density and coverage (PRDC).

Kynkäänniemi et al., arXiv:1904.06991 (precision, recall); Naeem et al., arXiv:2002.09797 (density, coverage, and the
package prdc, whose definitions these are). Distances are computed a tile at a time, in the precision of the features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calogen.evaluate.features import checked, row_blocks

NEIGHBOURS = 5
"""k of the CaloChallenge."""
BLOCK = 1024
"""Showers along each side of a tile of distances."""
EMPTY_VOXEL_MEV = 0.1
"""Energy the CaloChallenge gives to empty voxels before it takes the logarithm, above its threshold of 0.015 MeV."""
MEV = 1e3
"""MeV in a GeV."""

Tile = Callable[[slice, slice], NDArray[Any]]
"""Squared distances `[rows, columns]` between some showers of one sample and some of another."""


class Prdc(NamedTuple):
    """`precision`: share of generated showers within the k-th neighbour distance of a true one; `recall`: the same
    with the samples exchanged; `density`: mean number of such true showers over k; `coverage`: share of true showers
    with a generated one within that distance.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def prdc(reference: ArrayLike, generated: ArrayLike, *, k: int = NEIGHBOURS, block: int = BLOCK) -> Prdc:
    """Precision, recall, density and coverage with Euclidean distances.

    All four depend on the numbers of showers: compare only numbers of equal sizes. Two samples of one distribution
    and n showers each have density 1 and coverage 1 - 2^-k on average, whatever the dimension.

    Args:
        reference: features of the true showers `[n, d]`; the CaloChallenge takes `log_voxels(energy)`.
        generated: those of the generated ones `[m, d]`.
        k: which neighbour.
        block: showers along a side of a tile of distances.

    Raises:
        ValueError: k below 1, no more than k showers, NaN, different numbers of features.

    >>> rng = np.random.default_rng(1)
    >>> prdc(rng.normal(size=(300, 2)), rng.normal(9.0, size=(300, 2))).coverage
    0.0
    """
    if k < 1:
        raise ValueError(f"k = {k} neighbours: give a number of at least 1")
    a, b = checked(reference, generated, minimum=k + 1, purpose=f"PRDC with {k} neighbours")
    centre = a.mean(axis=0, dtype=np.float64)
    within, between, across = (squared(*pair, centre) for pair in ((a, a), (b, b), (a, b)))
    return _prdc((len(a), len(b)), (within, between, across), k, block)


def log_voxels(energy_gev: NDArray[Any]) -> NDArray[np.float32]:
    """log10 of energies in MeV, 0.1 MeV where there is none: on what the CaloChallenge computes PRDC.

    >>> log_voxels(np.array([[0.0, 1.0]])).round(3).tolist()
    [[-1.0, 3.0]]
    """
    mev = np.where(energy_gev == 0, EMPTY_VOXEL_MEV, energy_gev * MEV)
    return np.log10(mev).astype(np.float32)


def squared(a: NDArray[Any], b: NDArray[Any], centre: NDArray[Any] | float = 0.0) -> Tile:
    """Squared Euclidean distances of the rows of `a [n, d]` to those of `b [m, d]`, in float32 if both are.

    Near the features' `centre` numbers are small, and lose no digits in |p|^2 + |q|^2 - 2 p.q.
    """
    kind = np.float32 if a.dtype == b.dtype == np.float32 else np.float64
    middle: Any = np.asarray(centre, dtype=kind)

    def part(values: NDArray[Any], rows: slice) -> NDArray[Any]:
        return values[rows].astype(kind, copy=False) - middle

    def lengths(values: NDArray[Any]) -> NDArray[Any]:
        parts = (part(values, rows) for rows in row_blocks(len(values), BLOCK))
        return np.concatenate([np.einsum("ij,ij->i", p, p) for p in parts])

    length_a, length_b = lengths(a), lengths(b)

    def tile(rows: slice, columns: slice) -> NDArray[Any]:
        d = part(a, rows) @ part(b, columns).T
        d *= -2
        d += length_a[rows, None]
        d += length_b[columns]
        return np.maximum(d, 0, out=d)

    return tile


def neighbour_distances(n: int, tile: Tile, k: int, block: int = BLOCK) -> NDArray[Any]:
    """Squared distance `[n]` of each shower of a sample to its k-th nearest other one."""
    nearest = np.full((n, k), np.inf)
    for rows in row_blocks(n, block):
        for columns in row_blocks(n, block):
            if columns.start > rows.start:
                continue  # Known from the other side of the diagonal.
            d = tile(rows, columns)
            if rows.start == columns.start:
                np.fill_diagonal(d, np.inf)
            else:
                nearest[columns] = _smallest(nearest[columns], d.T, k)
            nearest[rows] = _smallest(nearest[rows], d, k)
    return nearest.max(axis=1)


def _smallest(known: NDArray[Any], more: NDArray[Any], k: int) -> NDArray[Any]:
    return np.partition(np.concatenate([known, more], axis=1), k - 1, axis=1)[:, :k]


def _prdc(sizes: tuple[int, int], tiles: tuple[Tile, Tile, Tile], k: int, block: int = BLOCK) -> Prdc:
    """From squared distances within the reference, within the generated sample, and from one to the other."""
    n, m = sizes
    radius_true, radius_made = (neighbour_distances(s, t, k, block) for s, t in zip(sizes, tiles, strict=False))
    inside = np.zeros(m, dtype=np.int64)  # true neighbourhoods a generated shower is in
    recalled, covered = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    for rows in row_blocks(n, block):
        for columns in row_blocks(m, block):
            d = tiles[2](rows, columns)
            within = d < radius_true[rows, None]
            inside[columns] += within.sum(axis=0)
            covered[rows] |= within.any(axis=1)
            recalled[rows] |= (d < radius_made[columns]).any(axis=1)
    return Prdc(float((inside > 0).mean()), float(recalled.mean()), float(inside.mean()) / k, float(covered.mean()))
