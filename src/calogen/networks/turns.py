"""Turns: when in its sequence a token or a point comes, as numbers that a network can tell apart."""

from __future__ import annotations

import math

import torch
from torch import Tensor

TURN_FEATURES = 4
"""Numbers that `turns` gives."""

LOG_SCALE = math.log(1000)
"""Logarithms of counts are in units of that of a usual shower's hits."""


def turns(i: Tensor, n: Tensor) -> Tensor:
    """When the i-th of n comes, from 0: t, t², and ln(i + 1) and ln(n) in units of `LOG_SCALE` [P, 4].

    t = (i + 1/2) / n; of nothing (n = 0) the end comes as that of one.

    Args:
        i: places [P].
        n: how many there are in the sequence of each [P].

    >>> turns(torch.tensor([0]), torch.tensor([2]))[0, :3].tolist()
    [0.25, 0.0625, 0.0]
    """
    n = n.clamp(min=1).float()
    t = (i.float() + 0.5) / n
    return torch.stack([t, t.square(), (i + 1).float().log() / LOG_SCALE, n.log() / LOG_SCALE], dim=1)
