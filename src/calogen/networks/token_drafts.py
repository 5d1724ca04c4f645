"""TokenDrafts: hidden rows of the next tokens but one, but two, ..., guessed all at once from what the network knows.

In the manner of multi-token prediction (arXiv:2404.19737) and Medusa (arXiv:2401.10774): a guess must cost little
beside the network, and need not be good for what is drawn to be right.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calogen.networks.stored_linear import StoredLinear


class TokenDrafts(nn.Module):
    """h_j = h + W_j silu(W [rms(h), rms(e)]), j = 1 ... k; at first h_j = h.

    Args:
        width: d.
        number: k.
        hidden: width of the MLP; None: half of d.

    Raises:
        ValueError: no drafts.
    """

    def __init__(self, width: int, number: int, hidden: int | None = None) -> None:
        super().__init__()
        if number < 1:
            raise ValueError(f"{number} drafts: give 1 or more")
        self.number = number
        self.norm_row = nn.RMSNorm(width)
        self.norm_token = nn.RMSNorm(width)
        hidden = hidden or max(width // 2, 1)
        self.widen = StoredLinear(2 * width, hidden)
        self.narrow = StoredLinear(hidden, number * width)
        nn.init.zeros_(self.narrow.weight)
        nn.init.zeros_(self.narrow.bias)

    def forward(self, h: Tensor, token: Tensor) -> Tensor:
        """The network's rows h [R, d], the embedded tokens they led to [R, d] -> rows of the next k [R, k, d]."""
        both = torch.cat([self.norm_row(h), self.norm_token(token)], dim=1)
        return h[:, None] + self.narrow(F.silu(self.widen(both))).unflatten(1, (self.number, -1))
