"""The adaptive solver reaches known solutions within its tolerance, each set on its own, and says when it cannot."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from calogen.methods.adaptive import ERROR, A, AdaptiveSolver, C
from calogen.methods.autoregressive_flow import AutoregressiveFlow
from calogen.methods.bespoke import BespokeSolver, transport
from calogen.methods.conditional import per_point
from calogen.methods.counting import CountedSolver
from calogen.methods.edm import EDM
from calogen.methods.flow_matching import FlowMatching
from calogen.methods.solvers import EVALUATIONS, STEPS, SetVelocity, Velocity
from calogen.networks.autoregressive_transformer import AutoregressiveTransformer


def one_set(v: Velocity, points: int = 1) -> SetVelocity:
    return SetVelocity(v, torch.tensor([points]))


def scalars(v: Velocity) -> SetVelocity:
    """Of one set of one number, its time a number too."""
    return one_set(lambda x, t: v(x, t.reshape(-1, 1) if t.ndim else t))


PROBLEMS = {
    "exp": (lambda x, t: x, 1.0, math.e),
    "riccati": (lambda x, t: -2 * t * x**2, 1.0, 0.5),
    "time alone": (lambda x, t: 5 * t**4 + 0 * x, 2.0, 3.0),
    "stiff": (lambda x, t: -300 * (x - torch.cos(t)) - torch.sin(t), 0.0, math.cos(1.0)),
    "late": (lambda x, t: x / (1.001 - t), 0.001, 1.001),
}


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("tolerance", [1e-2, 1e-5, 1e-8])
def test_known_solutions(name: str, tolerance: float) -> None:
    v, start, end = PROBLEMS[name]
    x = torch.tensor([[start]], dtype=torch.float64)
    error = abs(float(AdaptiveSolver(tolerance).integrate(scalars(v), x)) - end)
    # errors of steps add up, and grow with what they are errors of: late by its thousandfold growth
    assert error < (300 if name == "late" else 20) * tolerance


def test_a_rotation_keeps_lengths() -> None:
    turn = torch.tensor([[0.0, -20.0], [20.0, 0.0]], dtype=torch.float64)
    x = torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    solved = AdaptiveSolver(1e-7).integrate(one_set(lambda x, t: x @ turn.T, 50), x)
    torch.testing.assert_close(solved, x @ torch.linalg.matrix_exp(turn).T, atol=2e-5, rtol=0)


def test_the_formulas_have_their_orders() -> None:
    """Sums of the tableau, and errors of one step that fall with its length to the sixth and fifth power."""
    for c, row in zip(C, A, strict=True):
        assert math.isclose(sum(row), c, abs_tol=1e-14)
    assert abs(sum(ERROR)) < 1e-15

    def step(h: float) -> tuple[float, float]:
        k, x = [1.0], 1.0  # dx/dt = x
        for row in A:
            x = 1 + h * sum(a * b for a, b in zip(row, k, strict=True))
            k.append(x)
        return abs(x - math.exp(h)), abs(h * sum(e * b for e, b in zip(ERROR, k, strict=True)))

    (fifth, fourth), (fifth_half, fourth_half) = step(0.2), step(0.1)
    assert abs(math.log2(fifth / fifth_half) - 6) < 0.3
    assert abs(math.log2(fourth / fourth_half) - 5) < 0.3


def test_evaluations_follow_the_order() -> None:
    """A tolerance 1e5 times less takes about ten times the steps."""
    taken = []
    for tolerance in (1e-4, 1e-9):
        counted = CountedSolver(AdaptiveSolver(tolerance))
        counted.integrate(scalars(lambda x, t: 20 * torch.cos(40 * t) * x), torch.ones(1, 1, dtype=torch.float64))
        taken.append(counted.mean)
    assert 6 < taken[1] / taken[0] < 14


def swirl(c: Tensor, counts: Tensor) -> SetVelocity:
    """Sets that turn at their own speed, each point pulled to the mean of its set: points see each other."""

    def v(x: Tensor, t: Tensor) -> Tensor:
        index = torch.repeat_interleave(torch.arange(len(counts)), counts)
        mean = x.new_zeros(len(counts), 2).index_add(0, index, x) / counts.clamp(min=1)[:, None]
        speed = (c * (1 + t))[index][:, None]
        return speed * torch.stack([-x[:, 1], x[:, 0]], dim=1) + mean[index] - torch.sin(x)

    return SetVelocity(v, counts, lambda sets: swirl(c[sets], counts[sets]))


@settings(max_examples=12, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 6), min_size=1, max_size=6),
    seed=st.integers(0, 2**16),
    narrowed=st.booleans(),
    tolerance=st.sampled_from([1e-2, 1e-4]),
)
def test_a_set_does_not_depend_on_its_company(sizes: list[int], seed: int, narrowed: bool, tolerance: float) -> None:
    g, counts = torch.Generator().manual_seed(seed), torch.tensor(sizes)
    c = 12 * torch.rand(len(sizes), generator=g, dtype=torch.float64)
    x = torch.randn(sum(sizes), 2, generator=g, dtype=torch.float64)
    solver, velocity = AdaptiveSolver(tolerance), swirl(c, counts)
    together = solver.integrate(velocity if narrowed else replace(velocity, narrow=None), x)
    for k, (part, own) in enumerate(zip(x.split(sizes), together.split(sizes), strict=True)):
        alone = solver.integrate(swirl(c[k : k + 1], counts[k : k + 1]), part)
        torch.testing.assert_close(alone, own, atol=1e-9, rtol=1e-9)


def test_sets_that_have_arrived_are_left_out() -> None:
    counts = torch.tensor([3, 0, 3, 3])
    c = torch.tensor([0.1, 50.0, 50.0, 0.1])
    x = torch.randn(9, 2, generator=torch.Generator().manual_seed(0))
    some, all_ = (CountedSolver(AdaptiveSolver(1e-4)) for _ in range(2))
    velocity = swirl(c, counts)
    a, b = some.integrate(velocity, x), all_.integrate(replace(velocity, narrow=None), x)
    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    alone = CountedSolver(AdaptiveSolver(1e-4))
    alone.integrate(swirl(c[2:3], counts[2:3]), x[3:6])
    assert all_.mean == alone.mean  # everybody waits for the third
    assert some.mean < 0.6 * all_.mean


def test_nothing_to_solve() -> None:
    counts = torch.zeros(3, dtype=torch.int64)
    assert AdaptiveSolver().integrate(swirl(torch.ones(3), counts), torch.zeros(0, 2)).shape == (0, 2)
    none = torch.zeros(0, dtype=torch.int64)
    assert AdaptiveSolver().integrate(swirl(torch.ones(0), none), torch.zeros(0, 2)).shape == (0, 2)


UNREACHABLE = {
    "not a number": (lambda x, t: x * math.nan, "below 1e-06"),
    "a pole": (lambda x, t: x / (0.5 - t), "below 1e-06|after"),
    "noise": (lambda x, t: torch.rand(x.shape) * 1e4, "below 1e-06|after"),
    "too much work": (lambda x, t: 1e5 * torch.cos(1e5 * t), "after 200 evaluations|after 19"),
}


@pytest.mark.parametrize("name", UNREACHABLE)
def test_what_cannot_be_solved_ends(name: str) -> None:
    v, words = UNREACHABLE[name]
    with pytest.raises(ValueError, match=words) as raised:
        AdaptiveSolver(1e-6, most_evaluations=200).integrate(scalars(v), torch.ones(1, 1))
    assert "\n" not in str(raised.value)


def test_bad_requests_are_refused() -> None:
    for tolerance in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="tolerance"):
            AdaptiveSolver(tolerance)
    for name in ("adaptive:", "adaptive:fine", "adaptive:-1"):
        with pytest.raises(ValueError, match="positive tolerance after the colon"):
            transport(name, 1)
    with pytest.raises(ValueError, match="most_evaluations=6"):
        AdaptiveSolver(most_evaluations=6)
    with pytest.raises(ValueError, match="knows its sets"):
        AdaptiveSolver().integrate(lambda x, t: x, torch.ones(1, 1))
    assert AdaptiveSolver.named("adaptivity") is None


# ---- through the flows ----


class Pulled(nn.Module):
    """A velocity with parameters; counts the sets it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = nn.Parameter(torch.tensor([[0.5, -3.0], [3.0, -1.0]]))
        self.asked = 0

    def forward(self, x: Tensor, t: Tensor, c: Tensor, counts: Tensor) -> Tensor:
        self.asked += len(counts)
        return per_point(c[:, 0] * (1 + t), counts) * torch.sin(x @ self.turn.T)


