"""The voxel autoencoder: the authors' numbers and sizes, turned showers, and showers that ignore their neighbours."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from calogen.networks.voxel_vae import Level, VoxelVAE
from calogen.systems.published_vae import PUBLISHED_VAES, voxel_vae_from_calodream

TOLERANCE = 1e-5  # of the largest value compared

GRID = (6, 8, 4)
ANGLE = 2  # axis of [N, layers, angles, radii]
LATENT_ANGLE = 3  # axis of [N, latent, layers, angles, radii]


def same(ours: Tensor, theirs: Tensor) -> None:
    assert float((ours - theirs).abs().max() / theirs.abs().max()) < TOLERANCE


def small(*, around: bool, kernel: int = 2, stride: int = 2, seed: int = 0) -> VoxelVAE:
    """A small autoencoder in double precision whose norms have seen something."""
    torch.manual_seed(seed)
    levels = [Level(4, (3, kernel, 2), (3, stride, 2), (0, 0, 0)), Level(4)]
    net = VoxelVAE(GRID, 3, levels, width=5, around=around).double().train()
    for _ in range(3):
        net.loss(torch.rand(4, *GRID).double(), torch.rand(4, 3).double())
    return net.eval()


def showers(n: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    draw = {"generator": generator, "dtype": torch.float64}
    return torch.rand(n, *GRID, **draw), torch.rand(n, 3, **draw)


@pytest.fixture(scope="module")
def reference(shared: Path) -> dict[str, Any]:
    return torch.load(shared / "parity" / "dream_vae_d3.pt", weights_only=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@torch.no_grad()
def test_the_authors_numbers(reference: dict[str, Any], dtype: torch.dtype) -> None:
    levels = [Level(8, (5, 2, 3), (5, 2, 1), (0, 1, 0)), Level(8)]
    net = VoxelVAE((10, 8, 6), 7, levels, width=10, around=False)
    net.load_state_dict(voxel_vae_from_calodream(reference["state_dict"]))
    net = net.to(dtype).eval()
    x, c = reference["inputs"]["x"][:, 0].to(dtype), reference["inputs"]["c"].to(dtype)
    expected = reference["outputs"]
    latent = net.encode(x, c)
    same(latent.mu, expected["mu"])
    same(latent.log_variance, expected["logvar"])
    same(net.decode(latent.mu, c), expected["reco_from_mu"][:, 0])
    same(net.decode(latent.sample(torch.full_like(latent.mu, 0.3)), c), expected["reco_from_z03"][:, 0])
    bce, kl = net.losses(x, c, noise=torch.zeros_like(latent.mu))
    same(bce.mean(), expected["bce"])
    same(kl.mean(), expected["kld"])
    torch.testing.assert_close(net.loss(x, c, beta=0.1, noise=torch.zeros_like(latent.mu)), bce + 0.1 * kl)
    for k in range(len(x)):  # alone as in company
        torch.testing.assert_close(net.encode(x[k : k + 1], c[k : k + 1]).mu, latent.mu[k : k + 1])


@pytest.mark.parametrize(
    ("name", "parameters", "latent", "around"),
    [
        ("calochallenge-2", 901_093, (2, 15, 9, 9), (2, 15, 8, 9)),
        ("calochallenge-3", 1_103_845, (2, 9, 26, 16), (2, 9, 25, 16)),
    ],
)
def test_published_sizes(name: str, parameters: int, latent: tuple[int, ...], around: tuple[int, ...]) -> None:
    size = PUBLISHED_VAES[name]
    for net, shape in ((size.build(), latent), (size.build(around=True), around)):
        assert sum(p.numel() for p in net.parameters()) == parameters
        assert net.latent_shape == shape
    with torch.no_grad():
        c = torch.rand(1, 1 + size.grid[0])
        mu = net.encode(torch.rand(1, *size.grid), c).mu
        assert mu.shape == (1, *around)
        assert net.decode(mu, c).shape == (1, *size.grid)


@given(kernel=st.sampled_from([(1, 1), (2, 1), (3, 1), (2, 2), (3, 2), (5, 2), (4, 4)]), turn=st.integers(0, 7))
@settings(max_examples=20, deadline=None)
def test_turning_a_shower_turns_its_latent(kernel: tuple[int, int], turn: int) -> None:
    size, stride = kernel
    net = small(around=True, kernel=size, stride=stride)
    x, c = showers(2)
    latent = net.encode(x, c)
    turned = net.encode(x.roll(turn * stride, ANGLE), c)
    torch.testing.assert_close(turned.mu, latent.mu.roll(turn, LATENT_ANGLE))
    torch.testing.assert_close(turned.log_variance, latent.log_variance.roll(turn, LATENT_ANGLE))
    back = net.decode(turned.mu, c)
    torch.testing.assert_close(back, net.decode(latent.mu, c).roll(turn * stride, ANGLE))
    assert float(back.detach().std()) > 1e-4  # not all the same, or the test would say nothing


def test_zeros_beyond_the_seam_break_the_circle() -> None:
    net = small(around=False)
    x, c = showers(1)
    turned, still = net.encode(x.roll(2, ANGLE), c).mu, net.encode(x, c).mu.roll(1, LATENT_ANGLE)
    assert float((turned - still).detach().abs().max()) > 1e-4


def test_a_layer_of_one_angle() -> None:
    net = VoxelVAE((4, 1, 3), 2, [Level(4, (2, 1, 1), (2, 1, 1))])
    c = torch.rand(2, 2)
    assert net.decode(net.encode(torch.rand(2, 4, 1, 3), c).mu, c).shape == (2, 4, 1, 3)


@torch.no_grad()
def test_neighbours_do_not_matter_even_while_training() -> None:
    net = small(around=True).train()
    x, c = showers(3)
    remembered = {name: value.clone() for name, value in net.named_buffers()}
    together, alone = net.encode(x, c).mu, net.encode(x[:1], c[:1]).mu
    torch.testing.assert_close(together[:1], alone)
    torch.testing.assert_close(net.decode(together, c)[:1], net.decode(alone, c[:1]))
    assert all(torch.equal(value, remembered[name]) for name, value in net.named_buffers())
    net.loss(x, c)
    assert any(not torch.equal(value, remembered[name]) for name, value in net.named_buffers())


def test_loss_falls_and_gradients_reach_everything() -> None:
    torch.manual_seed(0)
    net = VoxelVAE(GRID, 3, [Level(8, (3, 2, 2), (3, 2, 2)), Level(8)], width=8)
    x = torch.zeros(8, *GRID)
    x[torch.arange(8), :, torch.arange(8), 0] = 1.0
    c = torch.rand(8, 3)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        loss = net.loss(x, c)
        assert loss.shape == (8,)
        optimiser.zero_grad()
        loss.mean().backward()
        optimiser.step()
        losses.append(float(loss.detach().mean()))
    assert losses[-1] < 0.3 * losses[0]
    assert all(p.grad is not None for p in net.parameters())


def test_what_does_not_fit_is_refused() -> None:
    net = small(around=True)
    x, c = showers(2)
    with pytest.raises(ValueError, match=r"voxels in \[0, 1\]"):
        net.encode(x + 1, c)
    with pytest.raises(ValueError, match=r"voxels in \[0, 1\]"):
        net.encode(torch.full_like(x, torch.nan), c)
    with pytest.raises(ValueError, match="need voxels"):
        net.encode(x[:, :3], c)
    with pytest.raises(ValueError, match="and a condition"):
        net.loss(x, c[:, :2])
    with pytest.raises(ValueError, match="latent numbers"):
        net.decode(torch.rand(2, 2, 2, 2, 2), c)
    for around in (True, False):
        with pytest.raises(ValueError, match="does not cover 8 cells"):
            VoxelVAE(GRID, 3, [Level(4, (1, 3, 1), (1, 3, 1))], around=around)
    with pytest.raises(ValueError, match="no part of CaloDREAM"):
        voxel_vae_from_calodream({"down_blocks.0.conv3.weight": torch.zeros(1)})
