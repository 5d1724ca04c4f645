"""Domain: the incident particles a fitted system has seen in training, and the refusal of all others."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from calogen.data.incident import Incident
from calogen.detector.geometry import tilt

ENERGY_SLACK = 0.02
"""Relative; a finite training sample never reaches the ends of its range exactly."""
TILT_SLACK = 0.1
"""Absolute, in tilt; the corners of a range of two angles are thinly filled."""
MAX_SPECIES = 32


class Domain(nn.Module):
    """Range of energies, of tilts p_x/p_z and p_y/p_z, and the particle species of the training showers."""

    energy: Tensor
    tilt: Tensor
    pdg: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("energy", torch.zeros(2, dtype=torch.float64))
        self.register_buffer("tilt", torch.zeros(2, 2, dtype=torch.float64))
        self.register_buffer("pdg", torch.zeros(MAX_SPECIES, dtype=torch.int64))

    def fit(self, incident: Incident) -> None:
        """Take the ranges of training particles.

        Raises:
            ValueError: more species than a state has room for.
        """
        species = np.unique(incident.pdg)
        if len(species) > MAX_SPECIES:
            raise ValueError(f"training showers of {len(species)} species; at most {MAX_SPECIES} fit one system")
        tilts = np.stack(tilt(incident.direction))
        self.energy.copy_(torch.tensor([incident.energy.min(), incident.energy.max()]))
        self.tilt.copy_(torch.from_numpy(np.stack([tilts.min(1), tilts.max(1)], axis=1)))
        self.pdg.zero_()
        self.pdg[: len(species)] = torch.from_numpy(species.astype(np.int64))

    @property
    def species(self) -> list[int]:
        """PDG codes of the training showers."""
        return self.pdg[self.pdg != 0].tolist()

    def check(self, incident: Incident) -> None:
        """Refuse particles outside.

        Raises:
            ValueError: an unseen species, an energy or a direction outside the training range, named.
        """
        known = self.species
        if not known:
            raise ValueError("this state has not been trained on any particle: fit it first")
        unknown = set(incident.pdg.tolist()) - set(known)
        if unknown:
            raise ValueError(f"PDG code {min(unknown)} was not trained; this state knows {known}")
        low, high = float(self.energy[0]), float(self.energy[1])
        outside = (incident.energy < low * (1 - ENERGY_SLACK)) | (incident.energy > high * (1 + ENERGY_SLACK))
        if outside.any():
            value = float(incident.energy[outside][0])
            raise ValueError(f"energy {value:g} GeV is outside the trained range {low:.4g} to {high:.4g} GeV")
        for axis, t, (first, last) in zip("xy", tilt(incident.direction), self.tilt.tolist(), strict=True):
            beyond = (t < first - TILT_SLACK) | (t > last + TILT_SLACK)
            if beyond.any():
                raise ValueError(
                    f"direction with p_{axis}/p_z = {t[beyond][0]:.3g} is outside the trained range "
                    f"{first:.3g} to {last:.3g}"
                )
