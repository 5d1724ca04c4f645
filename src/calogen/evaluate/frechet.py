"""Fréchet and kernel physics distance (FPD, KPD) of two samples of features, number for number as jetnet defines them.

Kansal et al., arXiv:2211.10295; definitions of jetnet 0.2.5, which the CaloChallenge (arXiv:2410.21611) uses on its
high-level features. Both draw batches with replacement; with jetnet's seed the same batches are drawn and the same
numbers come out, from sums over the distinct showers of a batch instead of copies and 10,000 x 10,000 matrices.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg.lapack import dpstrf
from scipy.optimize import nnls

from calogen.evaluate.features import checked, largest, normalised, row_blocks

JETNET_SEED = 42
"""The seed jetnet uses unless told otherwise."""
MIN_SAMPLES, MAX_SAMPLES = 10_000, 50_000
"""Smallest (as the CaloChallenge calls it) and largest batch of the extrapolation to infinite samples."""
KPD_BATCH = 10_000
"""Showers of each kind in a batch of the KPD (as the CaloChallenge calls it)."""
KPD_BATCHES = 10
"""Batches of the KPD, jetnet's number."""
ONE_SIGMA = (16.275, 83.725)
"""Percentiles between which jetnet sees two standard deviations."""
MIN_SHOWERS = 20
"""Fewer showers have no covariance worth the name."""
TILE = 512
"""Rows and columns of a piece of the kernel matrix: 2 MB, which stay in the cache."""


class Estimate(NamedTuple):
    """A value and its error as the definition says, which leaves out the fluctuations of the samples themselves."""

    value: float
    error: float


# ---- Fréchet physics distance ----


def fpd(
    reference: ArrayLike,
    generated: ArrayLike,
    *,
    seed: int = JETNET_SEED,
    min_samples: int = MIN_SAMPLES,
    max_samples: int = MAX_SAMPLES,
    n_points: int = 10,
    n_batches: int = 20,
) -> Estimate:
    """Fréchet physics distance, extrapolated to infinite batches.

    Features are divided by the largest absolute value of the reference. For `n_points` batch sizes N, regular in 1/N,
    the Fréchet distance of two batches drawn with replacement is averaged over `n_batches`; a straight line in 1/N
    with intercept and slope >= 0 is fitted, and the intercept with its standard error returned.

    Args:
        reference: features of the true showers `[n, d]`.
        generated: those of the generated ones `[m, d]`.
        seed: same seed, same batches.
        min_samples: smallest batch.
        max_samples: largest batch.
        n_points: batch sizes.
        n_batches: batches of each size.

    Raises:
        ValueError: fewer than 20 showers, NaN, different numbers of features.

    >>> rng = np.random.default_rng(1)
    >>> fpd(rng.normal(size=(500, 3)), rng.normal(size=(500, 3)), n_batches=2).value < 0.01
    True
    """
    a, b = centred(*checked(reference, generated, minimum=MIN_SHOWERS, purpose="the Fréchet distance"))
    sizes = (1 / np.linspace(1 / min_samples, 1 / max_samples, n_points)).astype(np.int64)
    rng = np.random.default_rng(seed)
    means = [np.mean([_batch_distance(a, b, size, rng) for _ in range(n_batches)]) for size in sizes]
    return _intercept(1 / sizes, np.array(means))


def frechet_distance(
    mean_a: NDArray[np.float64],
    covariance_a: NDArray[np.float64],
    mean_b: NDArray[np.float64],
    covariance_b: NDArray[np.float64],
) -> float:
    """|mu_a - mu_b|^2 + Tr(A + B - 2 (A B)^(1/2)), of means `[d]` and covariances `[d, d]`, singular ones included.

    >>> frechet_distance(np.zeros(2), np.eye(2), np.array([3.0, 4.0]), np.eye(2))
    25.0
    """
    shift = mean_a - mean_b
    factor = _root(covariance_a)
    # The eigenvalues of A B are those of the symmetric F^T B F, where A = F F^T.
    eigenvalues = np.linalg.eigvalsh(factor.T @ covariance_b @ factor)
    overlap = np.sqrt(np.maximum(eigenvalues, 0)).sum()
    return float(shift @ shift + np.trace(covariance_a) + np.trace(covariance_b) - 2 * overlap)


