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
from calogen.systems.voxel_targets import DrawnLayers, TargetConstants, Targets, VoxelTargets

CELLS = RINGS.cells_per_layer.tolist()


def fitted(n: int = 600, *, seed: int = 0) -> VoxelTargets:
    targets = VoxelTargets(CELLS, TargetConstants(shares="marginals"), alike(RINGS))
    energy, incident = cells_of(toy_voxels(n, seed=seed))
    targets.fit([(energy[:100], incident[:100]), (energy[100:], incident[100:])], np.random.default_rng(0))
    return targets


TARGETS = fitted()
N_RINGS = 18


def encoded(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, Targets, DrawnLayers]:
    """Showers as cells, incident energies, targets, and what is drawn for the layers before the flow."""
    energy, incident = cells_of(toy_voxels(n, seed=seed))
    made = TARGETS.encode(energy, incident, np.random.default_rng(seed))
    return energy, incident, made, DrawnLayers(made.energy, made.condition, filled_voxels(energy))


def filled_voxels(energy: np.ndarray) -> torch.Tensor:
    return TARGETS.layers.sum(torch.from_numpy(energy > 0))


def drawn(x: torch.Tensor, layers_gev: torch.Tensor, n: float) -> torch.Tensor:
    """Shares of numbers x where n voxels of each layer are filled."""
    assert TARGETS.marginals is not None
    return TARGETS.marginals.inverse(x, torch.full(layers_gev.shape, n, dtype=torch.float64), layers_gev)


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
    """Also those of other energies and cells than were seen: the same cells are filled, layers agree to round-off."""
    energy, incident, x, layers = encoded(12, seed)
    assert torch.isfinite(x.shape).all()
    back, _ = TARGETS.decode(layers, x.shape, incident, 1e-4)
    np.testing.assert_array_equal(back.numpy() > 0, energy > 0)
    np.testing.assert_allclose(back.sum(1), energy.sum(1), rtol=1e-5)
    ratio = back.numpy()[energy > 0] / energy[energy > 0]
    assert np.mean(abs(ratio - 1) < 1e-3) > 0.6  # beyond the least and largest share seen it is these
    assert np.mean(abs(ratio - 1) < 0.2) > 0.95


def test_every_number_alone_is_nearly_standard_normal() -> None:
    """Of showers it has not seen, at low and at high energies; what rings share beside the number of their layer is
    left to the flow."""
    _, incident, made, _ = encoded(3000, 7)
    x = made.shape.numpy()
    for part in (x[incident < 40], x[incident > 60]):
        assert abs(part.mean(0)).max() < 0.25
        assert abs(part.std(0) - 1).max() < 0.3
        assert abs(part.mean()) < 0.06


def test_independent_normal_numbers_have_geant4s_cells() -> None:
    """As many cells with energy in each ring and layer, and of the same energies, before anything is trained; numbers
    of filled cells drawn by the model."""
    energy, incident, x, _ = encoded(3000, 8)
    generator = torch.Generator().manual_seed(1)
    layers = TARGETS.drawn_layers(x.energy, incident, torch.randn(3000, 6, generator=generator))
    made = TARGETS.decode(layers, torch.randn(x.shape.shape, generator=generator), incident, 1e-3)[0].numpy()
    rings = [part.reshape(-1, 6, 4, 3) for part in (made, energy)]
    filled = [(part > 0).mean((0, 2)) for part in rings]
    np.testing.assert_allclose(filled[0], filled[1], atol=0.03)
    sums = [part.sum((0, 1, 2)) / part.sum() for part in rings]
    np.testing.assert_allclose(sums[0], sums[1], rtol=0.05)
    spread = [(part.sum((2,)) / part.sum((2, 3))[..., None].clip(1e-9))[:, 2].std(0) for part in rings]
    np.testing.assert_allclose(spread[0], spread[1], rtol=0.35)  # of shares of rings


def test_edges_part_the_empty_from_the_filled() -> None:
    energy, _, made, _ = encoded(200, 3)
    assert made.edge is not None
    cells, rings = made.edge.split([72, N_RINGS], dim=1)
    assert rings.isnan().all()
    assert torch.equal(cells.isnan(), torch.from_numpy(energy > 0))
    empty = ~cells.isnan()
    assert (made.shape[:, :72] <= cells)[empty].all()
    ended = (energy.reshape(200, 6, 12).sum(2) == 0).repeat(12, axis=1)
    assert torch.isinf(cells)[torch.from_numpy(ended)].all()  # nothing can be there: any number stands for it
    assert torch.isfinite(cells)[empty & torch.from_numpy(~ended)].float().mean() > 0.3


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
    n = torch.tensor([[2.0, 1.0], [3.0, 4.0]], dtype=torch.float64)
    back = marginals.inverse(x, n, given_gev)
    assert torch.isfinite(back).all()
    assert torch.equal((back > 0).view(2, 2, 4).sum(2).double(), n)
    assert 0.1 < float(back[back > 0].min()) <= float(back.max()) <= 1.501


