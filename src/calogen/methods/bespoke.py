"""Bespoke solvers: a few steps whose times and coefficients are learned for one velocity field.

Non-stationary solvers (Shaul et al., arXiv:2403.01329), with the errors that CaloDREAM (arXiv:2405.09629) trains them
by. A solver has N(N+5)/2 - 1 numbers to learn, so a few showers and minutes are enough. Time as everywhere: 0 is
noise, 1 is data.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, Protocol, Self, cast

import torch
from torch import Tensor, nn

from calogen.methods.adaptive import NAME as ADAPTIVE
from calogen.methods.adaptive import AdaptiveSolver
from calogen.methods.conditional import mean_per_set
from calogen.methods.solvers import STEPS, SetVelocity, Step, Velocity, integrate, rk4

LEAST_STEP = 0.01
"""No step in time gets shorter than this part of an equal step: times stay apart in float32, whatever is learned."""

Start = Literal["euler", "midpoint"]


class BespokeSolver(nn.Module):
    """N evaluations of v carry x_0 at t_0 = 0 to x_N at t_N = 1 (arXiv:2403.01329, eq. 12):

        x_{i+1} = a_i x_0 + Σ_{j<=i} b_ij v(x_j, t_j)

    The lengths of the steps in time are learned as logits of a softmax, so that any parameters give growing times.

    Args:
        steps: N, evaluations of the velocity.
        start: what the untrained solver is: Euler with N steps, or midpoint with N/2.

    Raises:
        ValueError: for no steps, an odd number of them with midpoint, or another start.

    >>> solver = BespokeSolver(4, "euler")
    >>> float(solver.integrate(lambda x, t: x, torch.ones(())).detach())  # (1 + 1/4)^4
    2.44140...
    """

    def __init__(self, steps: int = 8, start: Start = "midpoint") -> None:
        super().__init__()
        if start not in ("euler", "midpoint"):
            raise ValueError(f"a bespoke solver starts as euler or midpoint, not {start!r}")
        if steps < 1 or (start == "midpoint" and steps % 2):
            raise ValueError(f"no {start} solver has {steps} evaluations; take {'1 or more' if steps < 1 else 'euler'}")
        self.steps = steps
        self.logits = nn.Parameter(torch.zeros(steps - 1))
        self.a = nn.Parameter(torch.ones(steps))
        b = _euler_rows(steps) if start == "euler" else _midpoint_rows(steps)
        self.b = nn.Parameter(torch.cat(b))

    @classmethod
    def of(cls, times: Tensor, a: Sequence[float] | Tensor, b: Sequence[Tensor]) -> Self:
        """The solver with given times [N + 1], a [N] and rows b_i [i + 1].

        Raises:
            ValueError: unless the times grow from 0 to 1 with no step below `LEAST_STEP` of an equal one, and a and b
                fit them.
        """
        steps = len(times) - 1
        lengths = times.double().diff()
        if steps < 1 or times[0] != 0 or times[-1] != 1 or not bool((lengths * steps > LEAST_STEP).all()):
            raise ValueError(f"times {times.tolist()} must grow from 0 to 1, no step below {LEAST_STEP}/{steps}")
        if len(a) != steps or [len(row) for row in b] != list(range(1, steps + 1)):
            raise ValueError(f"{steps} steps take {steps} numbers a and rows b of 1 to {steps}")
        solver = cls(steps, "euler")
        shares = (lengths - LEAST_STEP / steps).log()
        with torch.no_grad():
            solver.logits.copy_(shares[:-1] - shares[-1])
            solver.a.copy_(torch.as_tensor(a))
            solver.b.copy_(torch.cat(list(b)))
        return solver

    def times(self) -> Tensor:
        """t_0 = 0 < t_1 < ... < t_N = 1."""
        shares = torch.cat([self.logits, self.logits.new_zeros(1)]).softmax(0)
        lengths = LEAST_STEP / self.steps + (1 - LEAST_STEP) * shares
        return torch.cat([lengths.new_zeros(1), lengths[:-1].cumsum(0), lengths.new_ones(1)])

    def rows(self) -> tuple[Tensor, ...]:
        """b_i [i + 1] for i = 0 ... N - 1."""
        return self.b.split(list(range(1, self.steps + 1)))

    def step(self, i: int, x_0: Tensor, slopes: Sequence[Tensor]) -> Tensor:
        """x_{i+1} from x_0 and the velocities at t_0 ... t_i."""
        x = self.a[i].to(x_0) * x_0
        for weight, slope in zip(self.rows()[i].to(x_0), slopes, strict=True):
            x = x + weight * slope
        return x

    def integrate(self, velocity: Velocity, x: Tensor) -> Tensor:
        """From noise x (any shape) at t = 0 to data at t = 1."""
        x_i, slopes, times = x, list[Tensor](), self.times()[:-1].to(x)
        if isinstance(velocity, SetVelocity) and velocity.schedule is not None and not torch.is_grad_enabled():
            velocity.schedule(times)
        for i, t in enumerate(times):
            slopes.append(velocity(x_i, t))
            x_i = self.step(i, x, slopes)
        return x_i


class BespokeSolvers(nn.Module):
    """Solvers of one flow with different numbers of evaluations: time against quality, chosen when showers are drawn.

    Args:
        evaluations: of each, the usual one first; those with an even number start as midpoint, the others as Euler.

    Raises:
        ValueError: for no solver, or the same number twice.
    """

    def __init__(self, evaluations: Sequence[int]) -> None:
        super().__init__()
        if not evaluations or len(set(evaluations)) < len(evaluations):
            raise ValueError(f"evaluations {tuple(evaluations)}: give at least one number, and each of them once")
        self.evaluations = tuple(evaluations)
        self.each = nn.ModuleDict({str(n): BespokeSolver(n, "euler" if n % 2 else "midpoint") for n in evaluations})

    def __iter__(self) -> Iterator[BespokeSolver]:
        return (self.of(n) for n in self.evaluations)

    def of(self, evaluations: int = 0) -> BespokeSolver:
        """The solver with so many evaluations; 0: the usual one.

        Raises:
            ValueError: if there is none.
        """
        n = evaluations or self.evaluations[0]
        if n not in self.evaluations:
            raise ValueError(
                f"no bespoke solver has {n} evaluations; this state's have {', '.join(map(str, self.evaluations))}"
            )
        return cast(BespokeSolver, self.each[str(n)])


class Integrator(Protocol):
    """A way from noise to data."""

    def integrate(self, velocity: Velocity, x: Tensor) -> Tensor:
        """x at t = 0 -> x at t = 1."""


Solver = str | Integrator
"""How a flow is walked: a name in `SOLVERS`, or a solver, such as a bespoke one made for it."""

SOLVERS = (*STEPS, ADAPTIVE)
"""Names: those of `calogen.methods.solvers.STEPS`, in equal steps, and `adaptive`, or `adaptive:TOLERANCE`."""

Walk = Callable[[Velocity, Tensor], Tensor]
"""(velocity, x at t = 0) -> x at t = 1."""


def transport(solver: Solver, steps: int) -> Walk:
    """The way from noise to data by `solver`, in `steps` equal steps; others than those of `STEPS` have their own.

    Raises:
        ValueError: for an unknown name, or no steps.
    """
    if not isinstance(solver, str):
        return solver.integrate
    if adaptive := AdaptiveSolver.named(solver):
        return adaptive.integrate
    if solver not in STEPS:
        raise ValueError(f"unknown solver {solver!r}; known are {', '.join(SOLVERS)}")
    if steps < 1:
        raise ValueError(f"a sample needs at least 1 step, not {steps}")
    step = STEPS[solver]
    return lambda velocity, x: integrate(velocity, x, _equal_times(steps, x), step)


class Path(NamedTuple):
    """A fine solution of dx/dt = v at K + 1 equally spaced times from 0 to 1."""

    x: Tensor
    """[K + 1, P, F]"""
    slope: Tensor
    """v there [K + 1, P, F]"""

    def at(self, t: Tensor) -> Tensor:
        """x at times t [T], by cubic Hermite interpolation [T, P, F]; the gradient to t is the slope of the path."""
        last = len(self.x) - 1
        k = (t.detach() * last).long().clamp(0, last - 1)
        u = (t * last - k).to(self.x).reshape(-1, *[1] * (self.x.ndim - 1))
        rise = self.x[k + 1] - self.x[k]
        start, end = self.slope[k] / last - rise, rise - self.slope[k + 1] / last
        return self.x[k] + u * rise + u * (1 - u) * ((1 - u) * start + u * end)


@torch.no_grad()
def reference_path(velocity: Velocity, x: Tensor, steps: int = 32, step: Step = rk4) -> Path:
    """The path from noise x [P, F] by `steps` equal steps (rk4: four evaluations each)."""
    times = _equal_times(steps, x)
    xs, slopes = [x], [velocity(x, times[0])]
    for t, t_next in itertools.pairwise(times):
        xs.append(step(_remembering(velocity, xs[-1], slopes[-1]), xs[-1], t, t_next))
        slopes.append(velocity(xs[-1], t_next))
    return Path(torch.stack(xs), torch.stack(slopes))


def _equal_times(steps: int, like: Tensor) -> Tensor:
    return torch.linspace(0, 1, steps + 1, device=like.device, dtype=like.dtype)


def _remembering(velocity: Velocity, x: Tensor, slope: Tensor) -> Velocity:
    """The velocity, for a step from x where it is `slope`: every step asks for that first."""
    return lambda y, t: slope if y is x else velocity(y, t)


def local_error(solver: BespokeSolver, velocity: Velocity, path: Path, counts: Tensor) -> Tensor:
    """Local truncation error of each set [N]: each step starts on the path, and its errors (RMS) are added.

        Σ_i | a_i x(0) + Σ_{j<=i} b_ij v(x(t_j), t_j) - x(t_{i+1}) |,    |·|² the mean over a set's points and features

    CaloDREAM's error as its code has it (the paper squares). Gradients reach the solver, not the network.

    Args:
        solver: the solver.
        velocity: v(x, t) for packed x [P, F]; vectors are sets of one point, x [N, F].
        path: a fine solution x(t).
        counts: points of each set [N], sum P; the error of an empty set is 0.
    """
    times, v = solver.times(), frozen(velocity)
    x = path.at(times)
    slopes = [v(x[i], times[i].to(x)) for i in range(solver.steps)]
    errors = [solver.step(i, path.x[0], slopes[: i + 1]) - x[i + 1] for i in range(solver.steps)]
    return torch.stack([_root(_mean_square(error, counts)) for error in errors]).sum(0)


def global_error(solver: BespokeSolver, velocity: Velocity, path: Path, counts: Tensor) -> Tensor:
    """Global truncation error of each set [N]: the mean square of x_N - x(1). See `local_error`."""
    return _mean_square(solver.integrate(frozen(velocity), path.x[0]) - path.x[-1], counts)


def frozen(velocity: Velocity) -> Velocity:
    """The velocity, through which gradients pass to x and t, and to nothing else it is made of."""

    def v(x: Tensor, t: Tensor) -> Tensor:
        result: Tensor = _Frozen.apply(velocity, x, t) if torch.is_grad_enabled() else velocity(x, t)
        return result

    return v


class _Frozen(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, velocity: Velocity, x: Tensor, t: Tensor) -> Tensor:
        ctx.inputs = [
            value.detach().requires_grad_(needed)
            for value, needed in zip((x, t), ctx.needs_input_grad[1:], strict=True)
        ]
        with torch.enable_grad():
            ctx.v = velocity(*ctx.inputs)
        result: Tensor = ctx.v.detach()
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        needed = [value for value in ctx.inputs if value.requires_grad]
        found: Sequence[Tensor | None] = [None] * len(needed)
        if needed and ctx.v.requires_grad:
            found = torch.autograd.grad(ctx.v, needed, gradient, allow_unused=True)
        each = iter(found)
        return None, *(next(each) if value.requires_grad else None for value in ctx.inputs)


def _mean_square(error: Tensor, counts: Tensor) -> Tensor:
    return mean_per_set(error.square(), counts)


def _root(value: Tensor) -> Tensor:
    """√value, with gradient 0 at 0."""
    positive = value > 0
    return torch.where(positive, torch.where(positive, value, 1.0).sqrt(), 0.0)


def _euler_rows(steps: int) -> list[Tensor]:
    return [torch.full((i + 1,), 1 / steps) for i in range(steps)]


def _midpoint_rows(steps: int) -> list[Tensor]:
    """Even states are ends of whole steps of 2/N, each taken with the slope of the odd state before it."""
    rows = []
    for i in range(steps):
        row = torch.zeros(i + 1)
        row[1::2] = 2 / steps
        if i % 2 == 0:
            row[i] = 1 / steps
        rows.append(row)
    return rows
