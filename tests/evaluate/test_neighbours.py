"""PRDC: brute force, known limits, what duplicates do, and scores that know what is chance."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from calogen.evaluate.neighbour_scores import prdc_scores
from calogen.evaluate.neighbours import NEIGHBOURS, Prdc, log_voxels, prdc


def normal(n: int, d: int, seed: int, scale: float = 1.0) -> NDArray[np.float64]:
    return scale * np.random.default_rng(seed).normal(size=(n, d))


def brute_force(true: NDArray[Any], made: NDArray[Any], k: int) -> Prdc:
    """The definition, with all distances at once: sorted, each shower is its own zeroth neighbour."""

    def distances(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        return np.linalg.norm(a[:, None] - b[None], axis=-1)

    radius_true, radius_made = (np.sort(distances(x, x), axis=1)[:, k] for x in (true, made))
    across = distances(true, made)
    inside = across < radius_true[:, None]
    return Prdc(
        float(inside.any(axis=0).mean()),
        float((across < radius_made[None]).any(axis=1).mean()),
        float(inside.sum(axis=0).mean() / k),
        float((across.min(axis=1) < radius_true).mean()),
    )


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(8, 70), st.integers(8, 70), st.sampled_from([7, 16, 1024])
)
def test_against_brute_force(seed: int, k: int, n: int, m: int, block: int) -> None:
    a, b = normal(n, 3, seed), 0.5 + normal(m, 3, seed + 1)
    assert prdc(a, b, k=k, block=block) == pytest.approx(brute_force(a, b, k))


def test_single_precision_and_a_far_origin_change_nothing() -> None:
    a, b = normal(400, 20, 1), normal(400, 20, 2)
    assert prdc(a.astype(np.float32), b.astype(np.float32)) == pytest.approx(prdc(a, b), abs=0.003)
    assert prdc(a + 1e6, b + 1e6) == pytest.approx(prdc(a, b))


def test_two_samples_of_one_distribution() -> None:
    """Density 1 and coverage 1 - 2^-k in any dimension (Naeem et al., equation 8)."""
    found = np.mean([prdc(normal(500, d, d), normal(500, d, d + 50)) for d in range(2, 10)], axis=0)
    assert found[2] == pytest.approx(1.0, abs=0.03)
    assert found[3] == pytest.approx(1 - 0.5**NEIGHBOURS, abs=0.01)


def test_far_and_narrow_samples() -> None:
    a = normal(400, 4, 1)
    assert prdc(a, a + 100) == (0, 0, 0, 0)
    narrow = prdc(a, normal(400, 4, 2, scale=0.2))
    assert narrow.precision == 1
    assert narrow.density > 1.1
    assert narrow.recall < 0.2
    assert narrow.coverage < 0.6


def test_a_sample_against_itself() -> None:
    a = normal(200, 3, 1)
    assert prdc(a, a)[:2] == (1, 1)
    assert prdc(a, a).coverage == 1


def test_duplicates_lower_coverage_but_not_precision() -> None:
    a, b = normal(1000, 4, 1), normal(1000, 4, 2)
    twice = np.concatenate([b[:250]] * 4)
    once, copied = prdc(a, b), prdc(a, twice)
    assert copied.coverage < once.coverage - 0.1
    assert copied.precision == pytest.approx(once.precision, abs=0.03)


def test_log_voxels_put_empty_ones_at_a_tenth_of_an_mev() -> None:
    assert log_voxels(np.array([0.0, 1e-4, 1.0])).tolist() == pytest.approx([-1, -1, 3])
    assert log_voxels(np.zeros((2, 3))).dtype == np.float32


def test_scores_of_equal_samples_are_indistinguishable() -> None:
    """Of pairs too: neither is the floor off, nor are errors too small or too large."""
    for paired in (False, True):
        scores = []
        for seed in range(20):
            shared = normal(150, 5, seed) if paired else np.zeros((150, 5))
            a, b = shared + normal(150, 5, 1000 + seed), shared + normal(150, 5, 2000 + seed)
            scores.append(prdc_scores(a, b, seed=seed, paired=paired, replicas=25))
        assert [s.metric for s in scores[0]] == ["precision", "recall", "density", "coverage"]
        assert np.mean([s.indistinguishable for four in scores for s in four]) >= 0.95
        pulls = np.array([[(s.value - s.floor) / s.error for s in four] for four in scores])
        assert (np.abs(pulls.mean(axis=0)) < 0.5).all()
        assert (pulls.std(axis=0) < 1.4).all()
        assert (pulls.std(axis=0) > 0.5).all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), d=st.integers(1, 6), scale=st.floats(1e-3, 1e3))
def test_scores_are_the_numbers_of_equally_many_showers(seed: int, d: int, scale: float) -> None:
    """However far apart the samples are: neighbours that are not in the table are looked up."""
    a, b = normal(140, d, seed), normal(140, d, seed + 1, scale=scale)
    assert [s.value for s in prdc_scores(a, b, replicas=2)] == pytest.approx(list(prdc(a, b)))


def test_scores_see_duplicates_and_a_narrow_sample() -> None:
    a, b = normal(600, 5, 1), normal(600, 5, 2)
    by_name = {s.metric: s for s in prdc_scores(a, np.concatenate([b[:300]] * 2))}
    assert by_name["coverage"].significance > 5
    assert by_name["coverage"].floor == pytest.approx(1 - 2**-NEIGHBOURS, abs=0.005)
    assert by_name["precision"].indistinguishable
    by_name = {s.metric: s for s in prdc_scores(a, 0.7 * b)}
    assert by_name["density"].significance > 5
    assert by_name["recall"].significance > 5


def test_scores_repeat_with_the_seed() -> None:
    a, b = normal(150, 3, 1), normal(120, 3, 2)
    assert prdc_scores(a, b, replicas=3) == prdc_scores(a, b, replicas=3)
    assert prdc_scores(a, b, replicas=3) != prdc_scores(a, b, replicas=3, seed=1)
    with pytest.raises(ValueError, match="of one length"):
        prdc_scores(a, b, paired=True)


GOOD = normal(120, 3, 1)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (GOOD[:5], "at least"),
        (GOOD[:, :2], "3 features"),
        (np.where(np.arange(360).reshape(120, 3) == 359, np.nan, GOOD), "feature 2 of shower 119"),
    ],
)
def test_bad_input_is_refused(bad: NDArray[Any], message: str) -> None:
    for function in (prdc, prdc_scores):
        with pytest.raises(ValueError, match=message):
            function(GOOD, bad)
    with pytest.raises(ValueError, match="k = 0"):
        prdc(GOOD, GOOD, k=0)
