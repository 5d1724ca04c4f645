"""What every generative method is: a loss for (x, c) and a way to draw x given c. And how ragged data are laid out.

**Packed sets.** N sets with different numbers of points are one tensor `x [P, F]`, the points of set 0 first,
and `counts [N]` that add up to P. No padding, no mask; a count may be zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from calogen.methods.solvers import SetVelocity

GROUP = 32768
"""Points that a sampler takes through all its steps together: at 4 features 512 kB a tensor, a few fit an L2 cache."""


class Rows(Protocol):
    """A condition of N sets that is more than a tensor [N, C], but has rows as that has them."""

    def __len__(self) -> int:
        """N."""

    def __getitem__(self, rows: slice) -> Any:
        """The condition of some of the sets."""


Condition = Tensor | Rows

Network = Callable[[Tensor, Tensor, Any, Tensor], Tensor]
"""F(x [P, F], t [N], c [N, C], counts [N]) -> [P, F]; t is the time or noise level as the method expresses it."""

BoundNetwork = Callable[[Tensor, Tensor], Tensor]
"""F(x [P, F], t [N]) -> [P, F], for conditions and counts that are given already."""


@runtime_checkable
class Bindable(Protocol):
    """A network that can prepare what depends on the conditions alone, once for all evaluations of a sampler."""

    def bind(self, c: Any, counts: Tensor) -> BoundNetwork:
        """c [N, C], counts [N] -> F(x, t)."""


class Conditional(nn.Module):
    """p(x | c). Subclasses say how it is learned and drawn."""

    def loss(self, x: Tensor, c: Tensor, mask: Tensor | None = None) -> Tensor:
        """Loss of each example [N].

        Args:
            x: [N, D]; packed points [P, F] with `mask` = counts [N]; or padded sets [N, L, F] with a
                boolean `mask` [N, L].
            c: condition [N, C].
            mask: what is real in x, see above.
        """
        raise NotImplementedError

    def sample(
        self,
        c: Tensor,
        *,
        counts: Tensor | None = None,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> Tensor:
        """Draw one x for every condition; with the same noise, no draw depends on another row of c.

        Args:
            c: conditions [N, C].
            counts: how many points to draw for each [N], where x is a packed set of points.
            noise: ready-made randomness, of the shape of the base distribution. Draw it set by set to make each set
                depend on its own seed alone.
            generator: the source of randomness when `noise` is not given.
            options: of the method.
        """
        raise NotImplementedError


def pack(x: Tensor, mask: Tensor | None, sets: int) -> tuple[Tensor, Tensor]:
    """Bring x to packed points [P, F] and counts [N].

    Args:
        x: [N, F] (one point a set), [N, L, F], or packed [P, F].
        mask: None; boolean [N, L] for padded x; or the counts [N] of packed x.
        sets: N.

    Raises:
        ValueError: if x, mask and N do not fit each other.
    """
    if mask is None:
        points = x.reshape(sets, -1, x.shape[-1]) if x.ndim == 3 else x.reshape(sets, 1, -1)
        counts = torch.full((sets,), points.shape[1], device=x.device)
        return points.flatten(0, 1), counts
    if mask.dtype == torch.bool:
        if x.ndim != 3 or mask.shape != x.shape[:2] or len(mask) != sets:
            raise ValueError(f"mask {list(mask.shape)} does not say what is real in x {list(x.shape)} of {sets} sets")
        return x[mask], mask.sum(dim=1)
    if mask.shape != (sets,) or int(mask.sum()) != len(x):
        raise ValueError(
            f"counts {list(mask.shape)} with sum {int(mask.sum())} do not describe {len(x)} points in {sets} sets"
        )
    return x, mask


def bound(network: Network, c: Condition, counts: Tensor) -> BoundNetwork:
    """The network for conditions c [N, C] and counts [N], prepared if it knows how to."""
    if isinstance(network, Bindable):
        return network.bind(c, counts)
    return lambda x, t: network(x, t, c, counts)


def narrowing(
    velocity: Callable[[Tensor, Tensor], SetVelocity], c: Condition, counts: Tensor
) -> Callable[[Tensor], SetVelocity] | None:
    """How to have the velocity for some of the sets alone, by their numbers [M], where the condition is a tensor."""
    if not isinstance(c, Tensor):
        return None
    return lambda sets: velocity(c[sets], counts[sets])


def one_each(counts: Tensor | None, c: Condition, device: torch.device | None = None) -> Tensor:
    """The counts [N]; without any, one point for each condition c [N, C]."""
    if counts is not None:
        return counts
    return torch.ones(len(c), dtype=torch.int64, device=c.device if isinstance(c, Tensor) else device)


def per_point(values: Tensor, counts: Tensor) -> Tensor:
    """One value a set [N] -> that value at each of its points [P, 1]. A scalar, the same for all, is left as it is."""
    if values.ndim == 0:
        return values
    return torch.repeat_interleave(values, counts)[:, None]


def in_groups(counts: Tensor) -> Iterator[tuple[slice, slice]]:
    """Cut packed sets, counts [N], into groups of whole sets: (which sets, which points).

    A group ends with the set that brings it to `GROUP` points, so all points of a group stay in cache together.

    >>> [(s.stop, p.stop) for s, p in in_groups(torch.tensor([GROUP - 1, 1, 5]))]
    [(2, 32768), (3, 32773)]
    """
    first_set = first_point = last_point = 0
    for k, count in enumerate(counts.tolist(), start=1):
        last_point += count
        if last_point - first_point >= GROUP or k == len(counts):
            yield slice(first_set, k), slice(first_point, last_point)
            first_set, first_point = k, last_point


def mean_per_set(values: Tensor, counts: Tensor) -> Tensor:
    """Mean over the points and features of each set: values [P, F], counts [N] -> [N]; 0 for an empty set."""
    index = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    total = values.new_zeros(len(counts)).index_add(0, index, values.mean(dim=1))
    return total / counts.clamp(min=1)


def gaussian(
    shape: tuple[int, ...],
    like: Tensor,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Standard normal numbers of the given shape, drawn from `generator` unless they come ready as `noise`.

    Raises:
        ValueError: if `noise` has another shape.
    """
    if noise is None:
        device = generator.device if generator is not None else like.device
        return torch.randn(shape, generator=generator, device=device, dtype=like.dtype).to(like.device)
    if tuple(noise.shape) != shape:
        raise ValueError(f"noise has shape {list(noise.shape)}, needed is {list(shape)}")
    return noise.to(like)


def refuse_unknown(options: dict[str, Any], known: str) -> None:
    """Raise ValueError if any option is left over."""
    if options:
        raise ValueError(f"unknown options of sample: {', '.join(options)}; known are {known}")
