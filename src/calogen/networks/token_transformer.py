"""TokenTransformer: rows that tell the next token from those before it; OmniJet's generator, and one in a modern form.

        tokens [start, x_1, ..., x_n] -> rows -> blocks (causal) -> hidden h_0 ... h_n
        p(x_{t+1} | x_1 ... x_t, c) by the vocabulary from h_t; x_{n+1} is the stop

A condition c enters with the start token, and may steer the blocks. All sequences are packed: there is no padding.
A network may be told n, and so when each token comes; the stop then comes where n says, and codes can mean what they do
at their turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from calogen.networks.stored_linear import StoredLinear, stored
from calogen.networks.token_attention import Attend, PackedSequences, TokenCache
from calogen.networks.token_blocks import PostNormBlock, PreNormBlock
from calogen.networks.turns import TURN_FEATURES, turns
from calogen.networks.vocabulary_head import START, TwoLevelVocabulary, Vocabulary, WholeVocabulary

TokenBlock = PostNormBlock | PreNormBlock

TURN_WIDTH = 32
"""Of the hidden layer that tells a network when a token comes."""


class TokenTransformer(nn.Module):
    """The hidden rows of sequences of tokens, put together from a vocabulary and blocks.

    Args:
        vocabulary: how tokens enter and are chosen; all of one width d.
        blocks: in order.
        norm: what comes after the last block, if anything.
        condition: C, numbers of the condition; 0: there is none.
        counted: it is told how many codes a sequence has.

    Raises:
        ValueError: no blocks, or a condition below 0.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        blocks: Sequence[TokenBlock],
        *,
        norm: nn.Module | None = None,
        condition: int = 0,
        counted: bool = False,
    ) -> None:
        super().__init__()
        if not blocks or condition < 0:
            raise ValueError(
                f"{len(blocks)} blocks given {condition} numbers: give 1 or more blocks, 0 or more numbers"
            )
        self.vocabulary = vocabulary
        self.blocks: list[TokenBlock] = nn.ModuleList(blocks)  # type: ignore[assignment]
        self.norm = norm
        self.condition = condition
        self.width = blocks[0].attention.output.out_features
        if condition:
            d = self.width
            self.embed_condition = nn.Sequential(StoredLinear(condition, d), nn.SiLU(), StoredLinear(d, d))
        self.counted = counted
        if counted:
            self.embed_turn = nn.Sequential(
                nn.Linear(TURN_FEATURES + 1, TURN_WIDTH), nn.SiLU(), StoredLinear(TURN_WIDTH, self.width, bias=False)
            )

    def forward(self, tokens: Tensor, counts: Tensor, c: Tensor | None = None) -> Tensor:
        """Hidden rows [P, d] of sequences that begin with the start token.

        Args:
            tokens: [P] int64, packed.
            counts: tokens of each sequence [N], the start included: of whole sequences, where the network is told n.
            c: conditions [N, C], if the network has one.

        Raises:
            ValueError: for counts that do not add up, sequences without start, tokens there are not, or a condition of
                another shape.
        """
        self._require(tokens, counts)
        sequences = PackedSequences(counts.tolist(), tokens.device)
        e = self.embedded(c, len(counts))
        h = self.vocabulary.embed(tokens)
        if self.counted:
            h = h + self.turned(sequences.places, (counts - 1).repeat_interleave(counts, output_size=len(tokens)))
        owner = torch.repeat_interleave(torch.arange(len(counts), device=tokens.device), counts)
        if e is not None:
            starts = counts.cumsum(0) - counts
            h = h.index_add(0, starts, e.to(h.dtype))
        steers = [None if (made := self._steers(block, e)) is None else made[owner] for block in self.blocks]
        return self._through(h, sequences, steers)

    def turned(self, places: Tensor, n: Tensor) -> Tensor:
        """What is told of the token after each row [P, d]: its place [P] of n [P] codes, and whether it is the stop."""
        features = torch.cat([turns(places, n), (places >= n)[:, None].float()], dim=1)
        out: Tensor = self.embed_turn(features)
        return out

    def decoder(self, slots: int, room: int) -> Decoder:
        """Room for sequences that are drawn token by token."""
        return Decoder(self, slots, room)

    def in_precision(self, dtype: torch.dtype) -> Self:
        """A copy to draw with, its large weights in this number format; itself if they are."""
        return self if self.blocks[0].widen.weight.dtype == dtype else stored(self, dtype)

    def embedded(self, c: Tensor | None, n: int) -> Tensor | None:
        """The rows [n, d] of n conditions [n, C]; None if the network has no condition.

        Raises:
            ValueError: for another shape, or a condition given to a network that has none.
        """
        if not self.condition:
            if c is not None:
                raise ValueError("a condition is given, but this network has none")
            return None
        if c is None or c.shape != (n, self.condition):
            shape = None if c is None else list(c.shape)
            raise ValueError(f"conditions of {n} sequences must be [{n}, {self.condition}], not {shape}")
        out: Tensor = self.embed_condition(c)
        return out

    def _steers(self, block: TokenBlock, e: Tensor | None) -> Tensor | None:
        return None if e is None else block.steers(e)

    def _through(self, h: Tensor, attend: Attend, steers: Sequence[Tensor | None]) -> Tensor:
        for i, (block, own) in enumerate(zip(self.blocks, steers, strict=True)):
            h = block(h, attend, i, own)
        return h if self.norm is None else self.norm(h)

    def _require(self, tokens: Tensor, counts: Tensor) -> None:
        if bool((counts < 1).any()) or int(counts.sum()) != len(tokens):
            raise ValueError(
                f"counts with sum {int(counts.sum())} and least {int(counts.min()) if len(counts) else 0} do not "
                f"describe {len(tokens)} tokens of sequences that begin with a start"
            )
        if not len(tokens):
            return
        starts = tokens[counts.cumsum(0) - counts]
        if bool((starts != START).any()):
            raise ValueError(f"a sequence begins with token {int(starts[starts != START][0])}, not the start {START}")
        low, high = int(tokens.min()), int(tokens.max())
        if low < 0 or high > self.vocabulary.stop:
            raise ValueError(f"tokens {low} to {high} are not within 0 to {self.vocabulary.stop}")


