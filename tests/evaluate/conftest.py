"""Toy showers in the ILD ECal: quick to make, shaped roughly like photons."""

from collections.abc import Callable

import numpy as np
import pytest

from calogen import ILD_ECAL, Incident, Showers

MEAN_POINTS = 300


def toy_showers(n: int, seed: int, *, incident: Incident | None = None, scale: float = 1.0) -> Showers:
    """Showers whose points grow with the incident energy, with a gamma profile along the depth."""
    rng = np.random.default_rng([seed, 99])
    incident = incident or Incident.gun(n, energy=(10, 90), seed=seed)
    counts = rng.poisson(MEAN_POINTS * incident.energy / 50) + 5
    total = int(counts.sum())
    radius, angle = rng.exponential(8.0, total), rng.uniform(0, 2 * np.pi, total)
    layer = np.minimum(rng.gamma(5.0, 2.7, total), 29).astype(int)
    drift = np.repeat(incident.direction[:, :2] / incident.direction[:, 2:], counts, axis=0)
    depth = ILD_ECAL.z_mm[layer]
    return Showers(
        radius * np.cos(angle) + drift[:, 0] * depth,
        radius * np.sin(angle) + drift[:, 1] * depth,
        layer,
        scale * rng.lognormal(np.log(8e-4), 0.8, total),
        np.concatenate([[0], np.cumsum(counts)]),
        incident,
        ILD_ECAL,
    )


@pytest.fixture(scope="session")
def make_toy() -> Callable[..., Showers]:
    """The maker itself."""
    return toy_showers


@pytest.fixture(scope="session")
def toy() -> Showers:
    """200 toy showers."""
    return toy_showers(200, 1)
