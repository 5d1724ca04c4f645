"""Showers seen from another side: nothing but angles changes, by the same angle in all layers."""

from __future__ import annotations

import numpy as np
import pytest
from toy_voxels import RINGS, toy_voxels

from calogen.data.projection import voxelize
from calogen.detector.catalog import CALOCHALLENGE_1_PIONS, CALOCHALLENGE_2, ILD_ECAL
from calogen.detector.geometry import PolarCells
from calogen.systems.turns import Turns
from calogen.systems.voxel_targets import VoxelTargets


def test_views_are_turns_and_mirrors() -> None:
    """16 sectors: 32 views; layers of 10 sectors or of whole rings: 20. Each is a permutation, one moves nothing."""
    for detector, views in ((CALOCHALLENGE_2, 32), (CALOCHALLENGE_1_PIONS, 20)):
        table = Turns(detector).table
        assert table.shape == (views, detector.n_cells)
        assert (np.sort(table, axis=1) == np.arange(detector.n_cells)).all()
        assert (table == np.arange(detector.n_cells)).all(1).sum() == 1


@pytest.mark.parametrize("detector", [CALOCHALLENGE_2, CALOCHALLENGE_1_PIONS])
def test_rings_stay_and_all_layers_turn_alike(detector) -> None:  # type: ignore[no-untyped-def]
    """A marked sector of every layer goes to one and the same sector; its ring stays."""
    turns = Turns(detector)
    layout = [(c.n_alpha, c.n_r) for c in (layer.cells for layer in detector.layers) if isinstance(c, PolarCells)]
    energy = np.concatenate([np.arange(a)[:, None] + 100 * np.arange(r) for a, r in layout], axis=None, dtype=float)
    seen = turns(np.repeat(energy[None].astype(np.float32), 40, 0), np.random.default_rng(0))
    first = np.cumsum([0, *(a * r for a, r in layout)])
    for shower in seen:
        sectors = set()
        for k, (a, r) in enumerate(layout):
            grid = shower[first[k] : first[k + 1]].reshape(a, r)
            assert (grid // 100 == np.arange(r)).all()
            if a > 1:
                sectors.add(tuple((grid % 100)[:, 0]))
        assert len(sectors) == 1


def test_scales_become_alike_in_all_sectors() -> None:
    """And are those that all views of the showers have."""
    voxels, _ = voxelize(toy_voxels(60))
    turns, energy, incident = Turns(RINGS), voxels.energy, voxels.incident.energy
    averaged, of_views = (VoxelTargets(RINGS.cells_per_layer.tolist()) for _ in range(2))
    averaged.fit([(energy, incident)], np.random.default_rng(1))
    turns.average(averaged.shape)
    views = [(energy[:, view], incident) for view in turns.table]
    of_views.fit(views, np.random.default_rng(1))
    np.testing.assert_allclose(averaged.shape.shift, of_views.shape.shift, rtol=2e-2)
    np.testing.assert_allclose(averaged.shape.scale, of_views.shape.scale, rtol=8e-2)
    by_sector = averaged.shape.shift.view(6, 4, 3)
    np.testing.assert_allclose(by_sector, by_sector[:, :1].expand_as(by_sector), rtol=1e-6)


def test_squares_are_refused() -> None:
    with pytest.raises(ValueError, match="square cells"):
        Turns(ILD_ECAL)
