"""Going on with sequences by several tokens a step: drafts guess them, the network judges all in one evaluation.

A guess g with probability q(g) is kept with probability min(1, p(g) / q(g)); else a token is drawn from what p has more
than q, (p - q)₊. What comes out has the law p (Leviathan et al., arXiv:2211.17192, th. 3.5), however bad the guesses.
Where a token is several choices in order, each is judged by itself given those before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from calogen.methods.token_choice import PLAIN, Sharpening, of_weights
from calogen.methods.token_slots import Numbers, TokenSlots
from calogen.methods.token_steps import Choices, Decoder, Draft, Streams, TokenNetwork, Used, draw

DRAWN, GUESSED, KEPT, NUMBERS = 0, 1, 2, 3
"""Uniform numbers of each choice: to draw it where no guess is kept, to guess it, to keep the guess; how many."""


class Guess(NamedTuple):
    """Guessed tokens of R sequences: each choice, and the probabilities [R, S] it was guessed with."""

    token: Tensor  # [R]
    path: tuple[Tensor, ...]  # [R] each
    p: tuple[Tensor, ...]

    def of(self, rows: Tensor) -> Guess:
        """Those of some of the sequences."""
        return Guess(self.token[rows], tuple(x[rows] for x in self.path), tuple(x[rows] for x in self.p))


class Guesses:
    """Makes guesses and judges them.

    Args:
        choices: what rows say about the next token.
        sharpening: of the law, in guessing and judging alike.
    """

    def __init__(self, choices: Choices, sharpening: Sharpening = PLAIN) -> None:
        self.choices, self.sharpening = choices, sharpening

    def make(self, h: Tensor, u: Tensor, used: Tensor | None = None) -> Guess:
        """Guess the next tokens of rows h [R, d] by uniform numbers u [R, levels]; used: see `Used`."""
        path: list[Tensor] = []
        law: list[Tensor] = []
        for level in range(self.choices.levels):
            law.append(self._law(self.choices.logits(h, path, used), level))
            path.append(of_weights(law[-1], u[:, level]))
        return Guess(self.choices.token(path), tuple(path), tuple(law))

    def judge(
        self, h: Tensor, first: Tensor, guess: Guess | None, u: Tensor, used: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The next tokens [R], and where they are as guessed [R].

        Args:
            h: the network's rows [R, d].
            first: their logits for the first choice [R, S].
            guess: None: there is none, all are drawn.
            u: uniform numbers [R, levels, NUMBERS].
            used: see `Used`.
        """
        same = torch.full((len(h),), guess is not None, device=h.device)
        path: list[Tensor] = []
        for level in range(self.choices.levels):
            p = self._law(self.choices.logits(h, path, used) if level else first, level)
            if guess is None:
                path.append(of_weights(p, u[:, level, DRAWN]))
                continue
            g, q = guess.path[level], guess.p[level]
            at_p, at_q = (law.gather(1, g[:, None])[:, 0] for law in (p, q))
            kept = same & (u[:, level, KEPT].to(at_q) * at_q < at_p)
            more = (p - q).clamp_(min=0)
            use_p = ~same | (more.sum(1) == 0)
            drawn = of_weights(torch.where(use_p[:, None], p, more), u[:, level, DRAWN])
            path.append(torch.where(kept, g, drawn))
            same = kept
        return self.choices.token(path), same

    def _law(self, logits: Tensor, level: int) -> Tensor:
        """Probabilities [R, S]."""
        forbidden = self.choices.forbidden(level)
        if forbidden is not None:
            logits = logits.clone()
            logits[:, forbidden] = -torch.inf
        return self.sharpening(logits).softmax(1)


class SeveralAtOnce:
    """Sequences that go on by 1 to 1 + k tokens a step, with k drafts."""

    def __init__(
        self,
        network: TokenNetwork,
        sequences: TokenSlots,
        streams: Streams,
        sharpening: Sharpening,
        drafts: Sequence[Draft],
    ) -> None:
        self.choices: Choices = network.vocabulary
        self.device = next(iter(network.parameters())).device
        slots, room = len(sequences.who), sequences.limit + 1 + len(drafts)
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
        first = draw(self.choices, h, self._uniform(at, 0)[:, :, DRAWN], self.guesses.sharpening)
        self.used.add(at, first)
        self.sequences.append(at, first.cpu().numpy())
        self.sequences.passes += len(slots)

    def step(self) -> None:
        """Guess, judge, and keep what is right and one token more."""
        sequences = self.sequences
        active = np.array([slot for slot in sequences.active if not sequences.over[slot]], dtype=np.int64)
        if self.row is None or not len(active):
            return
        n, k = len(active), len(self.drafts)
        last = torch.from_numpy(sequences.last(active)).to(self.device)
        h, tokens, guesses, used = self.row[active.tolist()], [last], [], self.used.of(active)
        for by, draft in enumerate(self.drafts):
            h = draft(h, self.choices.embed(tokens[-1]))
            guesses.append(self.guesses.make(h, self._uniform(active, by)[:, :, GUESSED], used))
            tokens.append(guesses[-1].token)
            if used is not None:
                used[torch.arange(n, device=self.device), tokens[-1]] = True
        rows, kept = self.decoder.extend(active.tolist(), torch.stack(tokens, 1).flatten(), keep=False)
        sequences.passes += n
        rows = rows.unflatten(0, (n, k + 1))
        first = self.choices.logits(rows.flatten(0, 1)).unflatten(0, (n, k + 1))
        right, stays = np.arange(n), np.ones(n, dtype=np.int64)
        for by in range(k + 1):
            at = torch.from_numpy(right).to(self.device)
            guess = guesses[by].of(at) if by < k else None
            u = self._uniform(active[right], 0)
            token, same = self.guesses.judge(rows[at, by], first[at, by], guess, u, self.used.of(active[right]))
            self.used.add(active[right], token)
            self.row[active[right].tolist()] = rows[at, by]
            sequences.append(active[right], token.cpu().numpy())
            on = same.cpu().numpy() & ~sequences.over[active[right]]
            right = right[on]
            stays[right] += 1
            if not len(right):
                break
        kept.keep(stays.tolist())

    def _uniform(self, slots: Numbers, by: int) -> Tensor:
        """The numbers of the place `by` after the next one of some slots [R, levels, NUMBERS]."""
        place = self.sequences.place[slots] + by
        return torch.from_numpy(self.uniform[slots, place]).to(self.device)
