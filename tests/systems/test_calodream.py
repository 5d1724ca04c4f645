"""CaloDREAM: what is drawn for the layers is in them, thresholds hold, sizes are those of the submission."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_voxels import RINGS, toy_voxels

import calogen
from calogen import Incident
from calogen.cli import main
from calogen.data.projection import voxelize
from calogen.detector.catalog import CALOCHALLENGE_1_PIONS, CALOCHALLENGE_2, CALOCHALLENGE_3, ILD_ECAL
from calogen.systems import bespoke_stage, drawing, faint_cut
from calogen.systems.calodream import PRESETS, CaloDream, CaloDreamConfig, EnergyNetwork, ShapeNetwork
from calogen.systems.drawing import stream
from calogen.systems.shape_spaces import patches_of
from calogen.systems.voxel_targets import TargetConstants
from calogen.train import Plan

TINY = CaloDreamConfig(
    energy_network=EnergyNetwork(
        width=16, heads=2, encoder_blocks=1, decoder_blocks=1, feedforward=16, velocity_width=16, time_std=2.0
    ),
    shape_network=ShapeNetwork(patch=(3, 4, 1), width=12, heads=2, blocks=1, feedforward=16),
    energy_evaluations=(2,),
    shape_evaluations=(2, 3),
)


def few_steps(system: CaloDream, steps: int) -> dict[str, Plan]:
    few = {"steps": steps, "batch_size": 16, "validate_every": steps, "warmup_steps": 0, "patience": None}
    return {name: replace(plan, **few) for name, plan in system.plans().items()}


@pytest.fixture(scope="module", params=["logit", "marginals"])
def fitted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> CaloDream:
    system = CaloDream.create(replace(TINY, scaling=TargetConstants(shares=request.param)), RINGS, seed=1)
    system.fit(toy_voxels(120), few_steps(system, 12), run_dir=tmp_path_factory.mktemp("run") / "a", progress=False)
    return system


@pytest.fixture(scope="module")
def request_() -> Incident:
    incident = toy_voxels(12, seed=3).incident
    return Incident(np.clip(incident.energy, 15.0, 80.0), incident.direction, incident.pdg)


def test_sizes_are_those_registered_with_the_calochallenge() -> None:
    """28,427,393 (data set 2) and 8,253,575 (data set 3), the parameters of submission 33."""
    for name, detector, size in (
        ("published", CALOCHALLENGE_2, 28_427_393),
        ("published-3", CALOCHALLENGE_3, 8_253_575),
    ):
        system = CaloDream.create(PRESETS[name].config, detector)
        parts = [system.parts()[key] for key in ("energies", "shapes")]
        assert sum(p.numel() for part in parts for p in part.parameters() if p.requires_grad) == size


def test_layers_hold_the_energies_that_were_drawn(fitted: CaloDream, request_: Incident) -> None:
    """Whatever the shapes are and whatever the threshold cuts: totals to round-off, layers unless emptied."""
    showers = fitted.sample(request_, seed=4)
    z = np.stack([stream(4, i).standard_normal(RINGS.n_layers + RINGS.n_cells, dtype=np.float32) for i in range(12)])
    noise = torch.from_numpy(z[:, : RINGS.n_layers])
    x = fitted.energy_flow.sample(
        fitted.targets.scaled_incident(request_.energy), noise=noise, solver=fitted.energy_solvers.of()
    )
    u = fitted.targets.u(x)
    drawn = fitted.targets.layers.layer_energies(u, torch.from_numpy(request_.energy.astype(np.float64))).numpy()
    np.testing.assert_allclose(showers.visible_energy, drawn.sum(1), rtol=1e-5)
    kept = showers.energy_per_layer > 0
    assert fitted.thresholds_did.layers == int((~kept & (drawn > 0)).sum())
    if not fitted.thresholds_did.layers:
        np.testing.assert_allclose(showers.energy_per_layer, drawn, rtol=1e-5, atol=1e-9)


def test_no_cell_is_below_its_threshold_and_each_has_one_point(fitted: CaloDream, request_: Incident) -> None:
    showers = fitted.sample(request_, seed=4)
    assert (showers.energy >= RINGS.threshold_gev[showers.layer] * (1 - 1e-5)).all()
    voxels, lost = voxelize(showers)
    assert int((voxels.energy > 0).sum()) == showers.n_points
    assert not lost.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "leapfrog"}, "unknown solver 'leapfrog'"),
        ({"energy_solver": "leapfrog"}, "unknown solver 'leapfrog'"),
        ({"solver": "euler", "steps": 0}, "give at least 1"),
        ({"precision": "int8"}, "unknown precision"),
        ({"evaluations": 5}, "no bespoke solver has 5 evaluations; this state's have 2, 3"),
        ({"energy_evaluations": 3}, "this state's have 2"),
    ],
)
def test_wrong_options(fitted: CaloDream, request_: Incident, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fitted.sample(request_, seed=1, **options)


def test_solvers_agree_when_fine(fitted: CaloDream, request_: Incident) -> None:
    """Two fine solvers walk the same flow: the same showers, up to cells near the threshold."""
    options = {"energy_solver": "rk4", "energy_steps": 12}
    one = fitted.sample(request_, seed=2, solver="rk4", steps=12, **options)
    two = fitted.sample(request_, seed=2, solver="three_eighths", steps=12, **options)
    np.testing.assert_allclose(one.energy_per_layer, two.energy_per_layer, rtol=1e-3, atol=1e-6)
    assert abs(one.n_points - two.n_points) <= 0.01 * one.n_points


def test_solvers_of_one_state_differ_and_say_what_they_cost(fitted: CaloDream, request_: Incident) -> None:
    """The first of the configuration is the usual one; each asks the network as often as it says."""
    usual, two, three = (fitted.sample(request_, seed=2, evaluations=n).energy for n in (0, 2, 3))
    np.testing.assert_array_equal(usual, two)
    assert len(two) != len(three) or not np.allclose(two, three)
    asked: list[int] = []
    hook = fitted.shape_flow.network.time.register_forward_hook(lambda *_: asked.append(1))
    for n in (2, 3):
        asked.clear()
        fitted.sample(request_, seed=2, evaluations=n)
        assert len(asked) == n
    hook.remove()


def test_inclined_and_mixed_showers_are_refused() -> None:
    system, showers = CaloDream.create(TINY, RINGS), toy_voxels(40)
    tilted = np.tile(np.array([0.6, 0.0, 0.8], np.float32), (40, 1))
    inclined = replace(showers, incident=replace(showers.incident, direction=tilted))
    with pytest.raises(ValueError, match="inclined showers"):
        system.stages()[0].prepare(inclined)
    mixed = replace(showers, incident=replace(showers.incident, pdg=np.resize([11, 22], 40)))
    with pytest.raises(ValueError, match=r"\[11, 22\]"):
        system.stages()[0].prepare(mixed)


def test_patches_of_layers_that_differ() -> None:
    """The first layer of the CaloChallenge's pions has other rings than the next: every cell is in one patch."""
    patches = patches_of(CALOCHALLENGE_1_PIONS, (1, 10, 2))
    x = torch.arange(CALOCHALLENGE_1_PIONS.n_cells, dtype=torch.float32)[None]
    assert torch.equal(patches.join(patches.cut(x)), x)
    assert float(patches.coordinates.max()) <= 1.0
    with_squares = patches_of(replace(ILD_ECAL, layers=ILD_ECAL.layers[:2]), (1, 50, 50))
    assert with_squares.voxels == 2 * ILD_ECAL.layers[0].cells.n_cells


