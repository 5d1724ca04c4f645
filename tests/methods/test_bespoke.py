"""Bespoke solvers: the authors' numbers, what they start from, times that grow, errors they learn from."""

import math
import sys
from collections.abc import Callable
from pathlib import Path as File

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from calogen.methods.bespoke import (
    LEAST_STEP,
    BespokeSolver,
    Path,
    frozen,
    global_error,
    local_error,
    reference_path,
)
from calogen.methods.edm import EDM
from calogen.methods.flow_matching import FlowMatching
from calogen.methods.solvers import STEPS, Velocity, integrate, midpoint
from calogen.networks.pointwise import PointwiseNet

sys.path.insert(0, str(File(__file__).parent))
from dream_vit import DreamViT

TOLERANCE = 1e-5  # of the largest value compared
ERRORS = {"lte": local_error, "gte": global_error}

Error = Callable[[BespokeSolver, Velocity, Path, Tensor], Tensor]


def same(ours: Tensor, theirs: Tensor) -> None:
    assert float((ours.detach() - theirs).abs().max() / theirs.abs().max()) < TOLERANCE


def ones(n: int) -> Tensor:
    return torch.ones(n, dtype=torch.int64)


def rms(error: Tensor) -> float:
    return float(error.detach().square().mean().sqrt())


# --- the authors' solver ---------------------------------------------------------------------------------------------


class Published:
    """One of the two solvers of the parity file. Its time, as ours, is 0 at noise: only names differ."""

    def __init__(self, file: dict, kind: str) -> None:
        self.result, self.steps = file["results"][kind], file["num_steps"]
        params = self.result["params"]
        inner = params["theta_t"].abs().cumsum(0) / self.steps
        times = torch.cat([torch.zeros(1), inner, torch.ones(1)])
        self.solver = BespokeSolver.of(times, self.a(params), self.b(params))
        self.net, c = DreamViT(file["net_config"], file["net_state_dict"]), self.result["c"]
        self.velocity = lambda x, t: self.net(x.reshape(-1, *file["net_config"]["shape"]), t, c).flatten(1)

    def a(self, values: dict[str, Tensor]) -> Tensor:
        return torch.stack([values[f"a.{i}"] for i in range(self.steps)])

    def b(self, values: dict[str, Tensor]) -> list[Tensor]:
        return [values[f"b.{i}"] for i in range(self.steps)]

    def gradient_of_theta(self) -> Tensor:
        """The gradient to our logits -> to the times -> to the authors' θ, t_i = Σ_{j<=i} |θ_j| / N."""
        solver, inner = self.solver, range(1, self.steps)
        rows = [torch.autograd.grad(solver.times()[i], solver.logits)[0] for i in inner]
        of_times = torch.linalg.solve(torch.stack(rows).T.double(), solver.logits.grad.double())
        return of_times.flip(0).cumsum(0).flip(0) / self.steps


class Straight(Path):
    """The authors' path: straight between nodes (ours errs less), its gradient to t the velocity at such a point."""

    velocity: Velocity

    def at(self, t: Tensor) -> Tensor:
        last = len(self.x) - 1
        k = (t.detach() * last).long().clamp(0, last - 1)
        x = torch.lerp(self.x[k], self.x[k + 1], (t.detach() * last - k)[:, None, None])
        slope = torch.stack([self.velocity(x_k, t_k) for x_k, t_k in zip(x, t.detach(), strict=True)])
        return x + slope * (t - t.detach())[:, None, None]


@pytest.fixture(scope="module", params=["lte", "gte"])
def published(request: pytest.FixtureRequest, shared: File) -> tuple[Published, Error]:
    file = torch.load(shared / "parity" / "dream_bns.pt", weights_only=True)
    return Published(file, request.param), ERRORS[request.param]


def test_published_times_and_solution(published: tuple[Published, Error]) -> None:
    model, _ = published
    result = model.result
    same(model.solver.times(), result["t"])
    same(model.solver.integrate(model.velocity, result["x0"].flatten(1)), result["solve"].flatten(1))
    assert sum(p.numel() for p in model.solver.parameters()) == result["n_learnable"]


def test_published_errors_and_gradients(published: tuple[Published, Error]) -> None:
    model, error = published
    result, solver = model.result, model.solver
    path = reference_path(model.velocity, result["x0_for_loss"].flatten(1), 100, midpoint)
    same(error(solver, model.velocity, path, ones(5)), result["loss_per_sample"])
    theirs = Straight(*path)
    theirs.velocity = model.velocity
    losses = error(solver, model.velocity, theirs, ones(5))
    same(losses, result["loss_per_sample"])
    losses.mean().backward()
    grads = result["grads"]
    ours = torch.cat([solver.a.grad, solver.b.grad, model.gradient_of_theta()])
    same(ours, torch.cat([model.a(grads), *model.b(grads), grads["theta_t"]]))
    same(model.gradient_of_theta(), grads["theta_t"])


# --- the solver ------------------------------------------------------------------------------------------------------


def curved(x: Tensor, t: Tensor) -> Tensor:
    return torch.sin(3 * x + 2 * t) - x * t


