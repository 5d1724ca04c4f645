"""StoredLinear: a linear map whose weight may be kept in a coarser number format than its bias, input and output."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

M = TypeVar("M", bound=nn.Module)


class StoredLinear(nn.Linear):
    """y = W x + b. With W in bfloat16 the product is rounded to it, the sum with b is not."""

    def forward(self, x: Tensor) -> Tensor:
        """x [..., inputs] -> [..., outputs], in the number format of x unless autocast says otherwise."""
        if self.weight.dtype == x.dtype or torch.is_autocast_enabled(x.device.type):
            return super().forward(x)
        out = F.linear(x.to(self.weight.dtype), self.weight).to(x.dtype)
        return out if self.bias is None else out.add_(self.bias)


def stored(network: M, dtype: torch.dtype) -> M:
    """A copy of a network without gradients, its `StoredLinear` weights in another number format and all else as it is.

    A CPU that has products in bfloat16 reads half the memory for each weight, and for few rows that is all the time.
    """
    made = copy.deepcopy(network).requires_grad_(False)
    for part in made.modules():
        if isinstance(part, StoredLinear):
            part.weight = nn.Parameter(part.weight.to(dtype), requires_grad=False)  # a tied table stays as it is
    return made
