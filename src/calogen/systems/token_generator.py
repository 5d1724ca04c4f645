"""Showers as sequences of tokens that a tokenizer made: learning the next one, and drawing them.

showers -> tokenizer (frozen) -> codes k_1 ... k_n of each shower
E, direction, kind -> c;  TokenTransformer: p(k_{t+1} or the end | k_1 ... k_t, c)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calogen.data.incident import Incident
from calogen.data.showers import Showers
from calogen.methods.next_token import NextToken
from calogen.methods.token_choice import PLAIN, Sharpening
from calogen.methods.token_sampling import SLOTS, sample_tokens
from calogen.networks.stored_linear import stored
from calogen.networks.token_drafts import TokenDrafts
from calogen.networks.token_transformer import (
    TokenTransformer,
    modern_token_transformer,
    published_token_transformer,
)
from calogen.progress import progress_bar
from calogen.systems.drawing import Precision, require_precision, stream
from calogen.systems.particles import Particles
from calogen.train import Batch, LearnedStage, Plan

Form = Literal["published", "modern"]

AT_ONCE = 256
"""Showers that are tokenized together."""

LONGER = 2
"""A drawn shower may have this many times the tokens of the longest shower that was learned from."""

LEAST_SPREAD = 1e-6
"""Numbers of codes that differ by less than this differ by nothing."""

WAVES = 0.5
"""Standard deviation of wave numbers, in units of one over the spread of the codes' numbers."""


class Codes(NamedTuple):
    """N showers as codes [T] in [0, K), and where each starts and ends [N + 1]."""

    codes: NDArray[np.int64]
    offsets: NDArray[np.int64]


class DrawnCodes(NamedTuple):
    """N drawn showers as codes [T] in [0, K)."""

    codes: NDArray[np.int64]
    offsets: NDArray[np.int64]  # [N + 1]
    complete: NDArray[np.bool_]  # [N]; False: cut at the limit, where it had not ended
    passes: int  # evaluations of the network, summed over showers; without guesses one for each code and end


