"""Points by section and kind of shower: each kind fills a normal distribution, and all come back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toy_hadrons import SMALL_ILD

from calogen.systems.section_points import LEAST_POINTS, Given, LayerPoints, SectionPoints


def points(n: int, *, hadronic: bool, seed: int = 0) -> tuple[LayerPoints, Given]:
    """n points, wide and unequal for hadrons, narrow for photons."""
    rng = np.random.default_rng(seed)
    layer = rng.integers(0, SMALL_ILD.n_layers, n)
    radius, angle = (60.0 if hadronic else 8.0) * rng.exponential(size=n), rng.uniform(0, 2 * np.pi, n)
    mean = rng.uniform(1e-3, 1e-2, n)
    energy = mean * np.exp((1.0 if hadronic else 2.0) * rng.standard_normal(n))
    return LayerPoints(radius * np.cos(angle), radius * np.sin(angle), energy), Given(layer, np.full(n, hadronic), mean)


def joined(*parts: tuple[LayerPoints, Given]) -> tuple[LayerPoints, Given]:
    own = [LayerPoints(*map(np.concatenate, zip(*(p for p, _ in parts), strict=True)))]
    return own[0], Given(*map(np.concatenate, zip(*(g for _, g in parts), strict=True)))


def test_each_kind_is_normal_though_they_differ_in_size() -> None:
    transform = SectionPoints(SMALL_ILD)
    both = joined(points(6000, hadronic=False), points(6000, hadronic=True, seed=1))
    transform.fit(*both)
    for sample in (points(6000, hadronic=False, seed=2), points(6000, hadronic=True, seed=3)):
        latent = transform.encode(*sample)
        torch.testing.assert_close(latent.std(0), torch.ones(3), atol=0.06, rtol=0)
        torch.testing.assert_close(latent.mean(0), torch.zeros(3), atol=0.06, rtol=0)


def test_there_and_back() -> None:
    transform = SectionPoints(SMALL_ILD)
    sample = joined(points(3000, hadronic=False), points(3000, hadronic=True, seed=1))
    transform.fit(*sample)
    back = transform.decode(transform.encode(*sample), sample[1])
    for one, other in zip(back, sample[0], strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("few", [0, LEAST_POINTS - 1])
def test_a_kind_with_next_to_no_points_has_the_scales_of_the_other(few: int) -> None:
    """Photons in the HCal, or a training of hadrons alone."""
    transform = SectionPoints(SMALL_ILD)
    hadrons = points(6000, hadronic=True)
    transform.fit(*joined(hadrons, points(few, hadronic=False, seed=1)))
    as_hadrons, given = points(200, hadronic=True, seed=4)
    as_photons = given._replace(hadronic=np.zeros(200, dtype=bool))
    latent = [transform.encode(as_hadrons, g) for g in (given, as_photons)]
    torch.testing.assert_close(latent[1], latent[0], atol=0.1 if few else 1e-6, rtol=0.1)
