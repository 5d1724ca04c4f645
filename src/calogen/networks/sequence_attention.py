"""Transformer blocks for sequences of equal length: an encoder's, and a decoder's that also runs token by token.

The layers of torch's nn.Transformer (post-norm, ReLU, batch first, no dropout) with the same parameters, but a decoder
keeps the keys and values of the tokens it has seen, and what it is given is prepared once for all of its tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Look = Callable[[Tensor], Tensor]
"""Attention to a memory that is given already: h [N, L, d] -> [N, L, d], or [N, 1, d] if it is the same for all L."""


class Cache:
    """Keys and values of the tokens of N sequences so far. Not a module: it lives as long as a batch.

    Args:
        length: tokens it has room for.
    """

    def __init__(self, length: int) -> None:
        self.length, self.filled = length, 0
        self.pairs = torch.empty(0)

    def append(self, pairs: Tensor) -> Tensor:
        """Those of one more token [2, N, heads, 1, d_head] -> those of all so far [2, N, heads, filled, d_head]."""
        if not self.filled:
            self.pairs = pairs.new_empty(*pairs.shape[:3], self.length, pairs.shape[4])
        self.pairs.narrow(3, self.filled, 1).copy_(pairs)
        self.filled += 1
        return self.pairs.narrow(3, 0, self.filled)


class SequenceAttention(nn.Module):
    """softmax(q kᵀ / √d_head) v, with a linear map of the output.

    Args:
        width: d; the rows of the fused map are laid out as ([query, key, value], head, d / heads).
        heads: how many.

    Raises:
        ValueError: if the width cannot be cut into the heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} cannot be cut into {heads} heads")
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, h: Tensor, *, causal: bool = False, cache: Cache | None = None) -> Tensor:
        """Tokens h [N, L, d] -> [N, L, d]: each sees all, or if `causal` itself and those before it.

        With a cache h is one token [N, 1, d], which joins the cache and sees what is there.
        """
        parts = self._cut(self.query_key_value(h), 3)
        pairs = parts[1:] if cache is None else cache.append(parts[1:])
        return self._joined(
            F.scaled_dot_product_attention(parts[0], pairs[0], pairs[1], is_causal=causal and cache is None)
        )

    def to_memory(self, memory: Tensor) -> Look:
        """Attention to the tokens of a memory [N, M, d].

        All weight is on a memory's only token, so then queries and keys do not matter and the answer is one for all.
        """
        d = memory.shape[2]
        weight, bias = self.query_key_value.weight, self.query_key_value.bias
        if memory.shape[1] == 1:
            answer: Tensor = self.output(F.linear(memory, weight[2 * d :], bias[2 * d :]))
            return lambda h: answer
        pairs = self._cut(F.linear(memory, weight[d:], bias[d:]), 2)

        def look(h: Tensor) -> Tensor:
            query = self._cut(F.linear(h, weight[:d], bias[:d]), 1)[0]
            return self._joined(F.scaled_dot_product_attention(query, pairs[0], pairs[1]))

        return look

    def _cut(self, h: Tensor, parts: int) -> Tensor:
        """[N, L, parts d] -> [parts, N, heads, L, d_head]."""
        n, length, wide = h.shape
        return h.view(n, length, parts, self.heads, wide // parts // self.heads).permute(2, 0, 3, 1, 4)

    def _joined(self, seen: Tensor) -> Tensor:
        """[N, heads, L, d_head] -> [N, L, d]."""
        out: Tensor = self.output(seen.transpose(1, 2).flatten(2))
        return out


class SequenceBlock(nn.Module):
    """A post-norm block of an encoder, where each token sees all; or of a decoder, where it sees none after it.

        h = LN(h + attention(h))  [ h = LN(h + attention(h, memory)) ]  h = LN(h + W₂ relu(W₁ h))

    Torch's nn.TransformerEncoderLayer, and nn.TransformerDecoderLayer.

    Args:
        width: d.
        heads: of attention.
        feedforward: hidden width of the MLP.
        decoder: whether it is causal and has a memory.
    """

    def __init__(self, width: int, heads: int, feedforward: int, decoder: bool = False) -> None:
        super().__init__()
        self.causal = decoder
        self.attention = SequenceAttention(width, heads)
        self.norm_attention = nn.LayerNorm(width)
        if decoder:
            self.memory_attention = SequenceAttention(width, heads)
            self.norm_memory = nn.LayerNorm(width)
        self.widen = nn.Linear(width, feedforward)
        self.narrow = nn.Linear(feedforward, width)
        self.norm_feedforward = nn.LayerNorm(width)

    def forward(self, h: Tensor, look: Look | None = None, cache: Cache | None = None) -> Tensor:
        """Tokens h [N, L, d] -> [N, L, d].

        Args:
            look: of a decoder, `memory_attention.to_memory(memory)`.
            cache: of a decoder that goes on token by token; h is then the next one [N, 1, d].
        """
        h = self.norm_attention(h + self.attention(h, causal=self.causal, cache=cache))
        if look is not None:
            h = self.norm_memory(h + look(h))
        out: Tensor = self.norm_feedforward(h + self.narrow(F.relu(self.widen(h))))
        return out


def start_as_torch(blocks: nn.Module) -> None:
    """Draw the weights as torch's nn.Transformer does: matrices Xavier-uniform, biases of attention 0."""
    for part in blocks.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
        if isinstance(part, SequenceAttention):
            nn.init.zeros_(part.query_key_value.bias)
            nn.init.zeros_(part.output.bias)
