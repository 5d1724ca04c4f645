"""Showers in two small sections, simple enough to know everything about, with hadrons' rough shape."""

from __future__ import annotations

import numpy as np

from calogen import ILD, Detector, Incident, Showers

SMALL_ILD = Detector("small-ild", ILD.layers[:30:5] + ILD.layers[30::8])
"""Six layers of the ECal and six of the HCal."""
LAYERS, ECAL = SMALL_ILD.n_layers, 6


def toy_hadrons(n: int, *, seed: int = 0) -> Showers:
    """n perpendicular pions of 10 to 90 GeV that start at a layer of their own; one of ten sees no HCal at all.

    Points of the HCal lie about the place where those of the ECal do; energies fall from layer to layer.
    """
    rng = np.random.default_rng(seed)
    incident = Incident.gun(n, pdg=211, energy=(10.0, 90.0), angles="perpendicular", seed=seed)
    start = rng.integers(0, 5, n)
    depth = np.arange(LAYERS) - start[:, None] + 0.5
    profile = np.where(depth > 0, depth, 0.05) * np.exp(-0.5 * np.maximum(depth, 0))
    profile[rng.random(n) < 0.1, ECAL:] = 0
    counts = rng.poisson(1.2 * incident.energy[:, None] * profile / profile.sum(1, keepdims=True))
    counts[:, 2] = np.maximum(counts[:, 2], 1)
    offsets = np.concatenate([[0], np.cumsum(counts.sum(1))])
    p, per_shower = int(offsets[-1]), counts.sum(1)
    layer = np.repeat(np.tile(np.arange(LAYERS), n), counts.ravel())
    width = np.where(layer < ECAL, 8.0, 60.0)
    centre = rng.normal(0, 10.0, (2, n)).repeat(per_shower, axis=1)
    x, y = centre + width * rng.standard_normal((2, p))
    energy = 1e-3 * np.exp(-0.4 * layer + 0.2 * rng.standard_normal(p))
    return Showers(x, y, layer, energy, offsets, incident, SMALL_ILD)