@pytest.mark.parametrize("steps", [4, 8, 16])
@pytest.mark.parametrize(("start", "evaluations"), [("euler", 1), ("midpoint", 2)])
def test_untrained_it_is_what_it_starts_from(start: str, evaluations: int, steps: int) -> None:
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    times = torch.linspace(0, 1, steps // evaluations + 1, dtype=torch.float64)
    solver = BespokeSolver(steps, start)
    torch.testing.assert_close(
        solver.integrate(curved, x).detach(), integrate(curved, x, times, STEPS[start]), atol=1e-6, rtol=0
    )
    assert sum(p.numel() for p in solver.parameters()) == steps * (steps + 5) // 2 - 1


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 16), st.integers(0, 2**31), st.sampled_from([0.1, 1.0, 10.0, 1e3, 1e30]))
def test_times_grow_whatever_is_learned(steps: int, seed: int, width: float) -> None:
    solver = BespokeSolver(steps, "euler")
    generator = torch.Generator().manual_seed(seed)
    nn.init.normal_(solver.logits, std=width, generator=generator)
    times = solver.times().detach()
    assert times[0] == 0
    assert times[-1] == 1
    assert times.diff().min() > 0.9 * LEAST_STEP / steps
    again = BespokeSolver.of(times, solver.a, solver.rows()) if times.diff().min() * steps > 1.1 * LEAST_STEP else None
    if again is not None:
        torch.testing.assert_close(again.times().detach(), times, atol=1e-5, rtol=0)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="5 evaluations"):
        BespokeSolver(5, "midpoint")
    with pytest.raises(ValueError, match="0 evaluations"):
        BespokeSolver(0, "euler")
    with pytest.raises(ValueError, match="not 'heun'"):
        BespokeSolver(4, "heun")
    rows = BespokeSolver(2).rows()
    for times in ([0.0, 1.1, 1.0], [0.1, 0.5, 1.0], [0.0, 1.0, 1.0], [0.0, 0.5, 0.9]):
        with pytest.raises(ValueError, match="must grow from 0 to 1"):
            BespokeSolver.of(torch.tensor(times), [1.0, 1.0], rows)
    with pytest.raises(ValueError, match="2 steps take 2 numbers"):
        BespokeSolver.of(torch.tensor([0.0, 0.5, 1.0]), [1.0], rows)


# --- its errors ------------------------------------------------------------------------------------------------------


def test_the_path_is_fine_between_its_nodes() -> None:
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    path = reference_path(curved, x, 32)
    t = torch.tensor([0.0, 0.013, 0.5, 0.777, 1.0], dtype=torch.float64, requires_grad=True)
    between = path.at(t)
    for moment, value in zip(t.tolist(), between.detach(), strict=True):
        exact = integrate(curved, x, torch.linspace(0, moment, 200, dtype=torch.float64), STEPS["rk4"])
        torch.testing.assert_close(value, exact, atol=3e-6, rtol=0)
    slope = torch.autograd.grad(between.sum(), t)[0]
    moving = torch.stack([curved(x_t, t_k).sum() for x_t, t_k in zip(between, t, strict=True)])
    torch.testing.assert_close(slope, moving.detach(), atol=1e-2, rtol=0)


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_each_set_has_the_error_of_its_own_points(error: Error) -> None:
    """Also with an empty set, whose error is 0 and harms no gradient."""
    counts, x = torch.tensor([3, 0, 5]), torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    solver = BespokeSolver(4)
    path = reference_path(curved, x, 16)
    losses = error(solver, curved, path, counts)
    assert losses[1] == 0
    alone = error(solver, curved, Path(path.x[:, 3:], path.slope[:, 3:]), counts[2:])
    torch.testing.assert_close(losses[2:], alone)
    losses.sum().backward()
    assert all(bool(p.grad.isfinite().all()) and bool(p.grad.any()) for p in solver.parameters())


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_gradients_reach_the_solver_alone(error: Error) -> None:
    torch.manual_seed(0)
    net, solver, c, counts = PointwiseNet(3, 2, (16, 16)), BespokeSolver(4), torch.randn(4, 2), ones(4)
    velocity = FlowMatching(net, 3).velocity(c, counts)
    path = reference_path(velocity, torch.randn(4, 3), 16)
    error(solver, velocity, path, counts).sum().backward()
    assert all(p.grad is None for p in net.parameters())
    assert all(bool(p.grad.any()) for p in solver.parameters())
    ends = [solver.integrate(v, path.x[0]).square().sum() for v in (velocity, frozen(velocity))]
    plain, isolated = (torch.autograd.grad(end, list(solver.parameters())) for end in ends)
    torch.testing.assert_close(isolated, plain)  # what does arrive is the same


# --- learning --------------------------------------------------------------------------------------------------------

CENTRES = 2 * torch.stack([(k := torch.arange(5) * 2 * math.pi / 5).cos(), k.sin()], dim=1)
SHARES = torch.tensor([0.3, 0.25, 0.2, 0.15, 0.1])
WIDTH = 0.25


