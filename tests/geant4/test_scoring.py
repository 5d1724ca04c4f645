"""Merging deposits into points and summing them into voxels."""

import numpy as np
import pytest

from calogen.detector.catalog import CALOCHALLENGE_2
from calogen.geant4.scoring import GRID, HALF_WIDTH_MM, MIN_POINT_GEV, Steps, merge, voxelize

SIZES = np.array([1.0, 10.0])


def some_steps(n: int = 5000) -> Steps:
    rng = np.random.default_rng(1)
    return Steps(rng.normal(0, 20, n), rng.normal(0, 20, n), rng.integers(0, 2, n), rng.exponential(1e-4, n))


def test_energy_is_conserved_in_every_layer() -> None:
    steps = some_steps()
    points = merge(steps, SIZES, np.array([0.3, 0.7]))
    for layer in (0, 1):
        expected = steps.energy[steps.layer == layer].sum()
        assert points.energy[points.layer == layer].sum(dtype=float) == pytest.approx(expected, rel=1e-5)


def test_one_point_a_subcell_at_the_highest_deposit() -> None:
    steps = some_steps()
    offset = np.array([0.3, 0.7])
    points = merge(steps, SIZES, offset)
    size = SIZES[points.layer]
    cells = np.stack([points.layer, np.floor(points.x / size + 0.3), np.floor(points.y / size + 0.7)], axis=1)
    # Places are rounded to a micron, which may carry a point over the edge of its sub-cell of a millimetre.
    assert len(np.unique(cells, axis=0)) >= 0.998 * len(cells)
    brightest = int(steps.energy.argmax())
    near = np.hypot(points.x - steps.x[brightest], points.y - steps.y[brightest])
    assert near.min() <= 0.75 / GRID
    assert len(points.energy) < len(steps.energy)


def test_a_point_has_the_time_of_its_highest_deposit() -> None:
    x, energy, time = np.array([0.2, 0.4, 5.5]), np.array([1e-3, 2e-3, 1e-3]), np.array([1.0, 7.0, 3.0])
    points = merge(Steps(x, np.zeros(3), np.zeros(3, np.int64), energy, time), SIZES, np.zeros(2))
    assert points.time is not None
    assert points.time.tolist() == [7.0, 3.0]
    assert merge(some_steps(), SIZES, np.zeros(2)).time is None


def test_what_points_do_not_keep_is_counted() -> None:
    x, energy = np.array([0.5, 5.5, HALF_WIDTH_MM + 1, -3.5]), np.array([1.0, 0.4 * MIN_POINT_GEV, 2.0, 4.0])
    points = merge(Steps(x, np.zeros(4), np.zeros(4, np.int64), energy), SIZES, np.zeros(2))
    assert points.x.tolist() == [-3.5, 0.5]
    assert points.lost.outside == 2.0
    assert points.lost.faint == pytest.approx(0.4 * MIN_POINT_GEV)


def test_faint_points_are_dropped_and_nothing_gives_nothing() -> None:
    faint = MIN_POINT_GEV / 2
    two = Steps(np.array([0.5, 5.5]), np.zeros(2), np.zeros(2, np.int64), np.array([faint, 1e-3]))
    assert merge(two, SIZES, np.zeros(2)).x.tolist() == [5.5]
    none = Steps(np.zeros(0), np.zeros(0), np.zeros(0, np.int64), np.zeros(0))
    assert merge(none, SIZES, np.zeros(2)).energy.size == 0


def test_voxels_hold_the_deposits_above_threshold() -> None:
    x, y = np.array([1.0, 1.1, -3.0, 500.0]), np.array([0.1, 0.1, -3.0, 0.0])
    energy = np.array([1e-3, 2e-3, 1e-6, 1.0])
    voxels, lost = voxelize(Steps(x, y, np.array([4, 4, 7, 7]), energy), CALOCHALLENGE_2)
    assert np.count_nonzero(voxels) == 1  # the third is below threshold, the fourth outside
    assert voxels.sum() == pytest.approx(3e-3)
    assert lost == pytest.approx((1.0, 1e-6))
    per_layer = np.add.reduceat(voxels, CALOCHALLENGE_2.first_cell[:-1])
    assert per_layer.argmax() == 4
