"""Classifiers: rows of numbers to logits, by a dense network or by a residual network of 3D convolutions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

STEM_KERNEL = 7
"""Voxels along each side of the first convolution of the residual network (He et al., arXiv:1512.03385)."""


class Dnn(nn.Module):
    """Linear maps with LeakyReLU between them.

        x -> Linear -> LeakyReLU -> Dropout -> ... -> Linear -> logits

    Three hidden layers of 2048 are the classifier of the CaloChallenge (arXiv:2410.21611).

    Args:
        inputs: length d of a row.
        hidden: widths of the hidden layers.
        outputs: logits a row.
        slope: of the LeakyReLU below zero.
        dropout: share of hidden values set to zero while training.

    >>> net = Dnn(362)
    >>> net(torch.zeros(5, 362)).shape, sum(p.numel() for p in net.parameters())
    (torch.Size([5, 1]), 9138177)
    """

    def __init__(
        self,
        inputs: int,
        hidden: Sequence[int] = (2048, 2048, 2048),
        outputs: int = 1,
        *,
        slope: float = 0.01,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = inputs
        for following in hidden:
            layers += [nn.Linear(width, following), nn.LeakyReLU(slope)]
            layers += [nn.Dropout(dropout)] if dropout else []
            width = following
        self.layers = nn.Sequential(*layers, nn.Linear(width, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Rows [N, d] -> logits [N, outputs]."""
        logits: Tensor = self.layers(x)
        return logits


class Resnet3d(nn.Module):
    """ResNet of 3D convolutions on the voxels, with one more number joined before the last layer.

        voxels -> Conv 7³/2 -> BN -> ReLU -> MaxPool 3³/2 -> 4 stages -> mean over voxels -> [., BN(c)] -> Linear

    Two blocks a stage and planes 32, 64, 64, 128 are the ResNet-18 of the CaloChallenge (arXiv:2410.21611), where c is
    the logarithm of the incident energy. Borders are padded with zeros on all axes, the angle included, as there.

    Args:
        grid: voxels along layers, angle and radius; the row holds them in this order, radius fastest.
        planes: channels of the four stages; all but the first halve the grid.
        blocks: residual blocks a stage.
        outputs: logits a row.

    >>> net = Resnet3d((45, 16, 9))
    >>> sum(p.numel() for p in net.parameters())
    2516644
    """

    def __init__(
        self,
        grid: tuple[int, int, int],
        planes: Sequence[int] = (32, 64, 64, 128),
        blocks: int = 2,
        outputs: int = 1,
    ) -> None:
        super().__init__()
        self.grid = grid
        width = planes[0]
        self.stem = nn.Sequential(
            # Not Conv3d(padding=3): oneDNN's weight gradient then writes out of bounds where there are five layers.
            nn.ConstantPad3d(STEM_KERNEL // 2, 0.0),
            nn.Conv3d(1, width, STEM_KERNEL, stride=2, bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
            nn.MaxPool3d(3, stride=2, padding=1),
        )
        stages: list[nn.Module] = []
        for i, following in enumerate(planes):
            stages.append(_Block(width, following, stride=1 if i == 0 else 2))
            stages += [_Block(following, following, stride=1) for _ in range(blocks - 1)]
            width = following
        self.stages = nn.Sequential(*stages)
        self.condition = nn.BatchNorm1d(1)
        self.head = nn.Linear(width + 1, outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Rows [N, 1 + voxels], the condition c first -> logits [N, outputs].

        Raises:
            ValueError: rows of another length.
        """
        if x.shape[1] != 1 + math.prod(self.grid):
            raise ValueError(
                f"rows have {x.shape[1]} values; one and {'x'.join(map(str, self.grid))} voxels are needed"
            )
        image = self.stages(self.stem(x[:, 1:].reshape(-1, 1, *self.grid)))
        logits: Tensor = self.head(torch.cat([image.mean(dim=(2, 3, 4)), self.condition(x[:, :1])], dim=1))
        return logits


class _Block(nn.Module):
    """ReLU(shortcut(x) + BN(Conv(ReLU(BN(Conv(x)))))); the shortcut is a 1³ convolution where shapes change."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv3d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm3d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv3d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm3d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv3d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm3d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.shortcut(x) + self.residual(x))
