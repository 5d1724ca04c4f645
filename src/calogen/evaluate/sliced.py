"""The sliced Wasserstein distance: how far two samples of features are apart along random directions, on average.

Bonneel et al., J. Math. Imaging Vis. 51 (2015) 22. Unlike distances of single features it sees what correlations do.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calogen.evaluate.blocks import block_count, dealt
from calogen.evaluate.features import checked, moments, normalised, row_blocks
from calogen.evaluate.metrics import Distance, Resampling, Score, bootstrap_error, floor_of

PROJECTIONS = 100
"""Directions, the same for all models: their mean is known to about 5 % of its value in many dimensions."""
MIN_SHOWERS = 20
"""Fewer showers carry no error estimate."""
REPLICAS = 100
"""Resamplings behind error and floor: standard deviations to 7 %."""
BINS = 200
"""Bins of equal content along each direction, in which samples are resampled; the value itself is not binned."""


def sliced_wasserstein(
    reference: ArrayLike, generated: ArrayLike, *, projections: int = PROJECTIONS, seed: int = 0
) -> float:
    """Mean Wasserstein-1 distance along random directions, in standard deviations of the reference.

    Features are brought to mean 0 and standard deviation 1 in the reference, so none of them counts by its unit.
    A shift by the vector s gives |s| E|cos| exactly in the limit of many directions: |s| 2/pi in two dimensions,
    about |s| (2 / (pi d))^(1/2) in many.

    Args:
        reference: features of the true showers `[n, d]`.
        generated: those of the generated ones `[m, d]`.
        projections: how many directions.
        seed: same seed, same directions.

    Raises:
        ValueError: fewer than 20 showers, NaN, different numbers of features, no direction.

    >>> a = np.random.default_rng(1).normal(size=(1000, 1))
    >>> round(float(a.std()) * sliced_wasserstein(a, a + 0.5), 9)
    0.5
    """
    a, b = _projected(
        *checked(reference, generated, minimum=MIN_SHOWERS, purpose=_PURPOSE), projections=projections, seed=seed
    )
    return _distance(a, b)


_PURPOSE = "the sliced Wasserstein distance"


def sliced_score(
    reference: ArrayLike,
    generated: ArrayLike,
    *,
    observable: str = "high-level features",
    projections: int = PROJECTIONS,
    seed: int = 0,
    paired: bool = False,
    independent: ArrayLike | None = None,
    replicas: int = REPLICAS,
) -> Score:
    """`sliced_wasserstein` with its error and floor.

    The floor is the distance of random halves of the reference carried to the sizes of the comparison (it falls as
    the root of 1/n + 1/m), or that of an `independent` Geant4 sample. The error is the bootstrap's over blocks of
    showers, at least the floor's spread; close to the floor it is rather too large.

    Args:
        reference: features of the true showers `[n, d]`.
        generated: those of the generated ones `[m, d]`.
        observable: what the features are.
        projections: how many directions.
        seed: of directions and resampling.
        paired: row k of both is of the same incident particle, and rows are in order of its energy.
        independent: features of another Geant4 sample `[l, d]`.
        replicas: resamplings.

    Raises:
        ValueError: fewer than 20 showers, NaN, different numbers of features, no direction.
    """
    true, made = checked(reference, generated, minimum=MIN_SHOWERS, purpose=_PURPOSE)
    others = [] if independent is None else [checked(true, independent, minimum=MIN_SHOWERS, purpose=_PURPOSE)[1]]
    x, y, *rest = _projected(true, made, *others, projections=projections, seed=seed)
    edges = _edges(x, y)
    n_blocks = block_count(len(y), len(x))
    blocks_x, blocks_y, *blocks_rest = (_histograms(v, edges, n_blocks) for v in (x, y, *rest))
    resampling = Resampling(len(y), len(x), paired, replicas, seed, len(rest[0]) if rest else 0)
    distance = _of_histograms(edges)
    floor, spread = floor_of(blocks_y, blocks_x, distance, 0.5, resampling, blocks_rest[0] if blocks_rest else None)
    error = max(bootstrap_error(blocks_y, blocks_x, distance, resampling), spread)
    return Score(observable, "sliced_wasserstein", "sigma", _distance(x, y), error, floor, spread)


def _projected(*samples: NDArray[Any], projections: int, seed: int) -> list[NDArray[np.float64]]:
    """Each sample along each direction `[showers, projections]`, standardised by the first."""
    if projections < 1:
        raise ValueError(f"{_PURPOSE}: {projections} directions; give a number of at least 1")
    mean, spread = moments(samples[0])
    directions = np.random.default_rng([seed, 3]).normal(size=(samples[0].shape[1], projections))
    directions /= np.linalg.norm(directions, axis=0)
    return [
        np.concatenate([normalised(s[rows], spread, mean) @ directions for rows in row_blocks(len(s))]) for s in samples
    ]


def _distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Mean over the columns of `[n, projections]` and `[m, projections]` of the area between their distributions."""
    share = np.concatenate([np.full(len(a), 1 / len(a)), np.full(len(b), -1 / len(b))])
    return float(np.mean([_area(np.concatenate(pair), share) for pair in zip(a.T, b.T, strict=True)]))


def _area(values: NDArray[np.float64], share: NDArray[np.float64]) -> float:
    order = values.argsort()
    return float(np.abs(np.cumsum(share[order])[:-1]) @ np.diff(values[order]))


# ---- resampling ----


def _edges(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bins of equal content of each column of both samples together, `[projections, bins + 1]`."""
    levels = np.linspace(0, 1, BINS + 1)
    return np.stack([np.quantile(np.concatenate(columns), levels) for columns in zip(x.T, y.T, strict=True)])


def _histograms(values: NDArray[np.float64], edges: NDArray[np.float64], n_blocks: int) -> NDArray[np.float64]:
    """Histograms along all directions, side by side, of each block of showers `[blocks, projections * bins]`."""
    block = dealt(len(values), n_blocks)
    out = np.empty((n_blocks, len(edges), BINS))
    for i, (column, limits) in enumerate(zip(values.T, edges, strict=True)):
        place = np.searchsorted(limits[1:-1], column, side="right")
        out[:, i] = np.bincount(block * BINS + place, minlength=n_blocks * BINS).reshape(n_blocks, BINS)
    return out.reshape(n_blocks, -1)


def _of_histograms(edges: NDArray[np.float64]) -> Distance:
    """Mean over directions of the area between the cumulative distributions, straight lines inside the bins."""
    widths = np.diff(edges, axis=1)
    weight = 0.5 * (widths[:, :-1] + widths[:, 1:])  # of the difference at each inner edge; it is 0 at the ends

    def distance(p: NDArray[Any], q: NDArray[Any]) -> NDArray[np.float64]:
        above = _cumulative(p, len(edges)) - _cumulative(q, len(edges))
        return np.asarray(np.einsum("...lb,lb->...", np.abs(above), weight) / len(edges))

    return distance


def _cumulative(counts: NDArray[Any], projections: int) -> NDArray[np.float64]:
    """Cumulative shares at the inner edges `[..., projections, bins - 1]`."""
    rows = np.asarray(counts, dtype=np.float64).reshape(*counts.shape[:-1], projections, BINS)
    total = rows.sum(axis=-1, keepdims=True)
    return np.asarray(np.cumsum(rows, axis=-1)[..., :-1] / total)
