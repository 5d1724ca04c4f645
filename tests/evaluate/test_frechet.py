"""FPD and KPD: jetnet's numbers, known limits, seeds, and scores that know what is chance."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.linalg import sqrtm

from calogen.evaluate.frechet import fpd, frechet_distance, kpd
from calogen.evaluate.frechet_scores import frechet_score, kernel_score

QUICK: dict[str, Any] = {"n_batches": 4, "n_points": 4, "min_samples": 1000, "max_samples": 5000}


def normal(n: int, d: int, seed: int, shift: float = 0.0) -> NDArray[np.float64]:
    return shift + np.random.default_rng(seed).normal(size=(n, d))


def test_fpd_is_jetnets(shared: Path) -> None:
    reference = np.load(shared / "parity" / "jetnet_fpd_kpd.npz")
    found = fpd(reference["X"], reference["Y"])
    assert np.allclose(found, reference["fpd"], rtol=1e-6)


def test_kpd_is_jetnets(shared: Path) -> None:
    reference = np.load(shared / "parity" / "jetnet_fpd_kpd.npz")
    found = kpd(reference["X"], reference["Y"], batch_size=2000)
    assert np.allclose(found, reference["kpd_batch2000"], rtol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_frechet_distance_against_the_matrix_root(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (np.cov(rng.normal(size=(50, 6)) @ rng.normal(size=(6, 6)), rowvar=False) for _ in range(2))
    mean_a, mean_b = rng.normal(size=(2, 6))
    expected = np.sum((mean_a - mean_b) ** 2) + np.trace(a + b - 2 * sqrtm(a @ b).real)
    assert frechet_distance(mean_a, a, mean_b, b) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_singular_covariances() -> None:
    """Of commuting ones it is the sum of (sigma_a - sigma_b)^2, zeros included."""
    zero = np.zeros(4)
    found = frechet_distance(zero, np.diag([4.0, 1.0, 0.0, 0.0]), zero, np.diag([1.0, 0.0, 9.0, 0.0]))
    assert found == pytest.approx(1 + 1 + 9)


def test_fpd_of_a_shift_is_its_square() -> None:
    a, b = normal(20_000, 3, 1), normal(20_000, 3, 2, shift=0.5)
    largest = np.abs(a).max(axis=0)
    expected = float(np.sum((0.5 / largest) ** 2))
    found = fpd(a, b, **QUICK)
    assert found.value == pytest.approx(expected, abs=5 * 2 * np.sqrt(expected * 2 / 20_000) / largest.min())


def test_distances_do_not_depend_on_units() -> None:
    a, b, units = normal(300, 3, 1), normal(300, 3, 2, 0.2), np.array([1e-3, 1.0, 1e4])
    assert fpd(a * units, b * units, **QUICK) == pytest.approx(fpd(a, b, **QUICK), rel=1e-6)
    assert kpd(a * units, b * units, batch_size=200) == pytest.approx(kpd(a, b, batch_size=200), rel=1e-6)


def test_kpd_against_full_matrices() -> None:
    """A batch of all pairs, drawn with replacement, as its definition writes it."""
    a, b = normal(60, 4, 1), normal(50, 4, 2, 0.3)
    largest, values = np.abs(a).max(axis=0), []
    for batch in range(3):
        rng = np.random.default_rng(7 + 1000 * batch)
        x, y = (a / largest)[rng.choice(60, 80)], (b / largest)[rng.choice(50, 80)]
        xx, yy, xy = ((p @ q.T / 4 + 1) ** 4 for p, q in ((x, x), (y, y), (x, y)))
        pairs = 80 * 79
        values.append((xx.sum() - np.trace(xx)) / pairs + (yy.sum() - np.trace(yy)) / pairs - 2 * xy.mean())
    assert kpd(a, b, seed=7, n_batches=3, batch_size=80).value == pytest.approx(np.median(values), rel=1e-10)


@pytest.mark.parametrize("distance", [lambda a, b, s: fpd(a, b, seed=s, **QUICK), lambda a, b, s: kpd(a, b, seed=s)])
def test_seed_repeats(distance: Callable[..., Any]) -> None:
    a, b = normal(200, 3, 1), normal(200, 3, 2)
    assert distance(a, b, 5) == distance(a, b, 5)
    assert distance(a, b, 5) != distance(a, b, 6)


def test_scores_of_equal_samples_are_indistinguishable() -> None:
    scores = []
    for seed in range(6):
        a, b = normal(600, 6, 2 * seed), normal(500, 6, 2 * seed + 1)
        scores += [frechet_score(a, b, seed=seed, replicas=30, **QUICK), kernel_score(a, b, seed=seed, batch_size=500)]
    assert np.mean([s.indistinguishable for s in scores]) >= 0.9
    significance = np.array([s.significance for s in scores])
    assert abs(significance.mean()) < 0.8
    assert 0.3 < significance.std() < 1.6


def pairs(n: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two samples for the same particles: features follow the energy, and fluctuate a tenth of that."""
    energy = np.sort(np.random.default_rng([seed, 7]).uniform(0.1, 1, n))[:, None]
    both = [np.concatenate([energy, energy**2], axis=1) + 0.05 * normal(n, 2, 2 * seed + k) for k in (0, 1)]
    return both[0], both[1]


