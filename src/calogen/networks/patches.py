"""Voxels cut into patches, the tokens of a vision transformer; layers may have different cells."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

ABSENT = -1
"""Index of a place in a patch where there is no voxel."""

Layout = Sequence[tuple[int, int]]
"""Cells of each layer: (angles, radii), or (x, y). The voxels of a layer are a * radii + r."""


class Patches(nn.Module):
    """Which voxels make up which patch: x [N, V] <-> patches [N, T, S].

    Voxels are in the order of CaloChallenge's files and of `calogen.data.voxels`: layer, angle, radius (fastest).
    Patches go by layer, angle, radius as well, and so do the places in one. A place without a voxel holds zero,
    and what a network puts there is left out. Every voxel is in one patch; every patch has a voxel.

    Args:
        index: voxel at each place of each patch, or `ABSENT`: [T, S] int.
        depth: layer of patches to which each one belongs, from 0, not falling: [T] int.
        coordinates: (layer, angle, radius) where each patch starts, from 0 to 1: [T, 3].

    Raises:
        ValueError: if the shapes disagree, a voxel is missing or double, a patch is empty, or the depth falls.
    """

    index: Tensor
    coordinates: Tensor
    _source: Tensor  # index, with the place of a zero behind the voxels where absent [T S]
    _place: Tensor  # of each voxel [V]

    def __init__(self, index: Tensor, depth: Tensor, coordinates: Tensor) -> None:
        super().__init__()
        tokens = len(index)
        if index.ndim != 2 or depth.shape != (tokens,) or coordinates.shape != (tokens, 3):
            raise ValueError(
                f"patches {list(index.shape)} need depths [{tokens}] and coordinates [{tokens}, 3], "
                f"not {list(depth.shape)} and {list(coordinates.shape)}"
            )
        present = index != ABSENT
        voxels, flat = int(present.sum()), index.flatten()
        if not torch.equal(index[present].sort().values, torch.arange(voxels, device=index.device)):
            raise ValueError(f"patches with {voxels} places for voxels must hold voxels 0 to {voxels - 1} once each")
        if not bool(present.any(1).all()):
            raise ValueError(f"patch {int((~present.any(1)).nonzero()[0])} has no voxel: leave it out")
        if bool((depth.diff() < 0).any()):
            raise ValueError("patches must go from the first layer to the last")
        self.voxels, self.size = voxels, index.shape[1]
        self.per_depth = tuple(torch.unique_consecutive(depth, return_counts=True)[1].tolist())
        self.register_buffer("index", index, persistent=False)
        self.register_buffer("coordinates", coordinates, persistent=False)
        self.register_buffer("_source", flat.where(flat != ABSENT, voxels), persistent=False)
        self.register_buffer("_place", flat.argsort()[len(flat) - voxels :], persistent=False)

    @classmethod
    def of_grid(cls, shape: tuple[int, int, int], patch: tuple[int, int, int], channels: int = 1) -> Patches:
        """Patches of a grid [channels, layers, angles, radii] (arXiv:2405.09629, sec. 3.2).

        >>> Patches.of_grid((45, 16, 9), (3, 16, 1)).index.shape
        torch.Size([135, 48])
        """
        layers, angles, radii = shape
        return cls.of_layers([(angles, radii)] * layers, patch, channels)

    @classmethod
    def of_layers(
        cls,
        layout: Layout,
        patch: tuple[int, int, int],
        channels: int = 1,
        rings: Sequence[Sequence[float]] | None = None,
        numbers: Sequence[int] | None = None,
    ) -> Patches:
        """Patches of (layers, angles, radii) voxels of layers that may differ.

        A patch joins layers only where they follow each other and are alike. What a patch lacks at an edge is absent.

        Args:
            layout: cells of each layer.
            patch: layers, angles and radii of a patch.
            channels: numbers of each voxel; all voxels have the first channel before any has the second. In a patch
                the channel is the fastest.
            rings: where the rings of each layer start, as a share of the largest radius of all; else in equal steps.
            numbers: how many each layer has behind all voxels, layer by layer; those of layers that share patches are
                in patches of their own (one, if they fit), which lie outside of all rings.

        Raises:
            ValueError: for a length below one, or rings or numbers that do not fit the layout.

        >>> Patches.of_layers([(1, 3), (2, 2)], (1, 2, 2)).index.tolist()  # a disc of rings, then sectors
        [[0, 1, -1, -1], [2, -1, -1, -1], [3, 4, 5, 6]]
        """
        if not layout or min(channels, *patch, *itertools.chain(*layout)) < 1:
            raise ValueError(
                f"patches {patch}, channels {channels} and layers need lengths of one and more; layers (angles, radii) "
                f"of this detector: {sorted(set(map(tuple, layout)))}"
            )
        starts = [[r / radii for r in range(radii)] for _, radii in layout] if rings is None else list(rings)
        if [len(ring) for ring in starts] != [radii for _, radii in layout]:
            raise ValueError(f"rings must be {[radii for _, radii in layout]} in number, not {[*map(len, starts)]}")
        first = [0, *itertools.accumulate(angles * radii for angles, radii in layout)]
        index, depth, coordinates = [], [], []
        for k, group in enumerate(_groups(layout, starts, patch[0])):
            angles, radii = layout[group.start]
            grid = torch.arange(first[group.start], first[group.stop]).view(len(group), angles, radii)
            index.append(_cut(grid, patch))
            where = itertools.product(
                [group.start / len(layout)],
                [a / angles for a in range(0, angles, patch[1])],
                starts[group.start][:: patch[2]],
            )
            coordinates.append(torch.tensor(list(where)))
            depth += [k] * len(index[-1])
        one = torch.cat(index)[:, :, None]
        each = (one + first[-1] * torch.arange(channels)).where(one != ABSENT, ABSENT).flatten(1)
        whole = cls(each, torch.tensor(depth), torch.cat(coordinates))
        return whole if numbers is None else whole._with_numbers([*_groups(layout, starts, patch[0])], numbers)

    def _with_numbers(self, groups: Sequence[range], numbers: Sequence[int]) -> Patches:
        """More patches for each group of layers, with the numbers of these."""
        layers = groups[-1].stop
        if len(numbers) != layers:
            raise ValueError(f"{layers} layers need as many numbers of numbers, not {len(numbers)}")
        index, depth, coordinates, first, place = [], [], [], 0, self.voxels
        for k, (group, patches) in enumerate(zip(groups, self.per_depth, strict=True)):
            held = torch.arange(place, place + sum(numbers[group.start : group.stop]))
            more = -(-len(held) // self.size)
            own = torch.full((more * self.size,), ABSENT)
            own[: len(held)] = held
            where = torch.tensor([[group.start / layers, 0.0, 1.0]]).expand(more, 3)
            index += [self.index[first : first + patches], own.view(more, self.size)]
            coordinates += [self.coordinates[first : first + patches], where]
            depth += [k] * (patches + more)
            first, place = first + patches, place + len(held)
        return Patches(torch.cat(index), torch.tensor(depth), torch.cat(coordinates))

    def __len__(self) -> int:
        return len(self.index)

    def cut(self, x: Tensor) -> Tensor:
        """Voxels x [N, V] -> patches [N, T, S].

        Raises:
            ValueError: for another number of voxels.
        """
        if x.ndim != 2 or x.shape[1] != self.voxels:
            raise ValueError(f"voxels must be [N, {self.voxels}], not {list(x.shape)}")
        return _take(x, self._source, self._place).view(len(x), *self.index.shape)

    def join(self, patches: Tensor) -> Tensor:
        """Patches [N, T, S] -> voxels [N, V]."""
        return _take(patches.flatten(1), self._place, self._source)


def _groups(layout: Layout, rings: Sequence[Sequence[float]], thickness: int) -> list[range]:
    """Layers that follow each other and are alike, cut to at most `thickness`."""
    alike = itertools.groupby(range(len(layout)), key=lambda k: (tuple(layout[k]), tuple(rings[k])))
    runs = [list(run) for _, run in alike]
    return [
        range(start, min(start + thickness, run[-1] + 1))
        for run in runs
        for start in range(run[0], run[-1] + 1, thickness)
    ]


def _cut(grid: Tensor, patch: tuple[int, int, int]) -> Tensor:
    """Voxels of a grid [L, A, R] of L <= patch[0] -> [(a r), (p1 p2 p3)], filled up with `ABSENT`."""
    lengths = [patch[0], *(-(-length // p) * p for length, p in zip(grid.shape[1:], patch[1:], strict=True))]
    full = grid.new_full(lengths, ABSENT)
    full[tuple(slice(length) for length in grid.shape)] = grid
    cells = full.view(patch[0], lengths[1] // patch[1], patch[1], lengths[2] // patch[2], patch[2])
    return cells.permute(1, 3, 0, 2, 4).reshape(-1, patch[0] * patch[1] * patch[2])


class _Take(torch.autograd.Function):
    """y = x at `source`, whose gradient takes from where each x went: no sums, as no x goes to two places."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, source: Tensor, place: Tensor) -> Tensor:
        ctx.save_for_backward(source, place)
        return _taken(x, source)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        source, place = ctx.saved_tensors
        return _take(gradients[0], place, source), None, None


def _take(x: Tensor, source: Tensor, place: Tensor) -> Tensor:
    """x [N, V] at `source` [W] -> [N, W], zero where the source is V; `place` [V] is where each x went, or W."""
    if not (torch.is_grad_enabled() and x.requires_grad):
        return _taken(x, source)
    out: Tensor = _Take.apply(x, source, place)
    return out


def _taken(x: Tensor, source: Tensor) -> Tensor:
    padded = nn.functional.pad(x, (0, 1)) if len(source) > x.shape[1] else x
    return padded.index_select(1, source)