@pytest.mark.parametrize("far", [-50.0, -9.0, 9.0, 50.0])
@pytest.mark.parametrize("n", [1.0, 5.0, 12.0])
def test_as_many_voxels_are_filled_as_are_drawn_and_shares_add_up(far: float, n: float) -> None:
    """Also far from zero, where probabilities of all numbers are the same to double precision."""
    gev = torch.full((3, 6), 2.0)
    x = torch.randn(3, 72 + N_RINGS, generator=torch.Generator().manual_seed(0))
    x[1, :72], x[2] = far, far
    shares = drawn(x, gev, n)
    assert torch.isfinite(shares).all()
    assert torch.equal(TARGETS.layers.sum(shares > 0), torch.full((3, 6), n, dtype=torch.float64))
    assert drawn(x, torch.zeros(3, 6), 0.0).abs().max() == 0  # nothing where there is no energy


def test_shares_of_a_layer_add_up_to_one() -> None:
    _, incident, x, layers = encoded(200, 5)
    noise = torch.randn(x.shape.shape, generator=torch.Generator().manual_seed(1))
    assert TARGETS.marginals is not None
    assert layers.filled is not None
    gev = TARGETS.layers.layer_energies(TARGETS.u(x.energy), torch.from_numpy(incident.astype(np.float64)))
    total = TARGETS.layers.sum(TARGETS.marginals.inverse(noise, layers.filled, gev))[layers.filled > 0]
    assert float(((total - 1).abs() < 1e-4).double().mean()) > 0.98  # else the largest shares seen are too small


def test_two_voxels_that_share_a_layer_keep_their_distribution() -> None:
    """One takes what the other leaves: drawn alone and scaled to one, their shares would gather in the middle."""
    rng = np.random.default_rng(1)
    share = rng.beta(0.7, 0.7, size=4000).clip(1e-3, 1 - 1e-3)
    within = np.stack([share, 1 - share], axis=1)
    marginals, hits = CellMarginals([2], [0, 0]), Hits()
    hits.add(torch.from_numpy(within))
    marginals.fit(np.ones((4000, 1)), hits)
    x = torch.randn(4000, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    made = marginals.inverse(x, torch.full((4000, 1), 2.0, dtype=torch.float64), torch.ones(4000, 1))
    np.testing.assert_allclose(made.sum(1), 1.0, atol=1e-3)
    levels = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    np.testing.assert_allclose(np.quantile(made[:, 0].numpy(), levels), np.quantile(share, levels), atol=0.04)


@pytest.mark.parametrize("place", [3, -1])
def test_numbers_that_are_none_are_refused(place: int) -> None:
    x = torch.zeros(2, 72 + N_RINGS)
    x[1, place] = torch.nan
    with pytest.raises(ValueError, match="drawn numbers of voxels"):
        drawn(x, torch.ones(2, 6), 3.0)


def test_groups_must_fit_the_layers() -> None:
    with pytest.raises(ValueError, match="8 voxels need as many groups, not 7"):
        CellMarginals([4, 4], [0] * 7)
    with pytest.raises(ValueError, match="voxels of several layers"):
        CellMarginals([4, 4], [0] * 8)
    with pytest.raises(ValueError, match="from the first layer to the last"):
        CellMarginals([2, 2], [1, 1, 0, 0])


def test_distributions_are_in_the_state() -> None:
    copy = VoxelTargets(CELLS, TargetConstants(shares="marginals"), alike(RINGS))
    copy.load_state_dict(TARGETS.state_dict())
    energy, incident = cells_of(toy_voxels(5, seed=3))
    x, y = (t.encode(energy, incident, np.random.default_rng(0)) for t in (TARGETS, copy))
    assert torch.equal(x.shape, y.shape)
    noise = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    one, two = (t.drawn_layers(x.energy, incident, noise).filled for t in (TARGETS, copy))
    assert one is not None
    assert two is not None
    assert torch.equal(one, two)
