"""Layer profiles to flow targets and back, points onto layers: each against what it must conserve."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import LAYERS, toy_showers

from calogen import Incident
from calogen.systems.layer_counts import Limits, assign_layers, rescale, whole
from calogen.systems.points import across
from calogen.systems.profile_targets import FittedTargets, LayerProfile, LinearTargets


def _profile_and_condition(n: int = 300) -> tuple[LayerProfile, torch.Tensor]:
    showers = toy_showers(n)
    log = torch.from_numpy(np.log(showers.incident.energy))
    condition = torch.cat(
        [((log - log.mean()) / log.std())[:, None], torch.from_numpy(showers.incident.direction)], dim=1
    )
    return LayerProfile.of(showers.upright()), condition


@pytest.mark.parametrize("kind", ["normal", "linear"])
def test_targets_come_back(kind: str) -> None:
    profile, condition = _profile_and_condition()
    targets = (
        FittedTargets(LAYERS, 4)
        if kind == "normal"
        else LinearTargets(LAYERS, ("points", "energy", "cog_x", "cog_y", "cog_z"))
    )
    targets.fit(profile, condition)
    x = targets.encode(profile, condition, np.random.default_rng(1))
    assert x.shape == (300, targets.dim)
    back = targets.decode(x, condition)
    if kind == "normal":  # whole numbers come back exactly
        wrong = np.abs(back.counts - profile.counts) > 0
        assert wrong.mean() < 1e-3  # float32 at the edge of a whole number
        np.testing.assert_allclose(back.energy[~wrong], profile.energy[~wrong], rtol=2e-3, atol=1e-9)
    else:
        assert np.abs(back.counts - profile.counts).max() <= 0.51
        np.testing.assert_allclose(back.energy, profile.energy, rtol=1e-3, atol=1e-6)
    coordinates = 3 if kind == "normal" else 2
    np.testing.assert_allclose(back.cog[:, :coordinates], profile.cog[:, :coordinates], atol=1e-3)


def test_fitted_targets_are_nearly_standard_normal() -> None:
    profile, condition = _profile_and_condition(2000)
    targets = FittedTargets(LAYERS, 4)
    targets.fit(profile, condition)
    x = targets.encode(profile, condition, np.random.default_rng(2)).numpy()
    covariance = np.cov(x.T)
    # The count of a layer that is nearly always empty may have a far outlier.
    often = np.concatenate([np.ones(5, bool), np.tile(profile.counts.mean(0) > 1, 2)])
    assert np.abs(covariance - np.eye(targets.dim))[np.ix_(often, often)].max() < 0.15
    # The condition explains the energy: nothing of it is left in any dimension.
    left = [abs(np.corrcoef(condition[:, 0], column)[0, 1]) for column in x.T]
    assert max(left) < 0.12


def test_empty_layers_decode_to_nothing() -> None:
    profile, condition = _profile_and_condition()
    empty = LayerProfile(profile.counts.copy(), profile.energy.copy(), profile.cog)
    empty.counts[:, 5], empty.energy[:, 5] = 0, 0.0
    targets = FittedTargets(LAYERS, 4)
    targets.fit(empty, condition)
    back = targets.decode(targets.encode(empty, condition, np.random.default_rng(3)), condition)
    assert (back.energy[back.counts == 0] == 0).all()
    assert back.counts[:, 5].max() == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 12), st.integers(1, 6))
def test_layers_and_energies_come_out_as_asked(seed: int, layers: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 5, (n, layers))
    counts[:, 0] += counts.sum(1) == 0
    points = int(counts.sum())
    depth, energy = rng.normal(size=points), rng.exponential(size=points) + 1e-3
    target = rng.exponential(size=(n, layers))
    order, layer = assign_layers(depth, counts)
    assert sorted(order.tolist()) == list(range(points))
    shower = np.repeat(np.arange(n), counts.sum(1))
    assert (shower[order] == shower).all()  # no point changes its shower
    for i in range(n):  # deeper points never lie in earlier layers
        assert (np.diff(depth[order][shower == i]) >= 0).all()
        assert (np.diff(layer[shower == i]) >= 0).all()
    scaled = rescale(energy[order], counts, target)
    sums = np.zeros((n, layers))
    np.add.at(sums, (shower, layer), scaled)
    np.testing.assert_allclose(sums, np.where(counts > 0, target, 0.0), rtol=1e-9)


def test_rounding_keeps_the_mean_and_every_lit_layer() -> None:
    rng = np.random.default_rng(0)
    counts = np.tile([0.0, 0.3, 1.4, 7.5, -2.0], (20_000, 1))
    drawn = whole(counts, rng.random(counts.shape))
    assert (drawn[:, 0] == 0).all()
    assert (drawn[:, 4] == 0).all()
    assert (drawn[:, 1:4] >= 1).all()
    np.testing.assert_allclose(drawn.mean(0)[2:4], [1.4, 7.5], atol=0.02)


def test_limits_name_what_no_shower_looks_like() -> None:
    profile, _ = _profile_and_condition()
    energy = toy_showers(300).incident.energy
    limits = Limits(LAYERS)
    limits.fit(profile, energy)
    assert not limits.broken(profile, energy, 0).any()

    def broken(**change: np.ndarray) -> bool:
        parts = {"counts": profile.counts.astype(float), "energy": profile.energy.copy(), "cog": profile.cog.copy()}
        parts = {key: value.copy() for key, value in parts.items()}
        for key, value in change.items():
            parts[key][0] = value
        return bool(limits.broken(LayerProfile(**parts), energy, 0)[0])

    assert broken(counts=profile.counts[0] * 100.0)  # too many points
    assert broken(counts=np.zeros(LAYERS))  # none
    assert broken(counts=-np.ones(LAYERS))  # below zero: counts are tested, not energies alone
    assert broken(energy=-np.ones(LAYERS))
    assert broken(energy=np.full(LAYERS, float(energy[0])))  # more than came in
    assert broken(energy=np.full(LAYERS, np.nan))


def test_across_the_axis_and_back() -> None:
    rng = np.random.default_rng(6)
    incident = Incident.gun(40, angles="barrel", seed=6)
    counts = rng.integers(0, 9, 40)
    x, y = rng.normal(size=(2, int(counts.sum())))
    a, b = across(x, y, incident.direction, counts)
    back = across(a, b, incident.direction, counts, back=True)
    np.testing.assert_allclose(back, (x, y), atol=1e-12)
    # A circle about an axis inclined by 60 degrees is an ellipse twice as long in a layer.
    angle = np.linspace(0, 2 * np.pi, 100)
    inclined = Incident.gun(1, angles="fixed:60,0")
    a, b = across(2 * np.cos(angle), np.sin(angle), inclined.direction, np.array([100]))
    np.testing.assert_allclose(np.hypot(a, b), 1.0, atol=1e-6)
    upright = Incident.gun(1)
    np.testing.assert_array_equal(across(x[:3], y[:3], upright.direction, np.array([3])), (x[:3], y[:3]))
