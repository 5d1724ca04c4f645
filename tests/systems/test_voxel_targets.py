"""What CaloDREAM's networks learn: ways back to the showers, numbers in the state, noise from the seed alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from calogen.systems.voxel_targets import CONSTANTS, DrawnLayers, TargetConstants, Targets, VoxelTargets
from calogen.units import GEV_PER_MEV

CELLS = [4, 6, 6, 1, 3]
THRESHOLD = 1.5e-5

Sample = tuple[NDArray[np.float32], NDArray[np.float32]]


def showers(n: int, seed: int = 0) -> Sample:
    """Energies [n, 20] with empty voxels, empty layers and ends before the last layer, up to 1.4 times what came in."""
    rng = np.random.default_rng(seed)
    incident = rng.uniform(1, 100, n).astype(np.float32)
    layer = np.repeat(np.arange(len(CELLS)), CELLS)
    hit = (rng.random((n, sum(CELLS))) < 0.6) & (rng.random((n, len(CELLS))) < 0.8)[:, layer]
    hit &= layer < rng.integers(0, len(CELLS) + 1, n)[:, None]
    shares = np.exp(rng.normal(size=hit.shape)) * hit
    shares *= incident[:, None] * rng.uniform(0.4, 1.4, (n, 1)) / np.maximum(shares.sum(1, keepdims=True), 1e-9)
    return np.where(shares > 1e-4, shares, 0).astype(np.float32), incident


def fitted(name: str = "published", sample: Sample | None = None) -> VoxelTargets:
    targets = VoxelTargets(CELLS, CONSTANTS[name])
    energy, incident = sample or showers(200)
    halves = [(energy[:80], incident[:80]), (energy[80:], incident[80:])]
    targets.fit(halves, np.random.default_rng(1))
    return targets


def layers_of(targets: VoxelTargets, x: Targets, incident: np.ndarray) -> DrawnLayers:
    """The layers as if they were drawn."""
    return targets.drawn_layers(x.energy, incident, torch.empty(len(incident), 0))


@pytest.mark.parametrize("name", CONSTANTS)
@given(seed=st.integers(0, 2**31))
@settings(max_examples=15, deadline=None)
def test_there_and_back(name: str, seed: int) -> None:
    targets = fitted(name)
    energy, incident = showers(10, seed)
    x = targets.encode(energy, incident, np.random.default_rng(seed))
    back, cut = targets.decode(layers_of(targets, x, incident), x.shape, incident, THRESHOLD)
    assert torch.equal(back > 0, torch.from_numpy(energy > 0))
    assert cut == (0, 0, 0.0, 0)
    # a share is known to its noise, 5e-6, and to single precision of its logit
    assert_allclose(back.sum(1), energy.sum(1), rtol=1e-5)
    assert_allclose(back / incident[:, None], energy / incident[:, None], rtol=1e-4, atol=1.5e-5)
    assert_allclose(targets.u(x.energy), targets.shares(energy, incident).u, rtol=1e-4, atol=2e-6)


def test_what_is_learnt_is_standardised() -> None:
    energy, incident = showers(200)
    x = fitted().encode(energy, incident, np.random.default_rng(1))
    for part in (x.energy, x.shape, x.condition[:, 1:]):
        assert part.dtype == torch.float32
        assert_allclose(part.mean(0), 0, atol=0.02)  # noise differs from that of the fit
        spread = part.std(0)
        assert (((spread - 1).abs() < 0.02) | (spread < 1e-3)).all()
    assert x.energy.shape == (200, 5)
    assert x.shape.shape == (200, 20)
    assert x.incident.shape == (200, 1)
    assert x.condition.shape == (200, 6)


def test_conditions_of_drawn_energies_are_those_of_training() -> None:
    targets, (energy, incident) = fitted(), showers(30, 5)
    x = targets.encode(energy, incident, np.random.default_rng(0))
    assert_allclose(targets.condition(x.energy, incident), x.condition, atol=1e-4)
    u = targets.shares(energy, incident).u
    plain = targets.condition_of_shares(u, incident)
    assert_allclose(plain[:, 1:], u, atol=1e-7)
    assert torch.equal(plain[:, :1], x.incident)


def test_the_authors_incident_energies(shared: Path) -> None:
    reference = torch.load(shared / "parity" / "dream_transforms.pt", weights_only=True)
    incident = reference["inputs"]["Einc"].numpy() * GEV_PER_MEV
    assert_allclose(VoxelTargets([144] * 45).scaled_incident(incident), reference["outputs"]["scaled_Einc"], rtol=1e-5)


def test_the_authors_showers_come_back(shared: Path) -> None:
    reference = torch.load(shared / "parity" / "dream_transforms.pt", weights_only=True)["inputs"]
    energy = reference["showers"].to_dense().numpy() * np.float32(GEV_PER_MEV)
    incident = reference["Einc"].numpy()[:, 0] * GEV_PER_MEV
    targets = VoxelTargets([144] * 45)
    targets.fit([(energy, incident)], np.random.default_rng(0))
    x = targets.encode(energy, incident, np.random.default_rng(1))
    back, cut = targets.decode(layers_of(targets, x, incident), x.shape, incident, 15e-6)
    assert_allclose(back.sum(1), energy.sum(1), rtol=1e-5)
    wrong = (back > 0).numpy() != (energy > 0)
    assert wrong.mean() < 1e-3  # shares of less than the noise are not told from nothing
    assert cut.faint == 0


def test_shares_for_an_autoencoder() -> None:
    targets, (energy, incident) = fitted(), showers(20, 3)
    shares = targets.shares(energy, incident)
    x = targets.encode(energy, incident, np.random.default_rng(0))
    assert shares.within.dtype == torch.float32
    assert 0 <= float(shares.within.min()) <= float(shares.within.max()) <= 1
    back, _ = targets.decode_shares(x.energy, shares.within, incident)
    assert_allclose(back, energy, rtol=1e-4, atol=1e-5)


def test_same_seed_same_noise() -> None:
    targets, (energy, incident) = fitted(), showers(5, 3)
    first, second, other = (targets.encode(energy, incident, np.random.default_rng(s)).shape for s in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_everything_fitted_is_in_the_state() -> None:
    targets, copy = fitted(), VoxelTargets(CELLS)
    copy.load_state_dict(targets.state_dict())
    energy, incident = showers(5, 3)
    x, y = (t.encode(energy, incident, np.random.default_rng(0)) for t in (targets, copy))
    assert all(torch.equal(a, b) for a, b in zip(x[:4], y[:4], strict=True))
    one, two = (t.decode(layers_of(t, z, incident), z.shape, incident)[0] for t, z in ((targets, x), (copy, y)))
    assert torch.equal(one, two)
    assert not list(targets.parameters())


def test_what_cannot_be_is_refused() -> None:
    targets, (energy, incident) = fitted(), showers(5, 3)
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"choose a factor above 2\.857"):
        targets.encode(energy + 100, incident, rng)
    with pytest.raises(ValueError, match="must be 0 or more"):
        targets.encode(energy - 1, incident, rng)
    with pytest.raises(ValueError, match="must be positive"):
        targets.encode(energy, 0 * incident, rng)
    with pytest.raises(ValueError, match="energy targets are NaN"):
        targets.u(torch.full((1, 5), torch.nan))
    with pytest.raises(ValueError, match="two showers or more"):
        targets.fit([], rng)
    with pytest.raises(ValueError, match="no logit 'probit'; choose one of regularised, clamped"):
        TargetConstants(logit="probit")
    with pytest.raises(ValueError, match="no shares as 'probit'; choose logit or marginals"):
        TargetConstants(shares="probit")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="0 < E_min < E_max"):
        TargetConstants(incident_gev=(10.0, 1.0))