def test_pairs_are_nearer_than_independent_samples() -> None:
    """Fluctuations of the incident particles, which pairs share, are in neither value nor floor."""
    quick = {"n_batches": 10, "batch_size": 1500}
    for n in (200, 800):  # batches much larger than samples, and not much larger: their median is below the mean
        scores = [kernel_score(*pairs(n, seed), seed=seed, paired=True, **quick) for seed in range(12)]
        pulls = np.array([(s.value - s.floor) / s.error for s in scores])
        assert abs(pulls.mean()) < 0.6
        assert pulls.std() < 1.3
        independent = kernel_score(*(np.random.default_rng(k).permutation(pairs(n, k)[k]) for k in (0, 1)), **quick)
        assert max(s.error for s in scores) < 0.5 * independent.error
    true, made = pairs(300, 1)
    assert kernel_score(true, made + 0.02, paired=True).significance > 3
    with pytest.raises(ValueError, match="of one length"):
        kernel_score(true, made[:200], paired=True)


@pytest.mark.parametrize(
    "spoil",
    [lambda x: x + 0.3, lambda x: 1.2 * x, lambda x: np.random.default_rng(1).permuted(x, axis=0)],
    ids=["shift", "wider", "only correlations"],
)
def test_scores_see_what_changed(spoil: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> None:
    mix = np.array([[1.0, 0.6, 0.3], [0.0, 0.8, 0.3], [0.0, 0.0, 0.9]])
    a, b = normal(2000, 3, 1) @ mix, spoil(normal(2000, 3, 2) @ mix)
    assert frechet_score(a, b, replicas=30, **QUICK).significance > 3
    assert kernel_score(a, b, batch_size=5000).significance > 3


def test_an_independent_sample_sets_the_floor() -> None:
    """A third sample that is off puts the floor where the model is."""
    a, b = normal(600, 3, 1), normal(600, 3, 2, 0.3)
    alone = frechet_score(a, b, replicas=20, **QUICK)
    beside = frechet_score(a, b, independent=normal(600, 3, 3, 0.3), replicas=20, **QUICK)
    assert not alone.indistinguishable
    assert beside.indistinguishable
    assert beside.floor > 5 * alone.floor


GOOD = normal(120, 3, 1)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (GOOD[:10], "at least"),
        (GOOD[:, :2], "3 features a shower, the generated sample 2"),
        (GOOD[0], r"\[showers, features\]"),
        (np.where(np.arange(360).reshape(120, 3) == 4, np.nan, GOOD), "feature 1 of shower 1 of the generated"),
        (np.full((120, 3), np.inf), "feature 0 of shower 0"),
        (np.full((120, 3), "text"), "numbers"),
    ],
)
@pytest.mark.parametrize("function", [fpd, kpd, frechet_score, kernel_score])
def test_bad_input_is_refused_in_one_line(function: Callable[..., Any], bad: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        function(GOOD, bad)
    assert "\n" not in str(refused.value)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 6),
    st.integers(20, 60),
    st.floats(1e-6, 1e6),
    st.booleans(),
)
def test_any_finite_features_have_finite_distances(seed: int, d: int, n: int, scale: float, constant: bool) -> None:
    rng = np.random.default_rng(seed)
    a, b = scale * rng.standard_cauchy((n, d)), scale * rng.standard_cauchy((n + 7, d))
    if constant:
        a[:, 0] = b[:, 0] = 0.0
    small = fpd(a, b, n_batches=1, n_points=3, min_samples=50, max_samples=100)
    assert np.isfinite(small).all()
    assert small.value >= 0
    assert np.isfinite(kpd(a, b, n_batches=2, batch_size=50)).all()
