"""Energies of hits: sums come right, by the energies that were decoded."""

from __future__ import annotations

import numpy as np
import pytest

from calogen.systems.hit_energies import HitEnergies


def test_sums_are_those_of_true_hits() -> None:
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
    for low, high in ((-9, -8), (-7, -6), (-5, -4)):
        some = (log > low) & (log < high)
        assert scaled[some].sum() == pytest.approx(true[some].sum(), rel=0.04)


def test_few_hits_have_one_factor_and_too_few_none() -> None:
    energies = HitEnergies()
    energies.fit(np.full(25, 1e-3, np.float32), np.full(25, 2e-3, np.float32))
    np.testing.assert_allclose(energies(np.array([1e-6, 1e-3, 1.0], np.float32)), [2e-6, 2e-3, 2.0], rtol=1e-5)
    with pytest.raises(ValueError, match="19 hits"):
        energies.fit(np.ones(19, np.float32), np.ones(19, np.float32))
