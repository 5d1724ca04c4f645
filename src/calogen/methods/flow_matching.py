"""Flow matching: a velocity field that carries noise to data along straight lines (Lipman et al., arXiv:2210.02747).

Time runs as everywhere in calogen, from noise at t = 0 to data at t = 1. A network that was trained with its time the
other way, as AllShowers and its point counts are, comes in through `FromData`.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from calogen.methods.bespoke import Solver, transport
from calogen.methods.conditional import (
    BoundNetwork,
    Condition,
    Conditional,
    bound,
    gaussian,
    in_groups,
    mean_per_set,
    narrowing,
    one_each,
    pack,
    per_point,
    refuse_unknown,
)
from calogen.methods.solvers import SetVelocity

SIGMA_MIN = 1e-4
"""Width of the noise that is left at t = 1 (the published value of AllShowers and PointCountFM)."""

OPTIONS = "counts, noise, generator, steps, solver"


class FromData(nn.Module):
    """A network trained for the velocity dx/dτ of time τ = 1 - t, which is 0 at data: v(x, t) = -network(x, 1 - t)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def bind(self, c: Condition, counts: Tensor) -> BoundNetwork:
        """See `calogen.methods.conditional.Bindable`."""
        network = bound(self.network, c, counts)
        return lambda x, t: -network(x, 1 - t)

    def forward(self, x: Tensor, t: Tensor, c: Condition, counts: Tensor) -> Tensor:
        """See `calogen.methods.conditional.Network`."""
        return self.bind(c, counts)(x, t)


