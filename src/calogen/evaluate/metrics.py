"""Distances between histograms of two samples, with their uncertainty and the floor that equal samples reach.

Cells of one shower are correlated, so nothing here resamples cells: showers are dealt into blocks, a histogram is
known per block `[blocks, bins]`, and blocks are what is drawn and split.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

EMPTY_BIN = 1e-10
"""Probability given to empty bins, as in CaloClouds3 (arXiv:2511.01460)."""

INDISTINGUISHABLE_SIGMA = 2.0
"""A score this close to its floor does not tell the samples apart."""

Distance = Callable[[NDArray[Any], NDArray[Any]], NDArray[np.float64]]
"""From counts `[..., bins]` of the generated and the true sample to distances `[...]`."""


def jensen_shannon(p: NDArray[Any], q: NDArray[Any]) -> NDArray[np.float64]:
    """Jensen-Shannon divergence of counts `[..., bins]`: natural logarithm, no square root, 0 to ln 2.

    The papers of the CaloClouds line say neither base nor root; divide by ln 2 for bits.

    >>> round(float(jensen_shannon(np.array([1, 0]), np.array([0, 1]))), 6)
    0.693147
    """
    p, q = _probabilities(p), _probabilities(q)
    middle = 0.5 * (p + q)
    return np.asarray(0.5 * np.sum(p * np.log(p / middle) + q * np.log(q / middle), axis=-1))


def _probabilities(counts: NDArray[Any]) -> NDArray[np.float64]:
    share = _shares(counts)
    share = np.where(share == 0, EMPTY_BIN, share)
    return np.asarray(share / share.sum(axis=-1, keepdims=True), dtype=np.float64)


def _shares(counts: NDArray[Any]) -> NDArray[np.float64]:
    counts = np.asarray(counts, dtype=np.float64)
    total = counts.sum(axis=-1, keepdims=True)
    return np.divide(counts, total, out=np.zeros_like(counts), where=total > 0)


def wasserstein(position: NDArray[Any]) -> Distance:
    """Wasserstein-1 distance over the standard deviation of the truth, of counts at `position [bins]` (ascending).

    >>> distance = wasserstein(np.array([0.0, 1.0, 2.0]))
    >>> float(distance(np.array([0, 1, 1]), np.array([1, 1, 0])))
    2.0
    """
    steps = np.diff(position)

    def distance(p: NDArray[Any], q: NDArray[Any]) -> NDArray[np.float64]:
        p, q = _shares(p), _shares(q)
        moved = np.abs(np.cumsum(p - q, axis=-1)[..., :-1]) @ steps
        mean = q @ position
        spread = np.sqrt(np.maximum(q @ position**2 - mean**2, 0))
        return np.divide(moved, spread, out=np.full_like(moved, np.nan), where=spread > 0)

    return distance


Sense = Literal["low", "high", "both"]
"""Which values are good: low ones (distances), high ones (recall), or only those near the floor (`both`: a density)."""


@dataclass(frozen=True)
class Score:
    """One number with all that is needed to read it.

    `error` is the standard deviation of `value` over samples of this size, the floor's own uncertainty included where
    that matters; `floor` the value two Geant4 samples of the same two sizes have on average, and `floor_error` the
    standard deviation of such values. `title` is the observable in words (its name where it is empty).
    """

    observable: str
    metric: str
    unit: str
    value: float
    error: float
    floor: float
    floor_error: float
    sense: Sense = "low"
    title: str = ""

    @property
    def excess(self) -> float:
        """What the generator adds to the unavoidable."""
        return self.value - self.floor

    @property
    def significance(self) -> float:
        """Distance from the floor in units of the error, positive where the sample is worse than Geant4."""
        worse = {"low": self.excess, "high": -self.excess, "both": abs(self.excess)}[self.sense]
        if self.error > 0:
            return worse / self.error
        return float(np.sign(worse)) * float("inf") if worse else 0.0

    @property
    def indistinguishable(self) -> bool:
        """Within two standard deviations of the floor (or better than it, where there is a better)."""
        return self.significance <= INDISTINGUISHABLE_SIGMA

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: the fields and the verdict; a number that does not exist is None."""
        numbers = {k: getattr(self, k) for k in ("value", "error", "floor", "floor_error", "excess", "significance")}
        finite = {k: v if math.isfinite(v) else None for k, v in numbers.items()}
        words = {"observable": self.observable, "title": self.title or self.observable}
        words |= {"metric": self.metric, "unit": self.unit, "sense": self.sense}
        return words | finite | {"indistinguishable": self.indistinguishable}


