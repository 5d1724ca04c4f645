"""The autoencoders of the latent CaloDREAM: their published sizes, and their weights under the names of `VoxelVAE`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from calogen.networks.grid_convolution import Triple
from calogen.networks.voxel_vae import Level, VoxelVAE
from calogen.systems.published_weights import Arrays

CHANNELS = 64
"""Of both levels (arXiv:2405.09629, table 2)."""


@dataclass(frozen=True)
class VAESize:
    """What fixes a `VoxelVAE`: the grid, the levels from the voxels inwards, latent channels, embedding width."""

    grid: Triple
    levels: tuple[Level, ...]
    latent: int = 2
    width: int = 100

    def build(self, *, around: bool = False) -> VoxelVAE:
        """The autoencoder, given E_inc and the energy ratio of each layer; `around`: see `VoxelVAE`."""
        condition = 1 + self.grid[0]
        return VoxelVAE(self.grid, condition, self.levels, latent=self.latent, width=self.width, around=around)


# Kernels and paddings are not in the paper: they are those that give its latent grids, 15 x 9 x 9 and 9 x 26 x 16,
# and the published numbers of parameters. For data set 3 the paper prints the strides (2, 2, 1), which do neither.
PUBLISHED_VAES: Mapping[str, VAESize] = MappingProxyType(
    {
        "calochallenge-2": VAESize((45, 16, 9), (Level(CHANNELS, (3, 2, 1), (3, 2, 1), (0, 1, 0)), Level(CHANNELS))),
        "calochallenge-3": VAESize((45, 50, 18), (Level(CHANNELS, (5, 2, 3), (5, 2, 1), (0, 1, 0)), Level(CHANNELS))),
    }
)
"""By the name of the detector: 901,093 and 1,103,845 parameters."""

_KIND = r"(?P<kind>weight|bias|running_mean|running_var|num_batches_tracked)"

_PAIR_NAMES = {
    rf"cond_layer\.{_KIND}": r"condition.\g<kind>",
    rf"conv1\.{_KIND}": r"first.\g<kind>",
    rf"conv2\.{_KIND}": r"second.\g<kind>",
    rf"bn1\.{_KIND}": r"norm_first.\g<kind>",
    rf"bn2\.{_KIND}": r"norm_second.\g<kind>",
}

VAE_NAMES = {
    rf"c_encoding\.(?P<n>\d)\.{_KIND}": r"embedding.\g<n>.\g<kind>",
    **{rf"down_blocks\.(?P<n>\d+)\.{theirs}": rf"down.\g<n>.pair.{ours}" for theirs, ours in _PAIR_NAMES.items()},
    rf"down_blocks\.(?P<n>\d+)\.pooling\.{_KIND}": r"down.\g<n>.shrink.\g<kind>",
    **{rf"up_blocks\.(?P<n>\d+)\.{theirs}": rf"up.\g<n>.pair.{ours}" for theirs, ours in _PAIR_NAMES.items()},
    rf"up_blocks\.(?P<n>\d+)\.upconv1\.{_KIND}": r"up.\g<n>.grow.\g<kind>",
    rf"bottleneck\.0\.{_KIND}": r"bottleneck.\g<kind>",
    rf"conv_mu\.{_KIND}": r"mu.\g<kind>",
    rf"conv_logvar\.{_KIND}": r"log_variance.\g<kind>",
    rf"output_layer\.{_KIND}": r"output.\g<kind>",
}
"""Names of CaloDREAM's autoencoder -> names of `VoxelVAE`."""


def voxel_vae_from_calodream(sd: Arrays) -> dict[str, Tensor]:
    """State dict of `VoxelVAE` from that of CaloDREAM's autoencoder.

    Raises:
        ValueError: for a name that is not part of it.
    """
    return {_renamed(name): torch.as_tensor(value).detach().clone() for name, value in sd.items()}


def _renamed(name: str) -> str:
    for theirs, ours in VAE_NAMES.items():
        match = re.fullmatch(theirs, name)
        if match:
            return match.expand(ours)
    raise ValueError(f"'{name}' is no part of CaloDREAM's autoencoder")
