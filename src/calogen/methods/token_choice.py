"""Choosing one of many options by their logits and one uniform number: the inverse of the cumulative distribution."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 256
"""Options whose weights are summed first: of 65,538 options 257 sums are added up in float64, not all weights."""


@dataclass(frozen=True)
class Sharpening:
    """Ways to favour what is likely; by default none, and showers follow the distribution that was learned.

    A token that is chosen in several steps (a group, then a code) has each of them sharpened.

    Raises:
        ValueError: a temperature that is not positive, a top_k below 1, a top_p outside (0, 1].
    """

    temperature: float = 1.0  # logits are divided by it
    top_k: int | None = None  # options that are kept, the likeliest; those that tie with the last of them too
    top_p: float | None = None  # the likeliest options are kept until they have this probability together

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature {self.temperature}: give a positive number, 1 for the learned distribution")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k={self.top_k}: keep at least 1 option, or all with None")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p}: give a probability above 0 and up to 1, or None")

    def __call__(self, logits: Tensor) -> Tensor:
        """Logits [R, S] -> those in use, -inf where an option is dropped; may be the same memory."""
        if self.temperature != 1:
            logits = logits / self.temperature
        if self.top_k is not None and self.top_k < logits.shape[1]:
            least = logits.topk(self.top_k, dim=1).values[:, -1:]
            logits = logits.masked_fill(logits < least, -torch.inf)
        if self.top_p is not None:
            ordered, order = logits.sort(dim=1, descending=True)
            p = ordered.softmax(1, dtype=torch.float64)
            enough = p.cumsum(1) - p >= self.top_p
            logits = logits.masked_fill(torch.zeros_like(enough).scatter(1, order, enough), -torch.inf)
        return logits


PLAIN = Sharpening()


def choose(logits: Tensor, u: Tensor, forbidden: int | None = None, sharpening: Sharpening = PLAIN) -> Tensor:
    """Options [R], drawn with probabilities softmax(logits [R, S]), which are overwritten.

    Args:
        logits: [R, S].
        u: uniform numbers in [0, 1) [R], float64.
        forbidden: an option that is not drawn.
        sharpening: what is done to the logits first.

    Raises:
        ValueError: for logits that are not finite.

    >>> choose(torch.tensor([[0.0, 0.0], [0.0, 9.0]]), torch.tensor([0.4, 0.4])).tolist()
    [0, 1]
    """
    if forbidden is not None:
        logits[:, forbidden] = -torch.inf
    logits = sharpening(logits)
    weights = logits.sub_(logits.amax(1, keepdim=True)).exp_()
    return of_weights(weights, u)


def of_weights(weights: Tensor, u: Tensor) -> Tensor:
    """Options [R] with probabilities in proportion to weights [R, S] >= 0, by uniform numbers u [R] in [0, 1).

    Raises:
        ValueError: for weights of which there is no finite, positive sum.

    >>> of_weights(torch.tensor([[1.0, 0.0, 3.0]]), torch.tensor([0.25])).tolist()
    [2]
    """
    options = weights.shape[1]
    if options <= 2 * BLOCK:
        return _cumulated(weights, u)[0]
    whole = options // BLOCK * BLOCK
    sums = weights[:, :whole].unflatten(1, (-1, BLOCK)).sum(2)
    if whole < options:
        sums = torch.cat([sums, weights[:, whole:].sum(1, keepdim=True)], dim=1)
    block, left = _first_above(sums, u)
    at = block[:, None] * BLOCK + torch.arange(BLOCK, device=weights.device)
    own = weights.gather(1, at.clamp(max=options - 1)) * (at < options)
    return block * BLOCK + _first_above(own, left)[0]


def _first_above(weights: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """The first option at which the cumulative weight is above u times the sum [R], and where u is within it [R]."""
    option, cumulative, goal = _cumulated(weights, u)
    width = weights.gather(1, option[:, None]).to(cumulative)
    within = 1 - (cumulative.gather(1, option[:, None]) - goal) / width
    return option, within[:, 0].clamp(0, 1)


def _cumulated(weights: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The first option at which the cumulative weight is above u times the sum [R]; these weights and that goal."""
    cumulative = weights.cumsum(1, dtype=torch.float64)
    total = cumulative[:, -1:]
    if not bool((torch.isfinite(total) & (total > 0)).all()):
        row = int((~torch.isfinite(total) | (total <= 0))[:, 0].nonzero()[0])
        raise ValueError(f"options of row {row} have weights with sum {float(total[row])}: the network gave no numbers")
    goal = torch.minimum(u.to(total)[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, goal, right=True)[:, 0], cumulative, goal
