"""The authors' published weights by their names -> the state dicts of our parts. Renames only; no number changes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from numpy.typing import ArrayLike
from torch import Tensor

Arrays = Mapping[str, ArrayLike | Tensor]

POINT_NET_NAMES = {
    r"layers\.(\d+)\._layer\.(weight|bias)": r"layers.\1.map.\2",
    r"layers\.(\d+)\._hyper_gate\.(weight|bias)": r"layers.\1.gate.\2",
    r"layers\.(\d+)\._hyper_bias\.weight": r"layers.\1.shift.weight",
    r"timestep_embed\.0\.weight": r"fourier.weight",
    r"timestep_embed\.1\.(weight|bias)": r"time.\1",
}
"""Names inside `diffusion.inner_model` of CaloClouds 2 and 3 -> names of `PointwiseNet`."""

FLOW_NAME = re.compile(r"(?P<part>\d+)\.nn\.layers\.(?P<layer>[012])\.(?P<kind>weight|bias)")
"""ShowerFlow counts the parts that have weights; each has a network of three linear layers."""


def point_net_from_caloclouds3(sd: Arrays) -> dict[str, Tensor]:
    """State dict of `PointwiseNet` from that of the published point model.

    Args:
        sd: arrays by the authors' names, e.g. `diffusion.inner_model.layers.0._layer.weight`; what stands before
            `layers.` or `timestep_embed.` is ignored.

    Raises:
        ValueError: for a name that is not part of the published model.
    """
    return {_renamed(name): _tensor(value) for name, value in sd.items()}


def _renamed(name: str) -> str:
    for theirs, ours in POINT_NET_NAMES.items():
        match = re.search(rf"(?:^|\.){theirs}$", name)
        if match:
            return match.expand(ours)
    raise ValueError(f"'{name}' is no part of the CaloClouds point model")


def coupling_flow_from_showerflow(sd: Arrays, permutations: Sequence[ArrayLike | Tensor]) -> dict[str, Tensor]:
    """State dict of `CouplingFlow` from that of a published ShowerFlow.

    Args:
        sd: arrays by the authors' names, `{part}.nn.layers.{0,1,2}.{weight,bias}`.
        permutations: those the authors' constructor drew, in order; their files do not hold them.

    Raises:
        ValueError: for a name that is not part of a ShowerFlow.
    """
    state = {f"permutations.{k}.order": _tensor(order).long() for k, order in enumerate(permutations)}
    for name, value in sd.items():
        match = FLOW_NAME.search(name)
        if match is None:
            raise ValueError(f"'{name}' is no part of a ShowerFlow")
        state[f"parts.{match['part']}.network.{2 * int(match['layer'])}.{match['kind']}"] = _tensor(value)
    return state


def _tensor(value: ArrayLike | Tensor) -> Tensor:
    return value.detach().clone() if isinstance(value, Tensor) else torch.tensor(value)
