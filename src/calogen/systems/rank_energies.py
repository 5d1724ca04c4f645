"""RankEnergies: energies of drawn hits, scaled so that the i-th brightest of a shower has the mean it has in Geant4.

The bright core of a shower is few hits of many codes, which a small generator draws too broadly. What hits have beyond
the least energy a hit can have is scaled by a factor of the hit's rank and the incident energy. The edge at the
readout's threshold stays where it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calogen.data.incident import Incident
from calogen.data.showers import Showers
from calogen.systems.box_view import BoxHits
from calogen.train import Plan, SolvedStage

RANKS = np.log2(1.0 + np.array([0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048]))
"""log2(1 + i) of the ranks at which there is a factor, from the brightest hit."""

ENERGIES = 5
"""Incident energies at which there is one: quantiles of those in training."""

FEWEST_HITS = 50
"""About a knot; with fewer, drawn or true, its factor is 1."""

LARGEST = 0.5
"""Of the logarithm of a factor: what would need more is no matter of a calibration."""

ROUNDS = 3
"""A factor moves its neighbours' means too, as it is linear between knots."""

SHOWERS = 600
"""The most particles of training showers for which showers are drawn."""


@dataclass(frozen=True)
class RankedHits:
    """Energies of hits [P] of showers offsets [N + 1], brightest first in each, and incident energies [N]; GeV."""

    energy: NDArray[np.float64]
    offsets: NDArray[np.int64]
    incident: NDArray[np.float64]

    @classmethod
    def of(cls, energy: NDArray[np.float32], offsets: NDArray[np.int64], incident: Incident) -> RankedHits:
        """Hits in any order."""
        order = np.lexsort((-energy, np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))))
        return cls(energy[order].astype(np.float64), offsets, incident.energy.astype(np.float64))


class RankEnergies(nn.Module):
    """Factors at knots of rank and incident energy, linear between in the logarithms; 1 until they are fitted."""

    least: Tensor
    """GeV, of a hit."""
    log_incident: Tensor
    """ln(E / GeV), ascending [K]."""
    log_factor: Tensor
    """[R, K]."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("least", torch.tensor(0.0, dtype=torch.float64))
        self.register_buffer("log_incident", torch.arange(ENERGIES, dtype=torch.float64))
        self.register_buffer("log_factor", torch.zeros(len(RANKS), ENERGIES, dtype=torch.float64))

    def fit(self, drawn: RankedHits, true: RankedHits) -> None:
        """Take the factors from drawn and true showers of the same range of particles."""
        self.log_factor.zero_()
        log = np.log(true.incident)
        ends = np.quantile(log, np.linspace(0, 1, ENERGIES))
        apart = np.maximum.accumulate(ends) + np.arange(ENERGIES) * SPACING
        self.log_incident.copy_(torch.from_numpy(apart))
        self.least.fill_(float(true.energy.min(initial=np.inf)) if len(true.energy) else 0.0)
        goal, known = self._means(true, true.energy)
        for _ in range(ROUNDS):
            now, drawn_hits = self._means(drawn, self._scaled(drawn))
            fits = (known >= FEWEST_HITS) & (drawn_hits >= FEWEST_HITS) & (goal > 0) & (now > 0)
            step = np.log(np.where(fits, goal, 1.0) / np.where(fits, now, 1.0))
            factor = (self.log_factor.cpu().numpy() + step).clip(-LARGEST, LARGEST)
            self.log_factor.copy_(torch.from_numpy(factor))

    def forward(
        self, energy: NDArray[np.float32], offsets: NDArray[np.int64], incident: Incident
    ) -> NDArray[np.float32]:
        """Energies [P] GeV of hits in any order, of showers offsets [N + 1], scaled."""
        if not bool(self.log_factor.any()):
            return energy
        order = np.lexsort((-energy, np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))))
        out = np.empty_like(energy)
        out[order] = self._scaled(RankedHits.of(energy, offsets, incident)).astype(np.float32)
        return out

    def _scaled(self, hits: RankedHits) -> NDArray[np.float64]:
        """Energies of hits [P], scaled."""
        rank, k, u, v = self._places(hits)
        table = self.log_factor.cpu().numpy()
        low = table[rank, k] * (1 - v) + table[rank, k + 1] * v
        high = table[rank + 1, k] * (1 - v) + table[rank + 1, k + 1] * v
        beyond = np.maximum(hits.energy - float(self.least), 0.0)
        scaled: NDArray[np.float64] = hits.energy + beyond * np.expm1(low * (1 - u) + high * u)
        return scaled

    def _means(self, hits: RankedHits, energy: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean of what hits have beyond the least [R, K], weighted by how near they are to a knot; and the weights."""
        rank, k, u, v = self._places(hits)
        sums, weights = np.zeros(self.log_factor.shape), np.zeros(self.log_factor.shape)
        beyond = np.maximum(energy - float(self.least), 0.0)
        for up in (0, 1):
            for right in (0, 1):
                w = (u if up else 1 - u) * (v if right else 1 - v)
                np.add.at(sums, (rank + up, k + right), w * beyond)
                np.add.at(weights, (rank + up, k + right), w)
        return sums / np.maximum(weights, 1.0), weights

    def _places(self, hits: RankedHits) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any], NDArray[Any]]:
        """The knots below each hit, of rank and incident energy, and how far it is to the next ones."""
        counts = np.diff(hits.offsets)
        ranks = np.log2(1.0 + np.arange(len(hits.energy)) - np.repeat(hits.offsets[:-1], counts))
        log = np.repeat(np.log(hits.incident), counts)
        found = []
        for values, knots in ((ranks, RANKS), (log, self.log_incident.cpu().numpy())):
            below = np.clip(np.searchsorted(knots, values, side="right") - 1, 0, len(knots) - 2)
            found.append((below, np.clip((values - knots[below]) / (knots[below + 1] - knots[below]), 0.0, 1.0)))
        (rank, u), (k, v) = found
        return rank, k, u, v


SPACING = 1e-9
"""Between two knots at the least, where many particles have one energy."""


class RankEnergiesStage(SolvedStage):
    """Fit the factors to showers that the final system draws for particles of training.

    Args:
        ranks: what is fitted.
        draw: hits of showers for particles, with a seed, before the factors.
        see: true hits.
        plan: of which the seed is used.
    """

    name = "ranks"

    def __init__(
        self,
        ranks: RankEnergies,
        draw: Callable[[Incident, int], BoxHits],
        see: Callable[[Showers], BoxHits],
        plan: Plan,
    ) -> None:
        self.model, self.ranks, self.draw, self.see, self.plan = ranks, ranks, draw, see, plan

    def solve(self, train: Showers, validation: Showers | None) -> None:
        """Draw for some of the particles, and compare with all showers."""
        chosen = np.sort(np.random.default_rng(self.plan.seed).permutation(len(train))[:SHOWERS])
        drawn, true = self.draw(train.incident[chosen], self.plan.seed), self.see(train)
        self.ranks.fit(
            *(RankedHits.of(hits.energy, hits.offsets, hits.incident) for hits in (drawn, true)),
        )
