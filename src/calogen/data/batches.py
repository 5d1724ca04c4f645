"""Which showers go together: splits and batches, as index arrays computed from counts alone.

Every function is pure in its random generator, so an epoch's batches can be rebuilt from a seed after a crash.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Disjoint, sorted shower indices that together cover the whole set."""

    train: Indices
    validation: Indices
    test: Indices


def split(n: int, *, validation: float, test: float = 0.0, seed: int = 0) -> Split:
    """Cut `n` showers at random into training, validation and test parts (fractions in [0, 1)).

    A part with a positive fraction gets at least one shower. Raises ValueError if nothing is left for training.

    >>> [len(part) for part in (split(10, validation=0.2).train, split(10, validation=0.2).validation)]
    [8, 2]
    """
    for name, fraction in (("validation", validation), ("test", test)):
        if not 0.0 <= fraction < 1.0:
            raise ValueError(f"{name} fraction {fraction} is outside [0, 1)")
    n_validation = max(round(n * validation), int(validation > 0))
    n_test = max(round(n * test), int(test > 0))
    if n_validation + n_test >= n:
        raise ValueError(f"{n} showers leave none for training after {n_validation} validation and {n_test} test")
    order = np.random.default_rng(seed).permutation(n)
    cuts = np.split(order, [n_test, n_test + n_validation])
    return Split(train=np.sort(cuts[2]), validation=np.sort(cuts[1]), test=np.sort(cuts[0]))


def in_order(n: int, batch_size: int) -> list[Indices]:
    """Batches of consecutive showers, the last one possibly smaller: for validation and sampling."""
    _require_positive("batch size", batch_size)
    return [np.arange(i, min(i + batch_size, n)) for i in range(0, n, batch_size)]


def shuffled(n: int, batch_size: int, rng: np.random.Generator, *, drop_last: bool = True) -> list[Indices]:
    """One epoch of `n` showers in random order; `drop_last`: no incomplete batch, unless it is the only one."""
    _require_positive("batch size", batch_size)
    return _chunks(rng.permutation(n), batch_size, drop_last)


def bucketed(
    counts: NDArray[np.integer],
    batch_size: int,
    rng: np.random.Generator,
    *,
    noise: float = 0.1,
    drop_last: bool = True,
) -> list[Indices]:
    """One epoch of batches of showers with similar point counts, so that padding is small.

    Showers are sorted by log(count) plus Gaussian noise of width `noise` (0.1: counts within about 10 % mix), cut into
    batches, and the batches shuffled.
    """
    _require_positive("batch size", batch_size)
    batches = _chunks(_noisy_order(counts, rng, noise), batch_size, drop_last)
    return [batches[i] for i in rng.permutation(len(batches))]


def within_points(
    counts: NDArray[np.integer],
    max_points: int,
    rng: np.random.Generator,
    *,
    max_showers: int | None = None,
    noise: float | None = None,
) -> list[Indices]:
    """One epoch of batches whose total number of points stays within `max_points`: bounded memory, no shower lost.

    A shower larger than the budget makes a batch of its own. With `noise`, showers of similar counts go together
    as in `bucketed`; without it the order is random.
    """
    _require_positive("points budget", max_points)
    if max_showers is not None:
        _require_positive("batch size", max_showers)
    order = rng.permutation(len(counts)) if noise is None else _noisy_order(counts, rng, noise)
    batches, start, points = [], 0, 0
    for i, count in enumerate(np.asarray(counts)[order].tolist()):
        full = points + count > max_points or (max_showers is not None and i - start >= max_showers)
        if full and i > start:
            batches.append(order[start:i])
            start, points = i, 0
        points += count
    if start < len(order):
        batches.append(order[start:])
    return [batches[i] for i in rng.permutation(len(batches))]


def _noisy_order(counts: NDArray[np.integer], rng: np.random.Generator, noise: float) -> Indices:
    size = np.log1p(np.asarray(counts, dtype=np.float64))
    return np.argsort(size + noise * rng.standard_normal(len(size)), kind="stable")


def _chunks(order: Indices, batch_size: int, drop_last: bool) -> list[Indices]:
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    if drop_last and len(batches) > 1 and len(batches[-1]) < batch_size:
        batches.pop()
    return batches


def _require_positive(what: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{what} {value} is below 1")
