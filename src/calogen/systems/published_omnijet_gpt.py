"""The weights of OmniJet's generator by the authors' names -> the state dict of a published `TokenTransformer`."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from calogen.systems.published_points import is_of
from calogen.systems.published_weights import Arrays

BLOCK_NAMES = {
    r"mha_block\.proj\.(weight|bias)": r"attention.output.\1",
    r"ff_block\.net\.0\.(weight|bias)": r"widen.\1",
    r"ff_block\.net\.2\.(weight|bias)": r"narrow.\1",
    r"layernorm_1\.(weight|bias)": r"norm_attention.\1",
    r"layernorm_2\.(weight|bias)": r"norm_feedforward.\1",
}
GPT_NAMES = {
    r"embedding_table\.weight": r"vocabulary.table.embedding.weight",
    r"head\.fc1\.(weight|bias)": r"vocabulary.head.\1",
    **{rf"GPT_blocks\.(?P<n>\d+)\.{a}": rf"blocks.\g<n>.{b.replace('1', '2')}" for a, b in BLOCK_NAMES.items()},
}
"""Names inside `BackboneWithHead` of OmniJet -> names of `TokenTransformer`."""

PART_NAME = re.compile(r"(?:^|\.)GPT_blocks\.(\d+)\.mha_block\.(query|key|value)\.weight$")
"""Maps that are one of ours, in this order."""

UNUSED = re.compile(r"(?:^|\.)(criterion\.weight|tril)$")
"""Weights of the classes in the loss, all 1, and a mask."""


def is_of_generator(name: str) -> bool:
    """Whether an array is part of OmniJet's generator, by its name."""
    return bool(PART_NAME.search(name)) or is_of(GPT_NAMES, name)


def token_transformer_from_omnijet(sd: Arrays) -> dict[str, Tensor]:
    """State dict of `published_token_transformer` from that of OmniJet's generator.

    Renames, and joins the maps to queries, keys and values.

    Args:
        sd: arrays by the authors' names; what stands before a name (`module.`) is ignored.

    Raises:
        ValueError: for a name that is not part of it, or a map to queries, keys or values that is missing.
    """
    state: dict[str, Tensor] = {}
    parts: dict[int, dict[str, Tensor]] = {}
    for name, value in sd.items():
        if UNUSED.search(name):
            continue
        array = torch.as_tensor(value).detach().clone()
        part = PART_NAME.search(name)
        if part:
            parts.setdefault(int(part[1]), {})[part[2]] = array
        else:
            state[_renamed(name)] = array
    for block, maps in parts.items():
        missing = {"query", "key", "value"} - set(maps)
        if missing:
            raise ValueError(f"block {block} of OmniJet's generator has no map to {', '.join(sorted(missing))}")
        joined = torch.cat([maps["query"], maps["key"], maps["value"]])
        state[f"blocks.{block}.attention.query_key_value.weight"] = joined
    return state


def _renamed(name: str) -> str:
    for theirs, ours in GPT_NAMES.items():
        match = re.search(rf"(?:^|\.){theirs}$", name)
        if match:
            return match.expand(ours)
    raise ValueError(f"'{name}' is no part of OmniJet's generator")
