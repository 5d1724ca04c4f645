"""Convolutions on a polar grid of layers, angles and radii: told where they are, and around the seam of the angle."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Triple = tuple[int, int, int]
"""A number each for layer, angle and radius."""

LAYER, ANGLE, RADIUS = 2, 3, 4
"""Axes of a batch [N, channels, layers, angles, radii]."""

COORDINATES = (LAYER, RADIUS)
"""Axes along which a cell is told its place, 0 at the first cell and 1 at the last. The angle has no beginning."""


def with_coordinates(x: Tensor) -> Tensor:
    """x [N, channels, layers, angles, radii] with two channels more: the place of a cell in depth and in radius."""
    places = []
    for axis in COORDINATES:
        line = torch.linspace(0, 1, x.shape[axis], device=x.device, dtype=x.dtype)
        shape = [1] * x.ndim
        shape[axis] = len(line)
        places.append(line.view(shape).expand(len(x), 1, *x.shape[LAYER:]))
    return torch.cat([x, *places], dim=1)


class GridConv(nn.Conv3d):
    """Convolution of [N, inputs + coordinates, layers, angles, radii], around the seam of the angle if asked."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Triple = (3, 3, 3),
        stride: Triple = (1, 1, 1),
        padding: Triple = (1, 1, 1),
        *,
        bias: bool = True,
        around: bool,
    ) -> None:
        inside = (padding[0], 0, padding[2]) if around else padding
        super().__init__(inputs + len(COORDINATES), outputs, kernel, stride, inside, bias=bias)
        self.wrapped = _beyond(kernel, stride) if around else (0, 0)

    def forward(self, x: Tensor) -> Tensor:
        before, after = self.wrapped
        if before or after:
            x = F.pad(x, (0, 0, before, after, 0, 0), mode="circular")
        return super().forward(x)


class GridGrow(nn.ConvTranspose3d):
    """The transpose of the convolution that shrinks: what it leaves beyond the seam comes in on the other side."""

    def __init__(
        self, inputs: int, outputs: int, kernel: Triple, stride: Triple, padding: Triple, *, around: bool
    ) -> None:
        inside = (padding[0], 0, padding[2]) if around else padding
        super().__init__(inputs + len(COORDINATES), outputs, kernel, stride, inside)
        self.inside = inside
        self.wrapped = _beyond(kernel, stride) if around else (0, 0)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if not any(self.wrapped):
            return super().forward(x, output_size)
        before, after = self.wrapped
        full = F.conv_transpose3d(x, self.weight, None, self.stride, self.inside)
        n = full.shape[ANGLE] - before - after
        left, middle, right = full.split([before, n, after], dim=ANGLE)
        middle = middle + F.pad(left, (0, 0, n - before, 0)) + F.pad(right, (0, 0, 0, n - after))
        assert self.bias is not None
        return middle + self.bias[:, None, None, None]


class BatchNorm(nn.BatchNorm3d):
    """Batch norm that is told whether to look at the batch and remember it, or to use what it remembers."""

    momentum: float

    def forward(self, x: Tensor, learning: bool = False) -> Tensor:
        """x [N, channels, ...] -> the same shape."""
        mean, variance = self.running_mean, self.running_var
        return F.batch_norm(x, mean, variance, self.weight, self.bias, learning, self.momentum, self.eps)


def _beyond(kernel: Triple, stride: Triple) -> tuple[int, int]:
    """Cells taken from before and after the seam."""
    more = kernel[1] - stride[1]
    return more // 2, math.ceil(more / 2)
