"""Clusters of what is known: one spot, two far apart, none; pairs of showers from touching to clearly two."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calogen import ILD_ECAL, Incident, Showers
from calogen.data.projection import project
from calogen.detector.catalog import CALOCHALLENGE_2, ILD
from calogen.evaluate.clusters import Towers, cluster
from calogen.evaluate.diphoton import Diphoton, half_distance, overlay, wilson_error
from calogen.evaluate.points import judge_part

PITCH = ILD_ECAL.layers[0].cells.pitch_mm
TOWERS = Towers(tuple(range(30)), PITCH)


def _dense(n, seed, width=3.0) -> Showers:
    """Showers narrow enough to be one cluster each."""
    rng = np.random.default_rng(seed)
    points = 800
    x, y = rng.normal(0, width, (2, n * points))
    layer = np.minimum(rng.gamma(5.0, 2.7, n * points), 29).astype(int)
    energy = rng.gamma(4.0, 1e-4, n * points)
    return Showers(
        x, y, layer, energy, np.arange(n + 1) * points, Incident.gun(n, energy=(10, 90), seed=seed), ILD_ECAL
    )


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 8), st.integers(0, 8))
def test_two_spots_are_two_clusters_unless_they_touch(dx, dy):
    x, y = np.array([0.5, 0.5 + dx]) * PITCH, np.array([0.5, 0.5 + dy]) * PITCH
    s = Showers(x, y, [3, 12], [2e-3, 1e-3], [0, 2], Incident.gun(1), ILD_ECAL)
    found = cluster(s, TOWERS)
    apart = max(dx, dy) > 1
    assert int(found.number[0]) == (2 if apart else 1)
    assert found.largest[0] == pytest.approx(2e-3 if apart else 3e-3, rel=1e-5)


def test_faint_clusters_do_not_count_and_showers_do_not_mix():
    x = np.array([0.5, 20.5, 0.5, 0.5]) * PITCH
    s = Showers(x, [0.5] * 4, [3, 3, 3, 4], [1e-2, 4e-4, 1e-3, 1e-3], [0, 2, 3, 3, 4], Incident.gun(4), ILD_ECAL)
    found = cluster(s, TOWERS)
    assert found.number.tolist() == [1, 1, 0, 1]
    assert found.largest == pytest.approx([1e-2, 1e-3, 0, 1e-3], rel=1e-5)
    with pytest.raises(ValueError, match="share of energy"):
        cluster(s, TOWERS, 0.0)


def test_every_energy_is_in_some_cluster_or_none(toy):
    hits = project(toy).showers
    found = cluster(hits, TOWERS)
    assert np.all(found.largest <= hits.visible_energy * (1 + 1e-6))
    tilted = dataclasses.replace(toy, incident=Incident.gun(len(toy), angles="fixed:40,20", seed=1)).tilted()
    assert np.mean(cluster(project(tilted).showers, TOWERS).largest > 0) == 1


def test_photons_alone_take_the_first_section_and_hadrons_all():
    energy = np.zeros(ILD.n_layers)
    energy[5] = 1.0
    assert Towers.of(ILD, energy) == Towers(tuple(range(30)), PITCH)
    energy[40] = 1.0
    towers = Towers.of(ILD, energy)
    assert towers is not None
    assert towers.pitch_mm == 30.0
    assert len(towers.layers) == 78
    assert Towers.of(CALOCHALLENGE_2, np.ones(45)) is None


def test_overlay_keeps_energy_and_puts_the_second_beside_the_first(toy):
    a, b = toy[:50], toy[50:100]
    event = overlay(a, b, np.tile([30.0, -10.0], (50, 1)))
    assert event.visible_energy == pytest.approx(a.visible_energy + b.visible_energy, rel=1e-5)
    first, second = a.counts, b.counts
    assert event.counts.tolist() == (first + second).tolist()
    up = b.upright()
    assert event.x[first[0] : first[0] + second[0]] == pytest.approx(up.x[: second[0]] + 30, abs=1e-3)
    with pytest.raises(ValueError, match="as many"):
        overlay(a, b[:10], np.zeros((50, 2)))


def test_two_are_one_together_and_two_apart():
    truth, same, wide = _dense(300, 1), _dense(300, 2), _dense(300, 3, width=5.0)
    part = Diphoton(distance_cells=(0.0, 1.5, 2.0, 2.5, 3.0, 12.0), pairs=50)
    found = [judge_part(p, same, truth, replicas=50) for p in (part, "clusters")]
    for curve in found[0].curves:
        for series in curve.series:
            assert series.y[0] == pytest.approx(1, abs=0.05)
            assert series.y[-1] == pytest.approx(2, abs=0.05)
            assert np.all(series.error > 0)
    for s in (*found[0].scores, *found[1].scores):
        assert abs(s.significance) < 3.5, s
    wider = judge_part(part, wide, truth, replicas=50)
    later = [s for s in wider.scores if s.unit == "mm"]
    assert all(s.value > 0 for s in later)
    assert max(s.significance for s in later) > 3


def test_half_distance_and_binomial_errors():
    assert np.isnan(half_distance(np.array([0.0, 5.0]), np.array([0.0, 0.4])))
    assert half_distance(np.array([2.0, 5.0]), np.array([0.7, 0.9])) == 2
    assert wilson_error(np.array([0.0, 1.0]), 100) == pytest.approx(0.5 / 101, rel=1e-3)
    assert wilson_error(np.array([0.5]), 10_000) == pytest.approx(0.005, rel=1e-3)
