"""Hits of a box are what its readout sees, in the order that was asked for, and give it back."""

import numpy as np
import pytest
from toy_box import BOX, toy_box

from calogen.data.incident import Incident
from calogen.data.projection import project, voxelize
from calogen.data.showers import Showers
from calogen.detector.catalog import CALOCHALLENGE_2
from calogen.systems.box_view import BoxHits, hits_of, hits_of_voxels


def test_what_the_readout_sees() -> None:
    showers = toy_box(20)
    hits, seen = hits_of(showers), project(showers)
    assert np.array_equal(hits.counts, seen.showers.counts)
    assert hits.energy.min() >= 1e-4
    dense = np.zeros((20, BOX.n_cells), dtype=np.float32)
    dense[seen.showers.shower_index, seen.cell] = seen.showers.energy
    assert np.array_equal(hits.voxels().energy, dense)
    assert (seen.dropped_cells > 0).any()
    assert (seen.outside_points > 0).any()


def test_back_and_forth() -> None:
    hits = hits_of(toy_box(20))
    for again in (hits_of(hits.showers()), hits_of_voxels(hits.voxels())):
        assert np.array_equal(again.cell, hits.cell)
        assert np.array_equal(again.energy, hits.energy)
        assert np.array_equal(again.offsets, hits.offsets)
    x, y, layer = hits.places().T
    points = hits.showers()
    assert np.allclose(points.x, -20 + 5 * (x + 0.5))
    assert np.allclose(points.y, -20 + 5 * (y + 0.5))
    assert np.array_equal(points.layer, layer)


def test_orders() -> None:
    hits = hits_of(toy_box(10))
    for shower in np.split(hits.energy, hits.offsets[1:-1]):
        assert (np.diff(shower) <= 0).all()
    layered = hits.in_order("layer")
    layer = layered.places()[:, 2]
    for own in (slice(a, b) for a, b in zip(hits.offsets[:-1], hits.offsets[1:], strict=True)):
        assert (np.diff(layer[own]) >= 0).all()
        assert (np.diff(layered.energy[own])[np.diff(layer[own]) == 0] <= 0).all()
    assert np.array_equal(layered.in_order("energy").cell, hits.cell)
    assert np.array_equal(hits_of(toy_box(10), "layer").cell, layered.cell)
    with pytest.raises(ValueError, match="unknown order of hits 'depth'"):
        hits.in_order("depth")


def test_voxels_below_threshold_are_hits_if_they_are_given() -> None:
    voxels, _ = voxelize(toy_box(5))
    assert (hits_of_voxels(voxels).counts > hits_of(toy_box(5)).counts).all()
    assert np.array_equal(hits_of_voxels(voxels).voxels().energy, voxels.energy)


def test_showers_without_hits() -> None:
    faint = Showers([0.0], [0.0], [0], [1e-6], [0, 0, 1], Incident.gun(2), BOX)
    hits = hits_of(faint)
    assert hits.counts.tolist() == [0, 0]
    assert hits.voxels().energy.sum() == 0


@pytest.mark.parametrize(
    ("cell", "energy", "offsets", "said"),
    [
        ([0, 0], [1.0, 1.0], [0, 2], "two hits in cell 0"),
        ([0, 512], [1.0, 1.0], [0, 2], "the box has 0 to 511"),
        ([0, 1], [1.0, 0.0], [0, 2], "energy of hit 1 is 0.0 GeV"),
        ([0, 1], [1.0, float("nan")], [0, 2], "energy of hit 1 is nan GeV"),
        ([0, 1], [1.0, 1.0], [0, 1], "offsets must rise"),
        ([0, 1], [1.0], [0, 2], "need cells and energies"),
    ],
)
def test_refusals(cell: list[int], energy: list[float], offsets: list[int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        BoxHits(np.array(cell), np.array(energy), np.array(offsets), Incident.gun(1), BOX)


def test_other_detectors_are_refused() -> None:
    with pytest.raises(ValueError, match="no regular box"):
        hits_of(Showers.empty(CALOCHALLENGE_2))