class Exchange(NamedTuple):
    """How often a sample that is made of both has each block of either one, `[replicas, blocks]` each."""

    generated: NDArray[np.float64]
    truth: NDArray[np.float64]

    def of(self, generated: NDArray[np.float64], truth: NDArray[np.float64]) -> NDArray[np.float64]:
        """Its sums `[replicas, entries]` of blocks `[blocks, entries]`."""
        return np.asarray(self.generated @ generated + self.truth @ truth)


@dataclass(frozen=True)
class Resampling:
    """How blocks are drawn: `paired` where block k of both samples has the same incident particles.

    Then both samples are drawn together, and the floor's halves hold neighbours in energy, so neither counts
    fluctuations of the incident energies that the two samples share. `n_floor` counts the showers of an independent
    Geant4 sample, if there is one.
    """

    n_generated: int
    n_truth: int
    paired: bool
    replicas: int
    seed: int
    n_floor: int = 0

    @property
    def floor_ratio(self) -> float:
        """(1/n + 1/m) of the comparison over that of an independent Geant4 sample with the truth."""
        return (1 / self.n_generated + 1 / self.n_truth) / (1 / self.n_floor + 1 / self.n_truth)

    @property
    def size_ratio(self) -> float:
        """(1/n + 1/m) of the comparison over that of the truth's two halves."""
        return (1 / self.n_generated + 1 / self.n_truth) / (4 / self.n_truth)

    def draws(self, blocks: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """How often each block is drawn, `[replicas, blocks]`, for the generated and the true sample."""
        rng = np.random.default_rng([self.seed, 1])
        shares = np.full(blocks, 1 / blocks)
        first = rng.multinomial(blocks, shares, size=self.replicas).astype(np.float64)
        second = first if self.paired else rng.multinomial(blocks, shares, size=self.replicas).astype(np.float64)
        return first, second

    def splits(self, blocks: int, share: float = 1.0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Blocks of the two halves of a random `share` of all, `[replicas, blocks]` of 0 and 1 each.

        Where particles are paired, neighbouring blocks are, and the halves hold one of each pair.
        """
        rng = np.random.default_rng([self.seed, 2])
        if not self.paired:
            return self._halves(blocks, share, rng)
        pairs = blocks // 2
        used = rng.permuted(np.tile(np.arange(pairs), (self.replicas, 1)), axis=1) < max(1, round(pairs * share))
        side = rng.integers(0, 2, size=(self.replicas, pairs))
        first, second = used * side, used * (1 - side)
        return _interleaved(first, second), _interleaved(second, first)

    def exchanges(self, blocks: int, share: float = 1.0) -> tuple[Exchange, Exchange]:
        """Blocks `[replicas, blocks]` of two samples that each have half of either one's, of a `share` of all.

        Both hold as many blocks of the generated sample as of the truth, so what tells these apart adds nothing.
        Where particles are paired, a sample that has a block of one lacks that of the other; with a share of one
        half (no others there are) one sample has a block and the other its neighbour, as the halves of `splits` do.
        """
        rng = np.random.default_rng([self.seed, 5])
        if not self.paired:
            (a, b), (c, d) = (self._halves(blocks, share, rng) for _ in range(2))
            return Exchange(a, c), Exchange(b, d)
        if share > 0.75:
            first, second = self._halves(blocks, 1.0, rng)
            return Exchange(first, second), Exchange(second, first)
        here, there = self.splits(blocks)
        made, other = (np.repeat(self._halves(blocks // 2, 1.0, rng)[0], 2, axis=1) for _ in range(2))
        return Exchange(here * made, here * (1 - made)), Exchange(there * other, there * (1 - other))

    def _halves(
        self, blocks: int, share: float, rng: np.random.Generator
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        place = rng.permuted(np.tile(np.arange(blocks), (self.replicas, 1)), axis=1)
        half = max(1, round(blocks * share / 2))
        return (place < half).astype(np.float64), ((place >= half) & (place < 2 * half)).astype(np.float64)


def _interleaved(even: NDArray[Any], odd: NDArray[Any]) -> NDArray[np.float64]:
    return np.stack([even, odd], axis=-1).reshape(even.shape[0], -1).astype(np.float64)


def floor_of(
    generated: NDArray[np.float64],
    truth: NDArray[np.float64],
    distance: Distance,
    power: float,
    resampling: Resampling,
    independent: NDArray[np.float64] | None = None,
) -> tuple[float, float]:
    """Mean and standard deviation of the distance between two Geant4 samples of the compared sizes.

    Args:
        generated: histograms `[blocks, bins]`, an even number of blocks.
        truth: the same of Geant4.
        distance: of two histograms.
        power: how it falls with size where bins are filled: as (1/n + 1/m)**power.
        resampling: sizes and draws.
        independent: histograms of another Geant4 sample; its distance to the truth then takes the place of the mean.

    Its level is the distance of random halves of the truth alone, so it does not depend on the model. How it changes
    from the halves to the sizes n and m depends on how well bins are filled (in sparse ones it falls slower than by the
    power) and, where samples are paired, on how equal a pair is. Both are seen in samples made of both with blocks
    exchanged at random: their distances at the two sizes give the factor. If the samples are of one distribution, the
    result is the mean of the distance itself (n and m unequal count as equal sizes of the same 1/n + 1/m).
    """
    blocks, n, m = truth.shape[0], resampling.n_generated, resampling.n_truth
    first, second = resampling.splits(blocks, min(1.0, 1 / resampling.size_ratio))
    own = distance(first @ truth, second @ truth)
    sizes = float(first[0].sum()) * m / blocks, 2 / (1 / n + 1 / m)
    part, whole = (_exchanged(generated, truth, distance, power, resampling, size) for size in sizes)
    known = min(part.mean(), whole.mean()) > 0
    factor = float(whole.mean() / part.mean()) if known else (sizes[0] / sizes[1]) ** power
    mean = float(own.mean()) * factor
    scatter = whole if known else own
    spread = float(scatter.std(ddof=1)) * mean / max(float(scatter.mean()), np.finfo(np.float64).tiny)
    if independent is not None:
        step = math.log(sizes[0] / sizes[1])
        measured = math.log(factor) / step if abs(step) > SMALL_STEP else power
        between = distance(independent.sum(axis=0), truth.sum(axis=0))
        mean = float(between) * resampling.floor_ratio**measured
    return mean, spread


SMALL_STEP = 0.1
"""Sizes closer than this (in ln) do not tell how a distance falls with size."""


def _exchanged(
    generated: NDArray[np.float64],
    truth: NDArray[np.float64],
    distance: Distance,
    power: float,
    resampling: Resampling,
    size: float,
) -> NDArray[np.float64]:
    """Distances `[replicas]` of two samples of `size` showers each, half the blocks of each from either sample."""
    blocks, n, m = truth.shape[0], resampling.n_generated, resampling.n_truth
    first, second = resampling.exchanges(blocks, 2 * size / (n + m))
    reached = (n * float(first.generated[0].sum()) + m * float(first.truth[0].sum())) / blocks  # in whole blocks
    return distance(first.of(generated, truth), second.of(generated, truth)) * (reached / size) ** power


def bootstrap_error(
    generated: NDArray[np.float64], truth: NDArray[np.float64], distance: Distance, resampling: Resampling
) -> float:
    """Standard deviation of the distance when the blocks of both samples are drawn anew with replacement."""
    first, second = resampling.draws(truth.shape[0])
    return float(distance(first @ generated, second @ truth).std(ddof=1))


def divergence_score(
    name: str,
    generated: NDArray[np.float64],
    truth: NDArray[np.float64],
    resampling: Resampling,
    independent: NDArray[np.float64] | None = None,
) -> Score:
    """Jensen-Shannon divergence of two samples given as `[blocks, bins]`.

    The divergence is quadratic in the difference of the histograms, so drawing from samples that already fluctuate
    counts their noise again: of a variance 2 k + 4 c (chi-squared with k degrees of freedom, non-centrality c) the
    bootstrap sees 6 k + 4 c. Twice the variance of the floor (2 k) is therefore taken off its variance.
    """
    floor, spread = floor_of(generated, truth, jensen_shannon, 1.0, resampling, independent)
    raw = bootstrap_error(generated, truth, jensen_shannon, resampling)
    error = np.sqrt(max(raw**2 - 2 * spread**2, spread**2))
    value = float(jensen_shannon(generated.sum(axis=0), truth.sum(axis=0)))
    return Score(name, "jsd", "nat", value, float(error), floor, spread)


def wasserstein_score(
    name: str,
    generated: NDArray[np.float64],
    truth: NDArray[np.float64],
    position: NDArray[Any],
    resampling: Resampling,
    independent: NDArray[np.float64] | None = None,
) -> Score:
    """Wasserstein-1 distance of two samples `[blocks, bins]` at `position`, in standard deviations of the truth.

    Its error is the bootstrap's, at least the floor's spread; close to the floor it is rather too large.
    """
    distance = wasserstein(position)
    floor, spread = floor_of(generated, truth, distance, 0.5, resampling, independent)
    error = max(bootstrap_error(generated, truth, distance, resampling), spread)
    value = float(distance(generated.sum(axis=0), truth.sum(axis=0)))
    return Score(name, "wasserstein", "sigma", value, error, floor, spread)