class FlowMatching(Conditional):
    """Conditional flow matching with the optimal-transport path of arXiv:2210.02747, eq. 20-23.

        x_t = t x + (1 - (1 - σ_min) t) z,    v(x_t, t | c) ≈ dx_t/dt = x - (1 - σ_min) z,    z ~ N(0, 1)

    Args:
        network: v, see `calogen.methods.conditional.Network`; registered as a submodule.
        features: F, length of a point (or of a vector, if a set is a single one).
        sigma_min: σ_min.
        stratified: draw the t of a batch in equal slices of [0, 1], in random order, instead of independently: the
            loss of a batch then varies less. Each t alone keeps its uniform distribution.
        base: what the network adds to, base(x, t, sigma_min) -> velocity for vectors x [N, F] and t [N], for instance
            `BetweenNormals`; registered as a submodule.
        weights: [F] of the features in the loss; the optimum is the same whatever positive numbers they are. Without,
            all count alike.
    """

    weights: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        features: int,
        *,
        sigma_min: float = SIGMA_MIN,
        stratified: bool = False,
        base: nn.Module | None = None,
        weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= sigma_min < 1:
            raise ValueError(f"sigma_min must lie in [0, 1), not {sigma_min}")
        self.network = network
        self.features = features
        self.sigma_min = sigma_min
        self.stratified = stratified
        self.base = base
        self.register_buffer("weights", weights, persistent=False)

    def velocity(self, c: Condition, counts: Tensor) -> SetVelocity:
        """v(x, t) for conditions c [N, C] and counts [N]: packed x [P, F], t a scalar or one a set [N] -> [P, F]."""
        network = bound(self.network, c, counts)
        schedule = getattr(network, "schedule", None)

        def v(x: Tensor, t: Tensor) -> Tensor:
            t = t.expand(len(c))
            out: Tensor = network(x, t)
            return out if self.base is None else out + self.base(x, t, self.sigma_min)

        return SetVelocity(v, counts, narrowing(self.velocity, c, counts), schedule)

    def draw_t(self, n: int, like: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Times of training [n], uniform in [0, 1)."""
        device = generator.device if generator is not None else like.device
        t = torch.rand(n, generator=generator, device=device)
        if self.stratified:
            t = (torch.randperm(n, generator=generator, device=device) + t) / max(n, 1)
        return t.to(like).clamp(max=1 - torch.finfo(like.dtype).eps / 2)  # rounding may reach 1

    def loss(
        self,
        x: Tensor,
        c: Condition,
        mask: Tensor | None = None,
        *,
        t: Tensor | None = None,
        noise: Tensor | None = None,
        edge: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Mean squared error of the velocity over the points and features of each set [N].

        Args:
            x, c, mask: see `Conditional.loss`.
            t: times [N]; None draws them.
            noise: z in the order of the packed points [P, F], for instance matched to x; None draws it.
            edge: [P, F]: features of which is only known that they lie below this, NaN for those that are known.
                Their x must be drawn from the part of a standard normal distribution below it. The network learns their
                expected velocity instead of that of one random x; the optimum is the same.
            generator: the source of what is drawn.
        """
        x, counts = pack(x, mask, len(c))
        t = self.draw_t(len(c), x, generator) if t is None else t
        z = gaussian(tuple(x.shape), x, noise, generator)
        at = per_point(t, counts)
        shrink = 1 - self.sigma_min
        x_t = at * x + (1 - shrink * at) * z
        target = x - shrink * z
        if edge is not None:
            target = torch.where(edge.isnan(), target, velocity_below(edge, x_t, t, counts, self.sigma_min))
        error = self.velocity(c, counts)(x_t, t) - target
        return mean_per_set(error**2 if self.weights is None else self.weights * error**2, counts)

    @torch.no_grad()
    def sample(
        self,
        c: Condition,
        *,
        counts: Tensor | None = None,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
        steps: int = 16,
        solver: Solver = "midpoint",
        **options: Any,
    ) -> Tensor:
        """Draw packed points [P, F] in steps from t = 0 to t = 1.

        Args:
            c: conditions [N, C].
            counts: points to draw for each [N], sum P; None draws one.
            noise: standard normal numbers [P, F]; else they are drawn from `generator`.
            steps: of equal length (AllShowers: 16 of midpoint; its point counts: 200 of heun); an adaptive or bespoke
                solver has its own.
            solver: a name in `calogen.methods.bespoke.SOLVERS`, or a solver.

        Raises:
            ValueError: for noise of another shape, no steps, an unknown solver or option.
        """
        refuse_unknown(options, OPTIONS)
        walk = transport(solver, steps)
        like = next(self.parameters())
        counts = one_each(counts, c, like.device)
        x = gaussian((int(counts.sum()), self.features), like, noise, generator).clone()
        for sets, points in in_groups(counts):
            x[points] = walk(self.velocity(c[sets], counts[sets]), x[points])
        return x


class BetweenNormals(nn.Module):
    """The velocity from white noise to data of which every feature is standard normal, each alone: one vector a set.

    With x_t = t x + s z, s = 1 - (1 - σ_min) t, the expected x - (1 - σ_min) z given x_t is
    (t - (1 - σ_min) s) / (t² + s²) x_t. It ends where it began: its flow is the identity for σ_min = 0.
    """

    def forward(self, x: Tensor, t: Tensor, sigma_min: float = 0.0) -> Tensor:
        """x [N, F] at times t [N] -> expected velocity [N, F]."""
        shrink = 1 - sigma_min
        s = 1 - shrink * t
        return ((t - shrink * s) / (t**2 + s**2))[:, None] * x


def velocity_below(edge: Tensor, x_t: Tensor, t: Tensor, counts: Tensor, sigma_min: float) -> Tensor:
    """Expected x - (1 - σ_min) z [P, F], given x_t and that x, standard normal else, is below `edge`.

    x given x_t is normal, of mean t x_t / (t² + s²) and deviation s / √(t² + s²); cut at the edge its mean is lower by
    φ(β) / Φ(β) deviations, at β = (edge - mean) / deviation.
    """
    at = per_point(t, counts)
    s = 1 - (1 - sigma_min) * at
    length = (at**2 + s**2).sqrt()
    beta = (edge * length - at * x_t / length) / s
    lower = torch.exp(-0.5 * beta**2 - 0.5 * math.log(2 * math.pi) - torch.special.log_ndtr(beta))
    slope = (at - (1 - sigma_min) * s) / length**2
    return slope * x_t - lower / length


class OneStepFlow(Conditional):
    """A flow distilled to one evaluation: x = z + v(z, t = 0), taught by pairs of noise z and what a flow makes of it.

    The distilled form of PointCountFM. Training starts from the teacher's own network (`from_teacher`).
    """

    def __init__(self, network: nn.Module, features: int) -> None:
        super().__init__()
        self.network = network
        self.features = features

    @classmethod
    def from_teacher(cls, teacher: FlowMatching) -> OneStepFlow:
        """A student that starts from a copy of the teacher's network."""
        return cls(copy.deepcopy(teacher.network).requires_grad_(True), teacher.features)

    def forward(self, z: Tensor, c: Condition, counts: Tensor) -> Tensor:
        """Noise [P, F] -> x [P, F]."""
        return z + bound(self.network, c, counts)(z, z.new_zeros(len(c)))

    def loss(self, x: Tensor, c: Condition, mask: Tensor | None = None, *, noise: Tensor | None = None) -> Tensor:
        """Mean squared distance, over points and features of each set [N], to x [P, F] the teacher made of `noise`.

        Raises:
            ValueError: without the noise, or if its shape is not that of x.
        """
        if noise is None:
            raise ValueError("a distilled flow learns from pairs: give the noise from which the teacher made x")
        x, counts = pack(x, mask, len(c))
        z = gaussian(tuple(x.shape), x, noise)
        return mean_per_set((self(z, c, counts) - x) ** 2, counts)

    @torch.no_grad()
    def sample(
        self,
        c: Condition,
        *,
        counts: Tensor | None = None,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> Tensor:
        """Draw packed points [P, F] in one evaluation; see `FlowMatching.sample`."""
        refuse_unknown(options, "counts, noise, generator")
        like = next(self.parameters())
        counts = one_each(counts, c, like.device)
        z = gaussian((int(counts.sum()), self.features), like, noise, generator)
        parts = [self(z[points], c[sets], counts[sets]) for sets, points in in_groups(counts)]
        return torch.cat([z[:0], *parts])
