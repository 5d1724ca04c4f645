"""Logits by name, with the variant of CaloDREAM's code, and means and standard deviations gathered in batches."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from calogen.transforms import Logit, Standardize, Transform, finite


class ClampedLogit(Transform):
    """y = ln(x / (1 - x)) for x in [0, 1] clamped to [alpha, 1 - alpha]; what was clamped comes back as 0 or 1.

    What the published code of CaloDREAM does unless told to rescale (and without the ends on the way back).

    Args:
        alpha: 0 < alpha < 1/2.
    """

    def __init__(self, alpha: float = 1e-6) -> None:
        super().__init__()
        if not 0 < alpha < 0.5:
            raise ValueError(f"alpha must be between 0 and 0.5, is {alpha}")
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        if not bool(((x >= 0) & (x <= 1)).all()):
            raise ValueError(f"logit needs values in [0, 1], got {float(x.min()):g} to {float(x.max()):g}")
        low, high = (part.clamp(self.alpha, 1 - self.alpha) for part in (x, 1 - x))  # keeps the digits of 1 - x
        return low.log() - high.log()

    def inverse(self, y: Tensor) -> Tensor:
        low, high, end = torch.sigmoid(finite(y)), torch.sigmoid(-y), self.alpha * (1 + ROUND_OFF)
        return torch.where(low <= end, 0.0, torch.where(high <= end, 1.0, low))


ROUND_OFF = 1e-3
"""Of alpha: how far from its end a logit may come back from single precision (13.8, standardised and back: 1e-5)."""

LOGITS: Mapping[str, type[Logit | ClampedLogit]] = MappingProxyType({"regularised": Logit, "clamped": ClampedLogit})
"""Eq. 3 of the paper, (1 - 2 alpha) x + alpha inside the logit, and the variant of the code."""


class Moments:
    """Mean and standard deviation of D numbers, from batches (Chan et al., 1979), in double precision."""

    def __init__(self, dim: int) -> None:
        self.n = 0
        self.mean = torch.zeros(dim, dtype=torch.float64)
        self.squares = torch.zeros(dim, dtype=torch.float64)

    def add(self, x: Tensor) -> None:
        """Rows x [N, D]."""
        if len(x) == 0:
            return
        x = x.double()
        mean = x.mean(0)
        apart = mean - self.mean.to(mean)
        n = self.n + len(x)
        self.squares = self.squares.to(mean) + ((x - mean) ** 2).sum(0) + apart**2 * (self.n * len(x) / n)
        self.mean, self.n = self.mean.to(mean) + apart * (len(x) / n), n

    def store(self, into: Standardize) -> None:
        """Set the numbers of `into`; what does not vary is only shifted.

        Raises:
            ValueError: fewer than two rows.
        """
        if self.n < 2:
            raise ValueError(f"deviations need two showers or more, got {self.n} (besides those held out)")
        spread = (self.squares / (self.n - 1)).sqrt()
        into.shift.copy_(self.mean)
        into.scale.copy_(torch.where(spread > LEAST_SPREAD, spread, 1.0) / into.std)


LEAST_SPREAD = 1e-6
"""Of logits, below which a number counts as constant: what is left is round-off."""
