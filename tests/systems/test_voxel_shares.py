"""Ratios of layers and shares of voxels: the authors' numbers, exact ways back, and no energy lost to a threshold."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose
from torch import Tensor

from calogen.detector.catalog import CALOCHALLENGE_1_PIONS
from calogen.systems.voxel_shares import Shares, VoxelLayers, brightest
from calogen.units import GEV_PER_MEV

THRESHOLD = 1.5e-5


@st.composite
def detectors(draw: st.DrawFn) -> list[int]:
    return draw(st.lists(st.integers(1, 5), min_size=1, max_size=5))


@st.composite
def events(draw: st.DrawFn, least: float = THRESHOLD) -> tuple[VoxelLayers, Tensor, Tensor]:
    """Showers with empty voxels and layers, some ending early, some empty, of up to 1000 times what came in."""
    layers = VoxelLayers(draw(detectors()))
    n = draw(st.integers(1, 3))
    logs = draw(hnp.arrays("float32", (n, layers.n_voxels), elements=st.floats(-20, 5, width=32), fill=st.just(-20)))
    energy = torch.from_numpy(np.where(logs < np.log(least), 0, np.exp(logs)))
    ends = draw(hnp.arrays("int64", n, elements=st.integers(0, layers.n_voxels)))
    energy[torch.arange(layers.n_voxels) >= torch.from_numpy(ends)[:, None]] = 0
    return layers, energy, torch.from_numpy(draw(hnp.arrays("float32", n, elements=st.floats(0.125, 100.0, width=32))))


@pytest.fixture(scope="module")
def reference(shared: Path) -> dict[str, Any]:
    return torch.load(shared / "parity" / "dream_transforms.pt", weights_only=True)


def published(reference: dict[str, Any]) -> tuple[VoxelLayers, Tensor, Tensor, dict[str, Tensor]]:
    given_, expected = reference["inputs"], reference["outputs"]
    dense = {name: value.to_dense() for name, value in expected.items()}
    energy, incident = given_["showers"].to_dense() * GEV_PER_MEV, given_["Einc"][:, 0] * GEV_PER_MEV
    return VoxelLayers([144] * 45), energy, incident, dense


def test_the_authors_numbers(reference: dict[str, Any]) -> None:
    layers, energy, incident, expected = published(reference)
    shares = layers.to_shares(energy, incident)
    assert_allclose(shares.u, expected["us"], rtol=1e-5, atol=1e-7)
    assert_allclose(shares.within, expected["normed"][:, :-45], rtol=1e-5, atol=1e-7)
    back, cut = layers.from_shares(shares, incident)
    assert_allclose(back, expected["back"] * GEV_PER_MEV, rtol=1e-5)
    assert cut == (0, 0, 0.0, 0)


def test_the_authors_cut_with_the_energy_it_loses(reference: dict[str, Any]) -> None:
    layers, energy, incident, expected = published(reference)
    ours, _ = layers.from_shares(layers.to_shares(energy, incident), incident, least_share=1e-3)
    theirs = expected["back_cut1e3"] * GEV_PER_MEV
    assert torch.equal(ours > 0, theirs > 0)
    wanted, left = layers.sum(energy), layers.sum(theirs)
    assert float((left / wanted.clamp(min=1e-12)).min()) < 0.9999  # what theirs lose
    assert_allclose(layers.sum(ours), wanted, rtol=1e-6)
    brought_back = [
        (part * (total / lost.clamp(min=1e-12))).flatten(1)
        for part, total, lost in zip(layers.split(theirs), layers.per_run(wanted), layers.per_run(left), strict=True)
    ]
    assert_allclose(ours, torch.cat(brought_back, dim=1), rtol=1e-5)


@given(event=events())
@settings(max_examples=80, deadline=None)
def test_there_and_back(event: tuple[VoxelLayers, Tensor, Tensor]) -> None:
    layers, energy, incident = event
    shares = layers.to_shares(energy, incident)
    assert float(shares.u.min()) >= 0
    assert not (shares.u[:, 1:] > 1).any()
    assert_allclose(shares.u[:, 0] * incident, energy.double().sum(1), rtol=1e-9)
    for threshold in (0.0, THRESHOLD * 0.999):
        back, cut = layers.from_shares(shares, incident, threshold)
        assert torch.equal(back > 0, energy > 0)
        assert_allclose(back, energy, rtol=2e-6)  # ratios close to 1 leave 1e-7 of a shower, known to 1e-9
        assert cut == (0, 0, 0.0, 0)


@given(event=events(least=THRESHOLD / 100), threshold=st.sampled_from([THRESHOLD, 1e-3, 1.0]), data=st.data())
@settings(max_examples=80, deadline=None)
def test_a_threshold_moves_energy_and_loses_none(
    event: tuple[VoxelLayers, Tensor, Tensor], threshold: float, data: st.DataObject
) -> None:
    layers, energy, incident = event
    each = data.draw(hnp.arrays("float64", layers.n_layers, elements=st.sampled_from([0.0, 0.5, 1.0])))
    least = threshold * torch.from_numpy(each)
    shares = layers.to_shares(energy.double(), incident)
    back, cut = layers.from_shares(shares, incident, least)
    total = energy.double().sum(1)
    assert_allclose(back.sum(1), total, rtol=1e-9)
    below = torch.cat([((p > 0) & (p < t * (1 - 1e-8))).flatten(1) for p, t in pairs(layers, back, least)], dim=1)
    faint = below.any(1)
    assert int(faint.sum()) == cut.faint
    assert ((back > 0).sum(1)[faint] == 1).all()
    assert (total[faint] < threshold).all()
    assert int(((energy > 0) & (back == 0)).sum()) >= cut.voxels
    before, after = layers.sum(energy), layers.sum(back)
    emptied = (before > 0) & (after == 0)
    assert int(emptied.sum()) == cut.layers
    assert cut.moved_gev == pytest.approx(float(before[emptied].sum()), rel=1e-6)
    if not cut.layers:
        assert_allclose(after, before, rtol=1e-9, atol=1e-12)
    again, second = layers.from_shares(layers.to_shares(back, incident), incident, least)
    assert_allclose(again, back, rtol=1e-6, atol=1e-12)
    assert second[:3] == (0, 0, 0.0)


def pairs(layers: VoxelLayers, x: Tensor, of_layers: Tensor) -> list[tuple[Tensor, Tensor]]:
    return list(zip(layers.split(x), layers.per_run(of_layers[None]), strict=True))


@given(
    values=st.lists(st.floats(0.001, 10.0), min_size=1, max_size=8),
    total=st.floats(0.01, 100.0),
    threshold=st.floats(0.0, 5.0),
)
@settings(max_examples=80, deadline=None)
def test_no_more_could_be_kept(values: list[float], total: float, threshold: float) -> None:
    kept = brightest(*(torch.tensor(x, dtype=torch.float64) for x in (values, total, [threshold])))
    assert_allclose(kept.sum(), total)
    ordered = sorted(values, reverse=True)
    possible = [k for k in range(1, len(values) + 1) if ordered[k - 1] * total / sum(ordered[:k]) >= threshold]
    assert int((kept > 0).sum()) == max(possible, default=1)
    assert kept.max() == kept[values.index(max(values))]


def test_a_layer_whose_voxels_are_all_below() -> None:
    layers = VoxelLayers([4, 4])
    energy = torch.tensor([[0.9, 0.8, 0.7, 0.6, 1.5, 0.2, 0.0, 0.0]]) * THRESHOLD
    back, cut = layers.from_shares(layers.to_shares(energy, torch.ones(1)), torch.ones(1), THRESHOLD)
    assert_allclose(back / THRESHOLD, [[3.0 * 0.9 / 1.7, 3.0 * 0.8 / 1.7, 0, 0, 1.7, 0, 0, 0]], rtol=1e-5)
    assert cut == (3, 0, 0.0, 0)


def test_layers_and_showers_below_the_threshold() -> None:
    layers = VoxelLayers([2, 1, 2])
    energy = torch.tensor([[0.0, 0.3, 5.0, 2.0, 3.0], [0.0, 0.3, 0.2, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]]) * THRESHOLD
    back, cut = layers.from_shares(layers.to_shares(energy, torch.ones(3)), torch.ones(3), THRESHOLD)
    more = 10.3 / 10.0
    assert_allclose(back[0] / THRESHOLD, [0, 0, 5 * more, 2 * more, 3 * more], rtol=1e-5)
    assert_allclose(back[1] / THRESHOLD, [0, 0.5, 0, 0, 0], rtol=1e-5)
    assert not back[2].any()
    assert cut.faint == 1
    assert cut.layers == 2
    assert cut.moved_gev == pytest.approx(0.5 * THRESHOLD)


def test_shares_as_a_network_draws_them() -> None:
    """Of any sum, negative, all zero: the layer has its energy nevertheless, in the likeliest voxel if need be."""
    layers = VoxelLayers([3, 2])
    shares = Shares(torch.tensor([[2.0, 0.25]]), torch.tensor([[-3.0, -1.0, -2.0, 4.0, 4.0]]))
    back, _ = layers.from_shares(shares, torch.tensor([8.0]))
    assert_allclose(back, [[0.0, 4.0, 0.0, 6.0, 6.0]])
    back, _ = layers.from_shares(Shares(shares.u, shares.within.clamp(min=0) / 1e6), torch.tensor([8.0]), least_share=1)
    assert back.sum() == 16.0


@pytest.mark.parametrize("stop", range(5))
def test_showers_that_end_early(stop: int) -> None:
    layers = VoxelLayers([2] * 4)
    energy = torch.zeros(1, 8)
    energy[0, : 2 * stop] = 0.7
    u = layers.to_shares(energy, torch.ones(1)).u
    assert_allclose(u[0, 0], 1.4 * stop, rtol=1e-6)  # more than came in, for all but the first
    expected = [1 / (stop - k) if k < stop else 0.0 for k in range(3)]
    assert_allclose(u[0, 1:], expected, rtol=1e-12)
    u[0, stop + 1 :] = 0.3  # what stands behind the end says nothing
    assert_allclose(layers.layer_energies(u, torch.ones(1))[0], [1.4] * stop + [0.0] * (4 - stop), rtol=1e-6)


def test_layers_of_different_cells() -> None:
    detector = CALOCHALLENGE_1_PIONS
    layers = VoxelLayers(detector.cells_per_layer.tolist())
    assert (layers.n_layers, layers.n_voxels) == (7, 533)
    energy = torch.rand(3, 533) * (torch.rand(3, 533) < 0.2)
    sums = np.add.reduceat(energy.double().numpy(), detector.first_cell[:-1], axis=1)
    assert_allclose(layers.sum(energy), sums, rtol=1e-12)
    back, _ = layers.from_shares(layers.to_shares(energy, torch.ones(3)), torch.ones(3))
    assert_allclose(back, energy, rtol=1e-6)


def test_what_cannot_be_is_refused() -> None:
    layers, one = VoxelLayers([2, 2]), torch.ones(1)
    with pytest.raises(ValueError, match="must be 0 or more"):
        layers.to_shares(torch.tensor([[1.0, -1.0, 0.0, 0.0]]), one)
    with pytest.raises(ValueError, match="must be 0 or more"):
        layers.to_shares(torch.tensor([[1.0, torch.nan, 0.0, 0.0]]), one)
    with pytest.raises(ValueError, match="4\\] voxels"):
        layers.to_shares(torch.ones(1, 5), one)
    with pytest.raises(ValueError, match="must be positive"):
        layers.to_shares(torch.ones(1, 4), torch.zeros(1))
    with pytest.raises(ValueError, match="1 incident energies"):
        layers.to_shares(torch.ones(1, 4), torch.ones(2))
    with pytest.raises(ValueError, match="layer fractions needs values"):
        layers.layer_energies(torch.tensor([[1.0, 1.1]]), one)
    with pytest.raises(ValueError, match="have ratios"):
        layers.layer_energies(torch.ones(1, 3), one)
    with pytest.raises(ValueError, match="shares are NaN"):
        layers.from_shares(Shares(torch.ones(1, 2), torch.full((1, 4), torch.nan)), one)
    for sizes in ([], [2, 0]):
        with pytest.raises(ValueError, match="every layer needs voxels"):
            VoxelLayers(sizes)
