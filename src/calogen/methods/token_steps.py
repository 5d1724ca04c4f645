"""Going on with sequences of tokens one by one: what a network must be able to do for it, and one step of all slots."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calogen.methods.token_choice import PLAIN, Sharpening, choose
from calogen.methods.token_slots import TokenSlots

AHEAD = 64
"""Places whose uniform numbers a sequence draws at once. Which number belongs to which place does not depend on it."""

TOGETHER = 1 << 18
"""Logits turned into weights together: 1 MB in float32, which an L2 cache holds."""


class InUse(NamedTuple):
    """Tokens that the sequences of R rows have."""

    table: Tensor  # whether each slot's has each token [slots, stop + 1]
    owner: Tensor  # the slot of each row [R]
    more: Tensor | None = None  # further tokens of each row alone [R, m]; 0, the start, is none


class Choices(Protocol):
    """What the hidden row of a sequence says about its next token, as one choice or as several in order."""

    levels: int
    stop: int
    recalls: bool
    """Whether it matters which tokens a sequence has, besides what its row tells of them."""

    def embed(self, tokens: Tensor) -> Tensor:
        """Tokens [R] -> [R, d]."""

    def logits(self, h: Tensor, path: Sequence[Tensor] = (), used: InUse | None = None) -> Tensor:
        """Logits [R, S] of rows h [R, d] for the next choice, given those before it [R] each, and tokens in use."""

    def forbidden(self, level: int) -> int | None:
        """The option of a level that is never drawn."""

    def token(self, path: Sequence[Tensor]) -> Tensor:
        """The choices of all levels [R] -> tokens [R]."""


class Decoder(Protocol):
    """Sequences in slots, as far as they are drawn."""

    def enter(self, slots: Sequence[int], c: Tensor | None = None, n: Tensor | None = None) -> None:
        """New sequences in some slots, with their conditions c [R, C], and how many codes they will have [R]."""

    def advance(self, slots: Sequence[int], tokens: Tensor) -> Tensor:
        """Hidden rows [R, d] of the next tokens [R] of the sequences in slots, in ascending order."""

    def extend(self, slots: Sequence[int], tokens: Tensor, keep: bool = True) -> tuple[Tensor, Any]:
        """As `advance` for equally many tokens of each; without `keep`, what comes second is told how many stay."""


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


class Drafts(Protocol):
    """Guesses of the tokens after the next one."""

    number: int
    """k."""

    def __call__(self, h: Tensor, token: Tensor) -> Tensor:
        """Rows h [R, d], the embedded tokens they led to [R, d] -> rows [R, k, d] of the k tokens after these."""


Streams = Callable[[int], Stream]
"""The random numbers of sequence i, by its number."""


class Used:
    """Which tokens sequences in slots have; nothing is kept where it makes no difference.

    Args:
        choices: what is drawn from.
        slots: sequences at a time.
        device: of the table.
    """

    def __init__(self, choices: Choices, slots: int, device: torch.device) -> None:
        self.table = None
        if choices.recalls:
            self.table = torch.zeros(slots, choices.stop + 1, dtype=torch.bool, device=device)

    def forget(self, slots: Sequence[int]) -> None:
        """New sequences in these slots have none."""
        if self.table is not None:
            self.table[list(slots)] = False

    def add(self, slots: NDArray[np.int64], tokens: Tensor) -> None:
        """A token each [R] for some slots [R], or several [R, m]; the start is none."""
        if self.table is not None:
            at = torch.from_numpy(slots).to(tokens.device)
            self.table[at if tokens.ndim == 1 else at[:, None], tokens] = True

    def of(self, slots: NDArray[np.int64], more: Tensor | None = None) -> InUse | None:
        """What sequences in some slots [R] have, and `more` [R, m]; good until something is added."""
        if self.table is None:
            return None
        return InUse(self.table, torch.from_numpy(slots).to(self.table.device), more)


def draw(choices: Choices, h: Tensor, u: Tensor, sharpening: Sharpening = PLAIN, used: InUse | None = None) -> Tensor:
    """The next tokens [R] of rows h [R, d], by uniform numbers u [R, levels]; used: see `Used`."""
    path: list[Tensor] = []
    for level in range(choices.levels):
        logits = choices.logits(h, path, used)
        rows = max(TOGETHER // logits.shape[1], 1)
        forbidden = choices.forbidden(level)
        parts = zip(logits.split(rows), u[:, level].split(rows), strict=True)
        path.append(torch.cat([choose(part, own, forbidden, sharpening) for part, own in parts]))
    return choices.token(path)


class OneByOne:
    """Sequences that go on by one token a step, drawn from what the network says."""

    def __init__(self, network: TokenNetwork, sequences: TokenSlots, streams: Streams, sharpening: Sharpening) -> None:
        self.choices: Choices = network.vocabulary
        self.device = next(iter(network.parameters())).device
        slots = len(sequences.who)
        self.decoder: Decoder = network.decoder(slots, sequences.limit + 1)
        self.sequences, self.streams, self.sharpening = sequences, streams, sharpening
        self.used = Used(self.choices, slots, self.device)
        self.own: dict[int, Stream] = {}
        self.uniform = np.empty((slots, AHEAD, self.choices.levels))

    def enter(self, slots: list[int], c: Tensor | None, n: Tensor | None) -> None:
        """New sequences in these slots."""
        self.decoder.enter(slots, c, n)
        self.used.forget(slots)
        self.own |= {slot: self.streams(int(self.sequences.who[slot])) for slot in slots}

    def step(self) -> None:
        """One token more for every sequence."""
        active = np.array(self.sequences.active)
        place = self.sequences.place[active]
        for slot in active[place % AHEAD == 0].tolist():
            self.uniform[slot] = self.own[slot].random(self.uniform.shape[1:])
        h = self.decoder.advance(active.tolist(), torch.from_numpy(self.sequences.last(active)).to(self.device))
        u = torch.from_numpy(self.uniform[active, place % AHEAD]).to(self.device)
        tokens = draw(self.choices, h, u, self.sharpening, self.used.of(active))
        self.used.add(active, tokens)
        self.sequences.append(active, tokens.cpu().numpy())
        self.sequences.passes += len(active)
