"""The authors' vision transformers, under our names, give the authors' numbers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from calogen.methods.flow_matching import FlowMatching
from calogen.methods.solvers import euler, integrate, midpoint
from calogen.networks.patches import Patches
from calogen.networks.voxel_positions import FixedFrequencies
from calogen.networks.voxel_transformer import VoxelTransformer
from calogen.systems.published_vit import voxel_transformer_from_calodream

TOLERANCE = 1e-5  # of the largest value compared


def same(ours: Tensor, theirs: Tensor) -> None:
    theirs = theirs.reshape(ours.shape)
    assert float((ours - theirs).abs().max() / theirs.abs().max()) < TOLERANCE


def three_eighths(v: Callable[[Tensor, Tensor], Tensor], x: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
    """Kutta's 3/8 rule, which torchdiffeq calls rk4."""
    h = t_next - t
    k1 = v(x, t)
    k2 = v(x + h * k1 / 3, t + h / 3)
    k3 = v(x + h * (k2 - k1 / 3), t + 2 * h / 3)
    k4 = v(x + h * (k1 - k2 + k3), t_next)
    return x + h * (k1 + 3 * k2 + 3 * k3 + k4) / 8


@pytest.fixture(scope="module", params=["dream_vit", "dream_vit_sincos_causal"])
def stored(request: pytest.FixtureRequest, shared: Path) -> dict[str, Any]:
    return torch.load(shared / "parity" / f"{request.param}.pt", weights_only=True)


@pytest.fixture(scope="module")
def network(stored: dict[str, Any]) -> VoxelTransformer:
    c = stored["config"]
    width = c["hidden_dim"]
    net = VoxelTransformer(
        Patches.of_grid(c["shape"][1:], tuple(c["patch_shape"])),
        c["condition_dim"],
        width=width,
        heads=c["num_heads"],
        blocks=c["depth"],
        feedforward=int(c["mlp_ratio"] * width),
        positions=None if c["learn_pos_embed"] else FixedFrequencies(width, c["pos_embedding_coords"]),
        causal=c.get("causal_attn", False),
    )
    net.load_state_dict(voxel_transformer_from_calodream(stored["state_dict"]))
    return net.requires_grad_(False)


def test_tables(stored: dict[str, Any], network: VoxelTransformer) -> None:
    given, expected = stored["inputs"], stored["outputs"]
    assert torch.equal(network.patches.cut(given["x"].flatten(1)), expected["patches"])
    same(network.positions(network.patches.coordinates), expected["pos"])
    same(network.time[0](given["t"][:, 0]), expected["t_freq"])


@pytest.mark.parametrize("grad", [True, False])
def test_velocity(stored: dict[str, Any], network: VoxelTransformer, grad: bool) -> None:
    given = stored["inputs"]
    with torch.set_grad_enabled(grad):
        v = network(given["x"].flatten(1), given["t"][:, 0], given["c"])
    same(v, stored["outputs"]["velocity"])


@pytest.mark.parametrize(("name", "step"), [("euler_20", euler), ("midpoint_20", midpoint), ("rk4_20", three_eighths)])
@torch.no_grad()
def test_walks(stored: dict[str, Any], network: VoxelTransformer, name: str, step: Any) -> None:
    given = stored["inputs"]
    flow = FlowMatching(network, network.patches.voxels, sigma_min=0)
    velocity = flow.velocity(given["c"], torch.ones(len(given["c"]), dtype=torch.int64))
    x = integrate(velocity, given["x"].flatten(1), torch.linspace(0, 1, 21), step)
    same(x, stored["outputs"][name])


def test_foreign_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no part of a ViT of CaloDREAM"):
        voxel_transformer_from_calodream({"net.other.weight": torch.zeros(1)})
