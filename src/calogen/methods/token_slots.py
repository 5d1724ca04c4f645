"""TokenSlots: which sequences are being drawn where, how far they are, and those that are done."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]


class DrawnTokens(NamedTuple):
    """N sequences of tokens, start and stop left out."""

    tokens: Numbers  # [T]
    offsets: Numbers  # [N + 1]
    complete: NDArray[np.bool_]  # [N]; False: cut at the limit, where it had not stopped
    passes: int
    """Evaluations of the network, summed over sequences: without guesses one for each token, the stops included."""


class TooLongError(ValueError):
    """A sequence that has not stopped at the limit."""


class TokenSlots:
    """N sequences in turn through a few slots; one that is done makes room for the next.

    Args:
        n: sequences.
        slots: at a time.
        limit: most tokens of a sequence, the stop not counted.
        stop: the token that ends a sequence.
        cut: keep sequences that have not stopped at the limit, instead of an error.
    """

    def __init__(self, n: int, slots: int, limit: int, stop: int, cut: bool) -> None:
        self.n, self.limit, self.stop, self.cut = n, limit, stop, cut
        self.active: list[int] = []
        self.free = list(range(slots))
        self.who = np.zeros(slots, dtype=np.int64)  # the sequence in each slot
        self.place = np.zeros(slots, dtype=np.int64)  # of its last token; the start is at 0
        self.tokens = np.zeros((slots, limit + 2), dtype=np.int64)  # the start, the tokens, the stop
        self.over = np.zeros(slots, dtype=np.bool_)
        self.entered = self.passes = 0
        self.drawn: dict[int, Numbers] = {}
        self.complete = np.zeros(n, dtype=np.bool_)

    def fill(self) -> list[int]:
        """The next sequences go into free slots, as far as there are any; returns the slots taken, ascending."""
        taken = sorted(self.free)[: self.n - self.entered]
        if taken:
            self.free = [slot for slot in self.free if slot not in set(taken)]
            self.who[taken] = np.arange(self.entered, self.entered + len(taken))
            self.place[taken], self.over[taken] = 0, False
            self.entered += len(taken)
            self.active = sorted([*self.active, *taken])
        return taken

    def last(self, slots: Numbers) -> Numbers:
        """The last token of each of some slots [R], the start at first."""
        tokens: Numbers = self.tokens[slots, self.place[slots]]
        return tokens

    def append(self, slots: Numbers, tokens: Numbers) -> None:
        """One token more [R] for some slots that are not over."""
        self.place[slots] += 1
        self.tokens[slots, self.place[slots]] = tokens
        self.over[slots] = (tokens == self.stop) | (self.place[slots] > self.limit)

    def append_several(self, slots: Numbers, tokens: Numbers, counts: Numbers) -> Numbers:
        """The first counts [R] of tokens [R, m] for some slots that are not over, up to a stop or the limit.

        Returns how many were added [R].
        """
        before, place = self.place[slots], np.arange(tokens.shape[1])
        room = np.minimum(counts, self.limit + 1 - before)
        stops = (tokens == self.stop) & (place < room[:, None])
        added: Numbers = np.where(stops.any(1), stops.argmax(1) + 1, room)
        row, at = np.nonzero(place < added[:, None])
        self.tokens[slots[row], before[row] + 1 + at] = tokens[row, at]
        self.place[slots] = before + added
        self.over[slots] = stops.any(1) | (self.place[slots] > self.limit)
        return added

    def release(self) -> int:
        """Sequences that are over leave; returns how many.

        Raises:
            TooLongError: one has not stopped at the limit, unless `cut`.
        """
        done = [slot for slot in self.active if self.over[slot]]
        for slot in done:
            i, length = int(self.who[slot]), int(self.place[slot]) - 1
            self.complete[i] = self.tokens[slot, length + 1] == self.stop
            if not self.complete[i] and not self.cut:
                raise TooLongError(
                    f"sequence {i} has not stopped after {self.limit} tokens: raise the limit, train longer, or keep "
                    "such sequences as they are with cut=True"
                )
            self.drawn[i] = self.tokens[slot, 1 : 1 + length].copy()
        if done:
            self.active = [slot for slot in self.active if not self.over[slot]]
            self.free += done
        return len(done)

    def result(self) -> DrawnTokens:
        """All sequences, in order."""
        tokens = [self.drawn[i] for i in range(self.n)]
        offsets = np.cumsum([0, *map(len, tokens)], dtype=np.int64)
        return DrawnTokens(np.concatenate([np.empty(0, np.int64), *tokens]), offsets, self.complete, self.passes)
