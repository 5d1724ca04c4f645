"""A variational autoencoder of voxels on a grid of layers, angles and radii, given a condition.

The one in front of the latent CaloDREAM (laViT, arXiv:2405.09629): 3D convolutions that see where
they are by coordinate channels, since layers and radii, unlike angles, are not alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calogen.networks.grid_convolution import ANGLE, LAYER, BatchNorm, GridConv, GridGrow, Triple, with_coordinates

BETA = 1e-6
"""Weight of the KL term in the paper (1e-5 is the default of the published code)."""


@dataclass(frozen=True)
class Level:
    """One level of the autoencoder: two 3 x 3 x 3 convolutions and one that shrinks the grid.

    Triples are for layer, angle, radius. `padding` is with zeros; of an angle that goes around it is not used.
    """

    channels: int
    kernel: Triple = (1, 1, 1)
    stride: Triple = (1, 1, 1)
    padding: Triple = (0, 0, 0)

    def shrunk(self, grid: Triple, *, around: bool) -> Triple:
        """The grid behind this level.

        Raises:
            ValueError: if growing back would not give the same grid.
        """
        cells: list[int] = []
        for axis, n in enumerate(grid):
            kernel, stride = self.kernel[axis], self.stride[axis]
            turns = around and axis == ANGLE - LAYER
            left = n - stride if turns else n + 2 * self.padding[axis] - kernel
            if left < 0 or left % stride or (turns and not stride <= kernel <= n + stride):
                raise ValueError(
                    f"a kernel of {kernel} in steps of {stride} does not cover {n} cells of axis {axis} evenly; "
                    "choose sizes that divide the grid"
                )
            cells.append(left // stride + 1)
        return cells[0], cells[1], cells[2]


class Latent(NamedTuple):
    """Of N showers mean and log variance of the latent numbers, each [N, latent, layers, angles, radii]."""

    mu: Tensor
    log_variance: Tensor

    def sample(self, noise: Tensor | None = None) -> Tensor:
        """z = μ + σ ε of the shape of μ; ε from torch's global generator unless given."""
        return self.mu + (self.log_variance / 2).exp() * (torch.randn_like(self.mu) if noise is None else noise)


