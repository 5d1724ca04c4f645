"""Calibration by kind: nothing to correct is left alone, a known loss is found, few hadrons do not decide."""

from __future__ import annotations

import numpy as np
import pytest

from calogen import Incident
from calogen.systems.kind_calibration import KindCalibration, Seen

LAYERS = 12


def showers(n: int, seed: int) -> tuple[Incident, np.ndarray, np.random.Generator]:
    """Particles of three kinds, and points in layers that fluctuate as those of hadrons do."""
    rng = np.random.default_rng(seed)
    energy = np.exp(rng.uniform(0, np.log(100), n))
    incident = Incident(energy, np.tile([0.0, 0.0, 1.0], (n, 1)), np.array([211, 2112, 22])[np.arange(n) % 3])
    profile = np.exp(-np.arange(LAYERS) / 3.0)
    size = energy * rng.lognormal(0, 0.5, n)
    return incident, rng.poisson(4 * size[:, None] * profile), rng


def test_geant4_against_itself_needs_nothing() -> None:
    incident, points, rng = showers(600, 0)
    seen = rng.binomial(points, 0.6)
    calibration = KindCalibration(LAYERS)
    calibration.set_scale(incident)
    assert calibration.improve("occupancy", incident, Seen(points, seen), Seen(points, seen)) == 0
    np.testing.assert_allclose(calibration.factor("occupancy", incident), 1.0)


def test_independent_showers_of_the_same_kind_need_little() -> None:
    """Sums of 200 such showers a kind fluctuate by 10 %; the factors must not."""
    incident, points, rng = showers(600, 0)
    _, others, other_rng = showers(600, 1)
    calibration = KindCalibration(LAYERS)
    calibration.set_scale(incident)
    truth, made = Seen(points, rng.binomial(points, 0.6)), Seen(others, other_rng.binomial(others, 0.6))
    calibration.improve("occupancy", incident, made, truth)
    factor = calibration.factor("occupancy", incident)
    assert np.abs(factor.mean(1) - 1).max() < 0.04  # at the ends: showers of 1 GeV have a dozen points
    weight = points / points.sum()
    assert np.sqrt((weight * (factor - 1) ** 2).sum()) < 0.015


@pytest.mark.parametrize("quantity", ["occupancy", "energy"])
def test_a_known_loss_is_made_good(quantity: str) -> None:
    """The model's points light 20 % fewer cells in the first half, and fewer at high energies: factors undo both."""
    incident, points, _ = showers(1500, 0)
    truth = Seen(points, points * 0.5)
    loss = np.where(np.arange(LAYERS) < 6, 0.8, 1.0) * (incident.energy[:, None] / 10) ** -0.03
    calibration = KindCalibration(LAYERS)
    calibration.set_scale(incident)
    for _ in range(4):
        factor = calibration.factor(quantity, incident)  # type: ignore[arg-type]
        calibration.improve(quantity, incident, Seen(points, points * factor * 0.5 * loss), truth)  # type: ignore[arg-type]
    left = calibration.factor(quantity, incident) * loss  # type: ignore[arg-type]
    weight = points / points.sum()
    assert (weight * left).sum() == pytest.approx(1.0, abs=0.01)
    assert np.sqrt((weight * (left - 1) ** 2).sum()) < 0.02


def test_a_rare_kind_follows_its_group() -> None:
    incident, points, _ = showers(600, 0)
    pdg = incident.pdg.copy()
    pdg[0] = 2212
    incident = Incident(incident.energy, incident.direction, pdg)
    calibration = KindCalibration(LAYERS)
    calibration.set_scale(incident)
    calibration.improve("occupancy", incident, Seen(points, points * 0.4), Seen(points, points * 0.5))
    assert calibration.factor("occupancy", incident)[0].mean() == pytest.approx(1.25, rel=0.02)
