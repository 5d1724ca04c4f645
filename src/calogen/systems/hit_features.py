"""What a network sees of a hit: its place in cells and the logarithm of its energy, each shifted and scaled."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calogen.systems.box_view import BoxHits
from calogen.systems.logits import Moments
from calogen.transforms import Affine, Standardize

Scaling = Literal["published", "fitted", "cells"]
"""Shifts and scales of features: as published; means and standard deviations of the training hits; or these means, this
deviation of ln E, and places all in one unit, `CELLS`, so that a cell's error counts alike in all directions."""

CELLS = 2.0
"""Cells that count as much as one standard deviation of ln E. With 3.6, 2.5 and 1.8 cells (and rates of learning of
1, 2 and 4e-3) 11, 7 and 6 % of the hits of unseen photons came back in a taken cell (400 steps, 4,096 codes)."""

MEV_PER_GEV = 1e3

PUBLISHED_SHIFT = (14.5, 14.5, 15.5, -1.0)
PUBLISHED_SCALE = (1 / 0.3, 1 / 0.3, 1 / 0.2, 1.0)
"""(x - 14.5) 0.3, (y - 14.5) 0.3, (z - 15.5) 0.2, ln(E / MeV) + 1: OmniJet-alpha_C's, for a box of 30 cells a side."""


class HitFeatures(nn.Module):
    """[i_x, i_y, layer, ln(E / MeV)] of hits, shifted and scaled.

    Args:
        scaling: see `Scaling`.
    """

    def __init__(self, scaling: Scaling) -> None:
        super().__init__()
        self.scaling = scaling
        self.scale: Affine = Affine(PUBLISHED_SHIFT, PUBLISHED_SCALE) if scaling == "published" else Standardize(4)

    def fit(self, parts: Iterable[BoxHits]) -> None:
        """Learn the numbers from hits, where they are not published ones.

        Raises:
            ValueError: fewer than two hits.
        """
        if not isinstance(self.scale, Standardize):
            return
        moments = Moments(4)
        for hits in parts:
            moments.add(torch.from_numpy(_plain(hits)))
        if moments.n < 2:
            raise ValueError(
                f"features are scaled by the hits of training showers; there are {moments.n}, 2 are needed"
            )
        moments.store(self.scale)
        if self.scaling == "cells":
            self.scale.scale[:3] = CELLS

    def encode(self, hits: BoxHits) -> Tensor:
        """Hits -> features [P, 4]."""
        plain = torch.from_numpy(_plain(hits)).to(self.scale.shift.device)
        features: Tensor = self.scale(plain.float())
        return features

    def decode(self, features: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Features [P, 4] -> places in cells [P, 3] and energies [P] GeV.

        Raises:
            ValueError: NaN or infinite features, or energies that are no floats.
        """
        plain = self.scale.inverse(features).double().cpu().numpy()
        with np.errstate(over="ignore"):
            energy = (np.exp(plain[:, 3]) / MEV_PER_GEV).astype(np.float32)
        if not bool((np.isfinite(energy) & (energy > 0)).all()):
            bad = int(np.flatnonzero(~(np.isfinite(energy) & (energy > 0)))[0])
            raise ValueError(
                f"hit {bad} is decoded to exp({plain[bad, 3]:g}) MeV, no finite energy above 0; train longer"
            )
        return plain[:, :3], energy


def _plain(hits: BoxHits) -> NDArray[np.float64]:
    """[P, 4], not scaled."""
    return np.column_stack([hits.places(), np.log(hits.energy.astype(np.float64) * MEV_PER_GEV)])
