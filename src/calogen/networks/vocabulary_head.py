"""Vocabularies of a token transformer: how a token enters as a row, and the choices a row offers for the next token.

Tokens are whole numbers: 0 is the start, 1 ... K are the codes, K + 1 is the stop. A token is one choice of all
(`WholeVocabulary`) or one of its group and one within (`TwoLevelVocabulary`). A choice is a linear classification,
given as its weights: who learns it or draws from it decides whether its logits ever exist.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from calogen.networks.recall import InUse, Seen, seen_before
from calogen.networks.stored_linear import StoredLinear

START = 0
"""The token before the first, which is never drawn."""


class LinearChoice(NamedTuple):
    """One of S options for each of R rows, with logits `features` · `weight`ᵀ + `bias`, and what was chosen."""

    rows: Tensor | None
    """Which of the rows [R]; None: all."""
    features: Tensor  # [R, r]
    weight: Tensor  # [S, r]
    bias: Tensor  # [S]
    target: Tensor  # [R]


class TokenTable(nn.Module):
    """A row [width] for each token, or one of `rank` numbers and a map from there.

    Args:
        size: tokens.
        width: d.
        rank: numbers a token is known by; None: d.
    """

    def __init__(self, size: int, width: int, rank: int | None = None) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size, rank or width)
        self.up = StoredLinear(rank, width, bias=False) if rank else None
        if rank and self.up is not None:  # rows [width] of size 1, and logits with these numbers of a code too
            nn.init.normal_(self.embedding.weight, std=rank**-0.5)
            nn.init.normal_(self.up.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [P] -> [P, d]."""
        rows: Tensor = self.embedding(tokens)
        return rows if self.up is None else self.up(rows).to(rows.dtype)


class WholeVocabulary(nn.Module):
    """All tokens in one choice. Published: full rank and untied; 93 % of the parameters are here.

    Args:
        codes: K.
        width: d.
        rank: numbers a token is known by, at the entrance and in the head; None: d.
        tied: one table for both.

    Raises:
        ValueError: for no codes, or a rank that is none.
    """

    levels = 1
    recalls = False

    def __init__(self, codes: int, width: int, *, rank: int | None = None, tied: bool = False) -> None:
        super().__init__()
        require_sizes(codes, width, rank)
        self.codes, self.stop = codes, codes + 1
        self.table = TokenTable(codes + 2, width, rank)
        self.down = StoredLinear(width, rank, bias=False) if rank else None
        self.head = StoredLinear(rank or width, codes + 2)
        if tied:
            if not rank:
                nn.init.normal_(self.table.embedding.weight, std=width**-0.5)
            self.head.weight = self.table.embedding.weight

    def embed(self, tokens: Tensor) -> Tensor:
        """Tokens [P] -> [P, d]."""
        return self.table(tokens)

    def choices(self, h: Tensor, target: Tensor) -> Iterator[LinearChoice]:
        """The choice that rows h [P, d] have and what it was, target [P]."""
        yield LinearChoice(None, self._features(h), self.head.weight, self.head.bias, target)

    def logits(self, h: Tensor, path: Sequence[Tensor] = (), used: InUse | None = None) -> Tensor:
        """All logits [P, K + 2] of rows h [P, d]; what was used makes no difference."""
        return self.head(self._features(h))

    def forbidden(self, level: int) -> int | None:
        """The option of a level that is never drawn."""
        return START

    def token(self, path: Sequence[Tensor]) -> Tensor:
        """What was chosen at each level [P] -> tokens [P]."""
        return path[0]

    def _features(self, h: Tensor) -> Tensor:
        return h if self.down is None else self.down(h)


