"""What is studied: which sizes, which tokenizer, how it is fitted, and what it is measured on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from calogen.evaluate.codebook_scores import QUANTITIES
from calogen.overrides import nearest
from calogen.systems.hit_tokenizer import TokenizerConfig
from calogen.systems.hit_tokenizer_stage import TokenizerStage
from calogen.train import Plan

SIZES = (512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536)
"""Codes, as far as those of the paper."""

LEAST_SHOWERS = 10
"""Of the truth: errors come from drawing showers again."""

ALONE = ("code", "config.code", TokenizerStage.name)
"""What of a system's configuration and plans this study knows."""

SIZE_KEY = "code.sizes.codes"


@dataclass(frozen=True)
class Request:
    """What is studied. Raises ValueError for sizes that are none, and numbers that cannot be meant."""

    system: str
    code: TokenizerConfig  # of all sizes; its own number of codes is not used
    plan: Plan  # of each fit
    sizes: tuple[int, ...] = SIZES
    showers: int = 1000  # of the truth, at most as many as it has
    batch_size: int = 32
    seed: int = 0
    targets: Mapping[str, float] = field(default_factory=dict)  # standard deviations aimed at, by quantity

    def __post_init__(self) -> None:
        require_sizes(self.sizes)
        if self.showers < LEAST_SHOWERS:
            raise ValueError(
                f"{self.showers} showers: give at least {LEAST_SHOWERS}, for errors from drawing them again"
            )
        if self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size}: give a number of at least 1")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: give 0 or a positive number")
        for name, value in self.targets.items():
            if name not in QUANTITIES:
                raise ValueError(f"target {name}={value:g}: no such quantity; {nearest(name, QUANTITIES)}")
            if not 0 < value < float("inf"):
                raise ValueError(f"target {name}={value:g}: a standard deviation is above 0 and finite")

    def code_of(self, size: int) -> TokenizerConfig:
        """The tokenizer with so many codes."""
        return replace(self.code, sizes=replace(self.code.sizes, codes=size))


def require_sizes(sizes: tuple[int, ...]) -> None:
    """Refuse what are no sizes of codebooks.

    Raises:
        ValueError: below 2, or twice.
    """
    for size in sizes:
        if size < 2:
            raise ValueError(f"size {size}: a codebook needs at least 2 codes")
    twice = [size for size, n in Counter(sizes).items() if n > 1]
    if twice:
        raise ValueError(f"size {twice[0]} is given twice; each is trained once")


def code_of(system: str, config: Any) -> TokenizerConfig:
    """The tokenizer of a system's configuration.

    Raises:
        ValueError: it has none.
    """
    code = getattr(config, "code", None)
    if not isinstance(code, TokenizerConfig):
        raise ValueError(f"{system!r} writes no hits as codes: it has no codebook to study; omnijet has")
    return code


def require_tokenizer_keys(changes: Mapping[str, object]) -> None:
    """Refuse changes that mean nothing here.

    Raises:
        ValueError: of other parts than the tokenizer, or of the number of codes.
    """
    for key in changes:
        if key.removeprefix("config.") == SIZE_KEY:
            raise ValueError(f"{key}: the numbers of codes are the sizes that are studied; give those")
        if not any(key.startswith(f"{head}.") for head in ALONE):
            raise ValueError(f"{key}: the tokenizer alone is trained here; change code.… or {TokenizerStage.name}.…")
