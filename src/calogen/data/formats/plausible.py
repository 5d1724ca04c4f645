"""Do the energies make sense? A detector does not see several times more energy than enters it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calogen.data.showers import Showers
from calogen.data.voxels import Voxels

MOST_SEEN = 5.0
"""Largest credible median of visible over incident energy. Silicon and scintillator see 2-3 %, calibrated voxels about
100 %; a unit taken wrongly (MeV for GeV) makes these 20 and 1000."""


def check_units(events: Showers | Voxels) -> None:
    """Raise ValueError if visible and incident energies of these showers cannot be in the same unit."""
    if not len(events):
        return
    seen = float(np.median(_visible(events) / events.incident.energy))
    if seen > MOST_SEEN:
        raise ValueError(
            f"the visible energy is {seen:.4g} times the incident energy (median of {len(events)} showers): "
            "the energies look like MeV where GeV belong; correct the unit"
        )


def _visible(events: Showers | Voxels) -> NDArray[np.float64]:
    if isinstance(events, Showers):
        return events.visible_energy
    return events.energy.sum(axis=1, dtype=np.float64)
