"""How many: p(n | c) of whole numbers n >= 0, a mixture of logistic distributions of ln n in bins of whole numbers.

    P(N <= n | c) = sum_k w_k(c) sigma((y(n) - mu_k(c)) / s_k(c)),  y(n) = (ln(n + 1/2) - shift) / scale

Discretised logistic mixtures: Salimans et al., arXiv:1701.05517, sec. 2.1, here of the logarithm, as showers of higher
energy have more hits and these scatter more.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

COMPONENTS = 3
"""Of the mixture."""

HIDDEN = 32
"""Width of the network's hidden layer."""

LEAST_SCALE = 1e-3
"""Of a component, in units of the spread of all counts' logarithms: narrower than counts of showers ever are."""


class CountMixture(nn.Module):
    """p(n | c), learned from pairs (n, c).

    Args:
        condition: C; 0: one distribution for all.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, condition: int) -> None:
        super().__init__()
        self.condition = condition
        outputs = 3 * COMPONENTS
        self.network = nn.Sequential(nn.Linear(condition, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, outputs))
        self.register_buffer("shift", torch.tensor(0.0, dtype=torch.float64))
        self.register_buffer("scale", torch.tensor(1.0, dtype=torch.float64))

    def standardise(self, n: Tensor) -> None:
        """Let the distribution begin where these counts [N] are.

        Raises:
            ValueError: no counts.
        """
        if not len(n):
            raise ValueError("counts are learned from showers; there are none")
        y = (n.double() + 0.5).log()
        self.shift.copy_(y.mean())
        self.scale.copy_(y.std(correction=0).clamp(min=LEAST_SCALE))

    def loss(self, n: Tensor, c: Tensor) -> Tensor:
        """-log p(n | c) [N], nats, of counts n [N] with conditions c [N, C]."""
        log_weight, mean, width = self._components(c)
        above = (self._place(n)[:, None] - mean) / width
        below = (self._place(n - 1)[:, None] - mean) / width
        # sigma(a) - sigma(b) = sigma(a) sigma(-b) (1 - exp(b - a)); of n = 0, b is -infinity.
        first = (n == 0)[:, None]
        gap = torch.where(first, 1.0, above - below)
        inside = F.logsigmoid(-below) + torch.log(-torch.expm1(-gap))
        each = F.logsigmoid(above) + torch.where(first, 0.0, inside)
        return -torch.logsumexp(log_weight + each, dim=1)

    def draw(self, c: Tensor, u: Tensor) -> Tensor:
        """Counts [N] int64 by uniform numbers u [N, 2] in [0, 1): of the component, and within it."""
        log_weight, mean, width = self._components(c)
        chosen = (log_weight.exp().cumsum(1) <= u[:, :1].to(mean)).sum(1).clamp(max=COMPONENTS - 1)
        pick = torch.arange(len(c), device=c.device), chosen
        y = mean[pick] + width[pick] * torch.logit(u[:, 1].to(mean), eps=EDGE)
        # The smallest n with P(N <= n) >= u: ln(n + 1/2) >= y.
        return ((y * self.scale + self.shift).exp() - 0.5).ceil().clamp(min=0).long()

    def _components(self, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """ln w, mu, s [N, K] each, float64."""
        weight, mean, width = self.network(c).double().chunk(3, dim=1)
        return weight.log_softmax(1), mean, F.softplus(width) + LEAST_SCALE

    def _place(self, n: Tensor) -> Tensor:
        return ((n.double().clamp(min=0) + 0.5).log() - self.shift) / self.scale


EDGE = 1e-12
"""How near 0 and 1 a uniform number counts as this: a logistic number is within 28 widths."""
