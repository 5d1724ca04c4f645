"""Consistency models (Song et al., arXiv:2303.01469): one evaluation takes noise to data; taught by an EDM."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from calogen.methods.conditional import (
    Condition,
    Conditional,
    gaussian,
    in_groups,
    mean_per_set,
    one_each,
    pack,
    per_point,
    refuse_unknown,
)
from calogen.methods.edm import EDM, boundary_scalings, precondition
from calogen.methods.solvers import edm_heun_step, sigma_karras


class ConsistencyModel(nn.Module):
    """f(x, σ | c) = c_skip x + c_out F(c_in x; ln σ/4, c) with f(x, σ_min) = x: every noisy x to its clean end.

    Args:
        network: F, see `calogen.methods.edm.Network`; registered as a submodule.
        features: length of a point.
        sigma_data, sigma_min, sigma_max: as in `EDM`.
    """

    sigma_data: Tensor

    def __init__(
        self,
        network: nn.Module,
        features: int = 4,
        *,
        sigma_data: float | Sequence[float] = 0.5,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
    ) -> None:
        super().__init__()
        self.network = network
        self.features = features
        self.register_buffer("sigma_data", torch.as_tensor(sigma_data, dtype=torch.float32).expand(features).clone())
        self.sigma_min, self.sigma_max = sigma_min, sigma_max

    def forward(self, x: Tensor, sigma: Tensor, c: Condition, counts: Tensor) -> Tensor:
        """f(x, σ | c): packed x [P, F], sigma [N] (one a set, or a scalar), c [N, C], counts [N] -> [P, F]."""
        scalings = boundary_scalings(per_point(sigma, counts), self.sigma_data, self.sigma_min)
        return precondition(self.network, scalings, x, sigma, c, counts)

    @torch.no_grad()
    def sample(
        self,
        c: Condition,
        *,
        counts: Tensor | None = None,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
        sigmas: Sequence[float] | None = None,
        **options: Any,
    ) -> Tensor:
        """Draw packed points [P, F]: x = f(σ_max z, σ_max), then for each further σ add noise and apply f again.

        Algorithm 1 of the paper:  x <- f(x + √(σ² - σ_min²) z, σ).

        Args:
            c: conditions [N, C].
            counts: points to draw for each [N], sum P; None draws one.
            noise: standard normal numbers [P, F], or [len(sigmas), P, F] for several steps; else they are
                drawn from `generator`.
            sigmas: falling noise levels, the first is sigma_max; None is one step.

        Raises:
            ValueError: for noise of another shape, σ outside of [σ_min, σ_max], or an unknown option.
        """
        refuse_unknown(options, "counts, noise, generator, sigmas")
        counts = one_each(counts, c, self.sigma_data.device)
        levels = self._levels(sigmas)
        shape = (len(levels), int(counts.sum()), self.features)
        if noise is not None and noise.ndim == 2:
            noise = noise[None]
        z = gaussian(shape, self.sigma_data, noise, generator)
        x = levels[0] * z[0]
        for sets, points in in_groups(counts):
            x[points] = self._from_noise(x[points], levels, z[:, points], c[sets], counts[sets])
        return x

    def _from_noise(self, x: Tensor, levels: list[float], z: Tensor, c: Condition, counts: Tensor) -> Tensor:
        """From x at the first level to data; z [len(levels), P, F] is what is added at the others."""
        for k, sigma in enumerate(levels):
            if k > 0:
                x = x + (sigma**2 - self.sigma_min**2) ** 0.5 * z[k]
            x = self(x, self.sigma_data.new_tensor(sigma), c, counts)
        return x

    def _levels(self, sigmas: Sequence[float] | None) -> list[float]:
        levels = [self.sigma_max] if sigmas is None else [float(sigma) for sigma in sigmas]
        inside = all(self.sigma_min <= sigma <= self.sigma_max for sigma in levels)
        if not levels or not inside or levels != sorted(levels, reverse=True):
            raise ValueError(f"sigmas must fall within {self.sigma_max} to {self.sigma_min}, not {levels}")
        return levels


class ConsistencyDistillation(Conditional):
    """Learn a consistency model from a trained EDM teacher (algorithm 2 of the paper).

        loss = | student(x + t z, t) - target(x̂, t') |²,   x̂ = one Heun step of the teacher from t to t'

    with t > t' neighbours on Karras' grid of `steps` levels, drawn once a set. The target is a moving average of the
    student, moved by `after_step`, which the training loop calls after each optimizer step. Teacher and target
    are part of the state but need no gradient, so an optimizer over the parameters that require one sees
    the student alone. The target is what samples.

    Args:
        teacher: a trained EDM; a frozen copy is kept.
        steps: levels of the grid (CaloClouds3: 20, from the published checkpoint).
        target_decay: of the target's moving average (CaloClouds3: 0.95).
        huber: c of the pseudo-Huber metric √(d² + c²) - c (arXiv:2310.14189, eq. 8), d the root mean square
            distance of the points of a set; 0 takes d² as CaloClouds3 does.
    """

    def __init__(self, teacher: EDM, *, steps: int = 20, target_decay: float = 0.95, huber: float = 0.0) -> None:
        super().__init__()
        if steps < 2 or not 0 <= target_decay < 1 or huber < 0:
            raise ValueError(
                f"distillation needs steps >= 2, 0 <= target_decay < 1, huber >= 0, "
                f"not {steps}, {target_decay}, {huber}"
            )
        self.teacher = copy.deepcopy(teacher).requires_grad_(False)
        self.student = _same_network(teacher)
        self.target = _same_network(teacher).requires_grad_(False)
        self.steps, self.target_decay, self.huber = steps, target_decay, huber

    def loss(
        self, x: Tensor, c: Condition, mask: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Distance of student and target for each set [N]; see `Conditional.loss` for the shapes."""
        x, counts = pack(x, mask, len(c))
        sigma, sigma_next = self._neighbours(len(c), generator)
        x_t = x + per_point(sigma, counts) * gaussian(tuple(x.shape), x, generator=generator)
        with torch.no_grad():
            x_next = edm_heun_step(
                lambda y, s: self.teacher.denoise(y, s, c, counts),
                x_t,
                sigma,
                sigma_next,
                spread=lambda s: per_point(s, counts),
            )
            goal = self.target(x_next, sigma_next, c, counts)
        d2 = mean_per_set((self.student(x_t, sigma, c, counts) - goal) ** 2, counts)
        return (d2 + self.huber**2).sqrt() - self.huber if self.huber > 0 else d2

    def _neighbours(self, n: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Two neighbouring levels t > t' for each of n sets, every interval equally likely."""
        teacher = self.teacher
        device = teacher.sigma_data.device
        levels = sigma_karras(self.steps, teacher.sigma_min, teacher.sigma_max, teacher.rho, device)[:-1]
        k = torch.randint(self.steps - 1, (n,), generator=generator).to(device)
        return levels[k], levels[k + 1]

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the target towards the student: target <- decay · target + (1 - decay) · student."""
        for target, student in zip(self.target.parameters(), self.student.parameters(), strict=True):
            target.lerp_(student, 1 - self.target_decay)

    def sample(
        self,
        c: Condition,
        *,
        counts: Tensor | None = None,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> Tensor:
        """Draw from the target; see `ConsistencyModel.sample`."""
        return self.target.sample(c, counts=counts, noise=noise, generator=generator, **options)


def _same_network(teacher: EDM) -> ConsistencyModel:
    """A consistency model that starts from a copy of the teacher's network, which may train."""
    network = copy.deepcopy(teacher.network).requires_grad_(True)
    return ConsistencyModel(
        network,
        teacher.features,
        sigma_data=teacher.sigma_data.tolist(),
        sigma_min=teacher.sigma_min,
        sigma_max=teacher.sigma_max,
    )
