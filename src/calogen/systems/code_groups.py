"""CodeGroups: tokens are the codes of a tokenizer in another order, in which neighbours are alike.

A generator that chooses a group first and a code within it needs groups of codes that stand for similar hits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calogen.data.incident import Incident
from calogen.data.showers import Showers
from calogen.methods.equal_groups import equal_groups
from calogen.systems.hit_tokenizer import Decoded, HitTokenizer, Tokens
from calogen.train import Plan, SolvedStage


class CodeGroups(nn.Module):
    """An order of K codes; as they are, until it is fitted."""

    code: Tensor
    """The code of each token [K]."""

    def __init__(self, codes: int) -> None:
        super().__init__()
        self.register_buffer("code", torch.arange(codes))

    def fit(self, values: Tensor, groups: int) -> None:
        """Order codes by their values [K, D], so that each K / groups in turn are near each other."""
        self.code.copy_(equal_groups(values, groups))

    def tokens_of(self, codes: Tensor) -> Tensor:
        """Codes [T] -> tokens [T]."""
        return self.code.argsort().to(codes.device)[codes]

    def codes_of(self, tokens: Tensor) -> Tensor:
        """Tokens [T] -> codes [T]."""
        return self.code.to(tokens.device)[tokens]


class GroupsStage(SolvedStage):
    """Order the codes of the fitted tokenizer.

    Args:
        groups: what is fitted.
        tokenizer: whose codes they are.
        number: of groups; 0: codes stay in the order they have, which is that of another state.
        plan: nothing of it is used.
    """

    name = "groups"

    def __init__(self, groups: CodeGroups, tokenizer: HitTokenizer, number: int, plan: Plan) -> None:
        self.model, self.groups, self.tokenizer, self.number, self.plan = groups, groups, tokenizer, number, plan

    def solve(self, train: Showers, validation: Showers | None) -> None:
        """See `CodeGroups`."""
        if self.number:
            self.groups.fit(self.tokenizer.network.codebook.codes(), self.number)


@dataclass(frozen=True)
class GroupedTokenizer:
    """A fitted tokenizer with its codes in order: what a token generator learns from, and is decoded by."""

    tokenizer: HitTokenizer
    groups: CodeGroups

    @property
    def codes(self) -> int:
        """K."""
        return self.tokenizer.vocabulary

    def values(self) -> Tensor:
        """Where the tokens are in the codebook [K, D]."""
        return self.tokenizer.network.codebook.codes().detach()[self.groups.code]

    def encode(self, showers: Showers) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tokens [T] in [0, K) of N showers, and offsets [N + 1]."""
        self.tokenizer.eval()
        made = self.tokenizer.encode(showers)
        return self.groups.tokens_of(made.ids).cpu().numpy(), made.offsets.numpy()

    def decode(self, tokens: NDArray[np.int64], offsets: NDArray[np.int64], incident: Incident) -> Decoded:
        """Hits of N sequences of tokens; see `HitTokenizer.decode`."""
        self.tokenizer.eval()
        ids = self.groups.codes_of(torch.from_numpy(tokens))
        return self.tokenizer.decode(Tokens(ids, torch.from_numpy(offsets)), incident)
