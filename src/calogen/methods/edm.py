"""EDM: diffusion with Karras et al.'s preconditioning (arXiv:2206.00364), on packed sets of points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from calogen.methods.bespoke import Solver, Walk, transport
from calogen.methods.conditional import (
    Condition,
    Conditional,
    Network,
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
from calogen.methods.edm_weighting import MonotoneWeight
from calogen.methods.solvers import Denoiser, SetVelocity, heun_edm, sigma_karras


class Scalings(NamedTuple):
    """D(x, σ) = c_skip x + c_out F(c_in x, c_noise)."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor


def edm_scalings(sigma: Tensor, sigma_data: Tensor) -> Scalings:
    """Table 1 of EDM:  c_skip = σd²/(σ²+σd²),  c_out = σ σd/√(σ²+σd²),  c_in = 1/√(σ²+σd²)."""
    norm = sigma**2 + sigma_data**2
    return Scalings(sigma_data**2 / norm, sigma * sigma_data / norm.sqrt(), norm.rsqrt())


def boundary_scalings(sigma: Tensor, sigma_data: Tensor, sigma_min: float) -> Scalings:
    """EDM's scalings shifted so that D(x, σ_min) = x (consistency models, arXiv:2303.01469, eq. 25)."""
    past = sigma - sigma_min
    norm = sigma**2 + sigma_data**2
    return Scalings(sigma_data**2 / (past**2 + sigma_data**2), past * sigma_data / norm.sqrt(), norm.rsqrt())


def c_noise(sigma: Tensor) -> Tensor:
    """How the network is told the noise level: ln σ / 4 (table 1 of EDM)."""
    return sigma.log() / 4


def precondition(
    network: Network, scalings: Scalings, x: Tensor, sigma: Tensor, c: Condition, counts: Tensor
) -> Tensor:
    """D(x, σ | c) from the network F; `scalings` broadcast to the points [P, F], sigma is [N] or a scalar."""
    F = network(scalings.c_in * x, c_noise(sigma).expand(len(c)), c, counts)
    return torch.addcmul(scalings.c_skip * x, scalings.c_out, F)


