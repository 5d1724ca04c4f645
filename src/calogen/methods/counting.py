"""A solver that counts how often it asks for the velocity of a set."""

from __future__ import annotations

from torch import Tensor

from calogen.methods.bespoke import Solver, transport
from calogen.methods.solvers import SetVelocity, Velocity


class CountedSolver:
    """Another solver, and the evaluations it took: `evaluations` of single sets, in walks of `sets` of them.

    A set that was computed once more than it needed, since others were not ready yet, counts as the network was asked.

    Args:
        solver: a name in `calogen.methods.bespoke.SOLVERS`, or a solver.
        steps: equal ones, see `transport`.

    Raises:
        ValueError: for an unknown name, or no steps.
    """

    def __init__(self, solver: Solver, steps: int = 1) -> None:
        self.walk = transport(solver, steps)
        self.sets = 0
        self.evaluations = 0

    @property
    def mean(self) -> float:
        """Evaluations of a set in one walk; NaN before the first."""
        return self.evaluations / self.sets if self.sets else float("nan")

    def integrate(self, velocity: Velocity, x: Tensor) -> Tensor:
        """From noise x [P, F] at t = 0 to data at t = 1.

        Raises:
            ValueError: a velocity that does not know its sets.
        """
        if not isinstance(velocity, SetVelocity):
            raise ValueError("evaluations are counted for each set: the velocity must be a SetVelocity")
        self.sets += len(velocity.counts)
        return self.walk(self._counted(velocity), x)

    def _counted(self, velocity: SetVelocity) -> SetVelocity:
        n, narrow = len(velocity.counts), velocity.narrow

        def v(x: Tensor, t: Tensor) -> Tensor:
            self.evaluations += n
            return velocity(x, t)

        return SetVelocity(v, velocity.counts, None if narrow is None else lambda sets: self._counted(narrow(sets)))
