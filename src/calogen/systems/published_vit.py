"""Published weights of CaloDREAM's shape network -> the state dict of `VoxelTransformer`. Renames only."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from calogen.systems.published_weights import Arrays

NAMES = {
    r"pos_embed_freqs": r"positions.frequencies",
    r"x_embedder\.(weight|bias)": r"embedding.\1",
    r"t_embedder\.mlp\.0\.(weight|bias)": r"time.1.\1",
    r"t_embedder\.mlp\.2\.(weight|bias)": r"time.3.\1",
    r"c_embedder\.(\d+)\.(weight|bias)": r"context.\1.\2",
    r"blocks\.(\d+)\.adaLN_modulation\.1\.(weight|bias)": r"blocks.\1.modulation.\2",
    r"blocks\.(\d+)\.attn\.qkv\.(weight|bias)": r"blocks.\1.query_key_value.\2",
    r"blocks\.(\d+)\.attn\.proj\.(weight|bias)": r"blocks.\1.output.\2",
    r"blocks\.(\d+)\.mlp\.fc1\.(weight|bias)": r"blocks.\1.widen.\2",
    r"blocks\.(\d+)\.mlp\.fc2\.(weight|bias)": r"blocks.\1.narrow.\2",
    r"final_layer\.adaLN_modulation\.1\.(weight|bias)": r"modulation.\1",
    r"final_layer\.linear\.(weight|bias)": r"head.\1",
}
"""Names of the authors' ViT -> names of `VoxelTransformer`."""

DERIVED = r"[lar]grid|pos_embed|attn_mask"
"""Last parts of names of tables that follow from the layout: left out."""


def voxel_transformer_from_calodream(sd: Arrays) -> dict[str, Tensor]:
    """State dict of `VoxelTransformer` from that of the authors' ViT.

    Args:
        sd: arrays by the authors' names; what stands before a name inside the ViT is ignored.

    Raises:
        ValueError: for a name that is not part of it.
    """
    state: dict[str, Tensor] = {}
    for name, value in sd.items():
        if re.search(rf"(?:^|\.)(?:{DERIVED})$", name):
            continue
        matches = ((ours, re.search(rf"(?:^|[./]){theirs}$", name)) for theirs, ours in NAMES.items())
        found = next((match.expand(ours) for ours, match in matches if match), None)
        if found is None:
            raise ValueError(f"'{name}' is no part of a ViT of CaloDREAM")
        state[found] = torch.as_tensor(value).detach().clone()
    return state