def _root(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """F `[d, rank]` with F F^T = covariance: Cholesky with pivots, which takes singular matrices."""
    packed, pivots, rank, _ = dpstrf(covariance, lower=1)
    factor = np.empty((len(covariance), rank))
    factor[pivots - 1] = np.tril(packed)[:, :rank]
    return factor


def centred(reference: NDArray[Any], generated: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Over the largest value, about the reference's mean: no distance depends on it, and squares lose no digits."""
    scale, centre = largest(reference), reference.mean(axis=0, dtype=np.float64)
    return normalised(reference, scale, centre), normalised(generated, scale, centre)


def _drawn(n: int, size: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """How often each of n showers is in a batch `[n]`; the very draws of `rng.choice(n, size=size)`."""
    return np.bincount(rng.choice(n, size=size), minlength=n)


def _batch_distance(a: NDArray[np.float64], b: NDArray[np.float64], size: int, rng: np.random.Generator) -> float:
    first, second = _drawn(len(a), size, rng), _drawn(len(b), size, rng)
    return frechet_distance(*covariance_of(*sums(a, first)), *covariance_of(*sums(b, second)))


def sums(x: NDArray[np.float64], counts: NDArray[np.intp]) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Number, sum `[d]` and sum of outer products `[d, d]` of the showers, each taken `counts [n]` times."""
    present = np.flatnonzero(counts)
    d = x.shape[1]
    first, second = np.zeros(d), np.zeros((d, d))
    for block in row_blocks(len(present)):
        root = np.sqrt(counts[present[block]])
        rows = x[present[block]]
        rows *= root[:, None]
        first += root @ rows
        second += rows.T @ rows
    return float(counts.sum()), first, second


def covariance_of(
    total: float, first: NDArray[np.float64], second: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean `[d]` and unbiased covariance `[d, d]` of number, sum and sum of outer products."""
    mean = first / total
    return mean, (second - total * np.outer(mean, mean)) / (total - 1)


def _intercept(x: NDArray[np.float64], y: NDArray[np.float64]) -> Estimate:
    """Least squares of y = a + b x with a, b >= 0: a, and its standard error from the residuals."""
    design = np.stack([np.ones_like(x), x / x.max()], axis=1)
    solution, residual = nnls(design, y)
    covariance = np.linalg.inv(design.T @ design) * residual**2 / (len(x) - 2)
    return Estimate(float(solution[0]), math.sqrt(covariance[0, 0]))


# ---- kernel physics distance ----


def kpd(
    reference: ArrayLike,
    generated: ArrayLike,
    *,
    seed: int = JETNET_SEED,
    n_batches: int = KPD_BATCHES,
    batch_size: int = KPD_BATCH,
) -> Estimate:
    """Kernel physics distance: squared maximum mean discrepancy with the kernel (x.y / d + 1)^4.

    Features are divided by the largest absolute value of the reference; the value is the median over batches drawn
    with replacement, the error half the range between their 16.3 and 83.7 percentiles. In a batch no shower is paired
    with itself, but with its copies: where n showers are fewer than many, the value is above zero by about 1/n
    (see `kernel_score`, whose floor has it too).

    Args:
        reference: features of the true showers `[n, d]`.
        generated: those of the generated ones `[m, d]`.
        seed: same seed, same batches.
        n_batches: batches.
        batch_size: showers of each kind in a batch.

    Raises:
        ValueError: fewer than 20 showers, NaN, different numbers of features.

    >>> rng = np.random.default_rng(1)
    >>> kpd(rng.normal(size=(500, 3)), rng.normal(1.0, size=(500, 3)), batch_size=400).value > 0.01
    True
    """
    a, b = checked(reference, generated, minimum=MIN_SHOWERS, purpose="the kernel distance")
    x, y = (for_kernel(v, largest(a)) for v in (a, b))
    values = []
    for batch in range(n_batches):
        rng = np.random.default_rng(seed + 1000 * batch)
        values.append(_discrepancy(x, _drawn(len(x), batch_size, rng), y, _drawn(len(y), batch_size, rng)))
    low, high = np.percentile(values, ONE_SIGMA)
    return Estimate(float(np.median(values)), float(high - low) / 2)


def for_kernel(values: NDArray[Any], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """Features whose products are those of the kernel: over `scale [d]`, and over the root of d."""
    return normalised(values, scale * math.sqrt(values.shape[1]))


def kernel_sums(
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    weight_a: NDArray[np.float64] | None = None,
    weight_b: NDArray[np.float64] | None = None,
) -> float:
    """Sum of w_i v_j (a_i.b_j + 1)^4 over all pairs of rows `[n, d]` and `[m, d]`; weights are 1 where not given."""
    w = np.ones(len(a)) if weight_a is None else weight_a
    v = np.ones(len(b)) if weight_b is None else weight_b
    total = 0.0
    for rows in row_blocks(len(a), TILE):
        for columns in row_blocks(len(b), TILE):
            total += float(w[rows] @ _kernel(a[rows] @ b[columns].T) @ v[columns])
    return total


def _kernel(product: NDArray[np.float64]) -> NDArray[np.float64]:
    product += 1
    product *= product
    product *= product
    return product


def self_kernel(a: NDArray[np.float64]) -> NDArray[np.float64]:
    """(a_i.a_i + 1)^4 `[n]`."""
    return _kernel(np.einsum("ij,ij->i", a, a))


def _symmetric_sum(a: NDArray[np.float64], weight: NDArray[Any]) -> float:
    """`kernel_sums` of a sample with itself: the tiles above the diagonal count twice."""
    total = 0.0
    for rows in row_blocks(len(a), TILE):
        below = slice(rows.stop, len(a))
        total += kernel_sums(a[rows], a[rows], weight[rows], weight[rows])
        total += 2 * kernel_sums(a[rows], a[below], weight[rows], weight[below])
    return total


def _discrepancy(
    x: NDArray[np.float64], drawn_x: NDArray[np.intp], y: NDArray[np.float64], drawn_y: NDArray[np.intp]
) -> float:
    """Unbiased squared discrepancy of two batches given as how often each shower was drawn."""
    within, parts, sizes = 0.0, [], []
    for sample, drawn in ((x, drawn_x), (y, drawn_y)):
        present = np.flatnonzero(drawn)
        rows, weight = sample[present], drawn[present].astype(np.float64)
        size = float(weight.sum())
        within += (_symmetric_sum(rows, weight) - float(weight @ self_kernel(rows))) / (size * (size - 1))
        parts += [rows, weight]
        sizes.append(size)
    between = kernel_sums(parts[0], parts[2], parts[1], parts[3])
    return within - 2 * between / (sizes[0] * sizes[1])