class TwoLevelVocabulary(nn.Module):
    """A group, then a code within it: p(code) = p(group | h) p(code | group, h). The stop is a group of its own.

    Codes are known by `rank` numbers, the same at the entrance and in the second choice. Code k is in group
    k // (K / groups): neighbouring codes should be alike, for instance sorted by a clustering of the codebook.

    Args:
        codes: K.
        width: d.
        groups: G; the first choice has G + 1 options, the second K / G.
        rank: numbers a code is known by.
        recalls: a code that a sequence has already is less likely, or likelier, by a factor that is learned for each
            group. Where hits share no cell, codes seldom come twice, and rows alone hardly tell which were.

    Raises:
        ValueError: for no codes, a rank that is none, or codes that cannot be cut into the groups.
    """

    levels = 2

    def __init__(self, codes: int, width: int, *, groups: int = 256, rank: int = 32, recalls: bool = False) -> None:
        super().__init__()
        require_sizes(codes, width, rank)
        if groups < 1 or codes % groups:
            raise ValueError(f"{codes} codes cannot be cut into {groups} groups of equal size")
        self.codes, self.stop, self.groups, self.members = codes, codes + 1, groups, codes // groups
        self.table = TokenTable(codes + 2, width, rank)
        self.first = StoredLinear(width, groups + 1)
        self.query = StoredLinear(width, rank, bias=False)
        self.turn = nn.Embedding(groups, rank)
        self.bias = nn.Parameter(torch.zeros(codes))
        nn.init.normal_(self.turn.weight, std=rank**-0.5)
        self.recalls = recalls
        if recalls:
            self.log_again = nn.Parameter(torch.zeros(groups))

    def embed(self, tokens: Tensor) -> Tensor:
        """Tokens [P] -> [P, d]."""
        return self.table(tokens)

    def choices(self, h: Tensor, target: Tensor) -> Iterator[LinearChoice]:
        """The choices of rows h [P, d] with tokens target [P]: of the group, and within each group that occurs."""
        last = target == self.stop
        group = self._group(target)
        yield LinearChoice(None, h, self.first.weight, self.first.bias, group)
        rows = group.argsort(stable=True)[: int((~last).sum())]
        query = self._query(h[rows], group[rows])
        member = (target[rows] - 1).remainder(self.members)
        sizes = torch.bincount(group[rows], minlength=self.groups).tolist()
        own = (part.split(sizes) for part in (rows, query, member))
        tables = self._codes().unbind(0), self.bias.view(self.groups, self.members).unbind(0)
        for r, q, m, weight, bias in zip(*own, *tables, strict=True):
            if len(r):
                yield LinearChoice(r, q, weight, bias, m)

    def seen(self, owner: Tensor, target: Tensor) -> Seen:
        """What came before each of the tokens target [P] of sequences owner [P], where it matters."""
        return seen_before(owner, self._group(target), target)

    def recalled(self, h: Tensor, target: Tensor, nats: Tensor, seen: Seen) -> Tensor:
        """-log p [P] of the second choice of rows h [P, d], when what came before is known, from that without [P].

        With a factor a for codes that were seen, of which the others' law gives q in all, p = a p' / (1 - q + a q), or
        without a on top for a code that is new.

        Args:
            h: rows.
            target: tokens [P].
            nats: -log p' of the second choice [P]; 0 for a stop, which has none.
            seen: of the same rows.
        """
        group = self._group(target).clamp(max=self.groups - 1)
        query = self._query(h, group)
        own = self._within(query, target)
        log_q = self._within(query[seen.row], seen.token) - (nats + own)[seen.row]
        q = torch.zeros_like(nats).index_add(0, seen.row, log_q.exp()).clamp(max=1)
        again = self.log_again[group]
        return nats + torch.log1p(again.expm1() * q) - again * seen.again

    def logits(self, h: Tensor, path: Sequence[Tensor] = (), used: InUse | None = None) -> Tensor:
        """Logits of rows h [P, d] for the group [P, G + 1], or given that [P] for the code within [P, K / G].

        A row that has stopped has no second choice; it is given that of the last group.

        Args:
            h: rows.
            path: choices so far.
            used: tokens that the rows' sequences have; None: none. It matters if the vocabulary `recalls`.
        """
        if not path:
            return self.first(h)
        group = path[0].clamp(max=self.groups - 1)
        within = torch.bmm(self._codes()[group], self._query(h, group)[:, :, None].to(self.bias))
        logits = within[:, :, 0] + self.bias.view(self.groups, self.members)[group]
        if self.recalls and used is not None:
            logits = logits + self.log_again[group][:, None] * self._had(used, group)
        return logits

    def forbidden(self, level: int) -> int | None:
        """All options of both levels may be drawn: the start is none of them."""
        return None

    def token(self, path: Sequence[Tensor]) -> Tensor:
        """What was chosen at each level [P] -> tokens [P]."""
        group, member = path
        return torch.where(group == self.groups, self.stop, 1 + group * self.members + member)

    def _group(self, tokens: Tensor) -> Tensor:
        """The first choice that tokens [P] are: their group, or the stop's [P]."""
        group = (tokens - 1).div(self.members, rounding_mode="floor")
        return torch.where(tokens == self.stop, self.groups, group)

    def _within(self, query: Tensor, tokens: Tensor) -> Tensor:
        """Logits [R] of tokens [R] within their groups, for what rows look for [R, rank]; 0 for stops."""
        code = (tokens - 1).clamp(max=self.codes - 1)
        logits = (query * self.table.embedding(code + 1)).sum(1) + self.bias[code]
        return logits.masked_fill(tokens == self.stop, 0.0)

    def _had(self, used: InUse, group: Tensor) -> Tensor:
        """Which codes of a group [P] are in use [P, K / G]."""
        had = used.table[:, 1 : 1 + self.codes].unflatten(1, (self.groups, self.members))[used.owner, group]
        if used.more is not None:
            row, place = (self._group(used.more) == group[:, None]).nonzero().unbind(1)
            had[row, (used.more[row, place] - 1).remainder(self.members)] = True
        return had

    def _query(self, h: Tensor, group: Tensor) -> Tensor:
        """What rows h [R, d] look for within their groups [R] -> [R, rank]; a group has its own scales of it."""
        return self.query(h) * (1 + self.turn(group))

    def _codes(self) -> Tensor:
        """The numbers of the codes [G, K / G, rank]."""
        return self.table.embedding.weight[1 : 1 + self.codes].view(self.groups, self.members, -1)


Vocabulary = WholeVocabulary | TwoLevelVocabulary


def require_sizes(codes: int, width: int, rank: int | None) -> None:
    """Raise ValueError unless there are codes, and a rank, if there is one, is between 1 and the width."""
    if codes < 1:
        raise ValueError(f"a vocabulary of {codes} codes: it needs 1 or more")
    if rank is not None and not 1 <= rank <= width:
        raise ValueError(f"rank {rank} of a vocabulary must be 1 to the width {width}, or None for full rank")
