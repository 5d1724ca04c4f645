"""Drawing sequences of tokens: many at a time, each from its own random numbers, none waiting for the longest.

A sequence that draws the stop leaves its slot and the next one enters. Nothing is drawn again and nothing is left out,
whatever its length, so lengths follow the network.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from calogen.methods.token_choice import PLAIN, Sharpening
from calogen.methods.token_guesses import SeveralAtOnce
from calogen.methods.token_slots import DrawnTokens, TokenSlots
from calogen.methods.token_steps import Drafts, OneByOne, Streams, TokenNetwork

SLOTS = 64
"""Sequences drawn together by default: weights are read once for all of them."""


@torch.inference_mode()
def sample_tokens(
    network: TokenNetwork,
    n: int,
    streams: Streams,
    c: Tensor | None = None,
    *,
    counts: Tensor | None = None,
    limit: int,
    slots: int = SLOTS,
    sharpening: Sharpening = PLAIN,
    cut: bool = False,
    drafts: Drafts | None = None,
    done: Callable[[int], object] | None = None,
) -> DrawnTokens:
    """Draw n sequences. Each depends on its own random numbers and condition alone, up to the network's round-off.

    Args:
        network: in eval mode.
        n: sequences.
        streams: their random numbers: at each place a uniform number for each choice.
        c: their conditions [n, C], if the network has one.
        counts: how many tokens each will have [n], if the network is told; it still says when it stops.
        limit: most tokens of a sequence, the stop not counted.
        slots: sequences drawn together.
        sharpening: see `Sharpening`; none by default.
        cut: sequences that have not stopped at the limit are kept as they are and marked, instead of an error.
        drafts: guess the tokens after the next one, which the network judges all at once. Sequences then have the same
            law, but are others with the same random numbers.
        done: called with the number of sequences that have just been finished.

    Raises:
        ValueError: n below 0, limit or slots below 1.
        TooLongError: a sequence has not stopped at the limit, unless `cut`.
    """
    if n < 0 or limit < 1 or slots < 1:
        raise ValueError(f"n={n}, limit={limit}, slots={slots}: give n >= 0, and 1 or more of the others")
    sequences = TokenSlots(n, min(slots, n), limit, network.vocabulary.stop, cut)
    run: OneByOne | SeveralAtOnce
    if drafts is not None:
        run = SeveralAtOnce(network, sequences, streams, sharpening, drafts)
    else:
        run = OneByOne(network, sequences, streams, sharpening)
    while True:
        entered = sequences.fill()
        if entered:
            who = torch.from_numpy(sequences.who[entered])
            run.enter(entered, *(None if x is None else x[who.to(x.device)] for x in (c, counts)))
        if not sequences.active:
            return sequences.result()
        run.step()
        finished = sequences.release()
        if finished and done is not None:
            done(finished)