class Decoder:
    """Sequences in slots, as far as they are drawn; they enter and leave one by one. Lives as long as a batch.

    Args:
        network: the transformer.
        slots: sequences at a time.
        room: tokens of each, the start included.
    """

    def __init__(self, network: TokenTransformer, slots: int, room: int) -> None:
        self.network = network
        attention = network.blocks[0].attention
        weight = network.vocabulary.table.embedding.weight
        blocks, d = len(network.blocks), network.width
        self.cache = TokenCache(blocks, slots, room, attention.heads, d // attention.heads, weight)
        self.condition = weight.new_zeros(slots, d)
        self.steers: list[Tensor | None] = [None] * blocks
        self.counts = torch.zeros(slots, dtype=torch.int64, device=weight.device)

    def enter(self, slots: Sequence[int], c: Tensor | None = None, n: Tensor | None = None) -> None:
        """New sequences in some slots; who was there is forgotten.

        Args:
            slots: R of them.
            c: conditions [R, C].
            n: how many codes each will have [R], if the network is told.

        Raises:
            ValueError: n is missing where the network is told, or given where it is not; and see `embedded`.
        """
        if (n is not None) != self.network.counted:
            raise ValueError(
                "the network is told how many codes a sequence has: give n"
                if self.network.counted
                else "n is given, but this network is not told how many codes a sequence has"
            )
        for slot in slots:
            self.cache.filled[slot] = 0
        if n is not None:
            self.counts[list(slots)] = n.to(self.counts)
        e = self.network.embedded(c, len(slots))
        if e is None:
            return
        rows = list(slots)
        self.condition[rows] = e
        for i, block in enumerate(self.network.blocks):
            made = block.steers(e)
            if made is not None:
                kept = self.steers[i]
                if kept is None:
                    self.steers[i] = kept = made.new_zeros(len(self.condition), *made.shape[1:])
                kept[rows] = made

    def advance(self, slots: Sequence[int], tokens: Tensor) -> Tensor:
        """Hidden rows [R, d] of the next tokens [R], equally many of each of the sequences in some ascending slots.

        The first token of each sequence must be the start.
        """
        return self.extend(slots, tokens)[0]

    def extend(self, slots: Sequence[int], tokens: Tensor, keep: bool = True) -> tuple[Tensor, Attend]:
        """As `advance`; without `keep`, the caller says by `CachedSequences.keep` how many of the tokens stay."""
        count = len(tokens) // max(len(slots), 1)
        rows = self.cache.rows(slots, count)
        h = self.network.vocabulary.embed(tokens)
        owner = torch.tensor(slots, device=tokens.device).repeat_interleave(count)
        if self.network.counted:
            h = h + self.network.turned(rows.places, self.counts[owner])
        if self.network.condition:
            h = h + self.condition[owner] * (rows.places == 0)[:, None]
        steers = [None if made is None else made[owner] for made in self.steers]
        h = self.network._through(h, rows, steers)
        if keep:
            rows.keep()
        return h, rows


def published_token_transformer(
    codes: int = 65536, width: int = 256, blocks: int = 3, heads: int = 8, feedforward: int = 1024
) -> TokenTransformer:
    """The generator of OmniJet-alpha_C (arXiv:2501.05534): 35,987,970 parameters, no positions, no condition."""
    made = [PostNormBlock(width, heads, feedforward) for _ in range(blocks)]
    return TokenTransformer(WholeVocabulary(codes, width), made)


def modern_token_transformer(
    codes: int = 65536,
    *,
    condition: int = 0,
    width: int = 256,
    blocks: int = 3,
    heads: int = 8,
    feedforward: int = 704,
    groups: int = 256,
    rank: int = 32,
    rotary: bool = False,
    steered: bool = True,
    counted: bool = False,
    recalls: bool = False,
) -> TokenTransformer:
    """Pre-norm blocks with SwiGLU, steered by a condition, and a vocabulary of two levels: 4.9 million parameters.

    Args:
        codes: K.
        condition: C; 0: none.
        width, blocks, heads, feedforward: of the blocks; 704 is 2/3 of 1024, SwiGLU having three maps for two.
        groups: of codes; 0: one choice of all codes, tied.
        rank: numbers a code is known by.
        rotary: whether blocks know places. Where tokens are sorted, what they hold tells their order.
        steered: whether the condition steers the blocks besides being part of the start.
        counted: whether the network is told how many codes a sequence has.
        recalls: whether codes that a sequence has already have a factor of their own; with groups alone.

    Raises:
        ValueError: recalls without groups.
    """
    if recalls and not groups:
        raise ValueError("recalls=True needs groups of codes, within which it is known which a sequence has")
    made = [
        PreNormBlock(width, heads, feedforward, rotary=rotary, steered=steered and condition > 0) for _ in range(blocks)
    ]
    vocabulary: Vocabulary = (
        TwoLevelVocabulary(codes, width, groups=groups, rank=rank, recalls=recalls)
        if groups
        else WholeVocabulary(codes, width, rank=rank, tied=True)
    )
    return TokenTransformer(vocabulary, made, norm=nn.RMSNorm(width), condition=condition, counted=counted)
