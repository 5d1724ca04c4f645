"""Steps that solve dx/dt = v(x, t), and the grids they walk.

**The time convention of flow matching, everywhere in calogen: t = 0 is noise, t = 1 is data.** A velocity field
moves noise to data for growing t, and `times` grow. (Papers that run the other way are translated where they
enter.) Diffusion in the manner of EDM is written in σ instead, which falls from `sigma_max` to 0.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]
"""v(x, t): x of any shape, t a scalar tensor -> dx/dt of the shape of x."""


@dataclass(frozen=True, eq=False)
class SetVelocity:
    """The velocity of N packed sets, x [P, F], at one time or at one a set [N], and what it is of."""

    v: Velocity
    counts: Tensor
    """points of each set [N], sum P"""
    narrow: Callable[[Tensor], SetVelocity] | None = None
    """the velocity of the sets of these numbers alone, where it can be had"""
    schedule: Callable[[Tensor], None] | None = None
    """takes the times [S] at which it will be asked for, where it is faster to know them beforehand"""

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """x [P, F], t a scalar or one a set [N] -> dx/dt [P, F]."""
        return self.v(x, t)


Step = Callable[[Velocity, Tensor, Tensor, Tensor], Tensor]
"""step(v, x, t, t_next) -> x at t_next."""

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""D(x, σ): noisy x of any shape, σ a scalar tensor -> the expected clean x."""


def sigma_karras(
    steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0, device: torch.device | None = None
) -> Tensor:
    """Noise levels [steps + 1] of Karras et al. (arXiv:2206.00364) eq. 5, falling from sigma_max, the last one 0.

        σ_i = (σ_max^{1/ρ} + i/(n-1) (σ_min^{1/ρ} - σ_max^{1/ρ}))^ρ,  i < n;  σ_n = 0

    Raises:
        ValueError: unless steps >= 1 and 0 < sigma_min < sigma_max.

    >>> sigma_karras(3, 1.0, 4.0, rho=1.0).tolist()
    [4.0, 2.5, 1.0, 0.0]
    """
    if steps < 1 or not 0 < sigma_min < sigma_max:
        raise ValueError(f"no noise levels with steps={steps}, sigma_min={sigma_min}, sigma_max={sigma_max}")
    ramp = torch.linspace(0, 1, steps, device=device)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return torch.cat([(high + ramp * (low - high)) ** rho, ramp.new_zeros(1)])


def _as_it_is(sigma: Tensor) -> Tensor:
    return sigma


def edm_heun_step(
    D: Denoiser, x: Tensor, sigma: Tensor, sigma_next: Tensor, spread: Callable[[Tensor], Tensor] = _as_it_is
) -> Tensor:
    """One step of EDM's algorithm 1 without churn: Heun on dx/dσ = (x - D(x, σ)) / σ; Euler where it ends at σ = 0.

    `spread` brings σ to a shape that broadcasts against x, when D takes it in another (one a set of points).
    """
    s, h = spread(sigma), spread(sigma_next - sigma)
    d = (x - D(x, sigma)) / s
    x_next = x + h * d
    if not bool((sigma_next > 0).all()):
        return x_next
    d_next = (x_next - D(x_next, sigma_next)) / spread(sigma_next)
    return x + h * (d + d_next) / 2


def heun_edm(D: Denoiser, x: Tensor, sigmas: Tensor) -> Tensor:
    """From x at sigmas[0] (noise of that size) to x at sigmas[-1]; 2n - 1 evaluations for n steps that end at 0."""
    for sigma, sigma_next in itertools.pairwise(sigmas):
        x = edm_heun_step(D, x, sigma, sigma_next)
    return x


def euler(v: Velocity, x: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
    """Order 1, one evaluation."""
    return x + (t_next - t) * v(x, t)


def midpoint(v: Velocity, x: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
    """Order 2, two evaluations: the slope of half way."""
    h = t_next - t
    return x + h * v(x + h / 2 * v(x, t), t + h / 2)


def heun(v: Velocity, x: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
    """Order 2, two evaluations: the mean of the slopes at both ends."""
    h = t_next - t
    k1 = v(x, t)
    return x + h / 2 * (k1 + v(x + h * k1, t_next))


def rk4(v: Velocity, x: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
    """Order 4, four evaluations: the classical Runge-Kutta step."""
    h = t_next - t
    k1 = v(x, t)
    k2 = v(x + h / 2 * k1, t + h / 2)
    k3 = v(x + h / 2 * k2, t + h / 2)
    k4 = v(x + h * k3, t_next)
    return x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def three_eighths(v: Velocity, x: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
    """Order 4, four evaluations: Kutta's 3/8 rule, which is what torchdiffeq calls rk4."""
    h = t_next - t
    k1 = v(x, t)
    k2 = v(x + h / 3 * k1, t + h / 3)
    k3 = v(x + h * (k2 - k1 / 3), t + 2 * h / 3)
    k4 = v(x + h * (k1 - k2 + k3), t_next)
    return x + h / 8 * (k1 + 3 * (k2 + k3) + k4)


STEPS: dict[str, Step] = {
    "euler": euler,
    "midpoint": midpoint,
    "heun": heun,
    "rk4": rk4,
    "three_eighths": three_eighths,
}


EVALUATIONS = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4, "three_eighths": 4}
"""Of the velocity in one step."""


def integrate(v: Velocity, x: Tensor, times: Tensor, step: Step = heun) -> Tensor:
    """From x at times[0] to x at times[-1], one step an interval.

    >>> times = torch.linspace(0, 1, 11)
    >>> float(integrate(lambda x, t: x, torch.ones(()), times, rk4))  # e
    2.71827...
    """
    for t, t_next in itertools.pairwise(times):
        x = step(v, x, t, t_next)
    return x