class Tokenizer(Protocol):
    """Showers to codes; it does not change any more."""

    @property
    def codes(self) -> int:
        """K."""

    def values(self) -> Tensor:
        """Numbers of each code [K, D]: codes that mean much the same have much the same numbers."""

    def encode(self, showers: Showers) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Codes [T] in [0, K) of N showers in the order in which they are to be drawn, and offsets [N + 1]."""


@dataclass(frozen=True)
class GeneratorSizes:
    """Form and sizes of the network.

    Raises:
        ValueError: an unknown form, fewer than no drafts, or what the form does not have.
    """

    form: Form = "modern"  # published: OmniJet's, without a condition; only the first four sizes below are its own
    width: int = 256
    blocks: int = 3
    heads: int = 8
    feedforward: int = 704  # hidden width of the blocks' MLP; published: 1024
    groups: int = 256  # of codes, chosen first; 0: all codes in one choice
    rank: int = 32  # numbers a code is known by
    rotary: bool = False  # places in the sequence are known
    steered: bool = True  # the condition steers the blocks, besides being part of the start
    drafts: int = 0  # further tokens that are guessed at a time, where guesses are asked for
    counted: bool = False  # it is told how many codes a shower has
    recalls: bool = False  # codes that a shower has already are less likely, or likelier, by a factor of their own

    def __post_init__(self) -> None:
        if self.counted and self.form == "published":
            raise ValueError("counted=true: the published form is not told how many codes there are; use form=modern")
        if self.recalls and (self.form == "published" or not self.groups):
            raise ValueError(
                f"recalls=true with form={self.form} and groups={self.groups}: codes in use are known within groups; "
                "use form=modern and 1 or more groups"
            )
        if self.form not in get_args(Form):
            raise ValueError(f"unknown form {self.form!r} of a token generator; use {', '.join(get_args(Form))}")
        if self.drafts < 0:
            raise ValueError(f"drafts={self.drafts}: give 0 or more")

    def network(self, codes: int, condition: int) -> TokenTransformer:
        """The network for K codes and C numbers of a condition; the published form ignores the condition."""
        common = {"width": self.width, "blocks": self.blocks, "heads": self.heads, "feedforward": self.feedforward}
        if self.form == "published":
            return published_token_transformer(codes, **common)
        return modern_token_transformer(
            codes,
            condition=condition,
            groups=self.groups,
            rank=self.rank,
            rotary=self.rotary,
            steered=self.steered,
            counted=self.counted,
            recalls=self.recalls,
            **common,
        )


PUBLISHED_SIZES = GeneratorSizes(form="published", feedforward=1024, groups=0)
"""OmniJet-alpha_C (arXiv:2501.05534): 35,987,970 parameters with 65,536 codes."""


class TokenGenerator(nn.Module):
    """p(codes of a shower | its particle).

    Args:
        codes: K.
        particles: how a particle becomes a condition; fitted by the stage.
        sizes: of the network.
    """

    longest: Tensor

    def __init__(self, codes: int, particles: Particles, sizes: GeneratorSizes) -> None:
        super().__init__()
        self.particles, self.sizes = particles, sizes
        network = sizes.network(codes, particles.size)
        self.method = NextToken(network)
        self.register_buffer("longest", torch.tensor(0))

    @property
    def network(self) -> TokenTransformer:
        """The network of the method."""
        made: TokenTransformer = self.method.network  # type: ignore[assignment]
        return made

    def condition(self, incident: Incident) -> Tensor | None:
        """[N, C], or None where the network has no condition."""
        return self.particles(incident) if self.network.condition else None

    @torch.no_grad()
    def start_at(self, values: Tensor) -> None:
        """Let the numbers that the network knows codes by be those the tokenizer has [K, D], as far as there is room.

        So codes that mean much the same are alike before anything is learned. With 8,192 codes of photons, 1,700
        showers and 200 steps: 8.82 nats a token instead of 9.37. The published form starts at random.
        """
        if self.sizes.form == "published":
            return
        known = self.network.vocabulary.table.embedding.weight[1:-1]
        known.copy_(spread_out(values.to(known), known.shape[1]) * known.shape[1] ** -0.5)

    def sample(
        self,
        incident: Incident,
        *,
        seed: int,
        first: int = 0,
        counts: NDArray[np.int64] | None = None,
        batch_size: int = SLOTS,
        limit: int | None = None,
        cut: bool = False,
        sharpening: Sharpening = PLAIN,
        precision: Precision = "float32",
        drafts: TokenDrafts | None = None,
        progress: bool = False,
    ) -> DrawnCodes:
        """Codes of a shower for each particle. With the seed, particle i is shower `first` + i of a request.

        Args:
            incident: N particles.
            seed: of the request.
            first: see above.
            counts: codes that each shower is to have [N], where the network is told.
            batch_size: showers drawn together.
            limit: most codes of a shower; None: twice the longest shower that was learned from.
            cut: a shower that has not ended at the limit stays as it is then, instead of an error.
            sharpening: none by default: the distribution that was learned.
            precision: of the large weights. In bfloat16 the odd shower differs with the batch it is drawn in.
            drafts: guess further codes: the same law in fewer evaluations, other showers for the seed.
            progress: show a bar.

        Raises:
            ValueError: an unknown precision, no limit where nothing was learned, or counts that are missing, or given
                where the network is not told.
            TooLongError: a shower has not ended at the limit.
        """
        dtype = torch.bfloat16 if require_precision(precision) == "bfloat16" else torch.float32
        if (counts is not None) != self.sizes.counted:
            raise ValueError(
                "counts are for a generator that is told them (sizes.counted), which this is "
                + ("not", "")[self.sizes.counted]
            )
        most = LONGER * int(self.longest) if limit is None else limit
        self.eval()
        with progress_bar("sample", len(incident), "showers", shown=progress) as advance:
            drawn = sample_tokens(
                self.network.in_precision(dtype),
                len(incident),
                lambda i: stream(seed, first + i),
                self.condition(incident),
                counts=None if counts is None else torch.from_numpy(counts),
                limit=most,
                slots=batch_size,
                sharpening=sharpening,
                cut=cut,
                drafts=None if drafts is None else stored(drafts, dtype),
                done=advance,
            )
        return DrawnCodes(drawn.tokens - 1, drawn.offsets, drawn.complete, drawn.passes)


def spread_out(values: Tensor, rank: int) -> Tensor:
    """Values [K, D], standardised, and cosines of them in random directions, R numbers in all [K, R], of size 1."""
    x = ((values - values.mean(0)) / values.std(0).clamp(min=LEAST_SPREAD))[:, :rank]
    random = torch.Generator().manual_seed(0)
    more = rank - x.shape[1]
    waves = torch.randn(x.shape[1], more, generator=random) * WAVES
    phases = torch.rand(more, generator=random) * 2 * math.pi
    return torch.cat([x, math.sqrt(2) * (x @ waves.to(x) + phases.to(x)).cos()], dim=1)


class TokenStage(LearnedStage):
    """Fit a generator to showers as a frozen tokenizer sees them.

    Args:
        generator: what is fitted.
        tokenizer: of the same K.
        plan: how.
        afresh: nothing was learned before, in another state.

    Raises:
        ValueError: for a tokenizer of another number of codes.
    """

    name = "generator"

    def __init__(self, generator: TokenGenerator, tokenizer: Tokenizer, plan: Plan, *, afresh: bool = True) -> None:
        known = generator.network.vocabulary.codes
        if tokenizer.codes != known:
            raise ValueError(f"a tokenizer of {tokenizer.codes} codes does not fit a generator of {known}")
        self.model, self.generator, self.tokenizer, self.plan = generator, generator, tokenizer, plan
        self.afresh = afresh
        self.held: dict[int, tuple[Showers, Codes]] = {}

    def prepare(self, showers: Showers) -> None:
        """Fit the scales of the condition, start at the tokenizer's codes, and see how long showers are."""
        self.generator.particles.fit(showers.incident)
        if self.afresh:
            self.generator.start_at(self.tokenizer.values())
        self.generator.longest.fill_(int(np.diff(self.codes_of(showers).offsets).max(initial=0)))

    def codes_of(self, showers: Showers) -> Codes:
        """All showers as codes; made once.

        Raises:
            ValueError: if the tokenizer gives other than codes of each shower.
        """
        held = self.held.get(id(showers))
        if held is None or held[0] is not showers:
            self.held[id(showers)] = held = (showers, encoded(self.tokenizer, showers))
        return held[1]

    def batch(self, showers: Showers, indices: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        """Codes [T] and their counts [N], and what they are given [N, C], C = 0 without a condition."""
        made = self.codes_of(showers)
        starts, counts = made.offsets[indices], np.diff(made.offsets)[indices]
        at = np.repeat(starts - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
        c = self.generator.condition(showers.incident[indices])
        given = torch.zeros(len(indices), 0) if c is None else c.cpu()
        return torch.from_numpy(made.codes[at].astype(np.int64)), torch.from_numpy(counts), given

    def loss(self, batch: Batch) -> Tensor:
        """Mean of -log p over the tokens of each shower [N]."""
        codes, counts, c = batch
        return self.generator.method.loss(codes, c if c.shape[1] else None, counts)

    def weights(self, batch: Batch) -> Tensor:
        """Tokens of each shower, its end included: all tokens count alike."""
        counts: Tensor = batch[1]
        return counts + 1.0

    def counts(self, showers: Showers) -> NDArray[np.integer]:
        """Tokens per shower [N], its end included."""
        return np.diff(self.codes_of(showers).offsets) + 1


def encoded(tokenizer: Tokenizer, showers: Showers) -> Codes:
    """All showers as codes, `AT_ONCE` at a time.

    Raises:
        ValueError: if the tokenizer gives other than codes of each shower.
    """
    parts: list[NDArray[np.int64]] = []
    counts: list[NDArray[np.int64]] = [np.zeros(1, np.int64)]
    for start in range(0, len(showers), AT_ONCE):
        some = showers[np.arange(start, min(start + AT_ONCE, len(showers)))]
        codes, offsets = tokenizer.encode(some)
        if len(offsets) != len(some) + 1 or offsets[-1] != len(codes) or (np.diff(offsets) < 0).any():
            raise ValueError(f"a tokenizer gave {len(codes)} codes and {len(offsets)} offsets for {len(some)} showers")
        if len(codes) and not 0 <= codes.min() <= codes.max() < tokenizer.codes:
            raise ValueError(f"codes {codes.min()} to {codes.max()} are not within 0 to {tokenizer.codes - 1}")
        parts.append(codes.astype(np.int32 if tokenizer.codes < 2**31 else np.int64))
        counts.append(np.diff(offsets))
    return Codes(np.concatenate([np.empty(0, np.int32), *parts]), np.cumsum(np.concatenate(counts)))
