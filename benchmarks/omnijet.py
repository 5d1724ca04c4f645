"""A shower of the published OmniJet-alpha_C generator (930 hits) by the authors' way of sampling and by ours.

    OMP_NUM_THREADS=1 python benchmarks/omnijet.py [--tokens 930] [--no-authors]

Random weights of the published size (35,987,970), one thread, CPU time of the process. Every shower has 930 codes.

The authors' way, rebuilt plainly after the description of their code with the same weights: at each step the whole
prefix goes through the network, attention with all its scores, and through the head at all positions; the last one is
drawn from. Measured with two showers at some prefixes, and summed by trapezoids. Checked: both give the same logits.

Ours: keys and values are kept, one row goes through the head, showers are drawn together. Measured: `STEPS` steps at
some lengths, of showers that are equally long; the rest is summed by trapezoids.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from calogen.methods.token_steps import draw
from calogen.networks.token_blocks import PostNormBlock
from calogen.networks.token_transformer import (
    TokenTransformer,
    modern_token_transformer,
    published_token_transformer,
)
from calogen.networks.vocabulary_head import WholeVocabulary

HITS = 930
PREFIXES = (1, 100, 200, 400, 800, 930)
LENGTHS = (0, 230, 465, 700, 920)
STEPS = 8
BATCHES = (1, 16, 64)
AUTHORS_BATCH = 2


@dataclass(frozen=True)
class Way:
    """A network and the number format of its large weights."""

    name: str
    network: TokenTransformer


def authors_logits(network: TokenTransformer, tokens: Tensor) -> Tensor:
    """Logits [N, L, K + 2] of whole sequences [N, L], by matrices of all scores."""
    vocabulary = network.vocabulary
    h, (n, length) = vocabulary.embed(tokens), tokens.shape
    mask = torch.ones(length, length, dtype=torch.bool).triu(1)
    for block in network.blocks:
        assert isinstance(block, PostNormBlock)
        attention = block.attention
        parts = attention.query_key_value(h).view(n, length, 3, attention.heads, -1).permute(2, 0, 3, 1, 4)
        scores = (parts[0] @ parts[1].transpose(2, 3) * parts.shape[-1] ** -0.5).masked_fill(mask, -1e9)
        seen = (scores.softmax(-1) @ parts[2]).transpose(1, 2).flatten(2)
        h = block.norm_attention(h + attention.output(seen))
        h = block.norm_feedforward(h + block.narrow(F.relu(block.widen(h))))
    assert isinstance(vocabulary, WholeVocabulary)
    logits: Tensor = vocabulary.head(h)
    return logits


def authors_step(network: TokenTransformer, tokens: Tensor) -> Tensor:
    """The next tokens [N]."""
    logits = authors_logits(network, tokens)
    return 1 + torch.multinomial(logits[:, -1, 1:].softmax(1), 1)[:, 0]


def check(network: TokenTransformer) -> None:
    """Both ways have the same logits."""
    tokens = torch.randint(1, network.vocabulary.codes, (AUTHORS_BATCH, 9))
    tokens[:, 0] = 0
    decoder, slots = network.decoder(AUTHORS_BATCH, 9), range(AUTHORS_BATCH)
    decoder.enter(slots)
    ours = torch.stack([network.vocabulary.logits(decoder.advance(slots, column)) for column in tokens.T], 1)
    assert float((ours - authors_logits(network, tokens)).abs().max()) < 1e-4


def cpu_seconds(run: Callable[[], object]) -> float:
    """CPU time of the process."""
    start = time.process_time()
    run()
    return time.process_time() - start


def authors_seconds(network: TokenTransformer, hits: int) -> tuple[float, dict[int, float]]:
    """Seconds a shower, and of a step by its prefix; the start and the stop are steps too."""
    times: dict[int, float] = {}
    for length in (p for p in PREFIXES if p <= hits):
        tokens = torch.randint(1, network.vocabulary.codes, (AUTHORS_BATCH, length))
        if length == 1:
            authors_step(network, tokens)
        times[length] = cpu_seconds(lambda tokens=tokens: authors_step(network, tokens)) / AUTHORS_BATCH  # type: ignore[misc]
    return whole(times, hits), times


def our_seconds(network: TokenTransformer, n: int, hits: int) -> tuple[float, dict[int, float]]:
    """Seconds a shower of n drawn together, and of a step by the tokens before it."""
    decoder, slots = network.decoder(n, hits + STEPS + 1), list(range(n))
    decoder.enter(slots)
    decoder.cache.keys.normal_(std=0.1)
    decoder.cache.values.normal_(std=0.1)
    rng = np.random.default_rng(0)
    state = {"tokens": torch.zeros(n, dtype=torch.int64)}

    def steps(count: int) -> None:
        for _ in range(count):
            h = decoder.advance(slots, state["tokens"])
            u = torch.from_numpy(rng.random((n, network.vocabulary.levels)))
            drawn = draw(network.vocabulary, h, u)
            state["tokens"] = torch.where(drawn == network.vocabulary.stop, 1, drawn)

    times: dict[int, float] = {}
    for length in (p for p in LENGTHS if p <= hits):
        decoder.cache.filled = [length] * n
        steps(1)
        times[length] = cpu_seconds(lambda: steps(STEPS)) / STEPS / n
    return whole(times, hits), times


def whole(times: dict[int, float], hits: int) -> float:
    """Seconds of hits + 1 steps, by trapezoids between the lengths measured."""
    at = np.arange(hits + 1)
    return float(np.interp(at, list(times), list(times.values())).sum())


def table(ways: list[Way], hits: int, authors: tuple[float, dict[int, float]]) -> None:
    """Seconds a shower and the ratio to the authors' way, and tokens a second at the lengths measured."""
    print(f"\n{'':38}{'s a shower':>11}{'ratio':>8}   tokens a second, all showers together, by length so far")
    rates = "".join(f"{length:>6}: {1 / seconds:<9.4g}" for length, seconds in authors[1].items())
    print(f"{'authors, batch 2':38}{authors[0]:11.4g}{1:8}   {rates}")
    for way in ways:
        for n in BATCHES:
            seconds, times = our_seconds(way.network, n, hits)
            rates = "".join(f"{length:>6}: {1 / each:<9.4g}" for length, each in times.items())
            print(f"{f'{way.name}, batch {n}':38}{seconds:11.3g}{authors[0] / seconds:8.0f}   {rates}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=HITS, help="hits of a shower")
    parser.add_argument("--no-authors", action="store_true", help="leave out their way")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    published, modern = published_token_transformer().eval(), modern_token_transformer(condition=0).eval()
    with torch.inference_mode():
        check(published)
        authors = (float("nan"), {}) if options.no_authors else authors_seconds(published, options.tokens)
        ways = [
            Way(f"{name}, {text}", network.in_precision(dtype))
            for name, network in (("published", published), ("two levels", modern))
            for text, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16))
        ]
        table(ways, options.tokens, authors)


if __name__ == "__main__":
    main()
