"""Learning the next token of sequences of codes: cross entropy of what comes, given all before it.

A sequence of codes k_1 ... k_n is the tokens [0, 1 + k_1, ..., 1 + k_n, K + 1]: the start, the codes, the stop. There
is a loss at each real token but the start, and nowhere else; memory does not grow with the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from calogen.methods.linear_cross_entropy import BLOCK, linear_cross_entropy


class Vocabulary(Protocol):
    """What rows say of the next token, as linear classifications; a token's probability is the product of theirs."""

    codes: int
    recalls: bool
    """Whether it matters which codes came before, besides what rows tell of them."""

    def choices(self, h: Tensor, target: Tensor) -> Iterator[Any]:
        """Of rows h [P, d] whose next tokens are target [P]: which `rows` [R] (None: all), and of these `features`
        [R, r], `weight` [S, r], `bias` [S], and what was chosen, `target` [R]."""

    def recalled(self, h: Tensor, target: Tensor, nats: Tensor, seen: Any) -> Tensor:
        """-log p of choices after the first [P], where it is known what was seen, from that without [P]."""


class Shifted:
    """Sequences of codes as tokens to go in and tokens to come out, packed.

    Args:
        codes: [T] int64 in [0, K), the sequences one after the other.
        counts: codes of each sequence [N]; 0 is a sequence that stops at once.
        size: K.

    Raises:
        ValueError: for counts that do not add up, or codes there are not.

    >>> made = Shifted(torch.tensor([7, 8]), torch.tensor([2, 0]), 10)
    >>> made.inputs.tolist(), made.target.tolist(), made.counts.tolist()
    ([0, 8, 9, 0], [8, 9, 11, 11], [3, 1])
    """

    def __init__(self, codes: Tensor, counts: Tensor, size: int) -> None:
        if bool((counts < 0).any()) or int(counts.sum()) != len(codes):
            raise ValueError(f"counts with sum {int(counts.sum())} do not describe {len(codes)} codes")
        if len(codes) and not 0 <= int(codes.min()) <= int(codes.max()) < size:
            raise ValueError(f"codes {int(codes.min())} to {int(codes.max())} are not within 0 to {size - 1}")
        self.counts = counts + 1
        self.owner = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), self.counts)
        ends = self.counts.cumsum(0)
        real = torch.ones(len(codes) + len(counts), dtype=torch.bool, device=codes.device)
        real[ends - 1] = False
        self.target = torch.full_like(real, size + 1, dtype=torch.int64).masked_scatter(real, codes + 1)
        self.inputs = torch.where(real, self.target, 0).roll(1)

    def mean(self, values: Tensor, rows: Tensor | None = None) -> Tensor:
        """Mean of the values [R] of each sequence's rows [N]; 0 where it has none. `rows`: which [R]; None: all."""
        owner = self.owner if rows is None else self.owner[rows]
        total = values.new_zeros(len(self.counts)).index_add(0, owner, values)
        return total / torch.bincount(owner, minlength=len(self.counts)).clamp(min=1)

    def further(self, by: int) -> tuple[Tensor, Tensor]:
        """Rows [R] that have a target `by` places further on in their sequence, and those targets [R]."""
        rows = (self.owner[by:] == self.owner[: max(len(self.owner) - by, 0)]).nonzero()[:, 0]
        return rows, self.target[rows + by]


class NextToken(nn.Module):
    """Learn p(x_{t+1} | x_1 ... x_t, c) by the network's hidden rows and its vocabulary.

    Args:
        network: (tokens [P], counts [N], c) -> rows [P, d], with a `vocabulary`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def loss(self, codes: Tensor, c: Tensor | None, counts: Tensor, *, block: int = BLOCK) -> Tensor:
        """Mean of -log p over the tokens of each sequence [N], its stop included; nats.

        Args:
            codes: [T] int64 in [0, K), packed.
            c: conditions [N, C], if the network has one.
            counts: codes of each sequence [N].
            block: most logits in memory at a time.

        Raises:
            ValueError: see `Shifted`, and the network.
        """
        vocabulary: Any = self.network.vocabulary
        made = Shifted(codes, counts, vocabulary.codes)
        h = self.network(made.inputs, made.counts, c)
        seen = vocabulary.seen(made.owner, made.target) if vocabulary.recalls else None
        return made.mean(surprise(vocabulary, h, made.target, block, seen))

    def surprise(self, codes: Tensor, c: Tensor | None, counts: Tensor, *, block: int = BLOCK) -> Tensor:
        """-log p(codes, stop | c) of each sequence as a whole [N], nats; arguments as of `loss`."""
        vocabulary: Any = self.network.vocabulary
        made = Shifted(codes, counts, vocabulary.codes)
        h = self.network(made.inputs, made.counts, c)
        seen = vocabulary.seen(made.owner, made.target) if vocabulary.recalls else None
        return made.mean(surprise(vocabulary, h, made.target, block, seen)) * made.counts


def surprise(vocabulary: Vocabulary, h: Tensor, target: Tensor, block: int = BLOCK, seen: Any = None) -> Tensor:
    """-log p of the next tokens target [P] of rows h [P, d], nats; `seen`: what came before, if the vocabulary recalls.

    Raises:
        ValueError: for a vocabulary without choices.
    """
    first: list[Tensor] = []
    within: list[Tensor] = []
    rows: list[Tensor] = []
    for choice in vocabulary.choices(h, target):
        nats = linear_cross_entropy(choice.features, choice.weight, choice.bias, choice.target, block)
        if choice.rows is None:
            first.append(nats)
        else:
            within.append(nats)
            rows.append(choice.rows)
    if not first:
        raise ValueError("a vocabulary without choices says nothing of the next token")
    total = first[0]
    if rows:
        later = torch.zeros_like(total).index_add(0, torch.cat(rows), torch.cat(within))
        total = total + (later if seen is None else vocabulary.recalled(h, target, later, seen))
    return total