def flow() -> tuple[FlowMatching, Tensor, Tensor, Tensor]:
    counts = torch.tensor([4, 0, 1, 7])
    noise = torch.randn(12, 2, generator=torch.Generator().manual_seed(3))
    return FlowMatching(Pulled(), 2), torch.tensor([[1.0], [2.0], [4.0], [8.0]]), counts, noise


def test_flow_matching_walks_adaptively() -> None:
    model, c, counts, noise = flow()
    given = {"counts": counts, "noise": noise}
    fine = model.sample(c, **given, solver="rk4", steps=400)
    made = model.sample(c, **given, solver="adaptive:1e-5")
    torch.testing.assert_close(made, fine, atol=2e-4, rtol=0)
    assert not made.requires_grad
    assert model.network.turn.grad is None
    plain = AdaptiveSolver().integrate(model.velocity(c, counts), noise.clone())
    assert not plain.requires_grad
    alone = model.sample(c[3:], counts=counts[3:], noise=noise[5:], solver="adaptive:1e-5")
    torch.testing.assert_close(made[5:], alone, atol=1e-5, rtol=0)


def test_edm_walks_adaptively() -> None:
    model = EDM(Pulled(), 2)
    _, c, counts, noise = flow()
    given = {"counts": counts, "noise": noise}
    fine = model.sample(c, **given, solver="rk4", steps=400)
    torch.testing.assert_close(model.sample(c, **given, solver="adaptive:1e-5"), fine, atol=2e-3, rtol=0)


