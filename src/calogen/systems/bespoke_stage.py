"""The stage that fits a bespoke solver to a trained flow: any system adds it after the stage of that flow."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calogen.methods.bespoke import BespokeSolver, BespokeSolvers, Path, global_error, local_error, reference_path
from calogen.methods.solvers import Velocity
from calogen.train import Batch, LearnedStage, Plan
from calogen.train.streams import numpy_stream

if TYPE_CHECKING:
    from calogen.data.showers import Showers

POOL = 64
"""Showers whose fine paths are made and learned from. The solver has 17 to 167 numbers and each path some thousands."""

TOGETHER = 8
"""Showers whose fine paths are made in one go."""

ERRORS = {"local": local_error, "global": global_error}

BESPOKE_PLAN = Plan(
    steps=400, batch_size=16, learning_rate=5e-3, schedule="cosine", validate_every=50, validation_showers=POOL
)
"""A plan for small networks; of large ones a batch of 4 and 200 steps teach most of it."""


class FlowProblem(NamedTuple):
    """A flow to solve, for N showers."""

    velocity: Velocity
    """v(x, t) for their conditions, on the device of the network."""
    noise: Tensor
    """x at t = 0 [P, F]"""
    counts: Tensor
    """points of each shower [N], sum P; vectors are one point each"""


FlowOf = Callable[["Showers", NDArray[np.int64], np.random.Generator], FlowProblem]
"""flow_of(showers, indices, rng): their flow, with noise drawn from rng. All else must depend on each shower alone.

To train in several processes it must be picklable: a method of the system, not a lambda.
"""


class BespokeStage(LearnedStage):
    """Fit a solver to a flow whose network is final, by its truncation error on a few showers.

    `POOL` showers, each with one noise, are solved finely once, before the first step. Every step of the fit
    then costs N evaluations, and their gradients. The network learns nothing.

    Args:
        name: of the stage.
        solver: what is fitted; its number of evaluations is its own. Several are fitted side by side.
        flow_of: makes the flow of a batch of showers.
        plan: how it is fitted; `BESPOKE_PLAN` for most. Its showers stand for those of the pool.
        error: the `local` truncation error, good from any start, or the `global` one: what counts in the end, worth
            its rougher way for few evaluations. A second stage may go on from the first with the other.
        showers: of the pool; None: `POOL`.
        reference_steps: of the fine solution, four evaluations each.
    """

    def __init__(
        self,
        name: str,
        solver: BespokeSolver | BespokeSolvers,
        flow_of: FlowOf,
        plan: Plan = BESPOKE_PLAN,
        *,
        error: Literal["local", "global"] = "local",
        showers: int | None = None,
        reference_steps: int = 32,
    ) -> None:
        if error not in ERRORS:
            raise ValueError(f"unknown error {error!r} of a solver; known are 'local' and 'global'")
        self.name, self.model, self.plan = name, solver, plan
        self.solvers = [solver] if isinstance(solver, BespokeSolver) else list(solver)
        self.flow_of = flow_of
        self.error = ERRORS[error]
        self.size, self.reference_steps = showers or POOL, reference_steps
        self.pools: list[tuple[Showers, Pool]] = []

    def prepare(self, showers: Showers) -> None:
        """Solve the flow finely for the pool."""
        self.pools = []
        self._pool(showers)

    def batch(self, showers: Showers, indices: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        """Velocity, fine path [K + 1, P, F] and counts [N] of the pool's showers in whose place the indices stand.

        Raises:
            ValueError: if `flow_of` gives a shower another number of points than before.
        """
        pool = self._pool(showers)
        places = indices % len(pool.chosen)
        with torch.no_grad():
            problem = self.flow_of(showers, pool.chosen[places], rng)
        paths = [pool.paths[place] for place in places.tolist()]
        before = [path.x.shape[1] for path in paths]
        if problem.counts.tolist() != before:
            raise ValueError(
                f"stage {self.name!r}: showers had {before} points, now {problem.counts.tolist()}: "
                "flow_of must draw nothing but noise"
            )
        return problem.velocity, _joined(paths), problem.counts

    def loss(self, batch: Batch) -> Tensor:
        """Truncation error [N] of each shower, the sum of all solvers."""
        velocity, path, counts = batch
        return torch.stack([self.error(solver, velocity, path, counts) for solver in self.solvers]).sum(0)

    def weights(self, batch: Batch) -> Tensor:
        """1 [N], 0 for showers without points."""
        counts: Tensor = batch[2]
        return (counts > 0).float()

    def _pool(self, showers: Showers) -> Pool:
        """The pool of the training showers, which are the first asked for, or of those of the validation."""
        for known, pool in self.pools:
            if known is showers:
                return pool
        rng = numpy_stream(self.plan.seed, self.name, "pool", len(self.pools))
        chosen = np.sort(rng.permutation(len(showers))[: self.size])
        paths: list[Path] = []
        for start in range(0, len(chosen), TOGETHER):
            with torch.no_grad():
                problem = self.flow_of(showers, chosen[start : start + TOGETHER], rng)
            path = reference_path(problem.velocity, problem.noise, self.reference_steps)
            sizes = problem.counts.tolist()
            paths += map(Path, path.x.split(sizes, dim=1), path.slope.split(sizes, dim=1))
        pool = Pool(chosen, paths)
        self.pools.append((showers, pool))
        return pool


class Pool(NamedTuple):
    """The showers [M] a solver learns from, and the fine path of each."""

    chosen: NDArray[np.int64]
    paths: list[Path]


def _joined(paths: list[Path]) -> Path:
    return Path(torch.cat([path.x for path in paths], dim=1), torch.cat([path.slope for path in paths], dim=1))
