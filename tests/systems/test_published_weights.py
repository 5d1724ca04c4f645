"""The published weights, under our names, give the authors' numbers."""

from pathlib import Path

import numpy as np
import pytest
import torch

from calogen.methods.consistency import ConsistencyModel
from calogen.methods.coupling_flow import CouplingFlow
from calogen.methods.edm import EDM
from calogen.methods.solvers import sigma_karras
from calogen.networks.pointwise import PointwiseNet
from calogen.systems.published_weights import coupling_flow_from_showerflow, point_net_from_caloclouds3

TOLERANCE = 1e-5  # of the largest value compared


def same(ours: torch.Tensor, theirs: np.ndarray) -> None:
    error = np.abs(ours.numpy() - theirs.reshape(ours.shape)).max() / np.abs(theirs).max()
    assert error < TOLERANCE


@pytest.fixture(scope="module")
def point(shared: Path) -> dict[str, np.ndarray]:
    return dict(np.load(shared / "parity" / "caloclouds3_point_published.npz"))


@pytest.fixture(scope="module")
def flow(shared: Path) -> dict[str, np.ndarray]:
    return dict(np.load(shared / "parity" / "cc3_showerflow_random_12d.npz"))


def net(point: dict[str, np.ndarray], which: str) -> PointwiseNet:
    network = PointwiseNet()
    state = {k: v for k, v in point.items() if k.startswith(f"{which}/")}
    network.load_state_dict(point_net_from_caloclouds3(state))
    return network


def packed(point: dict[str, np.ndarray], key: str) -> torch.Tensor:
    return torch.tensor(point[key]).flatten(0, 1)


def batch(point: dict[str, np.ndarray]) -> tuple[torch.Tensor, ...]:
    sets, length, _ = point["noised"].shape
    counts = torch.full((sets,), length)
    return packed(point, "noised"), torch.tensor(point["sigma"]), torch.tensor(point["cond"]), counts


@pytest.mark.parametrize("grad", [True, False])
def test_student(point: dict[str, np.ndarray], grad: bool) -> None:
    with torch.set_grad_enabled(grad):
        out = ConsistencyModel(net(point, "student_ema"))(*batch(point))
    same(out.detach(), point["student_out"])


@pytest.mark.parametrize("grad", [True, False])
def test_teacher(point: dict[str, np.ndarray], grad: bool) -> None:
    edm = EDM(net(point, "teacher"))
    x, sigma, c, counts = batch(point)
    with torch.set_grad_enabled(grad):
        same(edm.denoise(x, sigma, c, counts).detach(), point["teacher_out"])


@pytest.mark.parametrize("form", ["_packed", "_each_set", "_each_set_in_cache"])
@torch.no_grad()
def test_bare_network(point: dict[str, np.ndarray], form: str) -> None:
    _, sigma, c, counts = batch(point)
    network = net(point, "teacher")
    u = network.context(sigma.log() / 4, c)
    same(getattr(network, form)(packed(point, "x"), u, counts), point["inner_out"])


def test_one_step_sample(point: dict[str, np.ndarray]) -> None:
    noise, c = packed(point, "sample_xT"), torch.tensor(point["sample_cond"])
    counts = torch.full((len(c),), len(noise) // len(c))
    same(
        ConsistencyModel(net(point, "student_ema")).sample(c, counts=counts, noise=noise),
        point["student_1step"],
    )


@pytest.mark.parametrize("steps", [13, 20])
def test_teacher_sample(point: dict[str, np.ndarray], steps: int) -> None:
    expected = point[f"teacher_heun{steps}"]
    length = expected.shape[1]
    noise = torch.tensor(point["sample_xT"][:, :length]).flatten(0, 1)
    c = torch.tensor(point["sample_cond"])
    counts = torch.full((len(c),), length)
    edm = EDM(net(point, "teacher"))
    np.testing.assert_allclose(sigma_karras(steps, 0.002, 80.0), point[f"sigmas{steps}"], rtol=1e-5)
    same(edm.sample(c, counts=counts, noise=noise, steps=steps), expected)


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({"features": 4, "condition": 4}, 69_608),
        ({"features": 4, "condition": 2, "widths": (128, 256, 512, 256, 128)}, 504_920),
    ],
)
def test_parameters_of_the_point_model(options: dict, parameters: int) -> None:
    assert sum(p.numel() for p in PointwiseNet(**options).parameters()) == parameters


@pytest.mark.parametrize(
    ("dim", "cond_dim", "blocks", "layout", "parameters"),
    [(60, 4, 2, "alt1", 6_026_520), (62, 4, 2, "alt1", 6_433_244), (65, 1, 10, "original", 35_235_910)],
)
def test_parameters_of_the_flow(dim: int, cond_dim: int, blocks: int, layout: str, parameters: int) -> None:
    flow = CouplingFlow(dim, cond_dim, blocks, layout)
    assert sum(p.numel() for p in flow.parameters()) == parameters


def coupling_flow(flow: dict[str, np.ndarray]) -> CouplingFlow:
    model = CouplingFlow(12, 4)
    weights = {k.removeprefix("sd/"): v for k, v in flow.items() if k.startswith("sd/")}
    model.load_state_dict(coupling_flow_from_showerflow(weights, [flow[f"perm{k}"] for k in range(14)]))
    return model.eval()


def test_flow_sample(flow: dict[str, np.ndarray]) -> None:
    same(coupling_flow(flow).sample(torch.tensor(flow["cond"]), noise=torch.tensor(flow["z"])), flow["x"])


@pytest.mark.parametrize("key", ["x", "y"])
@torch.no_grad()
def test_flow_log_prob(flow: dict[str, np.ndarray], key: str) -> None:
    same(coupling_flow(flow).log_prob(torch.tensor(flow[key]), torch.tensor(flow["cond"])), flow[f"logp_{key}"])


@pytest.mark.parametrize("dim", [60, 62])
def test_published_permutations_fit(shared: Path, dim: int) -> None:
    file = np.load(shared / "parity" / f"cc3_showerflow_permutations_{dim}d.npz")
    model = CouplingFlow(dim, 4)
    state = coupling_flow_from_showerflow({}, [file[name] for name in file.files])
    result = model.load_state_dict(state, strict=False)
    assert not result.unexpected_keys
    assert all(torch.equal(p.order.sort().values, torch.arange(dim)) for p in model.permutations)


def test_foreign_names_are_refused() -> None:
    with pytest.raises(ValueError, match="no part of the CaloClouds point model"):
        point_net_from_caloclouds3({"layers.0.other": np.zeros(1)})
    with pytest.raises(ValueError, match="no part of a ShowerFlow"):
        coupling_flow_from_showerflow({"0.weight": np.zeros(1)}, [])
