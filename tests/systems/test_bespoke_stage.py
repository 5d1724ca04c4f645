"""The stage of bespoke solvers fits one to a flow through the training entry, and leaves the flow alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from toys import toy_showers

from calogen import Showers
from calogen.methods.bespoke import BespokeSolver
from calogen.methods.flow_matching import FlowMatching
from calogen.systems.bespoke_stage import BespokeStage, FlowProblem
from calogen.train import Plan, fit
from calogen.train.streams import seeded

PLAN = Plan(steps=60, batch_size=4, learning_rate=1e-2, schedule="cosine", validate_every=20)


class Swirl(nn.Module):
    """A velocity that turns and stretches points, faster for showers of more energy."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = nn.Parameter(torch.tensor([[0.5, -3.0], [3.0, -1.0]]))

    def forward(self, x: Tensor, t: Tensor, c: Tensor, counts: Tensor) -> Tensor:
        speed = torch.repeat_interleave(1 + 0.3 * c[:, 0] * (1 - t) ** 2, counts)
        return speed[:, None] * (torch.sin(x) + x @ self.turn.T)


class Flow:
    """The system's side: conditions and numbers of points are those of the showers."""

    def __init__(self) -> None:
        self.flow = FlowMatching(Swirl(), 2)
        self.asked = 0

    def condition(self, showers: Showers, indices: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(np.log10(showers.incident.energy[indices])).float()[:, None]

    def __call__(self, showers: Showers, indices: NDArray[np.int64], rng: np.random.Generator) -> FlowProblem:
        self.asked += 1
        counts = torch.from_numpy(showers.counts[indices] // 10)
        noise = torch.from_numpy(rng.standard_normal((int(counts.sum()), 2), dtype=np.float32))
        return FlowProblem(self.flow.velocity(self.condition(showers, indices), counts), noise, counts)

    def error(self, showers: Showers, **how: object) -> float:
        """RMS distance of samples to those of many steps."""
        indices = np.arange(len(showers))
        problem = self(showers, indices, np.random.default_rng(1))
        c, given = self.condition(showers, indices), {"counts": problem.counts, "noise": problem.noise}
        fine = self.flow.sample(c, **given, steps=100, solver="rk4")
        return float((self.flow.sample(c, **given, **how) - fine).square().mean().sqrt())


@pytest.mark.parametrize(("error", "factor"), [("local", 2.0), ("global", 2.0)])
def test_the_stage_fits_a_solver(tmp_path: Path, error: str, factor: float) -> None:
    flow, train, unseen = Flow(), toy_showers(12), toy_showers(30, seed=5)
    solver = BespokeSolver(4)
    before = [p.clone() for p in flow.flow.parameters()]
    stage = BespokeStage("solver", solver, flow, PLAN, error=error, showers=6)
    report = fit([stage], train, toy_showers(5, seed=2), run_dir=tmp_path, progress=False)[0]
    assert report.parameters == 17
    assert flow.error(unseen, solver=solver) < flow.error(unseen, steps=2, solver="midpoint") / factor
    assert all(torch.equal(a, b) for a, b in zip(before, flow.flow.parameters(), strict=True))
    assert all(p.grad is None for p in flow.flow.parameters())


def test_a_fit_repeats_to_the_bit(tmp_path: Path) -> None:
    fits = []
    for k in range(2):
        with seeded(k, "noise that must not matter"):
            solver, flow = BespokeSolver(4), Flow()
            stage = BespokeStage("solver", solver, flow, Plan(steps=10, batch_size=4), showers=6)
            fit([stage], toy_showers(12), toy_showers(5, seed=2), run_dir=tmp_path / str(k), progress=False)
        fits.append(torch.cat([p.detach() for p in solver.parameters()]))
    assert torch.equal(*fits)
    assert not torch.equal(fits[0], torch.cat([p.detach() for p in BespokeSolver(4).parameters()]))


def test_what_cannot_be_is_refused() -> None:
    flow, showers = Flow(), toy_showers(8)
    with pytest.raises(ValueError, match="unknown error 'both'"):
        BespokeStage("solver", BespokeSolver(4), flow, error="both")

    class Fickle(Flow):
        def __call__(self, showers: Showers, indices: NDArray[np.int64], rng: np.random.Generator) -> FlowProblem:
            problem = super().__call__(showers, indices, rng)
            return problem._replace(counts=problem.counts + (self.asked > 1))

    stage = BespokeStage("solver", BespokeSolver(4), Fickle(), showers=6)
    stage.prepare(showers)
    with pytest.raises(ValueError, match="must draw nothing but noise"):
        stage.batch(showers, np.arange(4), np.random.default_rng(0))


def test_empty_showers_weigh_nothing() -> None:
    flow, showers = Flow(), toy_showers(8)

    def some_empty(showers: Showers, indices: NDArray[np.int64], rng: np.random.Generator) -> FlowProblem:
        counts = torch.from_numpy(np.where(indices % 2, 7, 0))
        noise = torch.from_numpy(rng.standard_normal((int(counts.sum()), 2), dtype=np.float32))
        return FlowProblem(flow.flow.velocity(flow.condition(showers, indices), counts), noise, counts)

    stage = BespokeStage("solver", BespokeSolver(4), some_empty)
    stage.prepare(showers)
    batch = stage.batch(showers, np.arange(8), np.random.default_rng(0))
    assert stage.weights(batch).tolist() == [0.0, 1.0] * 4
    assert ((stage.loss(batch) > 0) == (stage.weights(batch) > 0)).all()
