"""Causal attention of token sequences: packed ones of any lengths at once, or a few tokens at a time with a cache.

A block asks an `Attend` for what its tokens see and knows nothing of where the others are kept.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calogen.networks.stored_linear import StoredLinear

ROTARY_BASE = 10_000.0
"""Of the wave lengths of rotary positions (Su et al., arXiv:2104.09864, sec. 3.2.2)."""


class Attend(Protocol):
    """softmax(q kᵀ / √d_head) v over the tokens of each row's own sequence up to itself."""

    places: Tensor
    """Place of each row in its sequence [P]."""

    def __call__(self, block: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q, k, v [P, heads, d_head] of the rows in a block of the network -> [P, heads, d_head]."""


class TokenAttention(nn.Module):
    """Maps to queries, keys and values without bias, attention, and a map of the output with one.

    Args:
        width: d; the rows of the fused map are laid out as ([query, key, value], head, d / heads).
        heads: how many.
        rotary: queries and keys are turned by their places (arXiv:2104.09864); without, order is known only by
            what a token sees (as published).

    Raises:
        ValueError: if the width cannot be cut into the heads, or a head into pairs where these turn.
    """

    frequency: Tensor

    def __init__(self, width: int, heads: int, *, rotary: bool = False) -> None:
        super().__init__()
        if width % heads or (rotary and width // heads % 2):
            raise ValueError(f"width {width} cannot be cut into {heads} heads" + " of pairs" * rotary)
        self.heads, self.rotary = heads, rotary
        self.query_key_value = StoredLinear(width, 3 * width, bias=False)
        self.output = StoredLinear(width, width)
        pairs = torch.arange(0, width // heads, 2) / (width // heads)
        self.register_buffer("frequency", ROTARY_BASE**-pairs, persistent=False)

    def forward(self, h: Tensor, attend: Attend, block: int) -> Tensor:
        """Rows h [P, d] -> [P, d]."""
        q, k, v = self.query_key_value(h).unflatten(1, (3, self.heads, -1)).unbind(1)
        if self.rotary:
            angle = attend.places.to(self.frequency)[:, None] * self.frequency
            turn = angle.cos()[:, None], angle.sin()[:, None]
            q, k = _turned(q, *turn), _turned(k, *turn)
        out: Tensor = self.output(attend(block, q, k, v).flatten(1))
        return out


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Pairs (x_i, x_{i + d/2}) of x [P, H, d_head] turned by the angles [P, 1, d_head / 2] of their rows."""
    a, b = x.chunk(2, dim=2)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=2).to(x.dtype)


class PackedSequences:
    """Sequences one after the other, complete. They go one by one through torch's fused kernel: there is no padding.

    Args:
        sizes: rows of each.
        device: where they are.
    """

    def __init__(self, sizes: Sequence[int], device: torch.device | None = None) -> None:
        self.sizes = list(sizes)
        lengths = torch.tensor(self.sizes, dtype=torch.int64, device=device)
        starts = torch.repeat_interleave(lengths.cumsum(0) - lengths, lengths)
        self.places = torch.arange(len(starts), device=device) - starts

    def __call__(self, block: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See `Attend`."""
        parts = zip(*(rows.split(self.sizes) for rows in (q, k, v)), strict=True)
        seen = [_causal(*part) for part in parts if len(part[0])]
        return torch.cat(seen) if seen else q


def _causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One sequence: [n, H, d_head] -> [n, H, d_head]."""
    q, k, v = (rows.transpose(0, 1)[None] for rows in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)[0].transpose(0, 1)


class TokenCache:
    """Keys and values of the sequences in a few slots. Not a module: it lives as long as a batch.

    Args:
        blocks: of the network.
        slots: sequences it has room for.
        room: tokens of each.
        heads, size: of the attention, d_head.
        like: a tensor of the number format and device; attention in bfloat16 is slower than in float32 on a CPU.
    """

    def __init__(self, blocks: int, slots: int, room: int, heads: int, size: int, like: Tensor) -> None:
        self.room = room
        self.keys, self.values = (like.new_empty(blocks, slots, heads, room, size) for _ in range(2))
        self.filled = [0] * slots

    def rows(self, slots: Sequence[int], count: int = 1) -> CachedSequences:
        """The next `count` tokens of the sequences in some slots, in ascending order."""
        return CachedSequences(self, slots, count)


class CachedSequences:
    """The next tokens of some sequences: they join what is kept, and see it and those before them.

    Neighbouring slots that are equally long are computed together; nothing is computed for other slots, nor on padding.

    Args:
        cache: where the sequences are kept.
        slots: which, in ascending order.
        count: new tokens of each: there are len(slots) · count rows.

    Raises:
        ValueError: if a sequence has no room for them.
    """

    def __init__(self, cache: TokenCache, slots: Sequence[int], count: int = 1) -> None:
        lengths = [cache.filled[slot] for slot in slots]
        if lengths and max(lengths) + count > cache.room:
            raise ValueError(f"{max(lengths)} tokens and {count} more do not fit into room for {cache.room}")
        self.cache, self.count = cache, count
        device = cache.keys.device
        first = torch.tensor(lengths, dtype=torch.int64, device=device)
        self.places = (first[:, None] + torch.arange(count, device=device)).flatten()
        self.slots = list(slots)
        self.rows = torch.tensor(self.slots, dtype=torch.int64, device=device).repeat_interleave(count)
        self.runs: list[tuple[int, int, int, int]] = []
        for _, group in itertools.groupby(range(len(slots)), key=lambda i: (slots[i] - i, lengths[i])):
            members = list(group)
            start = members[0]
            self.runs.append((start, start + len(members), slots[start], lengths[start]))

    def __call__(self, block: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See `Attend`."""
        n, keys, values = self.count, self.cache.keys[block], self.cache.values[block]
        keys[self.rows, :, self.places] = k.to(keys.dtype)
        values[self.rows, :, self.places] = v.to(values.dtype)
        query = q.to(keys.dtype).unflatten(0, (-1, n)).transpose(1, 2)
        seen = []
        for start, stop, slot, length in self.runs:
            mask = q.new_ones(n, length + n, dtype=torch.bool).tril(length) if n > 1 else None
            own, known = slice(slot, slot + stop - start), slice(0, length + n)
            part = query[start:stop], keys[own, :, known], values[own, :, known]
            seen.append(F.scaled_dot_product_attention(*part, attn_mask=mask))
        return torch.cat(seen).transpose(1, 2).flatten(0, 1).to(q.dtype) if seen else q

    def keep(self, counts: Sequence[int] | None = None) -> None:
        """Let the first `counts` of each sequence's new tokens stay, all by default, once all blocks have seen them."""
        for slot, kept in zip(self.slots, [self.count] * len(self.slots) if counts is None else counts, strict=True):
            self.cache.filled[slot] += kept
