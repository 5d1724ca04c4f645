"""Drawing sequences of tokens: many at a time, each from its own random numbers, none waiting for the longest.

A sequence that draws the stop leaves its slot and the next one enters. Nothing is drawn again and nothing is left out,
whatever its length, so lengths follow the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calogen.methods.token_choice import PLAIN, Sharpening, choose

SLOTS = 64
"""Sequences drawn together by default: weights are read once for all of them."""

AHEAD = 64
"""Places whose uniform numbers a sequence draws at once. Which number belongs to which place does not depend on it."""

TOGETHER = 1 << 18
"""Logits turned into weights together: 1 MB in float32, which an L2 cache holds."""


class Choices(Protocol):
    """What the hidden row of a sequence says about its next token, as one choice or as several in order."""

    levels: int
    stop: int

    def logits(self, h: Tensor, path: Sequence[Tensor] = ()) -> Tensor:
        """Logits [R, S] of rows h [R, d] for the next choice, given those before it [R] each."""

    def forbidden(self, level: int) -> int | None:
        """The option of a level that is never drawn."""

    def token(self, path: Sequence[Tensor]) -> Tensor:
        """The choices of all levels [R] -> tokens [R]."""


class Decoder(Protocol):
    """Sequences in slots, as far as they are drawn."""

    def enter(self, slots: Sequence[int], c: Tensor | None = None) -> None:
        """New sequences in some slots, with their conditions c [len(slots), C]."""

    def advance(self, slots: Sequence[int], tokens: Tensor) -> Tensor:
        """Hidden rows [R, d] of the next tokens [R] of the sequences in slots, in ascending order."""


class TokenNetwork(Protocol):
    """A network that can go on token by token."""

    vocabulary: Any

    def parameters(self) -> Iterator[nn.Parameter]:
        """Its weights, which say where it is."""

    def decoder(self, slots: int, room: int) -> Any:
        """Room for sequences."""


class Stream(Protocol):
    """A source of uniform numbers in [0, 1): numpy's Generator."""

    def random(self, size: tuple[int, ...]) -> NDArray[np.float64]:
        """The next numbers."""


Streams = Callable[[int], Stream]
"""The random numbers of sequence i, by its number."""


class DrawnTokens(NamedTuple):
    """N sequences of tokens, start and stop left out."""

    tokens: NDArray[np.int64]  # [T]
    offsets: NDArray[np.int64]  # [N + 1]
    complete: NDArray[np.bool_]  # [N]; False: cut at the limit, where it had not stopped


class TooLongError(ValueError):
    """A sequence that has not stopped at the limit."""


@torch.inference_mode()
def sample_tokens(
    network: TokenNetwork,
    n: int,
    streams: Streams,
    c: Tensor | None = None,
    *,
    limit: int,
    slots: int = SLOTS,
    sharpening: Sharpening = PLAIN,
    cut: bool = False,
    done: Callable[[int], object] | None = None,
) -> DrawnTokens:
    """Draw n sequences. Each depends on its own random numbers and condition alone, up to the network's round-off.

    Args:
        network: in eval mode.
        n: sequences.
        streams: their random numbers: at each place a uniform number for each choice.
        c: their conditions [n, C], if the network has one.
        limit: most tokens of a sequence, the stop not counted.
        slots: sequences drawn together.
        sharpening: see `Sharpening`; none by default.
        cut: sequences that have not stopped at the limit are kept as they are and marked, instead of an error.
        done: called with the number of sequences that have just been finished.

    Raises:
        ValueError: n below 0, limit or slots below 1.
        TooLongError: a sequence has not stopped at the limit, unless `cut`.
    """
    if n < 0 or limit < 1 or slots < 1:
        raise ValueError(f"n={n}, limit={limit}, slots={slots}: give n >= 0, and 1 or more of the others")
    run = _Run(network, n, streams, c, limit, min(slots, n), cut)
    while run.active:
        finished = run.step(sharpening)
        if finished and done is not None:
            done(finished)
    tokens = [run.drawn[i] for i in range(n)]
    offsets = np.cumsum([0, *map(len, tokens)], dtype=np.int64)
    return DrawnTokens(np.concatenate([np.empty(0, np.int64), *tokens]), offsets, run.complete)


