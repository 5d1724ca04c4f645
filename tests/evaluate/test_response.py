"""Linearity and resolution of samples whose widths are known."""

import numpy as np
import pytest
from scipy.stats import norm

from calogen import ILD_ECAL, Incident, Showers
from calogen.evaluate.points import judge_part
from calogen.evaluate.response import _mean_and_width, core, energy_bins, resolution, stochastic_fit

CORE_SIGMA = float(np.sqrt(1 - 2 * norm.ppf(0.95) * norm.pdf(norm.ppf(0.95)) / 0.9))
"""Standard deviation of the central 90 % of a unit Gaussian."""


def test_core_is_the_central_ninety_per_cent():
    inside = core(np.arange(1000.0))
    assert inside[[0, -1]].tolist() == [50, 949]


def test_resolution_of_a_gaussian():
    r = resolution(np.random.default_rng(1).normal(2.0, 0.2, 100_000))
    assert r.mean == pytest.approx(2.0, abs=0.003)
    assert r.value == pytest.approx(0.1 * CORE_SIGMA, rel=0.01)
    with pytest.raises(ValueError, match="at least 4"):
        resolution(np.ones(3))


def test_published_errors_are_those_of_a_fixed_window():
    """They are right for values cut at fixed bounds and, as the docstring says, too small where the bounds follow."""
    rng = np.random.default_rng(2)
    follow = np.array([[r.mean, r.value] for r in (resolution(rng.normal(1, 0.1, 1000)) for _ in range(400))])
    quoted = resolution(rng.normal(1, 0.1, 1000))
    assert follow[:, 0].std() / quoted.mean_error == pytest.approx(1.2, abs=0.12)
    assert follow[:, 1].std() / quoted.error == pytest.approx(1.65, abs=0.3)


def test_fit_recovers_the_terms_and_stays_positive():
    energy = np.geomspace(1, 100, 8)
    a, b = stochastic_fit(energy, np.hypot(0.02, 0.15 / np.sqrt(energy)), np.full(8, 0.002))
    assert (a, b) == pytest.approx((0.02, 0.15))
    a, b = stochastic_fit(energy, np.full(8, 0.03), np.full(8, 0.002))
    assert (a, b) == pytest.approx((0.03, 0), abs=1e-6)


def test_bins_of_fixed_energies_and_of_a_spectrum():
    assert len(energy_bins(np.repeat([10.0, 50.0], 300))) == 2
    edges = energy_bins(np.random.default_rng(0).uniform(10, 90, 1000))
    assert len(edges) == 8
    assert edges[-1][1] > edges[0][0]


def _sample(seed, response=1.0, stochastic=0.2):
    """One hit a shower whose energy is the response of a calorimeter of known resolution."""
    gun = Incident.gun(1600, energy=(10, 90), seed=9)
    rng = np.random.default_rng(seed)
    energy = 0.02 * response * gun.energy * (1 + stochastic / np.sqrt(gun.energy) * rng.normal(size=1600))
    flat = np.zeros(1600)
    return Showers(flat, flat, flat.astype(int), energy, np.arange(1601), gun, ILD_ECAL)


def _scores(generated):
    return judge_part("response", generated, _sample(1), replicas=20).scores


def test_scores_tell_linearity_from_resolution():
    assert np.mean([s.indistinguishable for s in _scores(_sample(2))]) >= 0.85
    brighter = _scores(_sample(3, response=1.05))
    assert all(s.significance > 5 for s in brighter if s.observable.startswith("mean"))
    assert all(s.value == pytest.approx(1.05, abs=0.02) for s in brighter if s.observable.startswith("mean"))
    assert np.mean([s.indistinguishable for s in brighter if s.observable.startswith("res")]) >= 0.75
    wider = {s.observable: s for s in _scores(_sample(4, stochastic=0.3))}
    assert wider["stochastic_term"].significance > 3
    assert wider["stochastic_term"].value == pytest.approx(0.1 * CORE_SIGMA, abs=0.03)


def test_a_small_bin_is_as_wide_as_a_large_one():
    """Samples of other sizes than the truth are compared bin by bin: the width must not depend on the number."""
    draws = 1 + 0.1 * np.random.default_rng(7).normal(size=(2000, 1050))
    small, large = (np.mean([_mean_and_width(v)[1] for v in part]) for part in (draws[:, :50], draws[:500, 50:]))
    assert small == pytest.approx(large, rel=0.025)


def test_a_larger_truth_takes_no_scores_away():
    energy = np.random.default_rng(4).uniform(10, 90, 1000)
    assert len(energy_bins(energy, 300)) == len(energy_bins(energy[:300]))
    small = np.sort(np.random.default_rng(5).uniform(10, 90, 300))
    held = [np.sum((small >= low) & (small < high)) for low, high in energy_bins(energy, 300)]
    assert min(held) >= 50
