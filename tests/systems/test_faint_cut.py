"""Cells too faint are cut so that layers have as many as Geant4's, and what is in a layer stays in it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from test_calodream import TINY, few_steps
from toy_voxels import RINGS, toy_voxels

from calogen import Showers
from calogen.data.incident import Incident
from calogen.systems.calodream import CaloDream
from calogen.systems.faint_cut import FaintCut, FaintCutStage
from calogen.systems.voxel_targets import VoxelTargets
from calogen.train import Plan


class Blurred:
    """Draws the truth, and in every layer as many again that are fainter than all of it."""

    def __init__(self, truth: Showers) -> None:
        self.truth, self.faint = truth, FaintCut(RINGS.n_layers)

    def sample(self, incident: Incident, *, seed: int) -> Showers:
        return doubled(self.truth)


def doubled(truth: Showers) -> Showers:
    twice = np.repeat(np.arange(truth.n_points), 2)
    second = np.arange(len(twice)) % 2 == 1
    energy = np.where(second, truth.energy.min() * np.linspace(0.1, 0.9, len(twice)), truth.energy[twice])
    return Showers(truth.x[twice], truth.y[twice], truth.layer[twice], energy, 2 * truth.offsets, truth.incident, RINGS)


def test_the_cut_leaves_as_many_cells_as_geant4_has() -> None:
    truth = toy_voxels(300)
    system = Blurred(truth)
    FaintCutStage(system, Plan(steps=1)).solve(truth, None)
    made = doubled(truth)
    kept = made.energy > system.faint.gev.numpy()[made.layer]
    np.testing.assert_array_equal(np.bincount(made.layer[kept], minlength=6), np.bincount(truth.layer, minlength=6))


def test_too_few_cells_are_not_cut() -> None:
    truth = toy_voxels(50)
    cut = FaintCut(RINGS.n_layers)
    cut.fit(truth, doubled(truth))
    assert (cut.gev == 0).all()


def test_energies_of_layers_outlive_the_cut() -> None:
    """What is cut goes to the others of its layer, which has its brightest cell whatever the cut."""
    showers = toy_voxels(20)
    from calogen.systems.calodream_stages import cells_of

    energy, incident = cells_of(showers)
    targets = VoxelTargets(RINGS.cells_per_layer.tolist())
    targets.fit([(energy, incident)], np.random.default_rng(0))
    x = targets.encode(energy, incident, np.random.default_rng(1))
    drawn = targets.drawn_layers(x.energy, incident, torch.empty(20, 0))
    before, _ = targets.decode(drawn, x.shape, incident)
    cuts = torch.tensor([0.05, 0.2, 1.0, 0.05, 0.0, 10.0], dtype=torch.float64)
    after, _ = targets.decode(drawn, x.shape, incident, faint_gev=cuts)
    layers = [targets.layers.sum(e) for e in (before, after)]
    torch.testing.assert_close(layers[1], layers[0], rtol=1e-5, atol=1e-9)
    grid, kept = (e.view(20, 6, 12) for e in (before, after))
    few = kept > 0
    assert (few <= (grid > 0)).all()
    lit = (layers[0] > 0) & (grid.amax(-1) >= cuts)
    assert (few == (grid >= cuts[:, None]))[lit].float().mean() > 0.99
    assert (few.sum(-1) == 1)[(layers[0] > 0) & (grid.amax(-1) < cuts)].all()


def test_a_calibrated_system_keeps_its_cuts(tmp_path) -> None:  # type: ignore[no-untyped-def]
    system = CaloDream.create(replace(TINY, calibrated=True, turned=True), RINGS, seed=1)
    system.fit(toy_voxels(60), few_steps(system, 3), run_dir=tmp_path / "run", progress=False)
    system.save(tmp_path / "s.safetensors")
    import calogen

    again = calogen.load(tmp_path / "s.safetensors")
    assert isinstance(again, CaloDream)
    torch.testing.assert_close(again.faint.gev, system.faint.gev)
    assert system.plans()["calibrate"].steps == 1
