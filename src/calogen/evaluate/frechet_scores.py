"""FPD and KPD as scores: with the error of samples of this size, and the floor that two Geant4 samples reach.

Both distances are quadratic in the difference of the samples. jetnet's own errors say how the batches scatter, not
how the samples do; here showers are dealt into blocks, and random halves of the blocks are compared.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calogen.evaluate.features import checked, largest
from calogen.evaluate.frechet import (
    JETNET_SEED,
    KPD_BATCH,
    KPD_BATCHES,
    centred,
    covariance_of,
    for_kernel,
    fpd,
    frechet_distance,
    kernel_sums,
    kpd,
    self_kernel,
    sums,
)
from calogen.evaluate.metrics import Resampling, Score, floor_of

BLOCKS = 40
"""Groups of showers that are resampled; even."""
KERNEL_BLOCKS = 20
REPLICAS = 60
"""Resamplings behind errors and floors: standard deviations to 9 %."""
KERNEL_REPLICAS = 300
EIGEN_SHOWERS, COMPONENTS = 400, 30
"""Showers of which the kernel's eigenvalues are taken, and how many of these: the largest few make up nearly all."""
MEDIANS = 2000
"""Simulated medians over batches: their mean is known to 2 % of their spread."""
KERNEL_SHOWERS = 10_000
"""Showers of each sample behind the error of the KPD, which is carried from there to the full sizes."""
MIN_SHOWERS = 100
"""Fewer showers leave too few in a block."""
FEATURES = "high-level features"


def quadratic_error(raw: float, spread: float, shrink: float = 1.0) -> float:
    """Standard deviation of a quadratic statistic from that over half samples (`raw`) and from its floor (`spread`).

    Its variance is 2 k + 4 c (k degrees of freedom, non-centrality c), the floor's 2 k; half samples, which add noise
    to noise, see 6 k + 4 c. Carried to larger samples by `shrink`, the ratio of (1/n + 1/m): c falls with it, k with
    its square.
    """
    return math.sqrt(shrink * max(raw**2 - 3 * spread**2, 0.0) + (shrink * spread) ** 2)


