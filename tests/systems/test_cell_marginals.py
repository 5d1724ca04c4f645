"""Shares as normal numbers by their own distribution: there and back, alone right from the start."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_voxels import RINGS, toy_voxels

from calogen.detector.catalog import BOX_30, CALOCHALLENGE_1_PIONS, CALOCHALLENGE_2
from calogen.detector.geometry import CartesianCells, Detector, Layer
from calogen.systems.calodream_stages import cells_of
from calogen.systems.cell_marginals import CellMarginals, Hits, alike
from calogen.systems.voxel_targets import TargetConstants, VoxelTargets

CELLS = RINGS.cells_per_layer.tolist()


def fitted(n: int = 600, *, seed: int = 0) -> VoxelTargets:
    targets = VoxelTargets(CELLS, TargetConstants(shares="marginals"), alike(RINGS))
    energy, incident = cells_of(toy_voxels(n, seed=seed))
    targets.fit([(energy[:100], incident[:100]), (energy[100:], incident[100:])], np.random.default_rng(0))
    return targets


TARGETS = fitted()


def test_cells_alike_are_rings_or_distances_in_squares() -> None:
    group = np.array(alike(CALOCHALLENGE_2)).reshape(45, 16, 9)
    assert (group == group[:, :1]).all()
    assert len(np.unique(group)) == 45 * 9
    irregular = alike(CALOCHALLENGE_1_PIONS)
    assert len(irregular) == CALOCHALLENGE_1_PIONS.n_cells
    squares = np.array(alike(BOX_30))[: BOX_30.layers[0].cells.n_cells].reshape(30, 30)
    for view in (squares[::-1], squares[:, ::-1], squares.T):
        np.testing.assert_array_equal(view, squares)
    assert len(np.unique(squares)) == 15 * 16 // 2


def test_square_cells_aside_of_the_entry_point_are_unlike() -> None:
    aside = Detector("aside", (Layer(1.0, 2.0, "ecal", CartesianCells(10.0, -10.0, -20.0, 4, 4), 1e-4),))
    assert len(set(alike(aside))) == 16


def test_more_tables_than_can_be_stored_are_refused() -> None:
    with pytest.raises(ValueError, match="limit 20000"):
        CellMarginals([20_001], range(20_001))


@given(seed=st.integers(0, 2**31))
@settings(max_examples=15, deadline=None)
def test_showers_come_back(seed: int) -> None:
    """Also those of other energies and cells than were seen: layers to round-off, cells but where a layer has more or
    fewer filled ones than any seen."""
    energy, incident = cells_of(toy_voxels(12, seed=seed))
    x = TARGETS.encode(energy, incident, np.random.default_rng(seed))
    assert torch.isfinite(x.shape).all()
    back, _ = TARGETS.decode(x.energy, x.shape, incident, 1e-4)
    assert np.mean((back.numpy() > 0) != (energy > 0)) < 0.005
    np.testing.assert_allclose(back.sum(1), energy.sum(1), rtol=1e-5)
    both = (energy > 0) & (back.numpy() > 0)
    ratio = back.numpy()[both] / energy[both]
    assert np.mean(abs(ratio - 1) < 1e-3) > 0.75  # beyond the least and largest share seen it is these
    assert np.mean(abs(ratio - 1) < 0.2) > 0.95


def test_every_cell_alone_is_standard_normal() -> None:
    """Of showers it has not seen, at low and at high energies."""
    energy, incident = cells_of(toy_voxels(3000, seed=7))
    x = TARGETS.encode(energy, incident, np.random.default_rng(0)).shape.numpy()
    for part in (x[incident < 40], x[incident > 60]):
        assert abs(part.mean(0)).max() < 0.25
        assert abs(part.std(0) - 1).max() < 0.2
        assert abs(part.mean()) < 0.06


def test_independent_normal_numbers_have_geant4s_cells() -> None:
    """As many cells with energy in each ring and layer, and of the same energies, before anything is trained."""
    energy, incident = cells_of(toy_voxels(3000, seed=8))
    x = TARGETS.encode(energy, incident, np.random.default_rng(0))
    noise = torch.randn(x.shape.shape, generator=torch.Generator().manual_seed(1))
    made = TARGETS.decode(x.energy, noise, incident, 1e-3)[0].numpy()
    rings = [part.reshape(-1, 6, 4, 3) for part in (made, energy)]
    filled = [(part > 0).mean((0, 2)) for part in rings]
    np.testing.assert_allclose(filled[0], filled[1], atol=0.03)
    sums = [part.sum((0, 1, 2)) / part.sum() for part in rings]
    np.testing.assert_allclose(sums[0], sums[1], rtol=0.05)


def test_edges_part_the_empty_from_the_filled() -> None:
    energy, incident = cells_of(toy_voxels(200, seed=3))
    made = TARGETS.encode(energy, incident, np.random.default_rng(0))
    assert made.edge is not None
    cells, counts = made.edge.split([72, 6], dim=1)
    assert counts.isnan().all()
    assert torch.equal(cells.isnan(), torch.from_numpy(energy > 0))
    empty = ~cells.isnan()
    assert (made.shape[:, :72] <= cells)[empty].all()
    ended = (energy.reshape(200, 6, 12).sum(2) == 0).repeat(12, axis=1)
    assert torch.isinf(cells)[torch.from_numpy(ended)].all()  # nothing can be there: any number stands for it
    assert torch.isfinite(cells)[empty & torch.from_numpy(~ended)].float().mean() > 0.5


def test_layers_without_showers_and_few_hits_can_be_fitted() -> None:
    """One shower in the first layer alone; all others take what there is."""
    marginals = CellMarginals([4, 4], [0, 0, 0, 0, 1, 1, 1, 1])
    within = torch.tensor([[0.5, 0.5, 0, 0, 0, 0, 0, 0], [0.25, 0.25, 0.5, 0, 0, 0, 0, 0]])
    hits = Hits()
    hits.add(within)
    layers = np.array([[2.0, 0.0], [1.0, 0.0]])
    marginals.fit(layers, hits)
    given_gev = torch.tensor([[1.5, 0.7], [0.01, 1e6]])
    x = torch.randn(2, 10, generator=torch.Generator().manual_seed(0))
    back = marginals.inverse(x, given_gev)
    assert torch.isfinite(back).all()
    assert (back[:, :4] > 0).any()
    assert 0.1 < float(back[back > 0].min()) <= float(back.max()) <= 1.501  # they need not add up to one


def test_numbers_far_out_fill_no_more_voxels_than_were_drawn() -> None:
    """Far from zero probabilities of all are the same to double precision."""
    assert TARGETS.marginals is not None
    layers, x = torch.full((3, 6), 0.01), torch.zeros(3, 78)
    x[:, 72:] = -1.0
    drawn = TARGETS.layers.sum(TARGETS.marginals.inverse(x, layers) > 0)
    assert bool((drawn < 12).any())
    for far in (-50.0, -9.0, 9.0, 50.0):
        x[:, :72] = far
        shares = TARGETS.marginals.inverse(x, layers)
        assert torch.isfinite(shares).all()
        assert torch.equal(TARGETS.layers.sum(shares > 0), drawn)


def test_rings_of_few_hits_keep_their_share_at_every_energy() -> None:
    """The voxels of a ring that is hit once in thousand showers stay that rare, at each of the energies."""
    n, rng = 2000, np.random.default_rng(3)
    within = np.zeros((n, 8), dtype=np.float32)
    within[:, 0] = 1.0
    within[0, 4] = 0.5
    hits = Hits()
    hits.add(torch.from_numpy(within))
    marginals = CellMarginals([8], [0] * 4 + [1] * 4)
    marginals.fit(rng.lognormal(size=(n, 1)), hits)
    assert float(marginals.filled[1].mean()) == pytest.approx(1 / (4 * n), rel=1.0)


@pytest.mark.parametrize("place", [3, -1])
def test_numbers_that_are_none_are_refused(place: int) -> None:
    x = torch.zeros(2, 78)
    x[1, place] = torch.nan
    assert TARGETS.marginals is not None
    with pytest.raises(ValueError, match="drawn numbers of voxels"):
        TARGETS.marginals.inverse(x, torch.ones(2, 6))


def test_groups_must_fit_the_layers() -> None:
    with pytest.raises(ValueError, match="8 voxels need as many groups, not 7"):
        CellMarginals([4, 4], [0] * 7)
    with pytest.raises(ValueError, match="voxels of several layers"):
        CellMarginals([4, 4], [0] * 8)


def test_distributions_are_in_the_state() -> None:
    copy = VoxelTargets(CELLS, TargetConstants(shares="marginals"), alike(RINGS))
    copy.load_state_dict(TARGETS.state_dict())
    energy, incident = cells_of(toy_voxels(5, seed=3))
    x, y = (t.encode(energy, incident, np.random.default_rng(0)) for t in (TARGETS, copy))
    assert torch.equal(x.shape, y.shape)


def test_as_many_voxels_are_filled_as_are_drawn_and_each_as_often_as_it_is_with_so_many() -> None:
    """Three rings of one layer of one or two hits, which are independent but for their number."""
    rates = np.array([0.12, 0.06, 0.02])
    rng = np.random.default_rng(0)
    marginals = CellMarginals([12], np.tile(np.arange(3), 4).tolist())
    filled = rng.random((200_000, 12)) < np.tile(rates, 4)
    filled = filled[(filled.sum(1) == 1) | (filled.sum(1) == 2)]
    hits = Hits()
    hits.add(torch.from_numpy(filled / filled.sum(1, keepdims=True)))
    marginals.fit(np.full((len(filled), 1), 2.0), hits)
    x = torch.randn(60_000, 13, generator=torch.Generator().manual_seed(1))
    made = marginals.inverse(x, torch.full((len(x), 1), 2.0)).view(-1, 4, 3) > 0
    n = made.sum((1, 2))
    assert set(n.tolist()) == {1, 2}
    assert abs(float((n == 1).double().mean()) - (filled.sum(1) == 1).mean()) < 0.02  # quantiles lie on a grid
    for k in (1, 2):
        true = filled.reshape(-1, 4, 3)[filled.sum(1) == k].sum((0, 1)) / (filled.sum(1) == k).sum()
        drawn = made[n == k].sum((0, 1)) / (n == k).sum()
        np.testing.assert_allclose(drawn.numpy(), true, atol=0.03 * k)  # exact for many voxels
    assert marginals.inverse(x, torch.zeros(len(x), 1)).abs().max() == 0  # nothing where there is no energy


@given(n=st.lists(st.integers(1, 12), min_size=1, max_size=40), seed=st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_numbers_of_filled_voxels_come_back(n: list[int], seed: int) -> None:
    """Whatever numbers there were, with gaps between them, each comes back as it was."""
    rng = np.random.default_rng(seed)
    filled = np.stack([rng.permutation(12) < k for k in n]).astype(np.float32)
    marginals, hits = CellMarginals([12], [0] * 12), Hits()
    hits.add(torch.from_numpy(filled / filled.sum(1, keepdims=True)))
    gev = np.exp(rng.standard_normal((len(n), 1)) * 1e-9)  # all at one energy
    marginals.fit(gev, hits)
    within, uniform = (
        torch.from_numpy(filled / filled.sum(1, keepdims=True)),
        torch.from_numpy(rng.random((len(n), 13))),
    )
    x, _ = marginals(within.double(), torch.from_numpy(gev), uniform)
    back = marginals.inverse(x, torch.from_numpy(gev))
    if len(set(n)) == 1:
        assert ((back > 0).sum(1) == n[0]).all()
    assert set((back > 0).sum(1).tolist()) <= set(range(min(n), max(n) + 1))


def test_voxels_that_are_filled_to_make_the_number_have_shares_that_voxels_have() -> None:
    """One ring: they are the faintest of their layer, which shifts the distribution a little; none is at its end."""
    rng = np.random.default_rng(0)
    n = rng.integers(1, 12, 4000)
    filled = rng.random((4000, 16)).argsort(1) < n[:, None]
    share = np.where(filled, rng.random((4000, 16)) / n[:, None], 0.0)
    marginals, hits = CellMarginals([16], [0] * 16), Hits()
    hits.add(torch.from_numpy(share))
    marginals.fit(np.ones((4000, 1)), hits)
    made = marginals.inverse(torch.randn(4000, 17, generator=torch.Generator().manual_seed(2)), torch.ones(4000, 1))
    value = (made * (made > 0).sum(1, keepdim=True))[made > 0].numpy()  # share · n, uniform in [0, 1]
    quantiles = np.array([0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98])
    np.testing.assert_allclose(np.quantile(value, quantiles), quantiles, atol=0.07)
    assert np.mean(value < 0.005) < 0.015
