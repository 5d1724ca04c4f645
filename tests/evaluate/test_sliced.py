"""The sliced Wasserstein distance: analytic shifts, units, correlations, seeds, and a score that knows chance."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from calogen.evaluate.sliced import sliced_score, sliced_wasserstein


def normal(n: int, d: int, seed: int) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=(n, d))


@pytest.mark.parametrize("d", [2, 5, 20])
def test_a_shift_moves_by_the_mean_cosine(d: int) -> None:
    """|s| E|cos| = |s| Gamma(d/2) / (sqrt(pi) Gamma((d+1)/2)), in standard deviations of the reference."""
    a = normal(400, d, 1)
    shift = np.arange(1.0, d + 1) / 10
    length = float(np.linalg.norm(shift / a.std(axis=0)))
    cosine = math.exp(math.lgamma(d / 2) - math.lgamma((d + 1) / 2)) / math.sqrt(math.pi)
    assert sliced_wasserstein(a, a + shift, projections=4000) == pytest.approx(length * cosine, rel=0.03)


def test_scaling_one_dimension() -> None:
    """W1 between N(0, 1) and N(0, s) is (s - 1) sqrt(2 / pi)."""
    a = normal(20_000, 1, 1)
    assert sliced_wasserstein(a, 1.5 * a, projections=3) == pytest.approx(0.5 * math.sqrt(2 / math.pi), rel=0.02)


def test_units_do_not_matter_and_seeds_do() -> None:
    a, b, units = normal(200, 3, 1), normal(150, 3, 2) + 0.1, np.array([1e-6, 1.0, 1e6])
    assert sliced_wasserstein(a * units, b * units) == pytest.approx(sliced_wasserstein(a, b))
    assert sliced_wasserstein(a, b) != sliced_wasserstein(a, b, seed=1)
    assert sliced_score(a, b, replicas=5, projections=9) == sliced_score(a, b, replicas=5, projections=9)


def test_equal_samples_are_indistinguishable() -> None:
    scores = [
        sliced_score(normal(300, 4, i), normal(200, 4, i + 99), seed=i, projections=20, replicas=40) for i in range(20)
    ]
    assert np.mean([s.indistinguishable for s in scores]) >= 0.9
    assert abs(np.mean([s.significance for s in scores])) < 0.7


def test_only_correlations_changed() -> None:
    mix = np.array([[1.0, 0.8], [0.0, 0.6]])
    a, b = normal(1000, 2, 1) @ mix, normal(1000, 2, 2) @ mix
    assert sliced_score(a, b, projections=30).indistinguishable
    b[:, 0] = np.random.default_rng(3).permutation(b[:, 0])
    assert sliced_score(a, b, projections=30).significance > 3


def test_an_independent_sample_sets_the_floor() -> None:
    a, b, c = normal(300, 3, 1), normal(300, 3, 2) + 0.4, normal(250, 3, 3) + 0.4
    assert not sliced_score(a, b, projections=20, replicas=20).indistinguishable
    assert sliced_score(a, b, independent=c, projections=20, replicas=20).indistinguishable


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(20, 50), st.integers(20, 50), st.booleans())
def test_it_is_a_distance(seed: int, d: int, n: int, m: int, constant: bool) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.standard_cauchy((n, d)), rng.standard_cauchy((m, d))
    if constant:
        a[:, 0] = 0.0
    assert sliced_wasserstein(a, a, projections=3) == pytest.approx(0, abs=1e-9)
    assert 0 < sliced_wasserstein(a, b, projections=3) < math.inf
    assert math.isfinite(sliced_score(a, b, projections=3, replicas=5).error)


GOOD = normal(40, 3, 1)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (GOOD[:9], "at least 20 showers"),
        (GOOD[:, :2], "3 features"),
        (np.where(np.arange(120).reshape(40, 3) == 3, np.inf, GOOD), "feature 0 of shower 1"),
    ],
)
def test_bad_input_is_refused(bad: NDArray[Any], message: str) -> None:
    for function in (sliced_wasserstein, sliced_score):
        with pytest.raises(ValueError, match=message):
            function(GOOD, bad)
    with pytest.raises(ValueError, match="0 directions"):
        sliced_wasserstein(GOOD, GOOD, projections=0)
