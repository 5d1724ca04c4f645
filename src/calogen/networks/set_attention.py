"""Attention of packed sets: every point sees all points of its own set, or of its set's memory; no padding, no mask.

Sets go one after the other through torch's fused kernel, which never holds the scores of all pairs. A set is large
(1,000 points are a million pairs a head), so calling once a set costs nothing beside it, and there is nothing to
mask: no set can see another.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHUNK = 512
"""Points that widen and narrow together without gradient: 512 numbers of each take 1 MB and stay in an L2 cache."""


class SetAttention(nn.Module):
    """softmax(q kᵀ / √d_head) v of each set, with a linear map of the output.

    Args:
        width: d; the rows of the fused map are laid out as ([query, key, value], head, d / heads).
        heads: how many.
        dropout: probability for the weights of attention in training. Where it is not 0 torch's kernel on a CPU holds
            the scores of all pairs of a set.

    Raises:
        ValueError: if the width cannot be cut into the heads.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} cannot be cut into {heads} heads")
        self.heads, self.dropout = heads, dropout
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(
        self, h: Tensor, sizes: Sequence[int], memory: Tensor | None = None, memory_sizes: Sequence[int] = ()
    ) -> Tensor:
        """Points h [P, d] of sets of these sizes -> [P, d].

        Args:
            memory: [M, d], of sets of `memory_sizes`, what the points see instead of each other.
        """
        d, heads = h.shape[1], self.heads
        drop = self.dropout if self.training else 0.0
        if memory is None:
            parts = self.query_key_value(h).view(len(h), 3, heads, d // heads).split(sizes)
            seen = [_attend(*part.unbind(1), drop=drop) for part in parts]
        else:
            weight, bias = self.query_key_value.weight, self.query_key_value.bias
            queries = F.linear(h, weight[:d], bias[:d]).view(len(h), heads, d // heads).split(sizes)
            pairs = F.linear(memory, weight[d:], bias[d:]).view(len(memory), 2, heads, d // heads).split(memory_sizes)
            seen = [_attend(q, *pair.unbind(1), drop=drop) for q, pair in zip(queries, pairs, strict=True)]
        out: Tensor = self.output(torch.cat(seen).reshape(len(h), d) if seen else h)
        return out


def _attend(q: Tensor, k: Tensor, v: Tensor, *, drop: float) -> Tensor:
    """One set: q [n, H, d_head], k, v [m, H, d_head] -> [n, H, d_head]; weights are dropped with a probability."""
    if not len(q):
        return q
    q, k, v = (a.transpose(0, 1)[None] for a in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, dropout_p=drop)[0].transpose(0, 1)


class SetBlock(nn.Module):
    """A post-norm transformer block: attention within a set, optionally to a memory, then ReLU MLP.

        h = LN(h + attention(h))  [ h = LN(h + attention(h, memory)) ]  h = LN(h + W₂ relu(W₁ h))

    The layers of torch's nn.TransformerEncoderLayer (nn.TransformerDecoderLayer with a memory), without their padding.
    In training, dropout acts on what each part adds and inside the MLP; not on the weights of attention.

    Args:
        width: d.
        heads: of attention.
        feedforward: hidden width of the MLP.
        dropout: probability.
        memory: whether there is one.
    """

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float = 0.0, memory: bool = False) -> None:
        super().__init__()
        self.attention = SetAttention(width, heads)
        self.norm_attention = nn.LayerNorm(width)
        if memory:
            self.memory_attention = SetAttention(width, heads)
            self.norm_memory = nn.LayerNorm(width)
        self.widen = nn.Linear(width, feedforward)
        self.narrow = nn.Linear(feedforward, width)
        self.norm_feedforward = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, h: Tensor, sizes: Sequence[int], memory: Tensor | None = None, memory_sizes: Sequence[int] = ()
    ) -> Tensor:
        """h [P, d] of sets of these sizes, and if the block was built for it memory [M, d] of theirs -> [P, d]."""
        h = self.norm_attention(h + self.dropout(self.attention(h, sizes)))
        if memory is not None:
            h = self.norm_memory(h + self.dropout(self.memory_attention(h, sizes, memory, memory_sizes)))
        if torch.is_grad_enabled() or h.device.type != "cpu" or len(h) <= CHUNK:
            return self._feedforward(h)
        return torch.cat([self._feedforward(part) for part in h.split(CHUNK)])

    def _feedforward(self, h: Tensor) -> Tensor:
        inner = self.dropout(F.relu(self.widen(h)))
        out: Tensor = self.norm_feedforward(h + self.dropout(self.narrow(inner)))
        return out
