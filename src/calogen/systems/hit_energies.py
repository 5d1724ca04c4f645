"""HitEnergies: decoded energies of hits, mapped so that they are distributed as those of Geant4.

A code stands for hits of several energies, and what is decoded is the middle of their logarithms: sums of energies
would be too small, the edge at the readout's threshold and the peak of a minimum-ionising particle too broad.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor, nn

from calogen.data.showers import Showers
from calogen.systems.code_groups import GroupedTokenizer
from calogen.train import Plan, SolvedStage

LOGITS = np.linspace(-9, 9, 257)
"""Of the probabilities whose quantiles are compared: a tail beyond one has 7 % more hits than beyond the next."""

FEWEST_HITS = 20
"""That anything is fitted to."""

SHOWERS = 400
"""The most training showers that are looked at."""


class HitEnergies(nn.Module):
    """A rising map of logarithms of energies, linear between quantiles; nothing is changed until it is fitted.

    Below all energies that were seen decoded is the least true one, which the readout's threshold decides; above all of
    them the last factor holds.
    """

    decoded: Tensor
    """ln(E / GeV) of decoded hits at each probability [M]."""
    true: Tensor
    """ln(E / GeV) of the same number of true hits there [M]."""
    fitted: Tensor

    def __init__(self) -> None:
        super().__init__()
        knots = len(LOGITS) + 2
        self.register_buffer("decoded", torch.arange(knots, dtype=torch.float64))
        self.register_buffer("true", torch.arange(knots, dtype=torch.float64))
        self.register_buffer("fitted", torch.tensor(False))

    def fit(self, decoded: NDArray[np.float32], true: NDArray[np.float32]) -> None:
        """Take the quantiles of decoded and of true energies [P], GeV.

        Raises:
            ValueError: fewer hits than `FEWEST_HITS`.
        """
        if len(decoded) < FEWEST_HITS:
            raise ValueError(f"{len(decoded)} hits to fit energies of hits to; give at least {FEWEST_HITS}")
        p = np.concatenate([[0.0], expit(LOGITS), [1.0]])
        for stored, energy in ((self.decoded, decoded), (self.true, true)):
            stored.copy_(torch.from_numpy(np.quantile(np.log(energy.astype(np.float64)), p)))
        self.fitted.fill_(True)

    def forward(self, energy: NDArray[np.float32]) -> NDArray[np.float32]:
        """Energies [P] GeV, mapped."""
        if not bool(self.fitted):
            return energy
        log, decoded, true = np.log(energy.astype(np.float64)), self.decoded.cpu().numpy(), self.true.cpu().numpy()
        mapped = np.interp(log, decoded, true) + (log - decoded[-1]).clip(min=0)
        return np.exp(mapped).astype(np.float32)


class HitEnergiesStage(SolvedStage):
    """Fit the map to training showers that went through the final tokenizer.

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
