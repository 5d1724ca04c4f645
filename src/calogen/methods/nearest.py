"""The nearest of many codes to each of many points: exact, in bounded memory, and the same in any company.

    argmin |x - c|² = argmin s,   s = |c|² / 2 - x · c

Products of blocks give s of all pairs quickly, but with round-off, and only the least s of each block is kept. Codes
that the round-off leaves in doubt (a few for each point) are then compared by |x - c|² in double precision, so the
answer does not depend on how the work was cut. Ties go to the smaller index.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

ROWS = 1024
"""Points at once."""

BLOCK = 512
"""Codes at once: with `ROWS` points 2 MB of products, which stay in an L2 cache or nearly so."""

PAIRS = 256
"""Pairs of a point and a block of codes that are looked into at once: 6 MB at 12 numbers a code."""


class _Blocks(NamedTuple):
    """Codes [B, BLOCK, D] filled up by codes that are never nearest, |c|²/2 [B, BLOCK], largest |c| [B] of each."""

    codes: Tensor
    half: Tensor
    largest: Tensor


@torch.no_grad()
def nearest(x: Tensor, codes: Tensor) -> Tensor:
    """Index [P] int64 of the code nearest to each point, x [P, D], codes [K, D].

    Raises:
        ValueError: no codes, other lengths of points and codes, NaN or infinity, or numbers whose squares overflow.
    """
    if codes.ndim != 2 or len(codes) == 0 or x.ndim != 2 or x.shape[1] != codes.shape[1]:
        raise ValueError(
            f"points [P, D] need codes [K, D] with K of at least 1, got {list(x.shape)} and {list(codes.shape)}"
        )
    kind = torch.promote_types(torch.promote_types(x.dtype, codes.dtype), torch.float32)
    x, codes = x.to(kind), codes.to(kind)
    for name, values in (("points", x), ("codes", codes)):
        if not bool(torch.isfinite(values.square().sum(dtype=torch.float64)).item()):
            raise ValueError(f"nearest code: {name} hold NaN, infinity or numbers whose squares overflow")
    blocks = _blocks_of(codes)
    found = [_nearest(rows, blocks) for rows in x.split(ROWS)]
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.int64, device=x.device)


def _blocks_of(codes: Tensor) -> _Blocks:
    more = -len(codes) % BLOCK
    half = F.pad(codes.square().sum(1) / 2, (0, more), value=torch.inf)
    cut = F.pad(codes, (0, 0, 0, more)).view(-1, BLOCK, codes.shape[1])
    return _Blocks(cut, half.view(-1, BLOCK), cut.norm(dim=2).amax(1))


def _nearest(x: Tensor, blocks: _Blocks) -> Tensor:
    """The nearest codes [n] of a few points [n, D]."""
    least = torch.stack(
        [torch.addmm(half, x, c.T, alpha=-1).amin(1) for c, half in zip(blocks.codes, blocks.half, strict=True)], dim=1
    )
    # |error of s| <= (D + 2) eps (|x| |c| + |c|² / 2), by the usual bound of a sum of products
    share = (x.shape[1] + 2) * torch.finfo(x.dtype).eps
    error = share * blocks.largest * (x.norm(dim=1)[:, None] + blocks.largest / 2)
    most = (least + error).amin(1)
    point, block = (least - error <= most[:, None]).nonzero(as_tuple=True)
    return _decided(x, blocks, point, block, most[point] + error[point, block])


def _decided(x: Tensor, blocks: _Blocks, point: Tensor, block: Tensor, most: Tensor) -> Tensor:
    """The nearest codes [n], each in one of the pairs (point, block) [M]; `most` [M] is how large s of it can be."""
    points, codes, apart = [], [], []
    for p, b, limit in zip(point.split(PAIRS), block.split(PAIRS), most.split(PAIRS), strict=True):
        s = torch.baddbmm(blocks.half[b][:, :, None], blocks.codes[b], x[p][:, :, None], alpha=-1)[:, :, 0]
        pair, code = (s <= limit[:, None]).nonzero(as_tuple=True)
        points.append(p[pair])
        codes.append(b[pair] * BLOCK + code)
        near = blocks.codes[b[pair], code].double()
        apart.append((x[p[pair]].double() - near).square().sum(1))
    return _first_least(torch.cat(points), torch.cat(codes), torch.cat(apart), len(x))


def _first_least(point: Tensor, code: Tensor, apart: Tensor, n: int) -> Tensor:
    """Of candidates [M] the smallest code among those least apart from their point, for each of n points [n]."""
    least = apart.new_full((n,), torch.inf).scatter_reduce(0, point, apart, "amin")
    tied = apart == least[point]
    none = torch.iinfo(torch.int64).max
    return code.new_full((n,), none).scatter_reduce(0, point[tied], code[tied], "amin")
