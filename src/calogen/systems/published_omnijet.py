"""The tokenizer of OmniJet-alpha_C by the authors' names -> the state dict of our `HitAutoencoder`."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from calogen.systems.published_points import ATTENTION_NAMES
from calogen.systems.published_weights import Arrays

_KIND = r"(?P<kind>weight|bias)"

_BLOCK_NAMES = {
    rf"norm1\.{_KIND}": r"norm_attention.\g<kind>",
    **{rf"attn\.{theirs}": rf"attention.{ours}" for theirs, ours in ATTENTION_NAMES.items()},
    rf"norm2\.{_KIND}": r"norm_seen.\g<kind>",
    rf"mlp\.0\.{_KIND}": r"norm_mlp.\g<kind>",
    rf"mlp\.1\.{_KIND}": r"widen.\g<kind>",
    rf"mlp\.4\.{_KIND}": r"narrow.\g<kind>",
}

TOKENIZER_NAMES = {
    rf"input_projection\.{_KIND}": r"encoder.input.\g<kind>",
    **{
        rf"{side}_normformer\.blocks\.(?P<n>\d+)\.{theirs}": rf"{side}.blocks.\g<n>.{ours}"
        for side in ("encoder", "decoder")
        for theirs, ours in _BLOCK_NAMES.items()
    },
    rf"latent_projection_in\.{_KIND}": r"encoder.output.\g<kind>",
    r"vqlayer\.codebook\.weight": r"codebook.weight",
    r"vqlayer\.affine_transform\.(?P<kind>scale|bias)": r"codebook.\g<kind>",
    r"vqlayer\._counts": r"codebook.life",
    rf"latent_projection_out\.{_KIND}": r"decoder.input.\g<kind>",
    rf"output_projection\.{_KIND}": r"decoder.output.\g<kind>",
}
"""Names inside the authors' VQVAENormFormer -> names of `HitAutoencoder`."""


def hit_autoencoder_from_omnijet(sd: Arrays) -> dict[str, Tensor]:
    """State dict of `HitAutoencoder` from that of the authors' VQVAENormFormer; what stands before a name is ignored.

    Renames, but for shapes and kinds of the codebook: rows of the affine map [1, D] become [D], and lives, which
    theirs keeps as floats, whole numbers.

    Raises:
        ValueError: for a name that is not part of it.
    """
    return dict(_renamed(name, torch.as_tensor(value).detach().clone()) for name, value in sd.items())


def _renamed(name: str, value: Tensor) -> tuple[str, Tensor]:
    for theirs, ours in TOKENIZER_NAMES.items():
        match = re.search(rf"(?:^|[./]){theirs}$", name)
        if match:
            renamed = match.expand(ours)
            if renamed == "codebook.life":
                return renamed, value.round().long()
            return renamed, value.flatten() if renamed in ("codebook.scale", "codebook.bias") else value
    raise ValueError(f"'{name}' is no part of a tokenizer of OmniJet-alpha_C")
