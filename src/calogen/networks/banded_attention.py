"""Attention within a band of layers, of packed sets of points that are sorted by layer.

A point of layer l sees the points of its own set whose layer lies in [l - upper, l - lower]. Sorted by layer, all
points of a layer see one stretch of points: the mask is a band of rectangles, and only these are computed. Which
rectangles depends on the numbers of points alone, so a plan is made once for a batch and serves all blocks, heads and
evaluations of the network.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calogen.networks.rectangle_attention import Rectangle, rectangle_attention

CALL = 2048
"""What a rectangle costs besides its pairs, in pairs (four heads of 16, one core): neighbours that cost less merge."""

LARGEST = 65536
"""Most pairs of a rectangle: their scores, of four heads in float32, take 1 MB and stay in an L2 cache."""


@dataclass(frozen=True)
class Band:
    """Points see each other where layer_q - layer_k lies in [lower, upper].

    Raises:
        ValueError: unless lower <= 0 <= upper, without which a point would not see itself.
    """

    lower: int = -2
    upper: int = 2

    def __post_init__(self) -> None:
        if not self.lower <= 0 <= self.upper:
            raise ValueError(f"a point must see its own layer: [{self.lower}, {self.upper}] does not contain 0")


@dataclass(frozen=True)
class BandedPlan:
    """Which queries see which keys, for sets of P points in all."""

    points: int
    rectangles: tuple[Rectangle, ...]

    @property
    def pairs(self) -> int:
        """Pairs of points that are computed, for each head."""
        return sum(r.pairs for r in self.rectangles)


def banded_plan(per_layer: Tensor, band: Band, like: Tensor | None = None) -> BandedPlan:
    """The plan for N sets with `per_layer` [N, L] points in each layer.

    Args:
        like: a tensor of the type and device of the masks; None: float32 on the CPU.

    Raises:
        ValueError: for negative or fractional counts, or another shape.

    >>> plan = banded_plan(torch.tensor([[2, 0, 3]]), Band(-1, 1))
    >>> plan.points, plan.pairs
    (5, 25)
    """
    counts = per_layer.detach().cpu().numpy()
    if counts.ndim != 2 or (counts < 0).any() or (counts != np.floor(counts)).any():
        raise ValueError(f"points per layer must be whole numbers [N, L], not {list(counts.shape)} {per_layer.dtype}")
    counts = counts.astype(np.int64)
    like = torch.empty(0) if like is None else like
    edges = np.concatenate([[0], counts.ravel().cumsum()])
    stretches = [
        piece
        for first, row in zip(range(0, counts.size, max(counts.shape[1], 1)), counts, strict=False)
        for stretch in _merged(_layers(row, edges[first : first + len(row) + 1], band))
        for piece in _pieces(stretch)
    ]
    layer = np.tile(np.arange(counts.shape[1]), len(counts)).repeat(counts.ravel())
    return BandedPlan(int(edges[-1]), tuple(_rectangle(*stretch, layer, band, like) for stretch in stretches))


def layer_counts(layer: Tensor, offsets: Tensor, layers: int) -> Tensor:
    """Points in each layer [N, L] of sets sorted by layer.

    Args:
        layer: of each point [P]; offsets: where the sets start and end [N + 1]; layers: L.

    Raises:
        ValueError: for a layer outside of [0, L), offsets that do not fit, or points that are not sorted.

    >>> layer_counts(torch.tensor([0, 2, 2, 1]), torch.tensor([0, 3, 4]), 3)
    tensor([[1, 0, 2],
            [0, 1, 0]])
    """
    counts = offsets.diff()
    if int(offsets[0]) != 0 or int(offsets[-1]) != len(layer) or bool((counts < 0).any()):
        raise ValueError(f"offsets from {int(offsets[0])} to {int(offsets[-1])} do not cut {len(layer)} points")
    if len(layer) and not 0 <= int(layer.min()) <= int(layer.max()) < layers:
        raise ValueError(f"layers {int(layer.min())} to {int(layer.max())} are not within 0 to {layers - 1}")
    cell = torch.repeat_interleave(torch.arange(len(counts), device=layer.device), counts) * layers + layer
    if bool((cell.diff() < 0).any()):
        raise ValueError("points are not sorted by layer within their set; sort them first")
    return torch.bincount(cell, minlength=len(counts) * layers).view(len(counts), layers)


def banded_attention(q: Tensor, k: Tensor, v: Tensor, plan: BandedPlan) -> Tensor:
    """softmax(q kᵀ / √d) v of each point over the points of its set within the band.

    Args:
        q, k, v: [P, H, d], points sorted by layer within each set.
        plan: of these sets.

    Returns:
        [P, H, d]. What a set gets does not depend on the other sets.

    Raises:
        ValueError: if the plan was made for another number of points.
    """
    if len(q) != plan.points or k.shape != q.shape or v.shape != q.shape:
        raise ValueError(
            f"a plan for {plan.points} points does not fit q {list(q.shape)}, k {list(k.shape)}, v {list(v.shape)}"
        )
    return rectangle_attention(q, k, v, plan.rectangles)


Stretch = tuple[int, int, int, int]
"""Queries [start, stop) and the keys [first, last) that any of them sees."""


def _layers(row: NDArray[np.int64], edges: NDArray[np.int64], band: Band) -> Iterator[Stretch]:
    """The layers of a set that have points; row [L] points in each, edges [L + 1] where they lie."""
    at = np.flatnonzero(row)
    first = edges[np.clip(at - band.upper, 0, None)]
    last = edges[np.clip(at - band.lower + 1, None, len(row))]
    yield from zip(edges[at].tolist(), edges[at + 1].tolist(), first.tolist(), last.tolist(), strict=True)


def _merged(layers: Iterator[Stretch]) -> Iterator[Stretch]:
    """Join neighbours while the pairs computed for nothing cost less than another rectangle."""
    joined: Stretch | None = None
    for layer in layers:
        if joined is None:
            joined = layer
            continue
        both = (joined[0], layer[1], joined[2], layer[3])
        if _pairs(both) - _pairs(joined) - _pairs(layer) < CALL and _pairs(both) <= LARGEST:
            joined = both
        else:
            yield joined
            joined = layer
    if joined is not None:
        yield joined


def _pairs(stretch: Stretch) -> int:
    return (stretch[1] - stretch[0]) * (stretch[3] - stretch[2])


def _pieces(stretch: Stretch) -> Iterator[Stretch]:
    """Cut the queries of a stretch evenly until no piece has more than `LARGEST` pairs."""
    start, stop, first, last = stretch
    number = min(-(-_pairs(stretch) // LARGEST), stop - start)
    cuts = [start + (stop - start) * k // number for k in range(number + 1)]
    yield from ((a, b, first, last) for a, b in itertools.pairwise(cuts))


def _rectangle(
    start: int, stop: int, first: int, last: int, layer: NDArray[np.int64], band: Band, like: Tensor
) -> Rectangle:
    """A stretch with its mask, unless all its queries see all its keys, as those of a single layer do."""
    if layer[start] == layer[stop - 1]:
        return Rectangle(start, stop, first, last)
    apart = layer[start:stop, None] - layer[None, first:last]
    seen = (apart >= band.lower) & (apart <= band.upper)
    mask = None if seen.all() else torch.from_numpy(seen).to(like)
    return Rectangle(start, stop, first, last, mask)
