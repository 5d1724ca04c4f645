"""Photons in a small box of cells, simple enough to know everything about."""

from __future__ import annotations

import numpy as np

from calogen import Detector, Incident, Showers
from calogen.detector.geometry import CartesianCells, Layer

BOX = Detector(
    "box-8",
    tuple(Layer(10.0 * (k + 1), 5.0, "ecal", CartesianCells(5.0, -20.0, -20.0, 8, 8), 1e-4) for k in range(8)),
)
"""Eight layers of 8 x 8 cells of 5 mm, read out above 0.1 MeV."""


def toy_box(n: int, *, seed: int = 0) -> Showers:
    """n photons of 10 to 90 GeV: about 4 points a GeV, Gaussian across and along, a few of them outside; points of
    exponential energy, some below the threshold."""
    rng = np.random.default_rng(seed)
    incident = Incident.gun(n, pdg=22, energy=(10.0, 90.0), angles="perpendicular", seed=seed)
    counts = rng.poisson(4 * incident.energy)
    p = int(counts.sum())
    x, y = rng.normal(0.0, 6.0, (2, p))
    layer = np.clip(np.rint(rng.normal(3.0, 1.5, p)), 0, 7)
    energy = rng.exponential(2e-3, p) + 1e-7
    return Showers(x, y, layer, energy, np.concatenate([[0], np.cumsum(counts)]), incident, BOX)
