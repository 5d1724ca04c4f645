"""The weights of CaloDREAM by the authors' names -> the state dicts of our networks."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from calogen.systems.published_points import DECODER_NAMES, ENCODER_NAMES
from calogen.systems.published_weights import Arrays

ENERGY_NAMES = {
    **{rf"transformer\.encoder\.layers\.(?P<n>\d+)\.{a}": rf"encoder.\g<n>.{b}" for a, b in ENCODER_NAMES.items()},
    **{rf"transformer\.decoder\.layers\.(?P<n>\d+)\.{a}": rf"decoder.\g<n>.{b}" for a, b in DECODER_NAMES.items()},
    r"transformer\.encoder\.norm\.(weight|bias)": r"norm_memory.\1",
    r"transformer\.decoder\.norm\.(weight|bias)": r"norm_context.\1",
    r"t_embed\.0\.W": r"velocity.fourier.weight",
    r"t_embed\.1\.(weight|bias)": r"velocity.time.\1",
}
"""Names inside the energy network of CaloDREAM -> names of `AutoregressiveTransformer`; for the velocity see below."""

SUBNET_NAME = re.compile(r"(?:^|\.)subnet\.(\d+)\.(weight|bias)$")
"""Parts of the velocity: map, SiLU, then (map, norm, dropout, SiLU) for each hidden map, and the last map."""

UNUSED = re.compile(r"(?:^|\.)positional_encoding\.pe$")
"""A table that is stored and never used, as the places of the energies are one-hot."""


def autoregressive_transformer_from_calodream(sd: Arrays) -> dict[str, Tensor]:
    """State dict of `AutoregressiveTransformer` from that of CaloDREAM's energy network.

    Renames, but for the time: theirs is [sin, cos], ours [cos, sin], so the columns of its map change places.

    Args:
        sd: arrays by the authors' names; what stands before a name is ignored.

    Raises:
        ValueError: for a name that is not part of it.
    """
    places = [int(match[1]) for name in sd if (match := SUBNET_NAME.search(name))]
    state = {
        _energy_name(name, max(places, default=0)): torch.as_tensor(value).detach().clone()
        for name, value in sd.items()
        if not UNUSED.search(name)
    }
    if "velocity.fourier.weight" in state:
        state["velocity.fourier.weight"] = state["velocity.fourier.weight"][:, None]
    if "velocity.time.weight" in state:
        sin, cos = state["velocity.time.weight"].chunk(2, dim=1)
        state["velocity.time.weight"] = torch.cat([cos, sin], dim=1)
    return state


def _energy_name(name: str, last: int) -> str:
    """Our name; `last` is the place of the velocity's last map."""
    part = SUBNET_NAME.search(name)
    if part:
        return f"velocity.{_place_in_velocity(int(part[1]), last)}.{part[2]}"
    matches = ((ours, re.search(rf"(?:^|\.){theirs}$", name)) for theirs, ours in ENERGY_NAMES.items())
    found = next((match.expand(ours) for ours, match in matches if match), None)
    if found is None:
        raise ValueError(f"'{name}' is no part of CaloDREAM's energy network")
    return found


def _place_in_velocity(place: int, last: int) -> str:
    if place in (0, last):
        return "first" if place == 0 else "last"
    block, part = divmod(place - 2, 4)
    if part > 1:
        raise ValueError(f"'subnet.{place}' is no map or norm of CaloDREAM's velocity")
    return f"norms.{block}" if part else f"maps.{block}"
