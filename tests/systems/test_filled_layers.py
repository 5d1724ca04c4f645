"""Numbers of filled voxels of layers: they come back, and the linear model has their means and correlations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calogen.systems.energy_tables import EnergyBins
from calogen.systems.filled_layers import FilledLayers


def fitted(n: np.ndarray, gev: np.ndarray, cells: int) -> FilledLayers:
    bins = EnergyBins(n.shape[1])
    layers = FilledLayers([cells] * n.shape[1], bins)
    layers.fit(n, bins.fit(gev))
    return layers


@given(n=st.lists(st.integers(1, 12), min_size=1, max_size=40), seed=st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_numbers_come_back(n: list[int], seed: int) -> None:
    """Whatever numbers there were, with gaps between them, each comes back as it was."""
    rng = np.random.default_rng(seed)
    given_n = np.array(n)[:, None]
    gev = np.exp(rng.standard_normal((len(n), 1)) * 1e-9)  # all at one energy
    layers = fitted(given_n, gev, 12)
    energies = layers._bins[0](torch.from_numpy(gev))
    x = layers.x(torch.from_numpy(given_n).double(), energies, torch.from_numpy(rng.random((len(n), 1))))
    assert torch.isfinite(x).all()
    back = layers.n(x.float(), energies)
    if len(set(n)) == 1:
        assert (back == n[0]).all()
    assert set(back.flatten().tolist()) <= set(range(min(n), max(n) + 1))


def showers(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, torch.Tensor]:
    """Numbers of two layers that rise together at random, and with the energy of the other layer; energies; condition
    [N, 3]."""
    rng = np.random.default_rng(seed)
    gev = np.exp(rng.standard_normal((n, 2)))
    common = rng.standard_normal(n)
    own = rng.standard_normal((n, 2))
    raw = 20 + 3 * np.log(gev[:, ::-1]) + 2 * common[:, None] + 1.5 * own
    condition = torch.from_numpy(np.column_stack([rng.random(n), rng.standard_normal((n, 2))])).float()
    return raw.round().clip(1, 60).astype(int), gev, condition


def test_the_model_has_means_and_correlations() -> None:
    n, gev, condition = showers(6000, 0)
    layers = fitted(n, gev, 60)
    layers.fit_model(torch.from_numpy(n), condition, torch.from_numpy(gev), np.random.default_rng(0))
    other, given_gev, given_condition = showers(4000, 1)
    noise = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0))
    x = layers.draw(noise, given_condition, torch.from_numpy(given_gev))
    made = layers.n(x, layers._bins[0](torch.from_numpy(given_gev))).numpy()
    np.testing.assert_allclose(made.mean(0), other.mean(0), atol=0.3)
    np.testing.assert_allclose(made.std(0), other.std(0), rtol=0.08)
    for columns in (
        (made, other),
        ((made.T - 3 * np.log(given_gev.T[::-1])).T, (other.T - 3 * np.log(given_gev.T[::-1])).T),
    ):
        one, two = (np.corrcoef(column.T)[0, 1] for column in columns)
        assert one == pytest.approx(two, abs=0.06)


def test_few_showers_give_a_model_that_is_near_independence() -> None:
    n, gev, condition = showers(12, 0)
    layers = fitted(n, gev, 60)
    layers.fit_model(torch.from_numpy(n), condition, torch.from_numpy(gev), np.random.default_rng(0))
    x = layers.draw(torch.randn(500, 2), *(showers(500, 1)[2], torch.from_numpy(showers(500, 1)[1])))
    assert torch.isfinite(x).all()
    assert float(x.abs().max()) < 12


def test_levels_do_not_depend_on_chance_and_rise_with_the_number() -> None:
    n, gev, _ = showers(2000, 0)
    layers = fitted(n, gev, 60)
    energies = layers._bins[0](torch.ones(41, 2))
    level = layers.level(torch.arange(5, 46)[:, None].expand(41, 2).double(), energies)
    assert (level.diff(dim=0) >= 0).all()
    assert torch.equal(level, layers.level(torch.arange(5, 46)[:, None].expand(41, 2).double(), energies))


def test_numbers_that_are_none_are_refused() -> None:
    n, gev, _ = showers(50, 0)
    layers = fitted(n, gev, 60)
    with pytest.raises(ValueError, match="drawn numbers of filled voxels"):
        layers.n(torch.tensor([[0.0, torch.nan]]), layers._bins[0](torch.ones(1, 2)))
