"""TokenDraft: the hidden row of a token further on, guessed from that before it and the token in between.

In the manner of multi-token prediction (arXiv:2404.19737; in sequence as in arXiv:2412.19437, sec. 2.2), but without
attention: a guess must cost little beside the network, and need not be good for what is drawn to be right.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calogen.networks.stored_linear import StoredLinear


class TokenDraft(nn.Module):
    """h' = h + W₂ silu(W₁ [rms(h), rms(e)]); at first h' = h.

    Args:
        width: d.
        hidden: width of the MLP; None: d.
    """

    def __init__(self, width: int, hidden: int | None = None) -> None:
        super().__init__()
        self.norm_row = nn.RMSNorm(width)
        self.norm_token = nn.RMSNorm(width)
        self.widen = StoredLinear(2 * width, hidden or width)
        self.narrow = StoredLinear(hidden or width, width)
        nn.init.zeros_(self.narrow.weight)
        nn.init.zeros_(self.narrow.bias)

    def forward(self, h: Tensor, token: Tensor) -> Tensor:
        """Rows h [R, d] of what comes before, the embedded tokens they led to [R, d] -> rows [R, d]."""
        both = torch.cat([self.norm_row(h), self.norm_token(token)], dim=1)
        out: Tensor = h + self.narrow(F.silu(self.widen(both)))
        return out
