"""What a training costs: parameters, tokens seen and floating-point operations, counted.

A multiply-add is two operations, and going back through a network costs twice the way there (arXiv:2001.08361,
sec. 2.1; arXiv:2203.15556, app. F):

    C = 6 (N_t + H) tokens + 6 N_s showers + 12 blocks width sum n (n + 1) / 2

N_t: parameters of the blocks that act on every token; H: multiply-adds of the vocabulary for a token; N_s: parameters
that act once a shower (the condition and what it steers); n: tokens of a shower, of which each attends to itself and
those before it: width multiply-adds for its products, and as many for what comes of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from calogen.data.batches import shuffled
from calogen.networks.token_transformer import TokenTransformer
from calogen.networks.vocabulary_head import TwoLevelVocabulary
from calogen.train import Plan
from calogen.train.streams import numpy_stream

FLOPS = 6
"""Operations of a parameter in a step: multiply and add, forward once and backward twice."""


@dataclass(frozen=True)
class Parameters:
    """Of a generator's network: of the tables of the vocabulary, once a shower, and all others."""

    vocabulary: int
    per_shower: int
    per_token: int

    @property
    def without_vocabulary(self) -> int:
        """N."""
        return self.per_shower + self.per_token

    @property
    def all(self) -> int:
        """As many as the network has."""
        return self.vocabulary + self.without_vocabulary


def parameters_of(network: TokenTransformer) -> Parameters:
    """Its parameters by how often they act."""
    vocabulary = _size(network.vocabulary)
    per_shower = _size(network.embed_condition) if network.condition else 0
    for block in network.blocks:
        steer = getattr(block, "steer", None)
        per_shower += 0 if steer is None else _size(steer)
    return Parameters(vocabulary, per_shower, _size(network) - vocabulary - per_shower)


def vocabulary_multiply_adds(network: TokenTransformer) -> int:
    """Of a token: its row, and the choice of the next one (of the group and within one group)."""
    words = network.vocabulary
    row = 0 if words.table.up is None else words.table.up.weight.numel()
    if isinstance(words, TwoLevelVocabulary):
        rank = words.table.embedding.weight.shape[1]
        return row + words.first.weight.numel() + words.query.weight.numel() + words.members * rank
    return row + words.head.weight.numel() + (0 if words.down is None else words.down.weight.numel())


@dataclass(frozen=True)
class Spent:
    """Tokens seen and operations after each step [steps]."""

    tokens: NDArray[np.int64]
    flops: NDArray[np.float64]


def spent(network: TokenTransformer, counts: NDArray[np.integer], plan: Plan, stage: str, steps: int) -> Spent:
    """What the first steps of a training cost.

    Args:
        network: what is trained.
        counts: tokens of each training shower [N], its end included.
        plan: by which batches are drawn; shuffled.
        stage: its name.
        steps: how many.
    """
    sizes: list[tuple[int, int, int]] = []
    epoch = 0
    while len(sizes) < steps:
        rng = numpy_stream(plan.seed, stage, "epoch", epoch)
        for batch in shuffled(len(counts), plan.batch_size, rng):
            n = counts[batch].astype(np.int64)
            sizes.append((int(n.sum()), len(n), int((n * (n + 1)).sum()) // 2))
        epoch += 1
    tokens, showers, pairs = np.cumsum(np.array(sizes[:steps], dtype=np.int64).reshape(-1, 3), axis=0).T
    own, width, blocks = parameters_of(network), network.width, len(network.blocks)
    each = own.per_token + vocabulary_multiply_adds(network)
    flops = FLOPS * (each * tokens.astype(np.float64) + own.per_shower * showers + 2.0 * blocks * width * pairs)
    return Spent(tokens, flops)


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
