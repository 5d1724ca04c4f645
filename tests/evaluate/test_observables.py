"""What is counted of a shower: sums, frames and the bins of the papers."""

import numpy as np
import pytest

from calogen import ILD, ILD_ECAL, Incident, Showers
from calogen.data.projection import project
from calogen.evaluate.observables import (
    Binning,
    Observed,
    block_histogram,
    block_sum,
    observe,
    observe_all,
    quantile_edges,
    shower_edges,
)

BINNING = Binning.of(ILD_ECAL)


def _one(x, y, layer, energy, **gun) -> Showers:
    return Showers(x, y, layer, energy, [0, len(x)], Incident.gun(1, **gun), ILD_ECAL)


def test_published_bins():
    pitch = ILD_ECAL.layers[0].cells.pitch_mm
    assert BINNING.cell_energy.size == 101
    assert BINNING.cell_energy[[0, -1]] == pytest.approx([1e-5, 1.1])
    assert BINNING.radius[:2] == pytest.approx([-pitch / 2, pitch / 2])
    assert BINNING.radius[-1] > np.hypot(200, 200)
    assert BINNING.layer.size == 31
    truth = observe(project(_one([1], [1], [0], [1.0])), BINNING)
    assert shower_edges("visible_energy", truth, 30)[[0, -1]] == pytest.approx([0, 4.0])
    assert shower_edges("hits", truth, 30).size == 51
    assert shower_edges("cog_x", truth, 30).size == 2001
    assert shower_edges("cog_z", truth, 30).size == 61
    assert Binning.of(ILD).radius[-1] > 600


def test_every_histogram_keeps_the_energy_and_the_hits(toy):
    hits = project(toy)
    o = observe(hits, BINNING)
    assert o.visible_energy == pytest.approx(hits.showers.visible_energy, rel=1e-6)
    for rows in (o.energy_per_layer, o.energy_per_radius):
        assert rows.sum(axis=1) == pytest.approx(o.visible_energy, rel=1e-5)
    for rows in (o.hits_per_layer, o.hits_per_radius, o.cell_energy):
        assert rows.sum(axis=1).tolist() == o.hits.tolist()
    kept = o.visible_energy.sum() + o.dropped_energy.sum() + o.outside_energy.sum()
    assert kept == pytest.approx(toy.energy.sum(dtype=np.float64), rel=1e-5)


def test_centre_of_gravity_and_radius_follow_the_axis():
    """A tilted pencil shower stays within half a cell of its axis; an upright frame puts it at zero."""
    gun = Incident.gun(1, angles="fixed:40,30")
    t = gun.direction[0, :2] / gun.direction[0, 2]
    layers = np.arange(30)
    z = ILD_ECAL.z_mm[layers]
    s = Showers(t[0] * z, t[1] * z, layers, np.full(30, 1e-3), [0, 30], gun, ILD_ECAL)
    o = observe(project(s), BINNING)
    half = ILD_ECAL.layers[0].cells.pitch_mm / 2
    assert abs(o.cog_x[0]) < half
    assert abs(o.cog_y[0]) < half
    assert o.cog_z[0] == pytest.approx(15.0)
    assert o.hits_per_radius[0, 1:3].sum() == 30


def test_centre_of_gravity_is_energy_weighted():
    o = observe(project(_one([2.5, 22.9], [2.5, 2.5], [0, 2], [3e-3, 1e-3])), BINNING)
    pitch = ILD_ECAL.layers[0].cells.pitch_mm
    assert o.cog_x[0] == pytest.approx((3 * 0.5 + 4.5) / 4 * pitch, rel=1e-5)
    assert o.cog_z[0] == pytest.approx((3 * 0.5 + 2.5) / 4, rel=1e-5)


def test_batches_add_up(toy):
    whole = observe_all([toy], BINNING, ILD_ECAL)
    parts = observe_all((toy[i : i + 37] for i in range(0, len(toy), 37)), BINNING, ILD_ECAL)
    assert np.array_equal(whole.hits, parts.hits)
    assert whole.energy_per_radius == pytest.approx(parts.energy_per_radius)
    two = whole[:10] + whole[10:]
    assert np.array_equal(two.cog_x, whole.cog_x)


def test_blocks_add_up(toy):
    o = observe_all([toy], BINNING, ILD_ECAL)
    block = np.arange(len(o)) % 8
    assert block_sum(o.cell_energy, block, 8).sum() == o.hits.sum()
    assert block_histogram(o.cog_x, block, 8, quantile_edges(o.cog_x, 5)).sum() == len(o)


def test_a_shower_without_hits_has_no_centre():
    o = observe(project(_one([0], [0], [3], [1e-6])), BINNING)
    assert o.hits[0] == 0
    assert np.isnan(o.cog_x[0])
    assert block_histogram(o.cog_x, np.zeros(1, int), 1, np.array([0.0, 1.0])).sum() == 0


def test_nothing_to_observe_is_refused():
    with pytest.raises(ValueError, match="empty"):
        Observed.concatenate([])
