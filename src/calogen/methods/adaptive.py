"""A solver that chooses its steps: an embedded pair of Runge-Kutta formulas, with a step length for each set.

Dormand and Prince's formulas of order 5 and 4 (J. Comput. Appl. Math. 6 (1980) 19; Hairer, Nørsett, Wanner, Solving
Ordinary Differential Equations I, table II.5.2). Time as everywhere: 0 is noise, 1 is data.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Self

import torch
from torch import Tensor

from calogen.methods.conditional import mean_per_set, per_point
from calogen.methods.solvers import SetVelocity, Velocity

C = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
"""Times of the stages after the first, in steps."""
A = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
"""Slopes to a stage; the last row is the solution of order 5, whose slope is the next step's first."""
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
"""Order 5 less order 4, in slopes."""
ORDER = 5

SAFETY = 0.9
LEAST_CHANGE, LARGEST_CHANGE = 0.2, 5.0
"""Of a step's length, from one to the next; 0.9 is how much of the length that would just do is taken (Hairer II.4)."""

TOLERANCE = 1e-3
"""Data are standardised: a thousandth of a standard deviation."""
MOST_EVALUATIONS = 10_000
LEAST_STEP = 1e-6
"""Times in float32 have a rounding of 6e-8 near 1."""

NAME = "adaptive"


class UnreachedToleranceError(ValueError):
    """A tolerance that the steps of a solver cannot keep."""


class AdaptiveSolver:
    """Steps as long as the error lets them be, judged and chosen for each set by its own points alone.

    The error of a step is the distance of the solutions of order 5 and 4, in units of tolerance · (1 + |x|), its root
    mean square over the points and features of a set. A step with an error above 1 is done again, shorter. Sets that
    have arrived are not computed further where the velocity knows how to leave them out, and which others are there
    changes a set by no more than round-off does.

    Args:
        tolerance: largest error of a step, absolute and relative.
        most_evaluations: of the velocity, for one set, before giving up.

    Raises:
        ValueError: a tolerance that is not positive, or no room for a step of seven evaluations.

    >>> solver = AdaptiveSolver(1e-5)
    >>> velocity = SetVelocity(lambda x, t: x, torch.ones(1, dtype=torch.int64))
    >>> float(solver.integrate(velocity, torch.ones(1, 1)))  # e
    2.7182...
    """

    def __init__(self, tolerance: float = TOLERANCE, *, most_evaluations: int = MOST_EVALUATIONS) -> None:
        if not 0 < tolerance < math.inf:
            raise ValueError(
                f"tolerance {tolerance} of an adaptive solver: give a positive number, such as {TOLERANCE}"
            )
        if most_evaluations <= len(A):
            raise ValueError(f"most_evaluations={most_evaluations}: one step alone takes {1 + len(A)}")
        self.tolerance = tolerance
        self.most_evaluations = most_evaluations

    @classmethod
    def named(cls, name: str) -> Self | None:
        """The solver called `adaptive`, or with a tolerance `adaptive:1e-4`; None for other names.

        Raises:
            ValueError: a tolerance that is none.

        >>> AdaptiveSolver.named("adaptive:1e-4").tolerance
        0.0001
        """
        word, colon, text = name.partition(":")
        if word != NAME:
            return None
        if not colon:
            return cls()
        try:
            return cls(float(text))
        except ValueError:
            raise ValueError(f"solver {name!r}: give a positive tolerance after the colon, {NAME}:1e-3") from None

    @torch.no_grad()
    def integrate(self, velocity: Velocity, x: Tensor) -> Tensor:
        """From noise x [P, F] at t = 0 to data at t = 1.

        Raises:
            ValueError: a velocity that does not know its sets.
            UnreachedToleranceError: the tolerance cannot be kept.
        """
        if not isinstance(velocity, SetVelocity):
            raise ValueError("an adaptive solver needs a velocity that knows its sets: a SetVelocity")
        arrived = x.clone()
        empty = velocity.counts == 0
        points = torch.arange(len(x), device=x.device)
        length = x.new_full(empty.shape, min(1.0, self.tolerance ** (1 / ORDER)))
        start = x.new_zeros(empty.shape)
        state = _State(velocity, x, velocity(x, x.new_zeros(())).to(x), start, length, points)
        state = state.without(empty, narrow=False)
        evaluations = 1
        while bool((state.t < 1).any()):
            if evaluations + len(A) > self.most_evaluations:
                raise UnreachedToleranceError(
                    self._given_up(state, f"are not at t = 1 after {evaluations} evaluations")
                )
            state = self._step(state)
            evaluations += len(A)
            if bool(((state.length < LEAST_STEP) & (state.t < 1)).any()):
                raise UnreachedToleranceError(self._given_up(state, f"need steps in time below {LEAST_STEP}"))
            done = state.t >= 1
            if bool(done.any()):
                here = per_point(done, state.velocity.counts)[:, 0]
                arrived[state.points[here]] = state.x[here]
                state = state.without(done)
        return arrived

    def _step(self, state: _State) -> _State:
        """One step of every set: it counts for those whose error allows it."""
        counts, left = state.velocity.counts, 1 - state.t
        last = state.length >= left
        h = torch.where(last, left, state.length)
        at, slopes, x_new = per_point(h, counts), [state.slope], state.x
        for c, row in zip(C, A, strict=True):
            x_new = state.x + at * _sum(row, slopes)
            slopes.append(state.velocity(x_new, state.t + c * h).to(x_new))
        unit = self.tolerance * (1 + torch.maximum(state.x.abs(), x_new.abs()))
        error = mean_per_set((at * _sum(ERROR, slopes) / unit).square(), counts).sqrt()
        good = error <= 1
        change = (SAFETY * error ** (-1 / ORDER)).nan_to_num(LEAST_CHANGE).clamp(LEAST_CHANGE, LARGEST_CHANGE)
        here = per_point(good, counts)
        return state._replace(
            x=torch.where(here, x_new, state.x),
            slope=torch.where(here, slopes[-1], state.slope),
            t=torch.where(good, torch.where(last, 1.0, state.t + h), state.t),
            length=h * torch.where(good, change, change.clamp(max=1.0)),
        )

    def _given_up(self, state: _State, why: str) -> str:
        behind = state.t[state.t < 1]
        return (
            f"adaptive solver: {len(behind)} sets, the slowest at t = {float(behind.min()):.4g}, {why} at tolerance "
            f"{self.tolerance:g}: raise the tolerance, or see whether the velocity is finite"
        )


class _State(NamedTuple):
    """Sets on their way: x [P, F] and its slope, time and next length [N], and where the points belong in the end."""

    velocity: SetVelocity
    x: Tensor
    slope: Tensor
    t: Tensor
    length: Tensor
    points: Tensor

    def without(self, done: Tensor, *, narrow: bool = True) -> _State:
        """The others; sets that are done [N] stay at t = 1 where the velocity cannot leave them out."""
        if bool(done.all()) or not narrow or self.velocity.narrow is None:
            return self._replace(t=torch.where(done, 1.0, self.t))
        kept = (~done).nonzero()[:, 0]
        here = per_point(~done, self.velocity.counts)[:, 0]
        velocity = self.velocity.narrow(kept)
        return _State(velocity, self.x[here], self.slope[here], self.t[kept], self.length[kept], self.points[here])


def _sum(weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    total = weights[0] * slopes[0]
    for weight, slope in zip(weights[1:], slopes[1:], strict=True):
        if weight:
            total = total.add(slope, alpha=weight)
    return total
