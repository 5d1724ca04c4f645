"""Numbers of filled voxels of rings: they add up, come back, and each is as frequent as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calogen.systems.energy_tables import EnergyBins
from calogen.systems.filled_rings import FilledRings

SIZES, LAYER = [1, 3, 2, 1, 3, 2, 5], [0, 0, 0, 1, 1, 1, 2]
"""Two layers of three rings, and one of a single ring."""


def fitted(k: np.ndarray, sizes: list[int] = SIZES, layer: list[int] = LAYER) -> tuple[FilledRings, EnergyBins]:
    """Rings of these numbers [N, G], all at energies of about a GeV."""
    gev = np.exp(0.1 * np.random.default_rng(0).standard_normal((len(k), max(layer) + 1)))
    bins, rings = EnergyBins(max(layer) + 1), FilledRings(sizes, layer)
    own = bins.fit(gev)
    rings.fit(k, own[:, layer], np.ones(k.shape, dtype=bool))
    return rings, bins


@given(
    k=st.lists(st.tuples(*(st.integers(0, size) for size in SIZES)), min_size=1, max_size=20),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None)
def test_numbers_come_back_also_those_never_seen(k: list[tuple[int, ...]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    rings, bins = fitted(rng.integers(0, 2, (50, len(SIZES))))
    given_k = torch.tensor(k, dtype=torch.float64)
    energies = bins(torch.from_numpy(rng.lognormal(size=(len(k), 3))))
    n = torch.zeros(len(k), 3, dtype=torch.float64).index_add(1, torch.tensor(LAYER), given_k)
    y = rings.y(given_k, energies, torch.from_numpy(rng.random((len(k), len(SIZES)))))
    assert torch.isfinite(y).all()
    assert torch.equal(rings.k(y.float(), energies, n).double(), given_k)


@given(seed=st.integers(0, 2**31), far=st.sampled_from([0.0, 9.0, 50.0]))
@settings(max_examples=30, deadline=None)
def test_whatever_is_drawn_adds_up_and_fits_the_rings(seed: int, far: float) -> None:
    rng = np.random.default_rng(seed)
    rings, bins = fitted(rng.integers(0, 2, (50, len(SIZES))))
    n = torch.from_numpy(rng.integers(0, [7, 7, 6], (16, 3))).double()
    y = torch.from_numpy(rng.standard_normal((16, len(SIZES))) + far * rng.choice([-1, 1], (16, len(SIZES))))
    k = rings.k(y, bins(torch.ones(16, 3)), n)
    assert torch.equal(torch.zeros(16, 3).index_add(1, torch.tensor(LAYER), k.float()), n.float())
    assert ((k >= 0) & (k <= torch.tensor(SIZES))).all()


def test_numbers_given_their_sum_are_as_frequent_as_they_were() -> None:
    """Three independent rings, the first of which is always hit; by independent normal numbers."""
    rng = np.random.default_rng(0)
    k = np.stack(
        [1 + rng.binomial(3, 0.1, 60_000), rng.binomial(4, 0.2, 60_000), rng.binomial(4, 0.05, 60_000)], axis=1
    )
    rings, bins = fitted(k, [4, 4, 4], [0, 0, 0])
    n = torch.from_numpy(k.sum(1, keepdims=True)).double()
    y = torch.randn(60_000, 3, generator=torch.Generator().manual_seed(1))
    made = rings.k(y, bins(torch.ones(60_000, 1)), n).numpy()
    assert made[:, 0].min() == 1
    for total in (1, 2, 3):
        same = k.sum(1) == total
        for ring in range(3):
            seen, drawn = (np.bincount(part[same, ring], minlength=5) / same.sum() for part in (k, made))
            np.testing.assert_allclose(drawn, seen, atol=0.015)


def test_normal_numbers_of_independent_rings_are_normal_and_independent() -> None:
    rng = np.random.default_rng(2)
    k = rng.binomial([1, 3, 2, 1, 3, 2, 5], 0.3, (20_000, 7))
    rings, bins = fitted(k)
    y = rings.y(
        torch.from_numpy(k).double(), bins(torch.ones(20_000, 3)), torch.from_numpy(rng.random(k.shape))
    ).numpy()
    np.testing.assert_allclose(y.mean(0), 0, atol=0.05)
    np.testing.assert_allclose(np.corrcoef(y.T), np.eye(7), atol=0.05)


def test_a_ring_hit_at_one_energy_alone_is_rare_at_others() -> None:
    gev = np.repeat([1.0, 1.1, 10.0, 11.0], 500)[:, None]
    k = np.stack([np.ones(2000, dtype=int), (gev[:, 0] > 5).astype(int)], axis=1)
    bins, rings = EnergyBins(1), FilledRings([2, 2], [0, 0])
    rings.fit(k, np.repeat(bins.fit(gev), 2, axis=1), np.ones(k.shape, dtype=bool))
    y = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))
    energies = bins(torch.full((2000, 1), 1.0))
    assert float(rings.k(y, energies, torch.full((2000, 1), 2.0))[:, 1].double().mean()) == pytest.approx(0.8, abs=0.2)
    assert int((rings.k(y, energies, torch.ones(2000, 1))[:, 1] > 0).sum()) < 40
