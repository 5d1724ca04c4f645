"""An autoregressive flow: the numbers of a vector one after the other, each by flow matching given those before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from calogen.methods.bespoke import Solver, Walk, transport
from calogen.methods.conditional import BoundNetwork, Conditional, gaussian, refuse_unknown
from calogen.methods.solvers import SetVelocity

TOGETHER = 256
"""Vectors drawn in one go: what is kept of them, 92 kB each at CaloDREAM's sizes, stays near an L3 cache."""

OPTIONS = "noise, generator, steps, solver"


class Started(Protocol):
    """N vectors as far as they are drawn."""

    def next(self, previous: Tensor | None) -> BoundNetwork:
        """v(u [N, 1], t) of the next element, given the one drawn before [N, 1]; None before the first."""


@runtime_checkable
class ElementNetwork(Protocol):
    """The velocities of the elements of vectors, each given those before it and a condition."""

    length: int
    """D"""

    def given(self, x: Tensor, c: Tensor, elements: slice = ...) -> BoundNetwork:
        """v(u [N, L], t) of the L chosen elements, t a scalar or one each, for true vectors x [N, D] and c [N, C]."""

    def begin(self, c: Tensor) -> Started:
        """Empty vectors for conditions c [N, C]."""


@runtime_checkable
class Narrowable(Protocol):
    """The velocity of an element that can be had for some of the vectors alone."""

    def of(self, vectors: Tensor) -> BoundNetwork:
        """v(u [M, 1], t) for the vectors of these numbers [M]."""


class AutoregressiveFlow(Conditional):
    """p(x | c) = Π_i p(x_i | x_1 ... x_{i-1}, c), each factor a flow of one number (arXiv:2405.09629, eq. 9-11).

        u_t = t x_i + (1 - t) z,    v_i(u_t, t | x_1 ... x_{i-1}, c) ≈ x_i - z,    z ~ N(0, 1)

    In training all elements learn at once, with the true ones before them, each at its own time.

    Args:
        network: v, an `ElementNetwork`; registered as a submodule.
        stratified: draw the times of an element over a batch in equal slices of [0, 1], in random order, instead of
            independently: the loss of a batch then varies less. Each time alone keeps its uniform distribution.

    Raises:
        ValueError: if the network is none of elements.
    """

    def __init__(self, network: nn.Module, *, stratified: bool = True) -> None:
        super().__init__()
        if not isinstance(network, ElementNetwork):
            raise ValueError(f"{type(network).__name__} gives no velocities of elements: it needs length, given, begin")
        self.network = cast(nn.Module, network)
        self.stratified = stratified

    @property
    def elements(self) -> ElementNetwork:
        """The network."""
        return cast(ElementNetwork, self.network)

    def velocity(self, x: Tensor, c: Tensor, elements: slice = slice(None)) -> BoundNetwork:
        """v(u [N, L], t) of the L chosen elements, given the true x [N, D] before each: what solvers are fitted to."""
        return self.elements.given(x, c, elements)

    def draw_t(self, shape: tuple[int, int], like: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Times of training [N, D], uniform in [0, 1)."""
        device = generator.device if generator is not None else like.device
        t = torch.rand(shape, generator=generator, device=device)
        if self.stratified:
            t = (torch.rand(shape, generator=generator, device=device).argsort(0) + t) / max(shape[0], 1)
        return t.to(like)

    def loss(
        self,
        x: Tensor,
        c: Tensor,
        mask: Tensor | None = None,
        *,
        t: Tensor | None = None,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Mean squared error of the velocity over the elements of each vector [N].

        Args:
            x: [N, D].
            c: conditions [N, C].
            mask: must be None, x has no ragged part.
            t: times [N, D]; None draws them.
            noise: z [N, D]; None draws it.
            generator: the source of what is drawn.

        Raises:
            ValueError: for a mask or other shapes.
        """
        if mask is not None:
            raise ValueError("the vectors of an autoregressive flow all have one length: mask must be None")
        velocity = self.velocity(x, c)
        n, d = x.shape
        t = self.draw_t((n, d), x, generator) if t is None else t
        z = gaussian((n, d), x, noise, generator)
        error = velocity(t * x + (1 - t) * z, t) - (x - z)
        return (error**2).mean(dim=1)

    @torch.no_grad()
    def sample(
        self,
        c: Tensor,
        *,
        counts: Tensor | None = None,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
        steps: int | Sequence[int] = 8,
        solver: Solver | Sequence[Solver] = "midpoint",
        **options: Any,
    ) -> Tensor:
        """Draw x [N, D], element after element.

        Args:
            c: conditions [N, C].
            counts: must be None, x is no set of points.
            noise: standard normal numbers [N, D]; else they are drawn from `generator`.
            steps: of equal length for each element, or one number for each of the D elements (CaloDREAM: 50 of
                three_eighths, which is 200 evaluations); an adaptive or bespoke solver has its own.
            solver: a name in `calogen.methods.bespoke.SOLVERS` or a solver, or one of them for each element.

        Raises:
            ValueError: for noise or conditions of another shape, no steps, an unknown solver or option, or steps and
                solvers of another number than the elements.
        """
        refuse_unknown(options, OPTIONS)
        if counts is not None:
            raise ValueError("an autoregressive flow draws no sets of points: counts must be None")
        walks = walks_of(solver, steps, self.elements.length)
        c = c.to(next(self.parameters()))
        z = gaussian((len(c), len(walks)), c, noise, generator)
        x = z.clone()
        for start in range(0, len(c), TOGETHER):
            rows = slice(start, start + TOGETHER)
            x[rows] = self._draw(c[rows], z[rows], walks)
        return x

    def _draw(self, c: Tensor, z: Tensor, walks: list[Walk]) -> Tensor:
        """Conditions c [N, C] and noise z [N, D] -> x [N, D]."""
        started, drawn = self.elements.begin(c), list[Tensor]()
        for walk, noise in zip(walks, z.split(1, dim=1), strict=True):
            velocity = started.next(drawn[-1] if drawn else None)
            drawn.append(walk(_of_vectors(velocity, len(c), c.device), noise))
        return torch.cat(drawn, dim=1)


def _of_vectors(velocity: BoundNetwork, n: int, device: torch.device) -> SetVelocity:
    """v(u [N, 1], t) of one element, as that of N sets of one number: t a scalar or one a set [N]."""
    narrow = velocity.of if isinstance(velocity, Narrowable) else None
    return SetVelocity(
        lambda u, t: velocity(u, t if t.ndim == 0 else t[:, None]),
        torch.ones(n, dtype=torch.int64, device=device),
        None if narrow is None else lambda sets: _of_vectors(narrow(sets), len(sets), device),
    )


def walks_of(solver: Solver | Sequence[Solver], steps: int | Sequence[int], length: int) -> list[Walk]:
    """The way from noise to data of each of `length` elements, from one solver and number of steps or as many.

    Raises:
        ValueError: for another number of solvers or steps; see `transport` for the rest.
    """
    one = isinstance(solver, str) or not isinstance(solver, Sequence)
    solvers = cast(list[Solver], [solver] * length if one else list(cast(Sequence[Solver], solver)))
    numbers = [steps] * length if isinstance(steps, int) else list(steps)
    if len(solvers) != length or len(numbers) != length:
        raise ValueError(
            f"{length} elements need one or {length} solvers and steps, not {len(solvers)}, {len(numbers)}"
        )
    return [transport(solver, n) for solver, n in zip(solvers, numbers, strict=True)]