def frechet_score(
    reference: ArrayLike,
    generated: ArrayLike,
    *,
    observable: str = FEATURES,
    seed: int = JETNET_SEED,
    paired: bool = False,
    independent: ArrayLike | None = None,
    replicas: int = REPLICAS,
    **options: Any,
) -> Score:
    """`fpd` with its error and floor.

    The floor is the Fréchet distance of random halves of the reference, carried to the sizes of the comparison (it
    falls as 1/n + 1/m once there are many more showers than features; the power is measured), or that of an
    `independent` Geant4 sample to the reference.

    Args:
        reference: features of the true showers `[n, d]`.
        generated: those of the generated ones `[m, d]`.
        observable: what the features are.
        seed: of the batches and of the resampling.
        paired: row k of both is of the same incident particle, and rows are in order of its energy.
        independent: features of another Geant4 sample `[l, d]`.
        replicas: resamplings.
        options: of `fpd`.

    Raises:
        ValueError: fewer than 100 showers, NaN, different numbers of features.
    """
    true, made = checked(reference, generated, minimum=MIN_SHOWERS, purpose="the score of the Fréchet distance")
    estimate = fpd(true, made, seed=seed, **options)
    other = None if independent is None else checked(true, independent, minimum=MIN_SHOWERS, purpose="the floor")[1]
    x, y = centred(true, made)
    n_blocks = min(BLOCKS, len(x) // 2 * 2, len(y) // 2 * 2)
    blocks_x, blocks_y = _blocks(x, n_blocks), _blocks(y, n_blocks)
    blocks_other = None if other is None else _blocks(centred(true, other)[1], n_blocks)
    resampling = Resampling(len(y), len(x), paired, replicas, seed, 0 if other is None else len(other))
    floor, spread = floor_of(blocks_y, blocks_x, _distances, 1.0, resampling, blocks_other)
    first, second = _half_samples(resampling, n_blocks)
    error = quadratic_error(float(_distances(first @ blocks_y, second @ blocks_x).std(ddof=1)), spread)
    return Score(observable, "fpd", "", estimate.value, math.hypot(error, estimate.error), floor, spread)


def _half_samples(resampling: Resampling, blocks: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Random halves of the blocks `[replicas, blocks]` of 0 and 1, for the generated and the true sample.

    Halves of a sample scatter about it as samples do about the truth. Draws with replacement do so too, but with few
    blocks and many features the uneven number of draws of each block would outweigh what is to be measured.
    """
    first = resampling.splits(blocks)[0]
    return first, first if resampling.paired else replace(resampling, seed=resampling.seed + 1).splits(blocks)[0]


def _blocks(x: NDArray[np.float64], n_blocks: int) -> NDArray[np.float64]:
    """Number, sums and products (upper triangle) of the showers of each block, side by side `[blocks, ...]`."""
    upper = np.triu_indices(x.shape[1])
    rows = []
    for block in range(n_blocks):
        part = x[block::n_blocks]
        total, first, second = sums(part, np.ones(len(part), dtype=np.intp))
        rows.append(np.concatenate([[total], first, second[upper]]))
    return np.stack(rows)


def _distances(p: NDArray[Any], q: NDArray[Any]) -> NDArray[np.float64]:
    """Fréchet distances of samples given by such sums `[..., K]`."""
    if p.ndim == 1:
        return np.asarray(frechet_distance(*_unpacked(p), *_unpacked(q)))
    return np.array([frechet_distance(*_unpacked(a), *_unpacked(b)) for a, b in zip(p, q, strict=True)])


def _unpacked(packed: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    d = round((math.sqrt(8 * packed.size + 1) - 3) / 2)  # 1 + d + d (d + 1) / 2 numbers
    second = np.zeros((d, d))
    second[np.triu_indices(d)] = packed[1 + d :]
    second += np.triu(second, 1).T
    return covariance_of(packed[0], packed[1 : 1 + d], second)


def kernel_score(
    reference: ArrayLike,
    generated: ArrayLike,
    *,
    observable: str = FEATURES,
    seed: int = JETNET_SEED,
    paired: bool = False,
    replicas: int = KERNEL_REPLICAS,
    **options: Any,
) -> Score:
    """`kpd` with its error and floor.

    The definition draws with replacement, so its mean over draws is the squared distance |a - b|^2 of the samples' mean
    kernel embeddings. The floor is what this is on average between equal samples of these sizes: of independent ones
    (1/n + 1/m) times the mean kernel of a shower with itself less that of two; of `paired` ones 1/n times the mean
    squared distance between neighbours in energy of the reference, times how much nearer a pair is than such neighbours
    (seen in both samples together). The definition takes the median over draws, not the mean, which is simulated. The
    floor's spread is that between random halves of the reference, carried to these sizes.

    Args:
        reference: features of the true showers `[n, d]`.
        generated: those of the generated ones `[m, d]`.
        observable: what the features are.
        seed: of the batches and of the resampling.
        paired: row k of both is of the same incident particle, and rows are in order of its energy.
        replicas: resamplings.
        options: of `kpd`.

    Raises:
        ValueError: fewer than 100 showers, NaN, different numbers of features, paired samples of different lengths.
    """
    true, made = checked(reference, generated, minimum=MIN_SHOWERS, purpose="the score of the kernel distance")
    if paired and len(true) != len(made):
        raise ValueError(
            f"paired samples must be of one length, got {len(true)} true and {len(made)} generated showers"
        )
    estimate = kpd(true, made, seed=seed, **options)
    chosen = _some(len(true), seed, 0), _some(len(made), seed, 0 if paired else 1)
    x, y = (for_kernel(v[rows], largest(true)) for v, rows in zip((true, made), chosen, strict=True))
    blocks = _KernelBlocks(x, y)
    resampling = Resampling(len(y), len(x), paired, replicas, seed)
    raw = float(blocks.compared(*_half_samples(resampling, KERNEL_BLOCKS)).std(ddof=1))
    excess, nearer = _paired_excess(x, y) if paired else (blocks.self_excess, 1.0)
    shrink = (1 / len(true) + 1 / len(made)) / (1 / len(x) + 1 / len(y))
    batches, batch_size = options.get("n_batches", KPD_BATCHES), options.get("batch_size", KPD_BATCH)
    spread = float(blocks.halves(*resampling.splits(KERNEL_BLOCKS)).std(ddof=1)) * resampling.size_ratio * nearer
    of_median = estimate.error * math.sqrt(math.pi / 2 / batches)
    error = math.hypot(quadratic_error(raw, spread, shrink), of_median)
    mean = (1 / len(true) + 1 / len(made)) * excess * nearer
    floor = mean + _median_bias(x, mean, batches, batch_size, np.random.default_rng([seed, 6]))
    return Score(observable, "kpd", "", estimate.value, error, floor, math.hypot(shrink * spread, of_median))


def _median_bias(
    x: NDArray[np.float64], level: float, batches: int, batch_size: int, rng: np.random.Generator
) -> float:
    """How far the median over batches is below their mean, on average, where two samples are at the floor's `level`.

    The discrepancy of a batch is |difference of the samples + the batch's own fluctuation|^2, which is skewed; that
    counts where batches are not much larger than samples. Both are normal along the kernel's principal components, with
    its eigenvalues (of some of the showers) as variances.
    """
    rows = x[rng.permutation(len(x))[:EIGEN_SHOWERS]]
    kernel = (rows @ rows.T + 1) ** 4
    kernel -= kernel.mean(axis=0)
    kernel -= kernel.mean(axis=1, keepdims=True)
    variance = np.maximum(np.linalg.eigvalsh(kernel)[-COMPONENTS:], 0) / len(rows)
    share = variance / max(float(variance.sum()), np.finfo(np.float64).tiny)
    samples = rng.normal(size=(MEDIANS, 1, share.size)) * np.sqrt(level * share)
    drawn = rng.normal(size=(MEDIANS, batches, share.size)) * np.sqrt(2 / batch_size * variance)
    values = np.square(samples + drawn).sum(axis=2)
    return float((np.median(values, axis=1) - values.mean(axis=1)).mean())


def _some(n: int, seed: int, stream: int) -> NDArray[np.intp]:
    """At most `KERNEL_SHOWERS` of n rows, in order."""
    return np.sort(np.random.default_rng([seed, stream]).permutation(n)[:KERNEL_SHOWERS])


def _paired_excess(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Half the mean squared distance of neighbours in x, and how that of pairs compares to it, in both samples.

    Distances are those of kernel embeddings; rows k of x and y are a pair, rows 2 k and 2 k + 1 are neighbours.
    """
    even, odd = slice(0, len(x) // 2 * 2, 2), slice(1, None, 2)
    of_truth = _apart(x[even], x[odd])
    others = _apart(y[even], y[odd]), _apart(x[even], y[odd]), _apart(y[even], x[odd])
    neighbours = (of_truth + sum(others)) / 4
    return of_truth / 2, _apart(x, y) / neighbours if neighbours > 0 else 1.0


def _apart(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Mean over rows of k(a, a) + k(b, b) - 2 k(a, b): the squared distance of the two in the space of the kernel."""
    together = (1 + np.einsum("ij,ij->i", a, b)) ** 4
    return float((self_kernel(a) + self_kernel(b) - 2 * together).mean())


class _KernelBlocks:
    """Mean kernels between blocks of two samples, of different showers: any resampling of blocks is a small product."""

    def __init__(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
        xs, ys = ([v[block::KERNEL_BLOCKS] for block in range(KERNEL_BLOCKS)] for v in (x, y))
        self.n_x, self.n_y = (np.array([float(len(v)) for v in parts]) for parts in (xs, ys))
        self.xx, self.yy = _within(xs), _within(ys)
        self.xy = np.array([[kernel_sums(a, b) for b in ys] for a in xs]) / np.outer(self.n_x, self.n_y)
        share = self.n_x / self.n_x.sum()
        self.self_excess = float(self_kernel(x).mean() - share @ self.xx @ share)
        """How much larger the kernel of a shower with itself is than that of two showers."""

    def compared(self, first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
        """Discrepancies `[replicas]` of y with blocks taken `first` times and x with `second` `[replicas, blocks]`."""
        p, q = _shares(first * self.n_y), _shares(second * self.n_x)
        return _form(p, self.yy, p) + _form(q, self.xx, q) - 2 * _form(q, self.xy, p)

    def halves(self, first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
        """Discrepancies `[replicas]` of two halves of x."""
        difference = _shares(first * self.n_x) - _shares(second * self.n_x)
        return _form(difference, self.xx, difference)


def _within(parts: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Mean kernels of every block with every block of one sample, no shower paired with itself."""
    table = np.zeros((len(parts), len(parts)))
    for i, a in enumerate(parts):
        table[i, i] = (kernel_sums(a, a) - self_kernel(a).sum()) / (len(a) * (len(a) - 1))
        for j in range(i):
            table[i, j] = table[j, i] = kernel_sums(a, parts[j]) / (len(a) * len(parts[j]))
    return table


def _shares(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _form(left: NDArray[np.float64], table: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(((left @ table) * right).sum(axis=1))
