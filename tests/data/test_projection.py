"""Projection: energy is conserved wherever it goes, cells are where they should be, thresholds count what they drop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calogen import ILD, ILD_ECAL, Incident, Showers
from calogen.data import projection
from calogen.data.projection import points_of, project, spread, voxelize
from calogen.detector.catalog import BOX_30, CALOCHALLENGE_1_PIONS, CALOCHALLENGE_2
from calogen.detector.geometry import Detector


def random_showers(seed: int, detector: Detector, *, width_mm: float = 60.0, timed: bool = False) -> Showers:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 200, 5)
    p = int(counts.sum())
    return Showers(
        rng.normal(0, width_mm, p),
        rng.normal(0, width_mm, p),
        rng.integers(0, detector.n_layers, p),
        rng.exponential(2e-4, p),
        np.concatenate([[0], np.cumsum(counts)]),
        Incident.gun(5, energy=50.0, seed=seed),
        detector,
        rng.random(p) if timed else None,
    )


DETECTORS = st.sampled_from([ILD, ILD_ECAL, BOX_30, CALOCHALLENGE_1_PIONS, CALOCHALLENGE_2])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), DETECTORS, st.sampled_from([20.0, 100.0, 2000.0]))
def test_energy_is_conserved_with_what_falls_outside_and_below(seed: int, detector: Detector, width: float) -> None:
    showers = random_showers(seed, detector, width_mm=width)
    hits = project(showers)
    seen = hits.showers.visible_energy + hits.outside_energy + hits.dropped_energy
    np.testing.assert_allclose(seen, showers.visible_energy, rtol=1e-6)
    assert (hits.showers.energy >= detector.threshold_gev[hits.showers.layer] * (1 - 1e-6)).all()
    if width == 2000.0 and detector is BOX_30:
        assert hits.outside_points.sum() > 0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), DETECTORS)
def test_against_a_plain_loop(seed: int, detector: Detector) -> None:
    showers = random_showers(seed, detector)
    expected: dict[tuple[int, int], float] = {}
    first = detector.first_cell
    for i, x, y, layer, e in zip(
        showers.shower_index, showers.x, showers.y, showers.layer, showers.energy, strict=True
    ):
        cell = int(detector.layers[layer].cells.index(np.array([x]), np.array([y]))[0])
        if cell >= 0:
            key = (int(i), int(first[layer]) + cell)
            expected[key] = expected.get(key, 0.0) + float(e)
    hits = project(showers, thresholds_gev=0.0)
    got = dict(
        zip(zip(hits.showers.shower_index.tolist(), hits.cell.tolist(), strict=True), hits.showers.energy, strict=True)
    )
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        assert got[key] == pytest.approx(value, rel=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), DETECTORS)
def test_cells_project_onto_themselves(seed: int, detector: Detector) -> None:
    hits = project(random_showers(seed, detector))
    again = project(hits.showers)
    np.testing.assert_array_equal(again.cell, hits.cell)
    np.testing.assert_allclose(again.showers.energy, hits.showers.energy)
    moved = project(spread(hits, seed=1))
    # A place drawn in a cell may round onto its edge in float32, never farther.
    assert (np.isin(moved.cell, hits.cell)).mean() > 0.99


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_voxels_and_back(seed: int) -> None:
    showers = random_showers(seed, CALOCHALLENGE_2, width_mm=15.0)
    voxels, outside = voxelize(showers)
    np.testing.assert_allclose(voxels.energy.sum(1) + outside, showers.visible_energy, rtol=1e-5)
    assert voxels.grid().shape == (5, 45, 16, 9)
    np.testing.assert_allclose(voxels.grid().sum((2, 3)), voxels.energy_per_layer, rtol=1e-4)
    for how in (None, 3):
        back, lost = voxelize(points_of(voxels, seed=how))
        assert lost.sum() <= 1e-3 * back.energy.sum()
        if how is None:
            np.testing.assert_allclose(back.energy, voxels.energy, rtol=1e-5)


def test_runs_of_showers_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    showers = random_showers(3, ILD, timed=True)
    whole = project(showers)
    monkeypatch.setattr(projection, "CHUNK_POINTS", 50)
    parts = project(showers)
    np.testing.assert_array_equal(whole.cell, parts.cell)
    np.testing.assert_array_equal(whole.showers.offsets, parts.showers.offsets)
    np.testing.assert_allclose(whole.showers.energy, parts.showers.energy)
    np.testing.assert_array_equal(whole.showers.time, parts.showers.time)


def test_a_cells_time_is_its_first_deposits() -> None:
    incident = Incident.gun(1, energy=10.0)
    s = Showers([1, 2, 30], [1, 1, 1], [2, 2, 2], [1e-3, 1e-3, 1e-3], [0, 3], incident, ILD_ECAL, [5.0, 3.0, 9.0])
    assert project(s).showers.time is not None
    assert sorted(project(s).showers.time.tolist()) == [3.0, 9.0]  # type: ignore[union-attr]


def test_thresholds_count_what_they_drop() -> None:
    incident = Incident.gun(1, energy=10.0)
    s = Showers([1, 50], [1, 1], [2, 2], [0.5e-4, 2e-4], [0, 2], incident, ILD_ECAL)
    hits = project(s)  # half a MIP: 0.1 MeV
    assert hits.showers.counts.tolist() == [1]
    assert hits.dropped_cells.tolist() == [1]
    assert hits.dropped_energy[0] == pytest.approx(0.5e-4, rel=1e-6)


def test_no_showers_and_empty_showers() -> None:
    assert len(project(Showers.empty(ILD_ECAL)).showers) == 0
    one = Showers([], [], [], [], [0, 0], Incident.gun(1, energy=10.0), ILD_ECAL)
    assert project(one).showers.counts.tolist() == [0]


def test_another_readout_must_have_the_same_layers() -> None:
    showers = random_showers(0, ILD_ECAL)
    boxed = project(showers, BOX_30)
    assert boxed.showers.detector == BOX_30
    with pytest.raises(ValueError, match="do not fit"):
        project(showers, ILD)
