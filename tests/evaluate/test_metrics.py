"""Distances against values known on paper, and floors against the statistics of independent draws."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import norm, wasserstein_distance

from calogen.evaluate.bootstrap import ratio_score
from calogen.evaluate.metrics import (
    Resampling,
    divergence_score,
    floor_of,
    jensen_shannon,
    wasserstein,
    wasserstein_score,
)

COUNTS = arrays(np.int64, 12, elements=st.integers(0, 1000)).filter(lambda v: v.sum() > 0)


@given(COUNTS, COUNTS)
def test_divergence_is_a_bounded_symmetric_distance(p, q):
    d = jensen_shannon(p, q)
    assert jensen_shannon(p, p) == 0
    assert d == pytest.approx(jensen_shannon(q, p), abs=1e-15)
    assert -1e-15 <= d <= np.log(2) + 1e-12


def test_divergence_of_two_bins():
    # p = (3/4, 1/4), q = (1/4, 3/4): entropy of the mixture minus the mean entropy.
    expected = np.log(2) - (0.75 * np.log(4 / 3) + 0.25 * np.log(4))
    assert jensen_shannon(np.array([3, 1]), np.array([1, 3])) == pytest.approx(expected, rel=1e-12)


def test_divergence_of_two_gaussians_is_the_integral():
    edges = np.linspace(-12, 13, 5001)
    p, q = np.diff(norm.cdf(edges)), np.diff(norm.cdf(edges, loc=1))
    x = np.linspace(-12, 13, 200_001)
    f, g = norm.pdf(x), norm.pdf(x, loc=1)
    integrand = 0.5 * (f * np.log(2 * f / (f + g)) + g * np.log(2 * g / (f + g)))
    assert jensen_shannon(p, q) == pytest.approx(np.trapezoid(integrand, x), rel=1e-4)


def test_wasserstein_agrees_with_scipy():
    rng = np.random.default_rng(0)
    position = np.sort(rng.normal(size=40))
    p, q = rng.integers(0, 50, (2, 40))
    spread = np.sqrt(np.average(position**2, weights=q) - np.average(position, weights=q) ** 2)
    expected = wasserstein_distance(position, position, p, q) / spread
    assert wasserstein(position)(p, q) == pytest.approx(expected, rel=1e-12)


def test_shift_by_one_standard_deviation_is_wasserstein_one():
    edges = np.linspace(-10, 10, 4001)
    middle = 0.5 * (edges[1:] + edges[:-1])
    p, q = np.diff(norm.cdf(edges, loc=1)), np.diff(norm.cdf(edges))
    assert wasserstein(middle)(p, q) == pytest.approx(1.0, rel=1e-3)


def blocks_of(rng, n: int, shares) -> np.ndarray:
    """Histograms of n independent entries in 100 blocks."""
    return rng.multinomial(n // 100, shares, size=100).astype(float)


def mean_floor(sizes: tuple[int, int], shares, model, seed: int, samples: int = 8) -> tuple[float, float]:
    """Floor and spread for a truth of `shares` and a model of others, means over some samples."""
    rng = np.random.default_rng(seed)
    n, m = sizes
    plan = Resampling(n, m, False, 150, 3)
    found = [
        floor_of(blocks_of(rng, n, model), blocks_of(rng, m, shares), jensen_shannon, 1.0, plan) for _ in range(samples)
    ]
    return tuple(np.mean(found, axis=0).tolist())


def direct(rng, sizes: tuple[int, int], shares, draws: int = 400) -> np.ndarray:
    """Divergences of independent samples."""
    return jensen_shannon(*(rng.multinomial(n, shares, size=draws) for n in sizes))


SIZES = [(2000, 2000), (6000, 2000), (2000, 6000), (500, 6000)]


@pytest.mark.parametrize("sizes", SIZES)
def test_floor_of_independent_entries(sizes):
    """(bins - 1)/8 (1/n + 1/m), and the same as direct draws of these sizes."""
    rng = np.random.default_rng(1)
    bins, (n, m) = 20, sizes
    shares = rng.dirichlet(np.full(bins, 5.0))
    mean, spread = mean_floor(sizes, shares, shares, 2)
    drawn = direct(rng, sizes, shares, 2000)
    assert drawn.mean() == pytest.approx((bins - 1) / 8 * (1 / n + 1 / m), rel=0.05)
    assert mean == pytest.approx(drawn.mean(), rel=0.05)
    assert spread == pytest.approx(drawn.std(), rel=0.12)


@pytest.mark.parametrize("sizes", [(500, 500), (500, 1500), (1500, 500)])
def test_floor_in_sparse_bins_is_that_of_direct_draws(sizes):
    """As few entries as bins: the divergence then hardly falls with size, by a law that must be measured."""
    rng = np.random.default_rng(2)
    shares = rng.dirichlet(np.full(1000, 0.5))
    drawn = direct(rng, sizes, shares)
    mean, spread = mean_floor(sizes, shares, shares, 3)
    assert mean == pytest.approx(drawn.mean(), rel=0.02 if sizes[0] == sizes[1] else 0.04)
    assert spread == pytest.approx(drawn.std(), rel=0.3)


@pytest.mark.parametrize(("bins", "tolerance"), [(20, 0.08), (1000, 0.25)])
def test_the_floor_is_geant4s_however_far_the_model(bins, tolerance):
    """A model shifted, or in other bins altogether (in sparse bins the worst case: it is then far above the floor)."""
    rng = np.random.default_rng(4)
    shares = rng.dirichlet(np.full(bins // 2, 2.0))
    truth, other = np.concatenate([shares, 0 * shares]), np.concatenate([0 * shares, np.full(bins // 2, 2 / bins)])
    drawn = direct(rng, (1000, 1000), truth).mean()
    for model in (0.5 * (truth + other), other):
        assert mean_floor((1000, 1000), truth, model, 5)[0] == pytest.approx(drawn, rel=tolerance)


def paired_samples(rng, n: int, scatter: float) -> list[np.ndarray]:
    """Histograms in 100 blocks of two samples that share a hidden number up to some scatter, in its order."""
    hidden = np.sort(rng.normal(size=n))
    edges = np.linspace(-3, 3, 31)[1:-1]
    places = [np.searchsorted(edges, hidden + scatter * rng.normal(size=n)) for _ in range(2)]
    return [np.stack([np.bincount(p[k::100], minlength=30) for k in range(100)]).astype(float) for p in places]


@pytest.mark.parametrize("scatter", [0.05, 0.5])
def test_floor_of_pairs_is_that_of_pairs(scatter):
    """Samples of the same particles are closer to each other than independent ones: so is their floor."""
    rng = np.random.default_rng(6)
    pairs = [paired_samples(rng, 1000, scatter) for _ in range(60)]
    values = np.array([jensen_shannon(a.sum(axis=0), b.sum(axis=0)) for a, b in pairs])
    found = [floor_of(a, b, jensen_shannon, 1.0, Resampling(1000, 1000, True, 100, 1)) for a, b in pairs[:20]]
    mean, spread = np.mean(found, axis=0)
    assert mean == pytest.approx(values.mean(), rel=0.1)
    assert spread == pytest.approx(values.std(), rel=0.3)
    assert mean < 29 / 8 * 2 / 1000


def test_a_copy_of_the_truth_is_below_the_floor():
    truth = blocks_of(np.random.default_rng(7), 2000, np.full(20, 0.05))
    for paired in (True, False):
        score = divergence_score("x", truth, truth, Resampling(2000, 2000, paired, 100, 1))
        assert score.value == 0
        assert score.floor == pytest.approx(19 / 8 * 2 / 2000, rel=0.25)
        assert score.significance < -2


def test_error_covers_the_scatter_of_the_divergence():
    """The quoted error is the standard deviation over samples, at the floor and far from it."""
    rng = np.random.default_rng(4)
    q = np.full(20, 0.05)
    for tilt in (0.0, 0.3):
        p = q * (1 + tilt * np.linspace(-1, 1, 20))
        draws = [(rng.multinomial(20, p, size=100), rng.multinomial(20, q, size=100)) for _ in range(60)]
        scores = [divergence_score("x", a * 1.0, b * 1.0, Resampling(2000, 2000, False, 150, 5)) for a, b in draws]
        scatter = np.std([s.value for s in scores], ddof=1)
        assert np.mean([s.error for s in scores]) == pytest.approx(scatter, rel=0.35)


def test_same_distribution_is_indistinguishable_and_a_shift_is_not():
    rng = np.random.default_rng(6)
    q = np.diff(norm.cdf(np.linspace(-4, 4, 41)))
    p = np.diff(norm.cdf(np.linspace(-4, 4, 41), loc=0.4))
    q, p = q / q.sum(), p / p.sum()
    plan = Resampling(2000, 2000, False, 200, 7)
    same, truth, moved = (rng.multinomial(20, s, size=100) * 1.0 for s in (q, q, p))
    positions = np.linspace(-4, 4, 40)
    for score in (divergence_score("x", same, truth, plan), wasserstein_score("x", same, truth, positions, plan)):
        assert abs(score.significance) < 3
    for score in (divergence_score("x", moved, truth, plan), wasserstein_score("x", moved, truth, positions, plan)):
        assert score.significance > 3
        assert not score.indistinguishable


def test_independent_floor_sample_sets_the_floor():
    rng = np.random.default_rng(8)
    a, b, c = (rng.multinomial(20, np.full(30, 1 / 30), size=100) * 1.0 for _ in range(3))
    plan = Resampling(2000, 2000, False, 100, 9, n_floor=2000)
    score = divergence_score("x", a, b, plan, independent=c)
    assert score.floor == pytest.approx(float(jensen_shannon(c.sum(0), b.sum(0))))


@pytest.mark.parametrize(("a", "b"), [(1.5, 1.0), (3.0, 2.0), (1.0 + 1e-7, 1.0), (1.0, 1.02)])
def test_a_ratio_has_the_same_verdict_whichever_is_the_truth(a, b):
    one, other = (ratio_score("x", "ratio", "", v, w, (9, 9)) for v, w in (((a, 0.1), (b, 0.2)), ((b, 0.2), (a, 0.1))))
    assert one.significance == pytest.approx(other.significance, rel=1e-5)
    assert one.significance == pytest.approx(abs(math.log(a / b)) / math.hypot(0.1 / a, 0.2 / b), rel=1e-5)
