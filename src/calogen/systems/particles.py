"""Particles: what enters the calorimeter, as the numbers that networks are conditioned on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calogen.data.incident import Incident

KINDS = (11, -11, 22, 130, 211, -211, 321, -321, 2112, -2112, 2212, -2212)
"""PDG codes by the index a network knows them by: e, gamma, K0L, pi, K, n, p; the order of AllShowers' labels."""

ELECTROMAGNETIC = (11, -11, 22)
"""Those whose showers are electromagnetic throughout."""


def is_hadronic(pdg: NDArray[Any]) -> NDArray[np.bool_]:
    """Which particles' showers are not electromagnetic throughout [N]."""
    return ~np.isin(pdg, ELECTROMAGNETIC)


LEAST_STD = 1e-3
"""A scale that no training sample is narrower than: showers of one energy have none."""


class Particles(nn.Module):
    """Energy, direction and kind of incident particles, standardised on the training showers.

    Args:
        logarithm: ln E is standardised, else E.
        directions: p_x, p_y, p_z are part of the numbers.
        kinds: the kind is part of them, one number each for all `KINDS`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *, logarithm: bool = True, directions: bool = True, kinds: bool = True) -> None:
        super().__init__()
        self.logarithm, self.directions, self.kinds = logarithm, directions, kinds
        self.register_buffer("mean", torch.tensor(0.0))
        self.register_buffer("std", torch.tensor(1.0))
        self.taken = False

    def take(self, other: Particles) -> None:
        """Have the scales of another system's particles, and keep them."""
        self.load_state_dict(other.state_dict())
        self.taken = True

    @property
    def numbers(self) -> int:
        """Energy and direction: how many numbers they are."""
        return 1 + 3 * self.directions

    @property
    def size(self) -> int:
        """C, with the kind."""
        return self.numbers + self.kinds * len(KINDS)

    def columns(self, codes: Sequence[int]) -> list[int]:
        """Columns of the condition that say a particle is one of these kinds; none, where it does not say."""
        return [self.numbers + KINDS.index(code) for code in codes] if self.kinds else []

    def fit(self, incident: Incident) -> None:
        """Take mean and standard deviation of the (logarithm of the) energy, unless they are another system's."""
        if self.taken:
            return
        values = self._scaled(incident)
        self.mean.copy_(values.mean())
        self.std.copy_(values.std().clamp(min=LEAST_STD))

    def _scaled(self, incident: Incident) -> Tensor:
        energy = torch.from_numpy(np.asarray(incident.energy, dtype=np.float32))
        return energy.log() if self.logarithm else energy

    def energy_and_direction(self, incident: Incident) -> Tensor:
        """[N, 1] or [N, 4], on the device of the scales."""
        scaled = (self._scaled(incident).to(self.mean) - self.mean) / self.std
        if not self.directions:
            return scaled[:, None]
        return torch.cat([scaled[:, None], torch.from_numpy(incident.direction).to(scaled)], dim=1)

    def kind(self, incident: Incident) -> Tensor:
        """Index [N] of each particle in `KINDS`.

        Raises:
            ValueError: a particle that is none of them.
        """
        return torch.from_numpy(kinds_of(incident.pdg)).to(self.mean.device)

    def forward(self, incident: Incident) -> Tensor:
        """Condition [N, C]: energy, direction, kind."""
        numbers = self.energy_and_direction(incident)
        if not self.kinds:
            return numbers
        one_hot = nn.functional.one_hot(self.kind(incident), len(KINDS))
        return torch.cat([numbers, one_hot.to(numbers)], dim=1)


class PublishedParticles(Particles):
    """The condition of AllShowers' PointCountFM, in its order: E standardised (not its logarithm), kind, direction."""

    linear_mean: Tensor
    linear_std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("linear_mean", torch.tensor(0.0))
        self.register_buffer("linear_std", torch.tensor(1.0))

    def fit(self, incident: Incident) -> None:
        """Scales of E and of ln E, unless they are another system's."""
        super().fit(incident)
        if self.taken:
            return
        energy = torch.from_numpy(np.asarray(incident.energy, dtype=np.float32))
        self.linear_mean.copy_(energy.mean())
        self.linear_std.copy_(energy.std().clamp(min=LEAST_STD))

    def forward(self, incident: Incident) -> Tensor:
        """Condition [N, 16]."""
        energy = torch.from_numpy(np.asarray(incident.energy, dtype=np.float32)).to(self.mean)
        one_hot = nn.functional.one_hot(self.kind(incident), len(KINDS))
        direction = torch.from_numpy(incident.direction).to(energy)
        scaled = (energy - self.linear_mean) / self.linear_std
        return torch.cat([scaled[:, None], one_hot.to(energy), direction], dim=1)


def kinds_of(pdg: np.ndarray) -> np.ndarray:
    """Index [N] in `KINDS` of PDG codes [N].

    >>> kinds_of(np.array([22, -211])).tolist()
    [2, 5]

    Raises:
        ValueError: a code that is none of them.
    """
    index = {code: k for k, code in enumerate(KINDS)}
    unknown = sorted(set(np.unique(pdg).tolist()) - set(index))
    if unknown:
        raise ValueError(f"PDG code {unknown[0]} is none of the particles this system can learn: {list(KINDS)}")
    return np.array([index[code] for code in pdg.tolist()], dtype=np.int64)
