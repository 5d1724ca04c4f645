"""Calibration by kind of particle: factors on points and energy per layer, each kind on its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calogen.data.incident import Incident
from calogen.systems.calibration import Calibration
from calogen.systems.particles import KINDS, kinds_of


class KindCalibration(nn.Module):
    """One `Calibration` for each kind of particle in training; factors of one for all others.

    Args:
        layers: L.
    """

    fitted: Tensor

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.kinds = nn.ModuleList(Calibration(layers) for _ in KINDS)
        self.register_buffer("fitted", torch.zeros(len(KINDS), dtype=torch.bool))
        self.layers = layers

    def set_scale(self, incident: Incident) -> None:
        """Fix the scales on training particles and forget earlier factors."""
        self.fitted.zero_()
        for k, rows in self._by_kind(incident):
            self._of(k).set_scale(incident[rows])
            self.fitted[k] = True

    def factor(self, kind: str, incident: Incident) -> NDArray[np.float64]:
        """Factors [N, L] of `kind` (occupancy or energy) for incident particles."""
        factors = np.ones((len(incident), self.layers))
        for k, rows in self._by_kind(incident):
            if bool(self.fitted[k]):
                factors[rows] = self._of(k).factor(kind, incident[rows])
        return factors

    def improve(self, kind: str, incident: Incident, generated: NDArray[Any], truth: NDArray[Any]) -> float:
        """One step of the fit of each kind; see `Calibration.improve`."""
        moved = [0.0]
        for k, rows in self._by_kind(incident):
            if len(rows) >= FEWEST_SHOWERS and min(generated[rows].sum(), truth[rows].sum()) > 0:
                moved.append(self._of(k).improve(kind, incident[rows], generated[rows], truth[rows]))
        return max(moved)

    def _of(self, k: int) -> Calibration:
        part = self.kinds[k]
        assert isinstance(part, Calibration)
        return part

    @staticmethod
    def _by_kind(incident: Incident) -> list[tuple[int, NDArray[np.int64]]]:
        kinds = kinds_of(incident.pdg)
        return [(int(k), np.flatnonzero(kinds == k)) for k in np.unique(kinds)]


FEWEST_SHOWERS = 20
"""With fewer of a kind its factors stay one."""