def test_from_file_to_file(tmp_path: Path) -> None:
    """Training reads cells, sampling writes cells, of the same detector; the judge may compare them."""
    voxels, _ = voxelize(toy_voxels(96))
    calogen.write(tmp_path / "train.h5", voxels)
    system = CaloDream.create(TINY, RINGS, seed=1)
    system.fit(toy_voxels(96), few_steps(system, 2), run_dir=tmp_path / "run", progress=False)
    system.save(tmp_path / "state.safetensors")
    like = ["--like", str(tmp_path / "train.h5"), "--seed", "1", "-q"]
    assert main(["sample", str(tmp_path / "state.safetensors"), *like, "-o", str(tmp_path / "made.h5")]) == 0
    made = calogen.read(tmp_path / "made.h5")
    assert type(made) is type(voxels)
    again = system.sample(voxels.incident, seed=1)
    np.testing.assert_allclose(made.energy, voxelize(again)[0].energy, rtol=1e-3, atol=1e-6)


def test_the_challenges_own_files_can_be_learned_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As downloaded: MeV, no name of a detector inside. The state samples that detector."""
    monkeypatch.setattr(bespoke_stage, "POOL", 2)
    monkeypatch.setattr(faint_cut, "SHOWERS", 4)
    rng = np.random.default_rng(0)
    energy = rng.exponential(0.02, (40, CALOCHALLENGE_2.n_cells)) * (rng.random((40, CALOCHALLENGE_2.n_cells)) < 0.1)
    incident = Incident.gun(40, pdg=11, energy=(20.0, 30.0), angles="perpendicular", seed=1)
    calogen.write(
        tmp_path / "dataset_2_1.hdf5",
        calogen.Voxels(energy.astype(np.float32), incident, CALOCHALLENGE_2),
        format="calochallenge",
    )
    small = {
        "energy_network.decoder_blocks": 1,
        "shape_network.width": 12,
        "shape_network.blocks": 1,
        "shape_evaluations": "2",
        "energy_evaluations": "2",
        "*.steps": 1,
        "*.batch_size": 4,
    }
    options = [part for key, value in small.items() for part in ("--set", f"{key}={value}")]
    run = str(tmp_path / "run")
    assert main(["train", "calodream", "--data", str(tmp_path / "dataset_2_1.hdf5"), "-o", run, *options, "-q"]) == 0
    made = calogen.load(tmp_path / "run" / "state.safetensors").sample(incident[:2], seed=1)
    assert made.detector == CALOCHALLENGE_2
    np.testing.assert_array_less(made.visible_energy, 2.857 * incident.energy[:2])


def test_the_precision_is_the_configurations_where_the_processor_has_it(
    fitted: CaloDream, request_: Incident, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = copy.deepcopy(fitted)
    with torch.no_grad():
        for parameter in system.shape_flow.parameters():  # whose blocks start as doing nothing
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))

    def drawn(precision: str) -> np.ndarray:
        return system.sample(request_, seed=2, precision=precision).energy  # type: ignore[arg-type]

    single, half = drawn("float32"), drawn("bfloat16")
    assert not np.array_equal(single, half)
    np.testing.assert_array_equal(drawn("auto"), single)
    monkeypatch.setattr(system, "config", replace(system.config, precision="bfloat16"))
    for has, expected in ((True, half), (False, single)):
        monkeypatch.setattr(drawing, "has_bfloat16", lambda device, has=has: has)
        np.testing.assert_array_equal(drawn("auto"), expected)
    with pytest.raises(ValueError, match="unknown precision 'half'; use 'auto', 'float32' or 'bfloat16'"):
        drawn("half")
