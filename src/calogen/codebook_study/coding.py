"""Showers to codes and back by a fitted tokenizer, with all that is asked of its hits on the way."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from calogen.data.showers import Showers
from calogen.evaluate.codebook_scores import CodedHits
from calogen.methods.codebook import Usage
from calogen.methods.conditional import in_groups
from calogen.systems.box_cells import apart, rounded
from calogen.systems.box_view import BoxHits
from calogen.systems.hit_tokenizer import HitTokenizer

Advance = Callable[[int], object]
"""Told of so many more showers."""


@torch.inference_mode()
def coded(
    tokenizer: HitTokenizer, showers: Showers, *, batch_size: int = 32, advance: Advance | None = None
) -> CodedHits:
    """Hits of showers, what they are decoded to, and their codes.

    Raises:
        ValueError: showers of another detector, without hits, or hits that are decoded to no finite energy.
    """
    tokenizer.eval()
    parts = []
    for start in range(0, len(showers), batch_size):
        some = showers[np.arange(start, min(start + batch_size, len(showers)))]
        parts.append(_coded(tokenizer, tokenizer.hits(some)))
        if advance is not None:
            advance(len(some))
    if not sum(len(part.shower) for part in parts):
        raise ValueError(f"these {len(showers)} showers have no hit that the readout sees: there is nothing to measure")
    return CodedHits.concatenate(parts)


@torch.inference_mode()
def usage(tokenizer: HitTokenizer, showers: Showers, *, batch_size: int = 32, advance: Advance | None = None) -> Usage:
    """Share of the codes that hits of showers use, and their perplexity."""
    tokenizer.eval()
    tally = torch.zeros(tokenizer.vocabulary, dtype=torch.int64)
    for start in range(0, len(showers), batch_size):
        some = showers[np.arange(start, min(start + batch_size, len(showers)))]
        tally += torch.bincount(tokenizer.encode(some).ids, minlength=tokenizer.vocabulary)
        if advance is not None:
            advance(len(some))
    return Usage.of(tally)


def _coded(tokenizer: HitTokenizer, hits: BoxHits) -> CodedHits:
    network = tokenizer.network
    x, counts, c = tokenizer.features.encode(hits), torch.from_numpy(hits.counts), tokenizer.condition(hits.incident)
    again, codes, losses = [x[:0]], [torch.zeros(0, dtype=torch.int64)], [x[:0, 0]]
    for sets, points in in_groups(counts):
        n, told = counts[sets].to(x.device), None if c is None else c[sets]
        found = network.codebook(network.points(x[points], n, told))
        again.append(network.decode(found.ids, n, told))
        codes.append(found.ids.cpu())
        losses.append(found.loss)
    features = torch.cat(again)
    squared_error = (x - features).square().sum(1)
    places, energy = tokenizer.features.decode(features)
    cells = rounded(places, hits.offsets, hits.box)
    settled = apart(cells.cell, energy, hits.offsets, hits.box, tokenizer.config.apart)
    moved = np.bincount(hits.shower_index, weights=settled != cells.cell, minlength=len(hits))
    return CodedHits(
        shower=hits.shower_index,
        place=hits.places(),
        decoded=places,
        settled=np.stack(hits.box.place(settled), axis=1).astype(np.float64),
        energy=hits.energy.astype(np.float64),
        decoded_energy=energy.astype(np.float64),
        moved=moved.astype(np.int64),
        outside=cells.outside,
        code=torch.cat(codes).numpy(),
        loss=(squared_error + network.sizes.weight * torch.cat(losses)).double().cpu().numpy(),
        squared_error=squared_error.double().cpu().numpy(),
    )
