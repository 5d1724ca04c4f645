"""Showers simple enough to know everything about, with photons' rough shape."""

from __future__ import annotations

import numpy as np

from calogen import ILD_ECAL, Incident, Showers

LAYERS = ILD_ECAL.n_layers
POINTS_PER_GEV = 4.0
SAMPLING_FRACTION = 0.02


def toy_showers(n: int, *, seed: int = 0, angles: str = "barrel") -> Showers:
    """n tilted showers of 2 to 60 GeV: Poisson counts about a gamma profile, exponential radii and energies."""
    rng = np.random.default_rng(seed)
    incident = Incident.gun(n, energy=(2.0, 60.0), spectrum="log", angles=angles, seed=seed)
    depth = np.arange(LAYERS) + 0.5
    profile = depth**3 * np.exp(-0.35 * depth)
    expected = POINTS_PER_GEV * incident.energy[:, None] * profile / profile.sum()
    counts = rng.poisson(expected * rng.normal(1.0, 0.05, (n, 1)).clip(0.5))
    counts[:, 12] = np.maximum(counts[:, 12], 1)
    offsets = np.concatenate([[0], np.cumsum(counts.sum(1))])
    p = int(offsets[-1])
    layer = np.repeat(np.tile(np.arange(LAYERS), n), counts.ravel())
    r, phi = rng.exponential(12.0, p), rng.uniform(-np.pi, np.pi, p)
    mean_energy = SAMPLING_FRACTION / POINTS_PER_GEV
    energy = rng.exponential(mean_energy, p) + 1e-6
    upright = Showers(r * np.cos(phi), r * np.sin(phi), layer, energy, offsets, incident, ILD_ECAL)
    return upright.tilted()
