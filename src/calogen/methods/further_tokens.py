"""Learning to guess the tokens after the next one, beside a network that is final."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from calogen.methods.linear_cross_entropy import BLOCK
from calogen.methods.next_token import Shifted, surprise


def further_loss(
    network: nn.Module,
    drafts: Callable[[Tensor, Tensor], Tensor],
    codes: Tensor,
    c: Tensor | None,
    counts: Tensor,
    *,
    number: int,
    block: int = BLOCK,
) -> Tensor:
    """Mean of -log q over all guesses of each sequence [N], nats; 0 where there is nothing to guess.

    Args:
        network: see `NextToken`; it gets no gradient.
        drafts: (rows [P, d], the embedded tokens they led to [P, d]) -> rows [P, k, d] of the k tokens after these.
        codes: [T] int64 in [0, K), packed.
        c: conditions [N, C], if the network has one.
        counts: codes of each sequence [N].
        number: k.
        block: most logits in memory at a time.

    Raises:
        ValueError: see `Shifted`, and the network.
    """
    vocabulary: Any = network.vocabulary
    made = Shifted(codes, counts, vocabulary.codes)
    with torch.no_grad():
        h = network(made.inputs, made.counts, c)
        led_to = vocabulary.embed(made.target)
    rows = [made.further(by)[0] for by in range(1, number + 1)]
    draft = torch.cat([torch.full_like(own, by) for by, own in enumerate(rows)])
    row = torch.cat(rows)
    guessed = drafts(h, led_to)[row, draft]
    at = row + draft + 1
    seen = vocabulary.seen(made.owner, made.target).of(at) if vocabulary.recalls else None
    return made.mean(surprise(vocabulary, guessed, made.target[at], block, seen), row)
