"""Published weights of flows and transformers of points -> the state dicts of our networks. Renames only."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from calogen.systems.published_weights import Arrays

FREQUENCIES = "frequencies"
"""Both flows store the angular frequencies of their time, which are π, 2π, 3π: checked and left out."""


COUNT_NAMES = {r"network\.network\.(\d+)\.(weight|bias)": r"network.\1.\2"}
"""Names of a PointCountFM -> names of `CountMLP`."""


def count_mlp_from_pointcountfm(sd: Arrays) -> dict[str, Tensor]:
    """State dict of `CountMLP` from that of a PointCountFM, standalone or CaloHadronic's.

    Args:
        sd: arrays by the authors' names, `frequencies` and `network.network.{0,2,...}.{weight,bias}`.

    Raises:
        ValueError: for another name, or other frequencies.
    """
    return _renamed(sd, COUNT_NAMES, "a PointCountFM")


ALLSHOWERS_NAMES = {
    r"network\.embedding\.(weight|bias)": r"points.\1",
    r"network\.layer_embedding\.weight": r"layer.weight",
    r"network\.cond_embedding\.(weight|bias)": r"condition.\1",
    r"network\.num_points_embedding\.0\.(weight|bias)": r"counts.0.\1",
    r"network\.num_points_embedding\.2\.(weight|bias)": r"counts.2.\1",
    r"network\.particle_embedding\.weight": r"particle.weight",
    r"network\.transformer_blocks\.(\d+)\.key_query_value\.(weight|bias)": r"blocks.\1.key_query_value.\2",
    r"network\.transformer_blocks\.(\d+)\.feedforward\.0\.(weight|bias)": r"blocks.\1.widen.\2",
    r"network\.transformer_blocks\.(\d+)\.feedforward\.2\.(weight|bias)": r"blocks.\1.narrow.\2",
    r"network\.transformer_blocks\.(\d+)\.layer_norm1\.(weight|bias)": r"blocks.\1.norm_attention.\2",
    r"network\.transformer_blocks\.(\d+)\.layer_norm2\.(weight|bias)": r"blocks.\1.norm_feedforward.\2",
    r"network\.head\.(weight|bias)": r"head.\1",
}
"""Names of AllShowers' flow -> names of `PointTransformer`."""


def point_transformer_from_allshowers(sd: Arrays) -> dict[str, Tensor]:
    """State dict of `PointTransformer` (with an index of layers) from that of AllShowers.

    Raises:
        ValueError: for a name that is not part of it, or other frequencies.
    """
    return _renamed(sd, ALLSHOWERS_NAMES, "AllShowers")


ATTENTION_NAMES = {
    r"in_proj_(?P<kind>weight|bias)": r"query_key_value.\g<kind>",
    r"out_proj\.(?P<kind>weight|bias)": r"output.\g<kind>",
}

BLOCK_NAMES = {
    **{rf"self_attn\.{theirs}": rf"attention.{ours}" for theirs, ours in ATTENTION_NAMES.items()},
    r"linear1\.(?P<kind>weight|bias)": r"widen.\g<kind>",
    r"linear2\.(?P<kind>weight|bias)": r"narrow.\g<kind>",
    r"norm1\.(?P<kind>weight|bias)": r"norm_attention.\g<kind>",
}
"""Names inside torch's transformer layers -> names of `SetBlock`, as far as encoder and decoder agree."""

ENCODER_NAMES = BLOCK_NAMES | {r"norm2\.(?P<kind>weight|bias)": r"norm_feedforward.\g<kind>"}

DECODER_NAMES = (
    BLOCK_NAMES
    | {rf"multihead_attn\.{theirs}": rf"memory_attention.{ours}" for theirs, ours in ATTENTION_NAMES.items()}
    | {
        r"norm2\.(?P<kind>weight|bias)": r"norm_memory.\g<kind>",
        r"norm3\.(?P<kind>weight|bias)": r"norm_feedforward.\g<kind>",
    }
)

HADRONIC_NAMES = {
    r"timestep_embeding\.(\d)\.(weight|bias)": r"time.\1.\2",
    r"context_embeding\.(\d)\.(weight|bias)": r"context.\1.\2",
    r"context_embeding_ecal\.(\d)\.(weight|bias)": r"context_given.\1.\2",
    r"compressor\.token_proj\.(weight|bias)": r"compressor.shares.\1",
    r"compressor\.point_proj\.(weight|bias)": r"compressor.values.\1",
    r"extra_layer\.(weight|bias)": r"widen.\1",
    r"point_embeding\.1\.(weight|bias)": r"points.1.\1",
    **{rf"denoiser\.layers\.(?P<n>\d+)\.{theirs}": rf"encoder.\g<n>.{ours}" for theirs, ours in ENCODER_NAMES.items()},
    **{rf"trasf_decoder\.layers\.0\.{theirs}": rf"decoder.{ours}" for theirs, ours in DECODER_NAMES.items()},
    r"decoder\.(\d)\.(weight|bias)": r"head.\1.\2",
}
"""Names inside `diffusion.inner_model` of CaloHadronic -> names of `HadronicTransformer`."""


def hadronic_transformer_from_calohadronic(sd: Arrays) -> dict[str, Tensor]:
    """State dict of `HadronicTransformer` from that of a published denoiser, of the ECal or of the HCal.

    Args:
        sd: arrays by the authors' names; what stands before a name inside `diffusion.inner_model` is ignored.

    Raises:
        ValueError: for a name that is not part of it.
    """
    return _renamed(sd, HADRONIC_NAMES, "a denoiser of CaloHadronic")


def is_of(names: Mapping[str, str], name: str) -> bool:
    """Whether an array of this name is one of the weights."""
    return any(re.search(rf"(?:^|[./]){theirs}$", name) for theirs in names)


def _renamed(sd: Arrays, names: Mapping[str, str], model: str) -> dict[str, Tensor]:
    """All arrays but the frequencies by our names; what stands before a name of theirs is ignored."""
    state: dict[str, Tensor] = {}
    for name, value in sd.items():
        if re.search(rf"(?:^|[./]){FREQUENCIES}$", name):
            _check_frequencies(value)
            continue
        matches = ((ours, re.search(rf"(?:^|[./]){theirs}$", name)) for theirs, ours in names.items())
        found = next((match.expand(ours) for ours, match in matches if match), None)
        if found is None:
            raise ValueError(f"'{name}' is no part of {model}")
        state[found] = torch.as_tensor(value).detach().clone()
    return state


def _check_frequencies(value: ArrayLike | Tensor) -> None:
    given = torch.as_tensor(value).flatten()
    expected = math.pi * torch.arange(1, len(given) + 1)
    if not torch.allclose(given.float(), expected, rtol=1e-5):
        raise ValueError(f"the time of this flow has the angular frequencies {given.tolist()}, not kπ")
