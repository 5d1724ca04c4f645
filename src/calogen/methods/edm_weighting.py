"""Monotone weighting of EDM's loss: "EDM-monotonic" of Kingma & Gao (arXiv:2303.00848), used by CaloHadronic.

With λ = -2 ln σ, the logarithm of the signal-to-noise ratio, every loss of diffusion is ∫ w(λ) |ε - ε̂|² dλ. EDM's, the
mean squared error of F with ln σ ~ N(p_mean, p_std²), has the weight

    w(λ) = p(λ) (e^{-λ} + σ_data²),    p = N(-2 p_mean, (2 p_std)²),

that rises and falls. A weight that never rises with λ makes the loss a bound on the likelihood of data to which
noise was added (their theorem 1). EDM-monotonic is w(λ) with its maximum held for all lower λ, which is more noise.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

GRID = 4001
"""Values of λ among which the maximum is found; w is flat there, and known to a few in ten million."""


class MonotoneWeight:
    """The factor on EDM's loss that makes its weight monotone; 1 on average over the σ of training.

    Args:
        p_mean, p_std: of ln σ in training.
        sigma_data: standard deviation of the data.

    Raises:
        ValueError: if the weight has two maxima (p_std far above EDM's), for it would not become monotone.

    >>> factor = MonotoneWeight(p_mean=-1.2, p_std=1.2, sigma_data=0.5)
    >>> (factor(torch.tensor([0.01, 0.1, 1.0, 10.0, 40.0])) * factor.mean).tolist()
    [1.0, 1.0, 1.0, ...]
    """

    def __init__(self, p_mean: float, p_std: float, sigma_data: float) -> None:
        self.p_mean, self.p_std, self.sigma_data = p_mean, p_std, sigma_data
        centre, variance = -2 * p_mean, (2 * p_std) ** 2
        # d ln w/dλ = (centre - λ)/variance - 1/(1 + σ_data² e^λ) vanishes between these two only.
        grid = torch.linspace(centre - variance, centre, GRID, dtype=torch.float64)
        log_w = self.log_weight(grid)
        top = int(log_w.argmax())
        if bool((log_w[top:].diff() > 0).any()):
            raise ValueError(
                f"EDM's weight with p_mean={p_mean:g}, p_std={p_std:g}, sigma_data={sigma_data:g} has two maxima; "
                "lower p_std"
            )
        self.turn = float(grid[top])  # λ of the maximum
        # The mean of w(max(λ, turn))/w(λ): 1 above the turn; below, ∫ p/w dλ = ∫ dλ/(e^{-λ} + σ_data²).
        above = 0.5 * math.erfc((self.turn - centre) / math.sqrt(2 * variance))
        below = math.log1p(sigma_data**2 * math.exp(self.turn)) / sigma_data**2
        self.mean = above + float(log_w[top].exp()) / math.sqrt(2 * math.pi * variance) * below

    def log_weight(self, log_snr: Tensor) -> Tensor:
        """ln w(λ) as EDM has it, without the constant of p."""
        spread = torch.logaddexp(-log_snr, torch.full_like(log_snr, 2 * math.log(self.sigma_data)))
        return spread - (log_snr + 2 * self.p_mean) ** 2 / (8 * self.p_std**2)

    def __call__(self, sigma: Tensor) -> Tensor:
        """Factors [N] for noise levels σ [N]."""
        log_snr = -2 * sigma.log()
        return (self.log_weight(log_snr.clamp(min=self.turn)) - self.log_weight(log_snr)).exp() / self.mean
