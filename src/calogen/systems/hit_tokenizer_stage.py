"""How a tokenizer of hits is fitted: hits must come back, and codes that nobody uses move to where hits are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calogen.data.showers import Showers
from calogen.methods.codebook import Usage
from calogen.systems.box_view import BoxHits
from calogen.systems.hit_tokenizer import HitTokenizer
from calogen.train import Batch, LearnedStage, Plan
from calogen.train.parallel import Group
from calogen.train.streams import stream_key

AT_ONCE = 256
"""Showers whose hits are in memory together while transforms are fitted."""

START_SHOWERS = 2048
"""The most training showers whose hits codes start at."""

PLANS: Mapping[str, Plan] = MappingProxyType(
    {
        # arXiv:2501.05534: 588 epochs of 1,000 batches of 152. Its code overrides the learning rate, 1e-3 in the
        # paper, by a constant 3e-4, and wraps RAdam in a Lookahead that is left out here.
        "published": Plan(
            steps=588_000,
            batch_size=152,
            optimizer="radam",
            learning_rate=3e-4,
            betas=(0.95, 0.999),
            weight_decay=1e-2,
            grad_clip=1.0,
        ),
        # One core and some thousand showers: 0.1 s a shower of 930 hits and step.
        "desk": Plan(
            steps=4000,
            batch_size=8,
            optimizer="adamw",
            learning_rate=1e-3,
            schedule="cosine",
            warmup_steps=100,
            grad_clip=1.0,
            validation_showers=200,
        ),
    }
)
"""By the names of the tokenizer's presets."""


class TokenizerStage(LearnedStage):
    """Fit features, networks and codebook. The log tells the share of codes in use, and their perplexity.

    Args:
        tokenizer: to be fitted.
        plan: without averages of weights: a code that has moved elsewhere has none.
    """

    name = "tokenizer"

    def __init__(self, tokenizer: HitTokenizer, plan: Plan) -> None:
        self.tokenizer, self.model, self.plan = tokenizer, tokenizer, plan
        self.codebook = tokenizer.network.codebook

    def prepare(self, showers: Showers) -> None:
        """Fit the transforms, and put the codes where hits are, if they start there.

        Raises:
            ValueError: a plan with averages of weights, showers of another detector, or without hits.
        """
        if self.plan.ema != "none":
            raise ValueError(
                f"stage {self.name!r}: ema={self.plan.ema!r} would average codes with what they were before they were "
                "replaced; set ema to none"
            )
        self.tokenizer.features.fit(self._in_batches(showers, len(showers)))
        self.tokenizer.fit_condition(showers.incident)
        if self.tokenizer.config.sizes.start == "hits":
            self._start(showers)

    def _in_batches(self, showers: Showers, n: int) -> Iterator[BoxHits]:
        """The hits of the first n showers."""
        for start in range(0, min(n, len(showers)), AT_ONCE):
            yield self.tokenizer.hits(showers[start : min(start + AT_ONCE, n)])

    @torch.no_grad()
    def _start(self, showers: Showers) -> None:
        """Put the codes at encoded hits of some showers: one each for all codes, if there are so many."""
        found: list[Tensor] = []
        for hits in self._in_batches(showers, START_SHOWERS):
            x, counts = self.tokenizer.features.encode(hits), torch.from_numpy(hits.counts)
            found.append(self.tokenizer.network.points(x, counts.to(x.device), self.tokenizer.condition(hits.incident)))
        self.codebook.start_at(torch.cat(found), self._generator("start"))

    def _generator(self, *names: int | str) -> torch.Generator:
        return torch.Generator().manual_seed(stream_key(self.plan.seed, self.name, *names))

    def batch(self, showers: Showers, indices: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        """Features [P, 4], hits of each shower [n], and if the networks are told of it the condition [n, 1]."""
        hits = self.tokenizer.hits(showers[indices])
        condition = self.tokenizer.condition(hits.incident)
        x, counts = self.tokenizer.features.encode(hits).cpu(), torch.from_numpy(hits.counts)
        return (x, counts) if condition is None else (x, counts, condition.cpu())

    def loss(self, batch: Batch) -> Tensor:
        """Mean over the hits of each shower [n]; see `HitAutoencoder`."""
        return self.tokenizer.network.loss(*batch)

    def weights(self, batch: Batch) -> Tensor:
        """Hits weigh alike, whichever shower they are of."""
        counts: Tensor = batch[1]
        return counts.float()

    def after_step(self, step: int) -> None:
        """Replace codes that died. All processes that fit together agree on which, and on what becomes of them."""
        book, group = self.codebook, Group.current()
        used = book.used.int()
        group.add([used])
        book.used.copy_(used > 0)
        dead = book.age()
        if len(dead):
            values = book.fresh(dead, self._generator("replace", step))
            group.take_from_leader([values])
            book.replace(dead, values)
        book.forget()

    def remarks(self) -> dict[str, float]:
        """Share of the codes that hits of this process used since the last line, and their perplexity."""
        usage = Usage.of(self.codebook.tally)
        self.codebook.tally.zero_()
        return {"codes_used": round(usage.share, 6), "perplexity": round(usage.perplexity, 2)}