class EDM(Conditional):
    """A denoiser D(x, σ | c) = c_skip x + c_out F(c_in x; ln σ/4, c), trained at ln σ ~ N(p_mean, p_std²).

    Args:
        network: F, see `Network`; registered as a submodule.
        features: F, length of a point.
        sigma_data: standard deviation of the data, one number or one a feature; a buffer of the state.
        p_mean, p_std: of ln σ in training (EDM table 1: -1.2, 1.2).
        sigma_min, sigma_max, rho: noise levels of sampling (EDM table 1: 0.002, 80, 7).
        stratified: draw the σ of a batch in equal slices of probability, instead of independently: the
            loss of a batch then varies less. Each σ alone keeps its distribution.
        weighting: of the loss over σ: `edm`'s own, or made `monotonic` (see `MonotoneWeight`).
    """

    sigma_data: Tensor

    def __init__(
        self,
        network: nn.Module,
        features: int = 4,
        *,
        sigma_data: float | Sequence[float] = 0.5,
        p_mean: float = -1.2,
        p_std: float = 1.2,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        rho: float = 7.0,
        stratified: bool = False,
        weighting: Literal["edm", "monotonic"] = "edm",
    ) -> None:
        super().__init__()
        if weighting not in ("edm", "monotonic"):
            raise ValueError(f"unknown weighting {weighting!r}; known are 'edm' and 'monotonic'")
        self.network = network
        self.features = features
        self.register_buffer("sigma_data", torch.as_tensor(sigma_data, dtype=torch.float32).expand(features).clone())
        self.p_mean, self.p_std = p_mean, p_std
        self.sigma_min, self.sigma_max, self.rho = sigma_min, sigma_max, rho
        self.stratified = stratified
        self.weighting = weighting

    def denoise(self, x: Tensor, sigma: Tensor, c: Condition, counts: Tensor) -> Tensor:
        """D(x, σ | c): packed x [P, F], sigma [N] (one a set, or a scalar), c [N, C], counts [N] -> [P, F]."""
        return self.denoiser(c, counts)(x, sigma)

    def denoiser(self, c: Condition, counts: Tensor) -> Denoiser:
        """D(x, σ) for conditions c [N, C] and counts [N]; what the network makes of these alone is made once."""
        network = bound(self.network, c, counts)

        def D(x: Tensor, sigma: Tensor) -> Tensor:
            scalings = edm_scalings(per_point(sigma, counts), self.sigma_data)
            return precondition(lambda y, t, c, counts: network(y, t), scalings, x, sigma, c, counts)

        return D

    def velocity(self, c: Condition, counts: Tensor) -> SetVelocity:
        """The same flow as dy/dt = v(y, t), from noise at t = 0 (σ_max) to data at t = 1 (σ = 0).

            y = x/√(σ²+σd²),    σ(t) = s tan(φ (1 - t)),    φ = arctan(σ_max/s),    s the geometric mean of σd

        y has unit variance at all t. Where all features have one σd, v(y, t) = φ F(y; ln σ/4, c): the network itself,
        without division by a σ that vanishes. Below σ_min the network is told σ_min, the least it has to know.

        Args:
            c: conditions [N, C].
            counts: points of each set [N]; v takes packed y [P, F] and t, a scalar or one a set [N].
        """
        network = bound(self.network, c, counts)
        s = self.sigma_data.log().mean().exp()
        angle = torch.atan(self.sigma_max / s)

        def v(y: Tensor, t: Tensor) -> Tensor:
            sigma = s * torch.tan(angle * (1 - t))
            F = network(y, c_noise(sigma.clamp(min=self.sigma_min)).expand(len(c)))
            at = per_point(sigma, counts)
            return angle * (self.sigma_data / s) * (s**2 + at**2) / (self.sigma_data**2 + at**2) * F

        return SetVelocity(v, counts, narrowing(self.velocity, c, counts))

    def draw_sigma(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Noise levels of training [n], ln σ ~ N(p_mean, p_std²)."""
        device = self.sigma_data.device
        if not self.stratified:
            return (self.p_mean + self.p_std * gaussian((n,), self.sigma_data, generator=generator)).exp()
        u = torch.rand(n, generator=generator).to(device)
        strata = torch.randperm(n, generator=generator).to(device)
        quantile = ((strata + u) / n).clamp(1e-6, 1 - 1e-6)  # float32 round-off must not reach 0 or 1
        return (self.p_mean + self.p_std * math.sqrt(2) * torch.erfinv(2 * quantile - 1)).exp()

    def loss(
        self, x: Tensor, c: Condition, mask: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Mean squared error of F against (x - c_skip x_σ)/c_out, over the points and features of each set [N].

        This is EDM's loss with its weight λ(σ) = 1/c_out², times `weight`. See `Conditional.loss` for the shapes.
        """
        x, counts = pack(x, mask, len(c))
        sigma = self.draw_sigma(len(c), generator)
        scalings = edm_scalings(per_point(sigma, counts), self.sigma_data)
        x_noisy = x + per_point(sigma, counts) * gaussian(tuple(x.shape), x, generator=generator)
        F = self.network(scalings.c_in * x_noisy, c_noise(sigma), c, counts)
        target = (x - scalings.c_skip * x_noisy) / scalings.c_out
        return mean_per_set((F - target) ** 2, counts) * self.weight(sigma)

    def weight(self, sigma: Tensor) -> Tensor:
        """Factors of the loss at noise levels [N]; 1 on average over those of training."""
        if self.weighting == "edm":
            return torch.ones_like(sigma)
        # |F - target|² is |ε - ε̂|² (σ² + σd²)/σd²: its mean over features is that of one σd² with their mean 1/σd².
        sigma_data = float((self.sigma_data**-2).mean()) ** -0.5
        return MonotoneWeight(self.p_mean, self.p_std, sigma_data)(sigma)

    @torch.no_grad()
    def sample(
        self,
        c: Condition,
        *,
        counts: Tensor | None = None,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
        steps: int = 18,
        solver: Solver | None = None,
        **options: Any,
    ) -> Tensor:
        """Draw packed points [P, F] by Heun's method on Karras' noise levels (EDM algorithm 1, no churn), or a solver.

        Args:
            c: conditions [N, C].
            counts: points to draw for each [N], sum P; None draws one.
            noise: standard normal numbers [P, F]; else they are drawn from `generator`.
            steps: noise levels; 2 steps - 1 evaluations of the network.
            solver: walks `velocity` instead: a name in `calogen.methods.bespoke.SOLVERS`, in equal steps of t unless
                it is adaptive, or a bespoke solver in its own.

        Raises:
            ValueError: for noise of another shape, or an unknown solver or option.
        """
        refuse_unknown(options, "counts, noise, generator, steps, solver")
        walk = None if solver is None else transport(solver, steps)
        counts = one_each(counts, c, self.sigma_data.device)
        x = self.sigma_max * gaussian((int(counts.sum()), self.features), self.sigma_data, noise, generator)
        sigmas = sigma_karras(steps, self.sigma_min, self.sigma_max, self.rho, self.sigma_data.device)
        for sets, points in in_groups(counts):
            if walk is None:
                x[points] = heun_edm(self.denoiser(c[sets], counts[sets]), x[points], sigmas)
            else:
                x[points] = self._walked(walk, x[points], c[sets], counts[sets])
        return x

    def _walked(self, walk: Walk, x: Tensor, c: Condition, counts: Tensor) -> Tensor:
        """x at σ = 0 from x at σ_max, by way of y."""
        y = x * (self.sigma_max**2 + self.sigma_data**2).rsqrt()
        return walk(self.velocity(c, counts), y) * self.sigma_data
