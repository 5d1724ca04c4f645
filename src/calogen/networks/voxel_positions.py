"""Where a patch of voxels lies, as numbers a transformer can add: learned frequencies, or fixed sines and cosines."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

AXES = 3
"""Layer, angle, radius."""

LONGEST = 10_000.0
"""Ratio of the highest of the fixed frequencies to the lowest (Vaswani et al., arXiv:1706.03762)."""


class LearnedFrequencies(nn.Module):
    """sin and cos of 2π f x, with learned f for each axis (arXiv:2405.09629, sec. 3.2).

        p = [sin 2πf_r r, cos 2πf_r r, sin 2πf_α α, cos 2πf_α α, sin 2πf_l l, cos 2πf_l l]

    Args:
        width: D, length of p.

    Raises:
        ValueError: if it cannot be cut into sine and cosine of three axes.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(torch.randn(_per_axis(width) * AXES))

    def forward(self, coordinates: Tensor) -> Tensor:
        """(layer, angle, radius), each from 0 to 1 [T, 3] -> [T, D]."""
        return _waves(coordinates, 2 * math.pi * self.frequencies.view(AXES, -1))


class FixedFrequencies(nn.Module):
    """The same with fixed f = 10000^{-k/(K-1)} of all axes, and no 2π (the authors' alternative).

    Args:
        width: D, length of p.
        axes: `cylindrical`, or `cartesian` with (r cos 2πα, r sin 2πα) in place of (r, α).

    Raises:
        ValueError: if D cannot be cut into sine and cosine of at least two frequencies, or the axes are unknown.
    """

    frequencies: Tensor

    def __init__(self, width: int, axes: Literal["cylindrical", "cartesian"] = "cylindrical") -> None:
        super().__init__()
        number = _per_axis(width)
        if number < 2:
            raise ValueError(f"fixed frequencies need a width of {2 * 2 * AXES} or more, not {width}")
        if axes not in ("cylindrical", "cartesian"):
            raise ValueError(f"unknown axes {axes!r}; use 'cylindrical' or 'cartesian'")
        self.axes = axes
        exponent = torch.arange(number) / (number - 1)
        self.register_buffer("frequencies", (LONGEST**-exponent).expand(AXES, number).clone(), persistent=False)

    def forward(self, coordinates: Tensor) -> Tensor:
        """(layer, angle, radius), each from 0 to 1 [T, 3] -> [T, D]."""
        if self.axes == "cartesian":
            layer, angle, radius = coordinates.unbind(1)
            phi = 2 * math.pi * angle
            coordinates = torch.stack([layer, radius * phi.sin(), radius * phi.cos()], dim=1)
        return _waves(coordinates, self.frequencies)


def _per_axis(width: int) -> int:
    """Frequencies of an axis."""
    if width < 2 * AXES or width % (2 * AXES):
        raise ValueError(f"width {width} cannot be cut into sine and cosine of {AXES} axes: take a multiple of 6")
    return width // (2 * AXES)


def _waves(coordinates: Tensor, frequencies: Tensor) -> Tensor:
    """[T, 3], angular frequencies [3, K] -> [T, 6 K], the last axis (radius, or x) first."""
    phase = (coordinates[:, :, None] * frequencies).flip(1)
    return torch.stack([phase.sin(), phase.cos()], dim=2).flatten(1)
