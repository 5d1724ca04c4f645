"""The two tables: metrics against values known on paper, the paper's slices, and what they must not mix up."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import entropy, norm

from calogen.evaluate.hadronic import PROFILES, VALUES, outer, quantile_divergence, slice_scores
from calogen.evaluate.points import judge_part

COUNTS = arrays(np.int64, 25, elements=st.integers(1, 500))


@settings(deadline=None, max_examples=40)
@given(COUNTS, COUNTS)
def test_divergence_is_that_of_scipy(p, q):
    assert quantile_divergence(p, q) == pytest.approx(entropy(q, p), abs=1e-12)


def test_divergence_stays_finite_and_its_open_ends_lose_nothing():
    assert np.isfinite(quantile_divergence(np.array([0, 5]), np.array([3, 2])))
    edges = outer(np.array([0.0, 1.0, 2.0]))
    assert np.histogram([-9.0, 0.5, 1.5, 99.0], edges)[0].tolist() == [2, 2]
    assert np.histogram([3.0, 4.0], outer(np.array([3.0])))[0].sum() == 2


def test_slices_of_shifted_gaussians():
    """The distance is the shift in the observable's own unit, not in standard deviations; the floor is far below."""
    rng = np.random.default_rng(3)
    distance, divergence = slice_scores("x", "mm", rng.normal(1, 2, 5000), rng.normal(0, 2, 5000), seed=1)
    assert distance.value == pytest.approx(1.0, abs=0.1)
    assert distance.unit == "mm"
    assert distance.floor < 0.2
    assert divergence.value == pytest.approx(0.5 * (1 / 2) ** 2, rel=0.35)
    assert not distance.indistinguishable
    assert slice_scores("x", "mm", rng.normal(size=60), rng.normal(size=60), seed=1) == []


def test_slices_of_equal_samples_are_at_the_floor():
    rng = np.random.default_rng(4)
    scores = [s for k in range(40) for s in slice_scores("x", "", rng.normal(size=2000), rng.normal(size=2000), seed=k)]
    assert np.mean([s.indistinguishable for s in scores]) >= 0.93


@pytest.fixture(scope="module")
def pair(make_toy):
    truth = make_toy(400, 71)
    return make_toy(400, 72, incident=truth.incident), truth


def _table(generated, truth):
    return judge_part("hadronic", generated, truth, replicas=120).scores


def test_every_column_is_its_own(pair):
    generated, truth = pair
    scores = _table(generated, truth)
    assert {s.observable for s in scores} == {*VALUES, *PROFILES}
    value = {(s.observable, s.metric): s.value for s in scores}
    for metric in ("wasserstein", "quantile_kl"):
        assert value["e_cell", metric] != value["n_hits", metric]
    assert np.mean([s.indistinguishable for s in scores]) >= 0.93


def test_a_shift_in_depth_moves_depth_only(pair):
    generated, truth = pair
    deeper = dataclasses.replace(generated, layer=np.minimum(generated.layer + 1, 29))
    moved = {
        s.observable for s in _table(deeper, truth) if s.metric in ("wasserstein", "quantile_kl") and s.significance > 4
    }
    assert {"cog_z", "e_long"} <= moved
    assert not moved & {"e_sum", "n_hits", "cog_x", "cog_y", "e_radial"}


def test_normalised_distance_is_in_standard_deviations():
    position = np.linspace(-6, 6, 1201)
    from calogen.evaluate.metrics import wasserstein

    shifted = wasserstein(position)(norm.pdf(position, 0.5), norm.pdf(position))
    assert shifted == pytest.approx(0.5, rel=1e-3)