class VoxelVAE(nn.Module):
    """Voxels in [0, 1] to latent numbers on a smaller grid, and back, given a condition.

    `encode` and `decode` normalise by the running means of training, whatever the mode of the module: a shower does
    not depend on those beside it. Only `loss` in training mode looks at the batch.

    Args:
        grid: layers, angles, radii.
        condition: C, length of the condition.
        levels: from the voxels inwards.
        latent: channels of the latent grid.
        width: of the condition's embedding.
        around: whether the angle closes to a circle. The convolutions then wrap, shrinking takes `kernel - stride`
            cells from beyond the seam, and turning a shower by the product of the strides turns its latent grid by
            one cell, exactly. Published: False, zeros beyond the seam, where 16 angles become 9.

    Raises:
        ValueError: if a level does not divide its grid.
    """

    def __init__(
        self,
        grid: Triple,
        condition: int,
        levels: Sequence[Level],
        *,
        latent: int = 2,
        width: int = 100,
        around: bool = True,
    ) -> None:
        super().__init__()
        self.grid, self.condition, self.latent = grid, condition, latent
        self.embedding = nn.Sequential(nn.Linear(condition, width), nn.ReLU(), nn.Linear(width, width))
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        channels, cells = 1, grid
        for level in levels:
            cells = level.shrunk(cells, around=around)
            self.down.append(Down(channels, level, width, around=around))
            channels = level.channels
        self.latent_grid = cells
        self.bottleneck = _pointwise(channels, latent)
        self.mu = nn.Conv3d(latent, latent, 1)
        self.log_variance = nn.Conv3d(latent, latent, 1)
        channels = latent
        for level in reversed(levels):
            self.up.append(Up(channels, level, width, around=around))
            channels = level.channels
        self.output = _pointwise(channels, 1)

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """Shape of the latent numbers of one shower: channels, layers, angles, radii."""
        return self.latent, *self.latent_grid

    def encode(self, x: Tensor, c: Tensor) -> Latent:
        """x [N, layers, angles, radii] in [0, 1], condition [N, C]."""
        return self._encode(self._checked(x, c), self.embedding(c), learning=False)

    def decode(self, z: Tensor, c: Tensor) -> Tensor:
        """z [N, latent, ...], condition [N, C] -> voxels in (0, 1) [N, layers, angles, radii]."""
        if tuple(z.shape) != (len(c), *self.latent_shape):
            raise ValueError(f"latent numbers must be {[len(c), *self.latent_shape]}, not {list(z.shape)}")
        return self._decode(z, self.embedding(c), learning=False).sigmoid()

    def losses(self, x: Tensor, c: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Binary cross-entropy and KL divergence [N] of each shower, means over its voxels and latent numbers.

            KL = -1/2 mean(1 + ln σ² - μ² - σ²)

        Args:
            x: voxels in [0, 1], as in `encode`.
            c: conditions.
            noise: ε of the latent numbers; from torch's global generator unless given.
        """
        x, embedded = self._checked(x, c), self.embedding(c)
        latent = self._encode(x, embedded, learning=self.training)
        logits = self._decode(latent.sample(noise), embedded, learning=self.training)
        bce = F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).mean(1)
        mu, log_variance = latent
        kl = -0.5 * (1 + log_variance - mu**2 - log_variance.exp()).flatten(1).mean(1)
        return bce, kl

    def loss(self, x: Tensor, c: Tensor, *, beta: float = BETA, noise: Tensor | None = None) -> Tensor:
        """BCE + beta KL [N] of each shower; arguments as in `losses`."""
        bce, kl = self.losses(x, c, noise)
        return bce + beta * kl

    def _encode(self, x: Tensor, embedded: Tensor, *, learning: bool) -> Latent:
        h = x[:, None]
        for block in self.down:
            h = block(h, embedded, learning)
        h = self.bottleneck(with_coordinates(h))
        return Latent(self.mu(h), self.log_variance(h))

    def _decode(self, z: Tensor, embedded: Tensor, *, learning: bool) -> Tensor:
        """Logits of the voxels [N, layers, angles, radii]."""
        h = z
        for block in self.up:
            h = block(h, embedded, learning)
        logits: Tensor = self.output(with_coordinates(h))
        return logits[:, 0]

    def _checked(self, x: Tensor, c: Tensor) -> Tensor:
        if tuple(x.shape) != (len(c), *self.grid) or c.shape[1:] != (self.condition,):
            raise ValueError(
                f"{len(c)} showers need voxels {[len(c), *self.grid]} and a condition [{len(c)}, {self.condition}], "
                f"not {list(x.shape)} and {list(c.shape)}"
            )
        if not bool(((x >= 0) & (x <= 1)).all()):
            raise ValueError("the cross-entropy needs voxels in [0, 1]; give shares of a layer, not energies")
        return x


class Pair(nn.Module):
    """Convolution, + condition, norm, SiLU; convolution, norm, SiLU."""

    def __init__(self, inputs: int, outputs: int, width: int, *, bias: bool, around: bool) -> None:
        super().__init__()
        self.condition = nn.Linear(width, outputs)
        self.first = GridConv(inputs, outputs, bias=bias, around=around)
        self.norm_first = BatchNorm(outputs)
        self.second = GridConv(outputs, outputs, bias=bias, around=around)
        self.norm_second = BatchNorm(outputs)

    def forward(self, x: Tensor, embedded: Tensor, learning: bool) -> Tensor:
        """x [N, inputs, ...], embedded condition [N, width] -> [N, outputs, ...] on the same grid."""
        h = self.first(with_coordinates(x)) + self.condition(embedded)[:, :, None, None, None]
        h = F.silu(self.norm_first(h, learning))
        return F.silu(self.norm_second(self.second(with_coordinates(h)), learning))


class Down(nn.Module):
    """A pair of convolutions, then to the smaller grid."""

    def __init__(self, channels: int, level: Level, width: int, *, around: bool) -> None:
        super().__init__()
        n = level.channels
        self.pair = Pair(channels, n, width, bias=True, around=around)
        self.shrink = GridConv(n, n, level.kernel, level.stride, level.padding, around=around)

    def forward(self, x: Tensor, embedded: Tensor, learning: bool) -> Tensor:
        """x [N, channels, ...], embedded condition [N, width] -> [N, level.channels, ...]."""
        h: Tensor = self.shrink(with_coordinates(self.pair(x, embedded, learning)))
        return h


class Up(nn.Module):
    """To the larger grid, then a pair of convolutions: the mirror of `Down`."""

    def __init__(self, channels: int, level: Level, width: int, *, around: bool) -> None:
        super().__init__()
        n = level.channels
        self.grow = GridGrow(channels, n, level.kernel, level.stride, level.padding, around=around)
        self.pair = Pair(n, n, width, bias=False, around=around)

    def forward(self, x: Tensor, embedded: Tensor, learning: bool) -> Tensor:
        """x [N, channels, ...], embedded condition [N, width] -> [N, level.channels, ...]."""
        h: Tensor = self.pair(self.grow(with_coordinates(x)), embedded, learning)
        return h


def _pointwise(inputs: int, outputs: int) -> GridConv:
    return GridConv(inputs, outputs, (1, 1, 1), (1, 1, 1), (0, 0, 0), around=False)
