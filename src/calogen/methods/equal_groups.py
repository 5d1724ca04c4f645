"""Points cut into groups of equal size whose members are near each other: halved again and again where they are wide.

A k-means of equal sizes has to be started somewhere and may end anywhere; this cut has one result, and neighbouring
groups are alike too.
"""

from __future__ import annotations

import torch
from torch import Tensor


def equal_groups(points: Tensor, groups: int) -> Tensor:
    """An order [K] of points [K, D] in which each K / groups in turn are a group; numbers of points, int64.

    Each set is cut across the direction of its largest variance, as nearly in half as whole groups allow. Ties go by
    the points' numbers.

    Raises:
        ValueError: points that are not finite, or cannot be cut into so many groups of equal size.

    >>> equal_groups(torch.tensor([[0.0], [9.0], [8.0], [1.0]]), 2).tolist()
    [0, 3, 2, 1]
    """
    if groups < 1 or len(points) % groups:
        raise ValueError(f"{len(points)} points cannot be cut into {groups} groups of equal size")
    if not bool(torch.isfinite(points).all()):
        raise ValueError("points to be grouped must be finite numbers")
    x = points.detach().cpu().double()
    return _ordered(x, torch.arange(len(x)), groups)


def _ordered(x: Tensor, members: Tensor, groups: int) -> Tensor:
    """The members [n] of a set of so many groups, in order."""
    along = members[_across(x[members]).argsort(stable=True)]
    if groups == 1:
        return along
    first = groups // 2
    cut = len(members) // groups * first
    return torch.cat(
        [_ordered(x, along[:cut].sort().values, first), _ordered(x, along[cut:].sort().values, groups - first)]
    )


def _across(x: Tensor) -> Tensor:
    """Where points [n, D] are along the direction of their largest variance [n], its largest component positive."""
    centred = x - x.mean(0)
    direction = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -1]
    return centred @ (direction * direction[direction.abs().argmax()].sign())
