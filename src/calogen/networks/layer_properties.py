"""Layers known by what they are (depth, thickness, section, ...) instead of by an index: one network, any detector.

`properties [L, K]` are standardised numbers, on the same scales for all detectors. They are no part of the state:
parameters that were learned with one detector load into a network that is built with another's, and networks of
several detectors can be one and the same (`share_parameters`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HIDDEN = 64
"""Hidden width of the maps of properties: as wide as the points of AllShowers are."""


class LayerEmbedding(nn.Module):
    """Index of a layer -> MLP(its properties): takes the place of `nn.Embedding(L, width)`.

    Args:
        properties: [L, K].
        width: of the output.
    """

    properties: Tensor

    def __init__(self, properties: Tensor, width: int) -> None:
        super().__init__()
        self.register_buffer("properties", _checked(properties), persistent=False)
        self.map = nn.Sequential(nn.Linear(properties.shape[1], HIDDEN), nn.GELU(), nn.Linear(HIDDEN, width))

    def forward(self, layer: Tensor) -> Tensor:
        """layer [P] -> [P, width]."""
        out: Tensor = F.embedding(layer, self.map(self.properties))
        return out


class LayerSum(nn.Module):
    """y = Σ_l n_l MLP(properties_l) + b: takes the place of `nn.Linear(L, width)`, its columns made from properties.

    Args:
        properties: [L, K].
        width: of the output.
    """

    properties: Tensor

    def __init__(self, properties: Tensor, width: int) -> None:
        super().__init__()
        self.register_buffer("properties", _checked(properties), persistent=False)
        last = nn.Linear(HIDDEN, width, bias=False)
        self.map = nn.Sequential(nn.Linear(properties.shape[1], HIDDEN), nn.GELU(), last)
        self.bias = nn.Parameter(torch.zeros(width))
        with torch.no_grad():  # columns start as small as those of the linear map that this one replaces
            last.weight.div_(len(properties) ** 0.5)

    def forward(self, n: Tensor) -> Tensor:
        """n [N, L] -> [N, width]."""
        columns: Tensor = self.map(self.properties)
        return torch.addmm(self.bias, n, columns)


def _checked(properties: Tensor) -> Tensor:
    if properties.ndim != 2 or not bool(torch.isfinite(properties).all()):
        raise ValueError(f"properties of layers must be finite numbers [L, K], not {list(properties.shape)}")
    return properties.detach().to(torch.get_default_dtype()).clone()


def share_parameters(network: nn.Module, other: nn.Module) -> None:
    """Give `other` the very parameters of `network`: what one learns the other knows. Buffers stay its own.

    Raises:
        ValueError: modules or shapes differ.
    """
    own, theirs = dict(network.named_parameters()), dict(other.named_parameters())
    shapes, wanted = ({name: tuple(p.shape) for name, p in part.items()} for part in (own, theirs))
    if shapes != wanted:
        differing = sorted(name for name in shapes.keys() | wanted.keys() if shapes.get(name) != wanted.get(name))
        raise ValueError(f"networks that differ cannot share parameters: {differing[0]}")
    for name, parameter in own.items():
        path, _, leaf = name.rpartition(".")
        setattr(other.get_submodule(path), leaf, parameter)
