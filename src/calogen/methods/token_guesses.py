"""Going on with sequences by several tokens a step: drafts guess them, the network judges all in one evaluation.

A guess g with probability q(g) is kept with probability min(1, p(g) / q(g)); else a token is drawn from what p has more
than q, (p - q)₊. What comes out has the law p (Leviathan et al., arXiv:2211.17192, th. 3.5), however bad the guesses.
Where a token is several choices in order, each is judged by itself given those before it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from calogen.methods.token_choice import PLAIN, Sharpening, of_weights
from calogen.methods.token_slots import Numbers, TokenSlots
from calogen.methods.token_steps import Choices, Decoder, Drafts, InUse, Streams, TokenNetwork, Used, draw

DRAWN, GUESSED, KEPT, NUMBERS = 0, 1, 2, 3
"""Uniform numbers of each choice: to draw it where no guess is kept, to guess it, to keep the guess; how many."""


class Guess(NamedTuple):
    """k guessed tokens of each of R sequences: each choice, and the probabilities [R, k, S] it was guessed with."""

    token: Tensor  # [R, k]
    path: tuple[Tensor, ...]  # [R, k] each
    p: tuple[Tensor, ...]

    def of(self, rows: Tensor, place: Tensor) -> Guess:
        """One guess of each of some sequences [m], that at its place [m]: k = 1."""
        path, p = (tuple(x[rows, place][:, None] for x in made) for made in (self.path, self.p))
        return Guess(self.token[rows, place][:, None], path, p)


class Guesses:
    """Makes guesses and judges them.

    Args:
        choices: what rows say about the next token.
        sharpening: of the law, in guessing and judging alike.
    """

    def __init__(self, choices: Choices, sharpening: Sharpening = PLAIN) -> None:
        self.choices, self.sharpening = choices, sharpening

    def make(self, h: Tensor, u: Tensor, used: InUse | None = None) -> Guess:
        """Guess tokens of rows h [R, k, d] by uniform numbers u [R, k, levels]; used: of the R · k rows."""
        shape, rows, u = h.shape[:2], h.flatten(0, 1), u.flatten(0, 1)
        path: list[Tensor] = []
        law: list[Tensor] = []
        for level in range(self.choices.levels):
            law.append(self._law(self.choices.logits(rows, path, used), level))
            path.append(of_weights(law[-1], u[:, level]))
        token = self.choices.token(path).unflatten(0, shape)
        return Guess(token, *(tuple(x.unflatten(0, shape) for x in made) for made in (path, law)))

    def kept(self, h: Tensor, guess: Guess, u: Tensor, used: InUse | None = None) -> list[Tensor]:
        """Whether the choices up to each level are kept, of each guess [R, k], were all guesses before it kept.

        Args:
            h: the network's rows [R, k, d], each of what comes before a guess.
            guess: see above.
            u: uniform numbers [R, k, levels].
            used: of the R · k rows, the guesses before each included.
        """
        shape, rows = h.shape[:2], h.flatten(0, 1)
        same = torch.ones(shape, dtype=torch.bool, device=u.device)
        made: list[Tensor] = []
        for level in range(self.choices.levels):
            path = [x.flatten() for x in guess.path[:level]]
            p = self._law(self.choices.logits(rows, path, used), level)
            q, g = guess.p[level], guess.path[level]
            at_p, at_q = p.gather(1, g.flatten()[:, None])[:, 0].view(shape), q.gather(2, g[:, :, None])[:, :, 0]
            same = same & (u[:, :, level].to(at_q) * at_q < at_p)
            made.append(same)
        return made

    def draw(
        self, h: Tensor, u: Tensor, refused: Guess, guessed: Tensor, kept: Tensor, used: InUse | None = None
    ) -> Tensor:
        """Tokens [R] of rows h [R, d] in place of guesses that were refused.

        Args:
            h: the network's rows.
            u: uniform numbers [R, levels].
            refused: one of each row, k = 1.
            guessed: whether it is of this row's place [R]; else the row draws from its law.
            kept: whether its choices up to each level are kept [R, levels]; not the last.
            used: of the rows.
        """
        path: list[Tensor] = []
        same = guessed
        for level in range(self.choices.levels):
            p = self._law(self.choices.logits(h, path, used), level)
            more = (p - refused.p[level][:, 0]).clamp_(min=0)
            use_p = ~same | (more.sum(1) == 0)
            drawn = of_weights(torch.where(use_p[:, None], p, more), u[:, level])
            same = same & kept[:, level]
            path.append(torch.where(same, refused.path[level][:, 0], drawn))
        return self.choices.token(path)

    def _law(self, logits: Tensor, level: int) -> Tensor:
        """Probabilities [R, S]."""
        forbidden = self.choices.forbidden(level)
        if forbidden is not None:
            logits = logits.clone()
            logits[:, forbidden] = -torch.inf
        return self.sharpening(logits).softmax(1)


class SeveralAtOnce:
    """Sequences that go on by 1 to 1 + k tokens a step, with k guesses."""

    def __init__(
        self, network: TokenNetwork, sequences: TokenSlots, streams: Streams, sharpening: Sharpening, drafts: Drafts
    ) -> None:
        self.choices: Choices = network.vocabulary
        self.device = next(iter(network.parameters())).device
        slots, room = len(sequences.who), sequences.limit + 1 + drafts.number
        self.decoder: Decoder = network.decoder(slots, room)
        self.sequences, self.streams, self.drafts = sequences, streams, drafts
        self.guesses = Guesses(self.choices, sharpening)
        self.used = Used(self.choices, slots, self.device)
        self.uniform = np.empty((slots, room + 1, self.choices.levels, NUMBERS))
        self.row: Tensor | None = None  # of the token before the last, in each slot [slots, d]

    def enter(self, slots: list[int], c: Tensor | None, n: Tensor | None) -> None:
        """New sequences in these slots, and their first tokens."""
        self.decoder.enter(slots, c, n)
        self.used.forget(slots)
        for slot in slots:
            self.uniform[slot] = self.streams(int(self.sequences.who[slot])).random(self.uniform.shape[1:])
        at = np.array(slots)
        h = self.decoder.advance(slots, torch.from_numpy(self.sequences.last(at)).to(self.device))
        if self.row is None:
            self.row = h.new_zeros(len(self.uniform), *h.shape[1:])
        self.row[slots] = h
        first = draw(self.choices, h, self._uniform(at, 1)[:, 0, :, DRAWN], self.guesses.sharpening)
        self.used.add(at, first)
        self.sequences.append(at, first.cpu().numpy())
        self.sequences.passes += len(slots)

    def step(self) -> None:
        """Guess, judge, and keep what is right and one token more."""
        sequences = self.sequences
        active = np.array([slot for slot in sequences.active if not sequences.over[slot]], dtype=np.int64)
        if self.row is None or not len(active):
            return
        k, each = self.drafts.number, torch.arange(len(active), device=self.device)
        u = self._uniform(active, k + 1)
        guess, rows, cached = self._guessed(active, u[:, :k, :, GUESSED])
        before = _before(guess.token)
        used = self.used.of(active.repeat(k), before[:, :k].flatten(0, 1))
        kept = self.guesses.kept(rows[:, :k], guess, u[:, :k, :, KEPT], used)
        right = kept[-1].long().cumprod(1).sum(1)  # guesses before the first that is refused
        h, at = rows[each, right], right.clamp(max=k - 1)
        refused, up_to = guess.of(each, at), torch.stack([x[each, at] for x in kept], 1)
        used = self.used.of(active, before[each, right])
        token = self.guesses.draw(h, u[each, right, :, DRAWN], refused, right < k, up_to, used)
        made = torch.cat([guess.token, token[:, None]], 1).scatter(1, right[:, None], token[:, None])
        added = sequences.append_several(active, made.cpu().numpy(), right.cpu().numpy() + 1)
        sequences.passes += len(active)
        cached.keep(added.tolist())
        self.row[active.tolist()] = h
        self.used.add(active, made.masked_fill(torch.arange(k + 1, device=self.device) > right[:, None], 0))

    def _guessed(self, active: Numbers, u: Tensor) -> tuple[Guess, Tensor, Any]:
        """Guesses for some slots by uniform numbers [n, k, levels], the network's rows [n, k + 1, d], and its cache."""
        assert self.row is not None
        last = torch.from_numpy(self.sequences.last(active)).to(self.device)
        h = self.drafts(self.row[active.tolist()], self.choices.embed(last))
        guess = self.guesses.make(h, u, self.used.of(active.repeat(self.drafts.number)))
        tokens = torch.cat([last[:, None], guess.token], 1)
        rows, cached = self.decoder.extend(active.tolist(), tokens.flatten(), keep=False)
        return guess, rows.unflatten(0, tuple(tokens.shape)), cached

    def _uniform(self, slots: Numbers, count: int) -> Tensor:
        """The numbers of the next `count` places of some slots [R, count, levels, NUMBERS]."""
        places = self.sequences.place[slots][:, None] + np.arange(count)
        return torch.from_numpy(self.uniform[slots[:, None], places]).to(self.device)


def _before(tokens: Tensor) -> Tensor:
    """Of each of k + 1 places those of the k tokens [n, k] that come before it [n, k + 1, k]; 0 for none.

    >>> _before(torch.tensor([[7, 8]])).tolist()
    [[[0, 0], [7, 0], [7, 8]]]
    """
    k = tokens.shape[1]
    return tokens[:, None] * torch.ones(k + 1, k, dtype=tokens.dtype, device=tokens.device).tril(-1)
