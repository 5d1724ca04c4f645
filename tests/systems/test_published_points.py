"""The published PointCountFM and the authors' networks, under our names, give the authors' numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from calogen.methods.flow_matching import FlowMatching, FromData
from calogen.methods.solvers import integrate
from calogen.networks.banded_attention import Band
from calogen.networks.count_mlp import CountMLP
from calogen.networks.point_transformer import PointTransformer
from calogen.systems.published_points import count_mlp_from_pointcountfm, point_transformer_from_allshowers

TOLERANCE = 1e-5  # of the largest value compared


def same(ours: Tensor, theirs: Tensor | np.ndarray) -> None:
    expected = torch.as_tensor(theirs)
    assert float((ours - expected).abs().max() / expected.abs().max()) < TOLERANCE


@pytest.fixture(scope="module")
def published(shared: Path) -> dict[str, Tensor]:
    file = np.load(shared / "parity" / "pointcountfm_published.npz")
    return {name: torch.tensor(file[name]) for name in file.files}


def published_counts(published: dict[str, Tensor]) -> CountMLP:
    net = CountMLP()
    net.load_state_dict(count_mlp_from_pointcountfm({k: v for k, v in published.items() if k.startswith("sd/")}))
    return net


@torch.no_grad()
def test_published_velocity(published: dict[str, Tensor]) -> None:
    net = published_counts(published)
    one = torch.ones(64, dtype=torch.int64)
    same(net(published["vel_x"], published["vel_t"][:, 0], published["vel_cond"], one), published["vel_v"])
    x, t, c = (published[f"vel_{name}"].double() for name in ("x", "t", "cond"))
    net.time.frequencies = net.time.frequencies.double()
    same(net.double()(x, t[:, 0], c, one), published["vel_v64"])


@pytest.mark.parametrize("steps", [5, 20])
def test_published_sample(published: dict[str, Tensor], steps: int) -> None:
    flow = FlowMatching(FromData(published_counts(published)), 78)
    x = flow.sample(published["ode_cond"], noise=published["ode_z"], steps=steps, solver="heun")
    error = (x - published[f"ode_x{steps}"]).abs()
    assert error.median() < 1e-6
    assert error.max() < 5e-3  # near the spike of empty layers round-off grows 10,000 times


@torch.no_grad()
def test_published_sample_there_and_back(published: dict[str, Tensor]) -> None:
    flow = FlowMatching(FromData(published_counts(published)), 78)
    c, z = published["ode_cond"][:16], published["ode_z"][:16]
    velocity = flow.velocity(c, torch.ones(16, dtype=torch.int64))
    times = torch.linspace(0, 1, 201)
    x = integrate(velocity, z, times)
    assert (x - published["ode_x200"][:16]).abs().median() < 1e-5
    back = integrate(velocity, published["ode_x200"][:16], times.flip(0))
    assert (back - published["ode_encode200"][:16]).abs().median() < 1e-5


def stored(shared: Path, name: str) -> dict[str, Any]:
    return torch.load(shared / "parity" / f"{name}.pt", weights_only=True)


def test_small_counts(shared: Path) -> None:
    file = stored(shared, "pointcountfm")
    given, expected = file["inputs"], file["outputs"]
    net = CountMLP(10, 16, widths=(12, 24, 12))
    net.load_state_dict(count_mlp_from_pointcountfm(file["state_dict"]))
    flow, one = FlowMatching(FromData(net), 10), torch.ones(4, dtype=torch.int64)
    x, z, c, t = given["x"], given["z"], given["cond"], given["t_loss"][:, 0]
    same(net(x, torch.full((4,), 0.4), c, one).detach(), expected["velocity_t04"])
    same(flow.sample(c, noise=z, steps=8, solver="heun"), expected["heun_8"])
    same(flow.loss(x, c, t=1 - t, noise=z).detach(), expected["loss"].mean(1))


@pytest.fixture(scope="module")
def small(shared: Path) -> dict[str, Any]:
    return stored(shared, "allshowers")


def small_network(small: dict[str, Any]) -> PointTransformer:
    c = small["config"]
    net = PointTransformer(
        c["num_layers"],
        c["dim_inputs"][0],
        c["dim_inputs"][2],
        c["num_particles"],
        width=c["dim_embedding"],
        heads=c["num_head"],
        blocks=c["num_blocks"],
        feedforward=c["dim_feedforward"],
        counts_width=c["num_points_cond"],
        band=Band(-3, 2),
    )
    net.load_state_dict(point_transformer_from_allshowers(small["state_dict"]))
    return net


def small_batch(small: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Condition [N, C], mask [N, L] and counts [N]."""
    given = small["inputs"]
    c = torch.cat([given["cond"], given["label"][:, None], given["num_points"]], dim=1).float()
    mask = given["mask"][..., 0]
    return c, mask, mask.sum(1)


@pytest.mark.parametrize("grad", [True, False])
def test_allshowers_velocity_and_loss(small: dict[str, Any], grad: bool) -> None:
    net, given, expected = small_network(small), small["inputs"], small["outputs"]
    c, mask, counts = small_batch(small)
    t, x, z = given["t_loss"].flatten(), given["x"], given["z"]
    with torch.set_grad_enabled(grad):
        same(net(x[mask], torch.full((2,), 0.3), c, counts).detach(), expected["velocity_t03"][mask])
        same(net(x[mask], torch.tensor([0.3, 0.8]), c, counts).detach(), expected["velocity_t"][mask])
        loss = FlowMatching(FromData(net), 3).loss(x, c, mask, t=1 - t, noise=z[mask]).detach()
    same(loss, torch.stack([e[m].mean() for e, m in zip(expected["loss_elementwise"], mask, strict=True)]))
    same(loss * counts / mask.shape[1], expected["loss_batch"])  # theirs is a mean over the padding too


@pytest.mark.parametrize("solver", ["euler", "heun", "midpoint"])
def test_allshowers_sample(small: dict[str, Any], solver: str) -> None:
    c, mask, counts = small_batch(small)
    flow = FlowMatching(FromData(small_network(small)), 3)
    x = flow.sample(c, counts=counts, noise=small["inputs"]["z"][mask], steps=4, solver=solver)
    same(x, small["outputs"][f"{solver}_4"][mask])


def test_sizes_of_the_count_networks() -> None:
    sizes = [sum(p.numel() for p in CountMLP(condition=n).parameters()) for n in (1, 16)]
    assert sizes == [349_902, 351_822]


def test_foreign_names_are_refused() -> None:
    with pytest.raises(ValueError, match="no part of a PointCountFM"):
        count_mlp_from_pointcountfm({"network.other.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="not kπ"):
        count_mlp_from_pointcountfm({"frequencies": torch.tensor([1.0, 2.0])})
    with pytest.raises(ValueError, match="no part of AllShowers"):
        point_transformer_from_allshowers({"network.unknown": torch.zeros(1)})
