"""Exact attention over rectangles of queries and keys, cut from packed sets: no padding, with its own backward.

Where the queries of a stretch all see the same stretch of keys, attention is a small dense product that needs no
mask. A CPU spends most of it on exp, and torch's fused kernel reads a mask for every pair; so the products are taken
here one rectangle at a time into one buffer that stays in cache, and the backward pass does the same again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

FLAT = 60.0
"""While |ln Σ e^score| stays below, no score has to be subtracted first: float32 ends at e^±87."""


class Rectangle(NamedTuple):
    """Queries [start, stop) see keys [first, last); `seen` [stop - start, last - first] is 1 where they do, None: all.

    The rectangles of a call cover its queries in order, each once. Every query must see at least one key.
    """

    start: int
    stop: int
    first: int
    last: int
    seen: Tensor | None = None

    @property
    def width(self) -> int:
        """How many keys."""
        return self.last - self.first

    @property
    def pairs(self) -> int:
        """Pairs of a query and a key that are computed."""
        return (self.stop - self.start) * self.width


def rectangle_attention(q: Tensor, k: Tensor, v: Tensor, rectangles: Sequence[Rectangle]) -> Tensor:
    """softmax(q kᵀ / √d) v within each rectangle, d the length of a head.

    Half precision is computed in float32: on a CPU, rounding every score to it costs more than it saves.

    Args:
        q: [P, H, d]; k, v: [K, H, d]. Strided views are taken as they are.
        rectangles: which queries see which keys.

    Returns:
        [P, H, d], of the type of q.

    Raises:
        ValueError: if the rectangles do not cover the queries.
    """
    covered = sum(r.stop - r.start for r in rectangles)
    if covered != len(q):
        raise ValueError(f"rectangles of {covered} queries do not cover {len(q)}")
    with torch.autocast(q.device.type, enabled=False):
        wide = torch.promote_types(q.dtype, torch.float32)
        out: Tensor = _Attention.apply(q.to(wide), k.to(wide), v.to(wide), rectangles)
        return out.to(q.dtype)


class _Attention(torch.autograd.Function):
    """Inside, heads come first: [H, P, d]. Scores are computed again in backward from the kept ln Σ e^score [H, P].

    Products go to contiguous memory (a buffer, or a new small tensor): only then does torch hand all heads to the
    matrix library in one call.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, rectangles: Sequence[Rectangle]) -> Tensor:
        q = (q * q.shape[-1] ** -0.5).transpose(0, 1)
        k, v = k.transpose(0, 1), v.transpose(0, 1)
        out, total = _sums(q, k, v, rectangles)
        log_total = total.log()
        if not bool((log_total.abs() < FLAT).all()):
            shift = torch.empty_like(total)
            out, total = _sums(q, k, v, rectangles, shift)
            log_total = total.log().add_(shift)
        out.div_(total.t()[..., None])
        ctx.save_for_backward(q, k, v, out, log_total)
        ctx.rectangles = rectangles
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, out, log_total = ctx.saved_tensors
        rectangles: Sequence[Rectangle] = ctx.rectangles
        mean = (gradients[0] * out).sum(-1).t()
        d_out = gradients[0].transpose(0, 1).contiguous()
        d_k, d_v = torch.zeros_like(k), torch.zeros_like(v)
        weights, slopes = _buffer(q, rectangles), _buffer(q, rectangles)
        parts = [out[:0]]
        for r, q_part, log_part, mean_part, d_part in zip(
            rectangles, *_cut(rectangles, q, log_total, mean, d_out), strict=True
        ):
            keys = k.narrow(1, r.first, r.width)
            p = _product(q_part, keys, weights)
            p.sub_(log_part[..., None])
            if r.seen is not None:
                p.clamp_(max=0).exp_().mul_(r.seen)  # a score that is not seen may be any size
            else:
                p.exp_()
            d_v.narrow(1, r.first, r.width).add_(torch.bmm(p.transpose(1, 2), d_part))
            d_p = _product(d_part, v.narrow(1, r.first, r.width), slopes)
            d_p.sub_(mean_part[..., None]).mul_(p)
            parts.append(torch.bmm(d_p, keys).transpose(0, 1))
            d_k.narrow(1, r.first, r.width).add_(torch.bmm(d_p.transpose(1, 2), q_part))
        d_q = torch.cat(parts).mul_(q.shape[-1] ** -0.5)
        return d_q, d_k.transpose(0, 1), d_v.transpose(0, 1), None


def _sums(
    q: Tensor, k: Tensor, v: Tensor, rectangles: Sequence[Rectangle], shift: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Σ e^(score - shift) v [P, H, d] and Σ e^(score - shift) [H, P] of each query.

    Without `shift`, nothing is subtracted; else the largest score of each query is, and left in `shift` [H, P].
    """
    total = torch.empty_like(q[..., 0])
    buffer = _buffer(q, rectangles)
    largest = total if shift is None else shift
    parts = [v.transpose(0, 1)[:0]]
    for r, q_part, total_part, largest_part in zip(rectangles, *_cut(rectangles, q, total, largest), strict=True):
        score = _product(q_part, k.narrow(1, r.first, r.width), buffer)
        if shift is not None:
            if r.seen is not None:
                score.masked_fill_(r.seen == 0, -torch.inf)
            score.sub_(torch.amax(score, dim=-1, out=largest_part)[..., None])
        score.exp_()
        if r.seen is not None and shift is None:
            score.mul_(r.seen)
        torch.sum(score, dim=-1, out=total_part)
        parts.append(torch.bmm(score, v.narrow(1, r.first, r.width)).transpose(0, 1))
    return torch.cat(parts), total


def _cut(rectangles: Sequence[Rectangle], *tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """The queries of each rectangle, of tensors [H, P, ...]."""
    sizes = [r.stop - r.start for r in rectangles]
    return [tensor.split(sizes, dim=1) if sizes else () for tensor in tensors]


def _buffer(q: Tensor, rectangles: Sequence[Rectangle]) -> Tensor:
    return q.new_empty(len(q) * max((r.pairs for r in rectangles), default=0))


def _product(a: Tensor, b: Tensor, buffer: Tensor) -> Tensor:
    """a [H, A, d] bᵀ [H, d, B] -> [H, A, B], in the buffer."""
    shape = (len(a), a.shape[1], b.shape[1])
    return torch.bmm(a, b.transpose(1, 2), out=buffer[: shape[0] * shape[1] * shape[2]].view(shape))
