"""Fitting the guesses of further tokens, when the generator they guess for is final."""

from __future__ import annotations

import copy

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from calogen.data.showers import Showers
from calogen.methods.further_tokens import further_loss
from calogen.networks.token_drafts import TokenDrafts
from calogen.systems.token_generator import TokenStage
from calogen.train import Batch, LearnedStage, Plan


class DraftStage(LearnedStage):
    """Fit drafts; the generator does not change.

    Args:
        drafts: what is fitted.
        tokens: the stage of the generator, whose view of the showers it shares.
        plan: how.
    """

    name = "drafts"

    def __init__(self, drafts: TokenDrafts, tokens: TokenStage, plan: Plan) -> None:
        self.model, self.drafts, self.tokens, self.plan = drafts, drafts, tokens, plan

    def prepare(self, showers: Showers) -> None:
        """Take a copy of the generator's network, which no gradient reaches."""
        self.network = copy.deepcopy(self.tokens.generator.network).requires_grad_(False).eval()

    def batch(self, showers: Showers, indices: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        """As of the generator's stage."""
        return self.tokens.batch(showers, indices, rng)

    def loss(self, batch: Batch) -> Tensor:
        """Mean of -log q over the guesses in each shower [N]."""
        codes, counts, c = batch
        given = c if c.shape[1] else None
        return further_loss(self.network.to(codes.device), self.drafts, codes, given, counts, number=self.drafts.number)

    def weights(self, batch: Batch) -> Tensor:
        """As of the generator's stage."""
        return self.tokens.weights(batch)

    def counts(self, showers: Showers) -> NDArray[np.integer]:
        """As of the generator's stage."""
        return self.tokens.counts(showers)