def test_an_autoregressive_flow_walks_adaptively() -> None:
    torch.manual_seed(0)
    network = AutoregressiveTransformer(
        5, width=16, heads=2, encoder_blocks=1, decoder_blocks=1, feedforward=16, velocity_width=16, time_std=1.0
    )
    for parameter in network.velocity.parameters():
        parameter.data.mul_(1.5)
    model = AutoregressiveFlow(network)
    noise, c = torch.randn(6, 5, generator=torch.Generator().manual_seed(1)), torch.rand(6, 1)
    fine = model.sample(c, noise=noise, solver="rk4", steps=100)
    counted = CountedSolver("adaptive:1e-5")
    made = model.sample(c, noise=noise, solver=counted)
    torch.testing.assert_close(made, fine, atol=5e-3, rtol=0)  # elements build on those before
    alone = model.sample(c[2:3], noise=noise[2:3], solver="adaptive:1e-5")
    torch.testing.assert_close(made[2:3], alone, atol=1e-3, rtol=0)
    assert counted.sets == 30
    assert counted.mean >= 7
    mixed = model.sample(c, noise=noise, solver=["rk4", "adaptive", *[BespokeSolver(4)] * 3], steps=[50, 1, 1, 1, 1])
    assert bool(mixed.isfinite().all())


@pytest.mark.parametrize("solver", [*STEPS, "adaptive:1e-3", BespokeSolver(6)], ids=str)
def test_what_is_counted_is_what_the_network_was_asked(solver: Any) -> None:
    model, c, counts, noise = flow()
    counted = CountedSolver(solver, 3)
    x = model.sample(c, counts=counts, noise=noise, solver=counted)
    torch.testing.assert_close(x, model.sample(c, counts=counts, noise=noise, solver=solver, steps=3))
    assert counted.evaluations == model.network.asked / 2
    if isinstance(solver, str) and solver in STEPS:
        assert counted.mean == 3 * EVALUATIONS[solver]