class _Run:
    """The sequences in their slots, and those that are done."""

    def __init__(
        self, network: TokenNetwork, n: int, streams: Streams, c: Tensor | None, limit: int, slots: int, cut: bool
    ) -> None:
        self.choices: Choices = network.vocabulary
        self.device = next(iter(network.parameters())).device
        self.decoder: Decoder = network.decoder(slots, limit + 1)
        self.n, self.streams, self.c, self.limit, self.cut = n, streams, c, limit, cut
        self.drawn: dict[int, NDArray[np.int64]] = {}
        self.complete = np.zeros(n, dtype=np.bool_)
        self.entered = 0
        self.who = np.zeros(slots, dtype=np.int64)
        self.place = np.zeros(slots, dtype=np.int64)
        self.own: dict[int, Stream] = {}
        self.uniform = np.empty((slots, AHEAD, self.choices.levels))
        self.tokens = np.zeros((slots, limit + 2), dtype=np.int64)  # the start, the tokens, the stop
        self.active: list[int] = self._enter(list(range(slots)))

    def step(self, sharpening: Sharpening) -> int:
        """One token more for every sequence; returns how many are done."""
        active = np.array(self.active)
        place = self.place[active]
        for slot in active[place % AHEAD == 0].tolist():
            self.uniform[slot] = self.own[slot].random(self.uniform.shape[1:])
        h = self.decoder.advance(self.active, torch.from_numpy(self.tokens[active, place]).to(self.device))
        u = torch.from_numpy(self.uniform[active, place % AHEAD]).to(self.device)
        token = draw(self.choices, h, u, sharpening).cpu().numpy()
        self.place[active] = place = place + 1
        self.tokens[active, place] = token
        stopped = token == self.choices.stop
        over = stopped | (place > self.limit)
        if not over.any():
            return 0
        for slot, complete in zip(active[over].tolist(), stopped[over].tolist(), strict=True):
            self._leave(slot, complete)
        entered = self._enter(active[over].tolist())
        self.active = sorted({*active[~over].tolist(), *entered})
        return int(over.sum())

    def _enter(self, slots: list[int]) -> list[int]:
        """The next sequences go into free slots, as far as there are any; returns the slots taken."""
        taken = slots[: self.n - self.entered]
        if taken:
            rows = slice(self.entered, self.entered + len(taken))
            self.decoder.enter(taken, None if self.c is None else self.c[rows])
            self.who[taken] = np.arange(rows.start, rows.stop)
            self.own |= {slot: self.streams(int(self.who[slot])) for slot in taken}
            self.place[taken] = 0
            self.entered = rows.stop
        return taken

    def _leave(self, slot: int, complete: bool) -> None:
        i, length = int(self.who[slot]), int(self.place[slot]) - 1
        if not complete and not self.cut:
            raise TooLongError(
                f"sequence {i} has not stopped after {self.limit} tokens: raise the limit, train longer, or keep such "
                "sequences as they are with cut=True"
            )
        self.drawn[i] = self.tokens[slot, 1 : 1 + length].copy()
        self.complete[i] = complete


def draw(choices: Choices, h: Tensor, u: Tensor, sharpening: Sharpening = PLAIN) -> Tensor:
    """The next tokens [R] of rows h [R, d], by uniform numbers u [R, levels]."""
    path: list[Tensor] = []
    for level in range(choices.levels):
        logits = choices.logits(h, path)
        rows = max(TOGETHER // logits.shape[1], 1)
        forbidden = choices.forbidden(level)
        parts = zip(logits.split(rows), u[:, level].split(rows), strict=True)
        path.append(torch.cat([choose(part, own, forbidden, sharpening) for part, own in parts]))
    return choices.token(path)
