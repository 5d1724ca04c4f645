"""The calibration finds the faults that were put in, and leaves alone what was right."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toys import LAYERS

from calogen import Incident
from calogen.systems.calibration import Calibration, PointShape, RadialPoints
from calogen.systems.points import Points


def test_calibration_finds_known_factors() -> None:
    rng = np.random.default_rng(4)
    incident = Incident.gun(2000, energy=(1.0, 55.0), spectrum="log", angles="barrel", seed=4)
    energy = incident.energy
    truth = rng.uniform(0.5, 1.5, (2000, LAYERS)) * energy[:, None] * np.linspace(1, 3, LAYERS)
    layer_fault = np.linspace(0.8, 1.2, LAYERS)
    drift = np.exp(0.1 * (np.log(energy) - 2) / 2 + 0.2 * incident.direction[:, 2])
    calibration = Calibration(LAYERS)
    calibration.set_scale(incident)
    for _ in range(4):
        generated = truth * layer_fault * drift[:, None] * calibration.factor("energy", incident)
        left = calibration.improve("energy", incident, generated, truth)
    assert left < 0.01
    np.testing.assert_allclose(
        calibration.factor("energy", incident) * layer_fault * drift[:, None], np.ones((2000, LAYERS)), atol=0.02
    )
    np.testing.assert_array_equal(calibration.factor("occupancy", incident), np.ones((2000, LAYERS)))


def _cloud(n: int, seed: int) -> Points:
    """Points whose energies fall with the radius."""
    rng = np.random.default_rng(seed)
    r, angle = rng.exponential(20.0, n) + 0.5, rng.uniform(0, 2 * np.pi, n)
    energy = 1e-3 * rng.lognormal(size=n) * np.exp(-r / 60)
    values = (r * np.cos(angle), r * np.sin(angle), np.zeros(n), energy)
    return Points(*(torch.from_numpy(v).float() for v in values))


def _radial(points: Points) -> RadialPoints:
    return RadialPoints(np.hypot(points.x.numpy(), points.y.numpy()), points.energy.numpy())


def _faulty(points: Points) -> Points:
    """Too wide, too dim in the core, with too narrow a spectrum."""
    r = torch.hypot(points.x, points.y)
    energy = 1e-3 * (points.energy / 1e-3) ** 0.8 * torch.where(r < 8, 0.7, 1.1)
    return Points(points.x * 1.3, points.y * 1.3, points.depth, energy)


def test_shape_of_points_finds_known_faults() -> None:
    truth, generated = _radial(_cloud(200_000, 0)), _faulty(_cloud(200_000, 1))
    shape = PointShape()
    before = _radial(generated)
    for _ in range(5):
        shape.improve(_radial(shape(generated)), truth)
    after = _radial(shape(generated))
    levels = [0.02, 0.1, 0.5, 0.9, 0.99]
    np.testing.assert_allclose(np.quantile(after.r_mm, levels), np.quantile(truth.r_mm, levels), rtol=0.03)
    for low, high in ((1, 8), (8, 30), (30, 100)):
        spectra = [np.quantile(p.energy[(p.r_mm > low) & (p.r_mm < high)], levels) for p in (before, after, truth)]
        np.testing.assert_allclose(spectra[1], spectra[2], rtol=0.06)
        assert np.abs(spectra[0] / spectra[2] - 1).max() > 0.15  # it was wrong


def test_shape_turns_no_point_and_leaves_right_ones_alone() -> None:
    cloud = _cloud(20_000, 2)
    shape = PointShape()
    for same, was in zip(shape(cloud), cloud, strict=True):
        torch.testing.assert_close(same, was)
    shape.improve(_radial(_faulty(cloud)), _radial(cloud))
    moved = shape(cloud)
    torch.testing.assert_close(torch.atan2(moved.y, moved.x), torch.atan2(cloud.y, cloud.x), rtol=0, atol=1e-5)
    torch.testing.assert_close(moved.depth, cloud.depth)
    shape.forget()
    torch.testing.assert_close(shape(cloud).energy, cloud.energy)


@pytest.mark.parametrize(("r", "energy"), [(0.0, 1e-3), (1e4, 1e-3), (5.0, 0.0), (5.0, 1e3)])
def test_shape_continues_beyond_its_knots(r: float, energy: float) -> None:
    shape = PointShape()
    shape.log_radius.fill_(0.1)
    shape.log_energy.fill_(-0.2)
    out = shape(Points(*(torch.tensor([v]) for v in (r, 0.0, 0.0, energy))))
    assert float(out.x) == pytest.approx(r * np.exp(0.1), rel=1e-5)
    assert float(out.energy) == pytest.approx(energy * np.exp(-0.2), rel=1e-5)


def test_few_points_move_nothing() -> None:
    shape, cloud = PointShape(), _cloud(50, 3)
    shape.improve(_radial(_faulty(cloud)), _radial(cloud))
    assert not shape.log_energy.any()
    assert not shape.log_radius.any()
