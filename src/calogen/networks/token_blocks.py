"""Blocks of a token transformer: post-norm with ReLU as published with OmniJet, and pre-norm with SwiGLU, steered.

A block sees rows [P, d]: the tokens of whole sequences, or the next one of each.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from calogen.networks.stored_linear import StoredLinear
from calogen.networks.token_attention import Attend, TokenAttention

STEERS = 4
"""What a condition steers in a block: scale and shift of the attention's input, and of the MLP's."""


class PostNormBlock(nn.Module):
    """h = LN(h + attention(h));  h = LN(h + W₂ relu(W₁ h)).

    Args:
        width: d.
        heads: of attention.
        feedforward: hidden width of the MLP.
        rotary: see `TokenAttention`.
    """

    def __init__(self, width: int, heads: int, feedforward: int, *, rotary: bool = False) -> None:
        super().__init__()
        self.attention = TokenAttention(width, heads, rotary=rotary)
        self.norm_attention = nn.LayerNorm(width)
        self.widen = StoredLinear(width, feedforward)
        self.narrow = StoredLinear(feedforward, width)
        self.norm_feedforward = nn.LayerNorm(width)

    def steers(self, e: Tensor) -> Tensor | None:
        """An embedded condition [N, d] has no say here."""
        return None

    def forward(self, h: Tensor, attend: Attend, block: int, steers: Tensor | None = None) -> Tensor:
        """Rows h [P, d] -> [P, d]."""
        h = self.norm_attention(h + self.attention(h, attend, block))
        out: Tensor = self.norm_feedforward(h + self.narrow(F.relu(self.widen(h))))
        return out


class PreNormBlock(nn.Module):
    """h += attention(N₁(h));  h += W₃ (silu(W₁ N₂(h)) ⊙ W₂ N₂(h)): RMS norms and SwiGLU (arXiv:2002.05202).

    With a condition N(h) = rms(h) ⊙ (1 + scale(e)) + shift(e), whose map starts at zero (arXiv:2212.09748).

    Args:
        width: d.
        heads: of attention.
        feedforward: hidden width of the MLP.
        rotary: see `TokenAttention`.
        steered: whether there is a condition.
    """

    def __init__(
        self, width: int, heads: int, feedforward: int, *, rotary: bool = False, steered: bool = False
    ) -> None:
        super().__init__()
        self.norm_attention = nn.RMSNorm(width, eps=EPSILON)
        self.attention = TokenAttention(width, heads, rotary=rotary)
        self.norm_feedforward = nn.RMSNorm(width, eps=EPSILON)
        self.widen = StoredLinear(width, 2 * feedforward, bias=False)
        self.narrow = StoredLinear(feedforward, width, bias=False)
        self.steer = StoredLinear(width, STEERS * width) if steered else None
        if self.steer is not None:
            nn.init.zeros_(self.steer.weight)
            nn.init.zeros_(self.steer.bias)

    def steers(self, e: Tensor) -> Tensor | None:
        """What embedded conditions e [N, d] make of the block [N, 4, d]: scale, shift, twice; None if not steered."""
        return None if self.steer is None else self.steer(e).unflatten(1, (STEERS, -1))

    def forward(self, h: Tensor, attend: Attend, block: int, steers: Tensor | None = None) -> Tensor:
        """Rows h [P, d] -> [P, d], with the `steers` of each row's sequence [P, 4, d] if the block is steered."""
        of_attention, of_mlp = (None, None) if steers is None else steers.split(STEERS // 2, dim=1)
        h = h + self.attention(_steered(self.norm_attention(h), of_attention), attend, block)
        gate, value = self.widen(_steered(self.norm_feedforward(h), of_mlp)).chunk(2, dim=1)
        out: Tensor = h + self.narrow(F.silu(gate) * value)
        return out


EPSILON = 1e-6
"""Added to the mean square of an RMS norm."""


def _steered(h: Tensor, by: Tensor | None) -> Tensor:
    """h [P, d] ⊙ (1 + scale) + shift, both in `by` [P, 2, d]."""
    return h if by is None else h * (1 + by[:, 0]) + by[:, 1]
