"""Pearson matrices against numpy, and a score that only correlations move."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calogen import Showers
from calogen.evaluate.correlations import mean_difference, pearson
from calogen.evaluate.points import judge_part, judge_points


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.integers(3, 40))
def test_matrix_is_that_of_numpy(seed, n):
    x = np.random.default_rng(seed).normal(size=(n, 4)) @ np.diag([1e-6, 1, 1e3, 1])
    assert pearson(x) == pytest.approx(np.corrcoef(x, rowvar=False), abs=1e-9)


def test_mean_difference_of_two_columns():
    rng = np.random.default_rng(1)
    a = rng.multivariate_normal([0, 0], [[1, 0.8], [0.8, 1]], 20_000)
    b = rng.multivariate_normal([0, 0], [[1, 0.3], [0.3, 1]], 20_000)
    sums = [np.concatenate([[x.shape[0]], x.sum(0), (x.T @ x).ravel()]) for x in (a, b)]
    assert mean_difference(2)(*sums) == pytest.approx(0.5, abs=0.02)


def _shuffle_layers(s: Showers, seed: int) -> Showers:
    """Each layer taken from another shower: layer distributions stay, their correlations go."""
    rng = np.random.default_rng(seed)
    n, layers = len(s), s.detector.n_layers
    to = np.stack([rng.permutation(n) for _ in range(layers)])
    owner = to[s.layer, s.shower_index]
    order = np.argsort(owner, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=n))])
    return Showers(s.x[order], s.y[order], s.layer[order], s.energy[order], offsets, s.incident, s.detector)


def test_shuffled_layers_change_correlations_and_no_profile(make_toy):
    truth = make_toy(400, 81)
    same = make_toy(400, 82, incident=truth.incident)
    evaluation, (found,) = judge_points(same, truth, parts=("correlations",), replicas=60)
    assert all(s.significance < 3 for s in found.scores)
    mixed, (broken,) = judge_points(_shuffle_layers(same, 3), truth, parts=("correlations",), replicas=60)
    observables, layers = broken.scores
    assert observables.significance > 2
    assert layers.significance > 10
    for before, after in zip(evaluation.scores, mixed.scores, strict=True):
        if after.observable in ("energy_per_layer", "hits_per_layer", "cell_energy", "energy_per_radius"):
            assert after.jsd.value == pytest.approx(before.jsd.value, rel=1e-6)
    difference = next(m for m in broken.matrices if m.name == "layers_difference")
    assert difference.values.shape == (30, 30)


def test_constant_columns_are_named_and_left_out(make_toy):
    truth, same = make_toy(300, 83), make_toy(300, 84)
    fixed = dataclasses.replace(truth.incident, energy=np.full(300, 50.0))
    pair = [dataclasses.replace(s, incident=fixed) for s in (same, truth)]
    found = judge_part("correlations", *pair, replicas=50)
    assert any(note.startswith("E_inc: constant") for note in found.notes)
    assert "E_inc" not in found.matrices[0].row_labels
