"""Energies of hits: sums and distributions come right."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ks_2samp

from calogen.systems.hit_energies import HitEnergies


def test_sums_and_distributions_are_those_of_true_hits() -> None:
    """A decoded energy that is the middle of the logarithms, with a spread that grows with the energy."""
    rng = np.random.default_rng(1)
    log = rng.normal(-7.0, 1.5, 40_000)
    decoded, true = np.exp(log), np.exp(log + (0.3 + 0.1 * (log + 7.0).clip(0)) * rng.standard_normal(len(log)))
    energies = HitEnergies()
    np.testing.assert_allclose(energies(decoded.astype(np.float32)), decoded, rtol=1e-5)
    energies.fit(decoded.astype(np.float32), true.astype(np.float32))
    again = HitEnergies()
    again.load_state_dict(energies.state_dict())
    scaled = again(decoded.astype(np.float32))
    assert scaled.sum() == pytest.approx(true.sum(), rel=0.02)
    assert decoded.sum() < 0.9 * true.sum()
    assert ks_2samp(scaled, true).pvalue > 0.5
    assert (np.argsort(scaled, kind="stable") == np.argsort(decoded.astype(np.float32), kind="stable")).mean() > 0.99


def test_an_edge_stays_an_edge() -> None:
    """True hits begin at a threshold; decoded ones are on both sides of it, others than those fitted to far below."""
    rng = np.random.default_rng(2)
    true = (1e-4 * np.exp(rng.exponential(1.0, 50_000))).astype(np.float32)
    decoded = (true * np.exp(0.05 * rng.standard_normal(len(true)))).astype(np.float32)
    energies = HitEnergies()
    energies.fit(decoded, true)
    assert (decoded < true.min()).mean() > 0.01
    assert energies(decoded).min() == pytest.approx(true.min(), rel=1e-6)
    assert energies(np.array([1e-6], np.float32))[0] == pytest.approx(true.min(), rel=1e-6)
    low = np.histogram(energies(decoded), np.geomspace(1e-4, 2e-4, 30))[0]
    expected = np.histogram(true, np.geomspace(1e-4, 2e-4, 30))[0]
    assert np.abs(low / expected - 1).max() < 0.15


def test_few_hits_have_one_factor_and_too_few_none() -> None:
    energies = HitEnergies()
    energies.fit(np.full(25, 1e-3, np.float32), np.full(25, 2e-3, np.float32))
    np.testing.assert_allclose(energies(np.array([1e-3, 1.0], np.float32)), [2e-3, 2.0], rtol=1e-5)
    with pytest.raises(ValueError, match="19 hits"):
        energies.fit(np.ones(19, np.float32), np.ones(19, np.float32))
