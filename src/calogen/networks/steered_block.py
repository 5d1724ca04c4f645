"""A transformer block that a condition steers: adaLN-zero of DiT (Peebles & Xie, arXiv:2212.09748)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPSILON = 1e-6
"""Added to the variance of a layer norm, as published."""

COARSE = (torch.bfloat16, torch.float16)
"""Number formats in which the GELU itself is always taken. The tanh in its place would differ by 5e-4 at most, less
than half a step of bfloat16 at 1, and a CPU takes five times as long for it."""

Gelu = Literal["tanh", "none"]


class Linear(NamedTuple):
    """Weight and bias of a linear map, in the number format of the product; applied to what is in any format."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias)


class Maps(NamedTuple):
    """The linear maps of a block."""

    modulation: Linear
    query_key_value: Linear
    output: Linear
    widen: Linear
    narrow: Linear


class SteeredBlock(nn.Module):
    """Attention and MLP, both steered by the condition (adaLN-zero of arXiv:2212.09748).

    Rows of the fused map are laid out as ([query, key, value], head, D / heads); what steers is, in this order, shift,
    scale and gate of the attention, and of the MLP.
    """

    def __init__(self, width: int, heads: int, feedforward: int, gelu: Gelu) -> None:
        super().__init__()
        self.heads, self.gelu = heads, gelu
        self.modulation = nn.Linear(width, 6 * width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.widen = nn.Linear(width, feedforward)
        self.narrow = nn.Linear(feedforward, width)

    def maps(self, dtype: torch.dtype | None) -> Maps:
        """The linear maps, in another number format if one is given."""
        layers = (self.modulation, self.query_key_value, self.output, self.widen, self.narrow)
        return Maps(*(Linear(layer.weight.to(dtype), layer.bias.to(dtype)) for layer in layers))

    def forward(self, h: Tensor, m: Tensor, maps: Maps, steps: Sequence[int] = ()) -> Tensor:
        """h [n, T, D], what steers m [n, 6, 1, D] -> [n, T, D].

        Args:
            maps: of this block.
            steps: patches in each layer, if these are to see no later layer.
        """
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = m.unbind(1)
        qkv = maps.query_key_value(modulated(h, shift, scale)).unflatten(2, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        seen = _attention(q, k, v, steps)
        h = torch.addcmul(h, gate, maps.output(seen.transpose(1, 2).flatten(2)).to(h.dtype))
        inner = self._gelu(maps.widen(modulated(h, shift_mlp, scale_mlp)))
        return torch.addcmul(h, gate_mlp, maps.narrow(inner).to(h.dtype))

    def _gelu(self, x: Tensor) -> Tensor:
        return F.gelu(x, approximate="none" if x.dtype in COARSE else self.gelu)


def modulated(h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """LN(h) ⊙ (1 + scale) + shift."""
    return torch.addcmul(shift, F.layer_norm(h, h.shape[-1:], eps=EPSILON), 1 + scale)


def _attention(q: Tensor, k: Tensor, v: Tensor, steps: Sequence[int]) -> Tensor:
    """softmax(q kᵀ / √d) v of q, k, v [n, H, T, d]; with steps, a patch sees its own step and those before."""
    if not steps:
        return F.scaled_dot_product_attention(q, k, v)
    ends = itertools.accumulate(steps)
    seen = [
        F.scaled_dot_product_attention(q[:, :, end - step : end], k[:, :, :end], v[:, :, :end])
        for step, end in zip(steps, ends, strict=True)
    ]
    return torch.cat(seen, dim=2)
