"""Cross entropy of a linear classification without its logits in memory: a block of rows at a time, there and back.

A batch of 16,000 tokens has 4 GB of logits for 65,538 options. Forward keeps the log of each row's normalisation; the
gradient of a block is made from logits computed again.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

BLOCK = 1 << 25
"""Most logits that are in memory at a time: 128 MB in float32, of which a backward pass holds two."""


def linear_cross_entropy(features: Tensor, weight: Tensor, bias: Tensor, target: Tensor, block: int = BLOCK) -> Tensor:
    """-log softmax(features · weightᵀ + bias)[target] of each row [R].

    Under autocast the products are in its number format; the rest is in that of the bias.

    Args:
        features: [R, r].
        weight: [S, r].
        bias: [S].
        target: [R] int64 in [0, S).
        block: most logits in memory at a time; one row at least.

    Raises:
        ValueError: for a target that is no option.
    """
    if len(target) and not 0 <= int(target.min()) <= int(target.max()) < len(weight):
        raise ValueError(f"targets {int(target.min())} to {int(target.max())} are not within 0 to {len(weight) - 1}")
    return cast(Tensor, _LinearCrossEntropy.apply(features, weight, bias, target, max(block // len(weight), 1)))


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, target: Tensor, rows: int) -> Tensor:
        device = features.device.type
        coarse = torch.is_autocast_enabled(device)
        ctx.dtype, ctx.rows = torch.get_autocast_dtype(device) if coarse else weight.dtype, rows
        with torch.autocast(device, enabled=False):
            norm, chosen = bias.new_empty(len(features)), bias.new_empty(len(features))
            own = weight.to(ctx.dtype)
            for start in range(0, len(features), rows):
                part = slice(start, start + rows)
                logits = _logits(features[part].to(ctx.dtype), own, bias)
                norm[part] = logits.logsumexp(1)
                chosen[part] = logits.gather(1, target[part, None])[:, 0]
        ctx.save_for_backward(features, weight, bias, target, norm)
        return norm - chosen

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        features, weight, bias, target, norm = ctx.saved_tensors
        own = weight.to(ctx.dtype)
        of_features, of_weight, of_bias = (torch.zeros_like(x, dtype=bias.dtype) for x in (features, weight, bias))
        for start in range(0, len(features), ctx.rows):
            part = slice(start, start + ctx.rows)
            h = features[part].to(ctx.dtype)
            slope = _logits(h, own, bias).sub_(norm[part, None]).exp_()
            slope.scatter_add_(1, target[part, None], slope.new_full((len(h), 1), -1.0))
            slope.mul_(upstream[part, None])
            of_bias += slope.sum(0)
            coarse = slope.to(ctx.dtype)
            of_features[part] = coarse @ own
            if ctx.dtype == bias.dtype:
                of_weight.addmm_(coarse.T, h)
            else:
                of_weight += coarse.T @ h
        return of_features.to(features.dtype), of_weight.to(weight.dtype), of_bias, None, None


def _logits(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.linear(h, weight).to(bias.dtype).add_(bias)