def to_five_spots(x: Tensor, t: Tensor) -> Tensor:
    """The exact velocity of flow matching from N(0, 1) to five Gaussians of a plane; its paths are bent."""
    variance = (1 - t) ** 2 + (t * WIDTH) ** 2
    away = x[:, None] - t * CENTRES
    share = (SHARES.log() - away.square().sum(-1) / (2 * variance)).softmax(dim=1)
    gain = (t * WIDTH**2 - (1 - t)) / variance
    return (share[..., None] * (CENTRES + gain * away)).sum(1)


def trained(velocity: Velocity, noise: Tensor, steps: int, error: Error, *, rounds: int = 200) -> BespokeSolver:
    solver, path = BespokeSolver(steps), reference_path(velocity, noise, 48)
    optimizer = torch.optim.Adam(solver.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, rounds)
    for _ in range(rounds):
        optimizer.zero_grad()
        error(solver, velocity, path, ones(len(noise))).mean().backward()
        optimizer.step()
        schedule.step()
    return solver.requires_grad_(False)


@pytest.mark.parametrize(("name", "factor"), [("lte", 1.8), ("gte", 2.5)])
def test_four_learned_evaluations_beat_two_midpoint_steps(name: str, factor: float) -> None:
    generator = torch.Generator().manual_seed(0)
    solver = trained(to_five_spots, torch.randn(256, 2, generator=generator), 4, ERRORS[name])
    noise = torch.randn(1000, 2, generator=generator)  # not seen in training
    truth = reference_path(to_five_spots, noise, 100).x[-1]
    plain = rms(integrate(to_five_spots, noise, torch.linspace(0, 1, 3), midpoint) - truth)
    learned = rms(solver.integrate(to_five_spots, noise) - truth)
    assert learned < plain / factor


# --- inside the methods ----------------------------------------------------------------------------------------------

COUNTS = torch.tensor([3, 0, 5])


def test_a_flow_is_sampled_by_it() -> None:
    torch.manual_seed(0)
    flow, c = FlowMatching(PointwiseNet(2, 1, (16, 16)), 2), torch.randn(3, 1)
    noise = torch.randn(8, 2)
    plain = flow.sample(c, counts=COUNTS, noise=noise, steps=4)
    bespoke = flow.sample(c, counts=COUNTS, noise=noise, steps=-1, solver=BespokeSolver(8))
    torch.testing.assert_close(bespoke, plain)
    assert not bespoke.requires_grad


class OfGaussian(nn.Module):
    """F of the exact denoiser D = x w²/(w² + σ²) of data N(0, w²)."""

    def __init__(self, sigma_data: Tensor, width: float) -> None:
        super().__init__()
        self.sigma_data, self.width = sigma_data, width

    def forward(self, y: Tensor, t: Tensor, c: Tensor, counts: Tensor) -> Tensor:
        sigma = torch.repeat_interleave((4 * t).exp(), counts)[:, None]
        norm = sigma**2 + self.sigma_data**2
        x = y * norm.sqrt()
        clean = x * self.width**2 / (self.width**2 + sigma**2)
        return (clean - x * self.sigma_data**2 / norm) * norm.sqrt() / (sigma * self.sigma_data)


@pytest.mark.parametrize("sigma_data", [[0.5, 0.5], [0.3, 1.2]])
def test_the_flow_of_a_diffusion_ends_at_its_data(sigma_data: list[float]) -> None:
    """Of a Gaussian it is known: x(0) = x(σ_max) w/√(w² + σ_max²); with y of unit variance in between, whatever σd."""
    width, noise = 0.8, torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    model = EDM(OfGaussian(torch.tensor(sigma_data), width), 2, sigma_data=sigma_data)
    x = model.sample(torch.zeros(3, 0), counts=COUNTS, noise=noise, steps=60, solver="midpoint")
    torch.testing.assert_close(x, width * noise * 80 / math.hypot(80, width), atol=5e-3, rtol=0)


def test_a_diffusion_is_one_flow_in_both_its_forms() -> None:
    torch.manual_seed(0)
    model, c = (
        EDM(PointwiseNet(4, 2, (16, 32, 16), fourier_std=0.3), sigma_data=[0.4, 0.4, 0.5, 0.8]),
        torch.randn(3, 2),
    )
    noise = torch.randn(8, 4)
    fine = model.sample(c, counts=COUNTS, noise=noise, steps=400)
    torch.testing.assert_close(
        model.sample(c, counts=COUNTS, noise=noise, steps=400, solver="midpoint"), fine, atol=5e-3, rtol=0
    )
    bespoke = model.sample(c, counts=COUNTS, noise=noise, solver=BespokeSolver(16))
    torch.testing.assert_close(bespoke, model.sample(c, counts=COUNTS, noise=noise, steps=8, solver="midpoint"))
    t = torch.tensor(0.3)
    one_each = model.velocity(c, COUNTS)(noise, t.expand(3))
    torch.testing.assert_close(one_each, model.velocity(c, COUNTS)(noise, t))
    with pytest.raises(ValueError, match="unknown solver 'adams'"):
        model.sample(c, counts=COUNTS, solver="adams")
