"""How OmniJet-alpha_C is fitted: the tokenizer (or what is learned of the particles where it is another state's)."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from torch import nn

from calogen.data.showers import Showers
from calogen.systems.domain import Domain
from calogen.systems.hit_tokenizer import HitTokenizer
from calogen.systems.hit_tokenizer_stage import TokenizerStage
from calogen.systems.token_generator import TokenGenerator
from calogen.train import Plan, SolvedStage


class Tokenized(Protocol):
    """What the stages need of the system."""

    domain: Domain
    tokenizer: HitTokenizer
    generator: TokenGenerator

    def learn_range(self, showers: Showers) -> None:
        """Fit the domain; refuses particles that it cannot tell from each other."""


class HitsStage(TokenizerStage):
    """Fit the range of particles, and the tokenizer."""

    def __init__(self, system: Tokenized, plan: Plan) -> None:
        super().__init__(system.tokenizer, plan)
        self.system = system
        self.model = nn.ModuleDict({"domain": system.domain, "tokenizer": system.tokenizer})

    def prepare(self, showers: Showers) -> None:
        """See `Tokenized` and `TokenizerStage`."""
        self.system.learn_range(showers)
        super().prepare(showers)


class TakenTokenizerStage(SolvedStage):
    """Fit the range of particles; the tokenizer is that of another state, whose tokens the generator knows."""

    name = TokenizerStage.name

    def __init__(self, system: Tokenized, plan: Plan) -> None:
        self.system, self.plan = system, plan
        self.model = nn.ModuleDict({"domain": system.domain, "tokenizer": system.tokenizer})

    def solve(self, train: Showers, validation: Showers | None) -> None:
        """See `Tokenized`."""
        self.system.learn_range(train)


def share_left_out(tokenizer: HitTokenizer, showers: Showers, at_once: int = 256) -> float:
    """Share of the energy of showers that is in no hit: outside of the box, or below the readout's thresholds."""
    kept = total = 0.0
    for start in range(0, len(showers), at_once):
        some = showers[np.arange(start, min(start + at_once, len(showers)))]
        kept += float(tokenizer.hits(some).energy.sum(dtype=np.float64))
        total += float(some.energy.sum(dtype=np.float64))
    return 1 - kept / total if total else 0.0
