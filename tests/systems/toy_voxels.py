"""Showers in a small calorimeter of rings and sectors, simple enough to know everything about."""

from __future__ import annotations

import numpy as np

from calogen import Detector, Incident, Showers, Voxels
from calogen.data.projection import points_of
from calogen.detector.geometry import Layer, PolarCells

RINGS = Detector(
    "rings", tuple(Layer(10.0 * (k + 1), 5.0, "ecal", PolarCells((0.0, 5.0, 12.0, 30.0), 4), 1e-3) for k in range(6))
)
"""Six layers of three rings and four sectors, read out above 1 MeV."""


def toy_voxels(n: int, *, seed: int = 0) -> Showers:
    """n electrons of 10 to 90 GeV: a depth of their own, rings that widen with it; one of ten ends after two layers."""
    rng = np.random.default_rng(seed)
    incident = Incident.gun(n, pdg=11, energy=(10.0, 90.0), angles="perpendicular", seed=seed)
    depth = np.arange(6) + 0.5
    peak = 2.0 + 0.4 * np.log(incident.energy / 30.0) + 0.3 * rng.standard_normal(n)
    profile = np.exp(-0.5 * ((depth - peak[:, None]) / 1.5) ** 2)
    profile[rng.random(n) < 0.1, 2:] = 0
    layers = incident.energy[:, None] * 0.9 * profile / profile.sum(1, keepdims=True)
    rings = np.exp(-np.arange(3) * (3.0 - 0.3 * depth[:, None]))
    shares = rings[None, :, None, :] * rng.gamma(4.0, size=(n, 6, 4, 3))
    energy = layers[:, :, None] * (shares / shares.sum((2, 3), keepdims=True)).reshape(n, 6, 12)
    energy[energy < 1e-3] = 0
    return points_of(Voxels(energy.reshape(n, -1), incident, RINGS))
