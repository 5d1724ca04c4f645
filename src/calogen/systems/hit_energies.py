"""HitEnergies: decoded energies of hits scaled to what such hits had on the mean.

A code stands for hits of several energies, and what is decoded is the middle of their logarithms: less than their mean.
Without this, showers would lack that energy.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calogen.data.showers import Showers
from calogen.systems.code_groups import GroupedTokenizer
from calogen.train import Plan, SolvedStage

EDGES = (*np.linspace(0, 0.95, 20), 0.97, 0.98, 0.99, 0.995, 0.998, 0.999, 1.0)
"""Quantiles of decoded energies between which a factor is taken; more of them where the energy is."""

FEWEST_HITS = 20
"""Between two of them; with fewer, the neighbours' factors hold."""

SHOWERS = 400
"""The most training showers that are looked at."""


class HitEnergies(nn.Module):
    """A factor by the logarithm of the energy, linear between knots; 1 until it is fitted."""

    knots: Tensor
    """ln(E / GeV) of decoded hits, ascending [M]."""
    log_factor: Tensor
    """[M]."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("knots", torch.arange(len(EDGES) - 1, dtype=torch.float64))
        self.register_buffer("log_factor", torch.zeros(len(EDGES) - 1, dtype=torch.float64))

    def fit(self, decoded: NDArray[np.float32], true: NDArray[np.float32]) -> None:
        """Take the ratio of sums of true and decoded energies [P] of hits that are decoded alike.

        Raises:
            ValueError: fewer hits than one factor needs.
        """
        if len(decoded) < FEWEST_HITS:
            raise ValueError(f"{len(decoded)} hits to fit energies of hits to; give at least {FEWEST_HITS}")
        e, t, log = decoded.astype(np.float64), true.astype(np.float64), np.log(decoded.astype(np.float64))
        edges = np.quantile(log, EDGES)
        place = np.clip(np.searchsorted(edges, log, side="right") - 1, 0, len(edges) - 2)
        hits, of_decoded, of_true, of_log = (
            np.bincount(place, values, len(edges) - 1) for values in (np.ones_like(e), e, t, log)
        )
        known = hits >= FEWEST_HITS if (hits >= FEWEST_HITS).any() else hits > 0
        centres, factors = of_log[known] / hits[known], np.log(of_true[known] / of_decoded[known])
        knots = (edges[1:] + edges[:-1]) / 2
        knots[known] = centres
        self.knots.copy_(torch.from_numpy(knots))
        self.log_factor.copy_(torch.from_numpy(np.interp(knots, centres, factors)))

    def forward(self, energy: NDArray[np.float32]) -> NDArray[np.float32]:
        """Energies [P] GeV, scaled."""
        log = np.log(energy.astype(np.float64))
        shift = np.interp(log, self.knots.cpu().numpy(), self.log_factor.cpu().numpy())
        return np.exp(log + shift).astype(np.float32)


class HitEnergiesStage(SolvedStage):
    """Fit the factors to training showers that went through the final tokenizer.

    Args:
        energies: what is fitted.
        tokens: the tokenizer.
        plan: of which the seed is used.
    """

    name = "calibrate"

    def __init__(self, energies: HitEnergies, tokens: GroupedTokenizer, plan: Plan) -> None:
        self.model, self.energies, self.tokens, self.plan = energies, energies, tokens, plan

    def solve(self, train: Showers, validation: Showers | None) -> None:
        """Take some showers to tokens and back."""
        chosen = np.sort(np.random.default_rng(self.plan.seed).permutation(len(train))[:SHOWERS])
        showers = train[chosen]
        with torch.inference_mode():
            decoded = self.tokens.decode(*self.tokens.encode(showers), showers.incident)
        self.energies.fit(decoded.hits.energy, self.tokens.tokenizer.hits(showers).energy)
