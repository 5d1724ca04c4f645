"""AllShowers: any particle, any batch, the layers that were drawn; and what the published network knows."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_hadrons import SMALL_ILD, toy_hadrons

import calogen
from calogen import ILD, Detector, Incident, Showers
from calogen.cli import main
from calogen.systems import PRESETS, SYSTEMS, bespoke_stage, kind_calibration_stage
from calogen.systems.allshowers import AllShowers, AllShowersConfig
from calogen.systems.allshowers_stages import PointsStage
from calogen.systems.state import State
from calogen.train import Plan

SMALL = AllShowersConfig(
    whole_widths=(16, 16),
    layer_widths=(16, 16),
    width=16,
    heads=2,
    blocks=2,
    feedforward=16,
    counts_width=16,
    least_threshold=0.0,
)


def mixed(n: int, *, seed: int = 0) -> Showers:
    """Toy hadrons under the names of three particles."""
    showers = toy_hadrons(n, seed=seed)
    incident = showers.incident
    pdg = np.array([211, 2112, 22])[np.arange(n) % 3]
    return replace(showers, incident=Incident(incident.energy, incident.direction, pdg))


def small_plans(system: AllShowers, steps: int) -> dict[str, Plan]:
    few = {
        "steps": steps,
        "batch_size": 16,
        "validate_every": steps,
        "patience": None,
        "ema": "none",
        "warmup_steps": 0,
    }
    return {name: replace(plan, **few) for name, plan in system.plans().items()}


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Fewer showers to calibrate on and to solve finely."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind_calibration_stage, "SHOWERS", 90)
        patch.setattr(kind_calibration_stage, "ROUNDS", 2)
        patch.setattr(bespoke_stage, "POOL", 4)
        yield


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> AllShowers:
    system = AllShowers.create(SMALL, SMALL_ILD, seed=1)
    run = tmp_path_factory.mktemp("run") / "fit"
    with pytest.warns(UserWarning, match="calibrat"):
        system.fit(mixed(240), small_plans(system, 12), run_dir=run, progress=False)
    return system


@pytest.fixture(scope="module")
def request_() -> Incident:
    return mixed(11, seed=5).incident


def same(a: Showers, b: Showers) -> bool:
    return bool(
        (a.offsets == b.offsets).all()
        and (a.layer == b.layer).all()
        and all(np.allclose(getattr(a, k), getattr(b, k), rtol=1e-3, atol=1e-3) for k in ("x", "y", "energy"))
    )


def test_all_stages_learn(fitted: AllShowers) -> None:
    names = [stage["name"] for stage in fitted.provenance["stages"]]
    assert names == ["whole", "layers", "whole-student", "layers-student", "points", "solver", "calibrate"]
    for stage in fitted.provenance["stages"][:-1]:
        assert np.isfinite(stage["train_loss"])


def test_points_are_learned(tmp_path: Path) -> None:
    """More steps lower the loss of held-out showers."""
    losses = []
    for steps in (1, 60):
        system = AllShowers.create(SMALL, SMALL_ILD, seed=1)
        stages = {stage.name: stage for stage in system.stages()}
        plans = small_plans(system, steps)
        from calogen.train import fit

        kept = [stages["whole"], stages["points"]]
        reports = fit(
            kept,
            mixed(200),
            mixed(40, seed=3),
            {stage.name: plans[stage.name] for stage in kept},
            run_dir=tmp_path / str(steps),
            progress=False,
        )
        losses.append(reports[-1].validation_loss)
    assert losses[1] < 0.92 * losses[0]


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_a_shower_depends_on_seed_and_index_alone(fitted: AllShowers, request_: Incident, batch_size: int) -> None:
    whole = fitted.sample(request_, seed=3)
    assert same(whole, fitted.sample(request_, seed=3, batch_size=batch_size))
    assert same(whole[5:8], fitted.sample(request_[5:8], seed=3, first=5, batch_size=batch_size))
    assert not same(whole, fitted.sample(request_, seed=4))


def test_particles_matter(fitted: AllShowers, request_: Incident) -> None:
    others = Incident(request_.energy, request_.direction, np.roll(request_.pdg, 1))
    assert not same(fitted.sample(request_, seed=3), fitted.sample(others, seed=3))


def test_unseen_particles_are_refused(fitted: AllShowers, request_: Incident) -> None:
    kaons = Incident(request_.energy, request_.direction, np.full(len(request_), 321))
    with pytest.raises(ValueError, match="321 was not trained"):
        fitted.sample(kaons, seed=1)


def test_layers_hold_what_was_drawn(fitted: AllShowers, request_: Incident) -> None:
    """Points and energies of each layer are those of the profile, whatever the transformer says."""
    seen = {}
    assemble = fitted._assemble

    def watched(latent, profile, counts, incident):  # type: ignore[no-untyped-def]
        seen["counts"], seen["energy"] = counts, profile.energy * fitted.calibration.factor("energy", incident)
        return assemble(latent, profile, counts, incident)

    fitted._assemble = watched  # type: ignore[method-assign]
    try:
        showers = fitted.sample(request_, seed=3)
    finally:
        fitted._assemble = assemble  # type: ignore[method-assign]
    assert (showers.counts_per_layer == seen["counts"]).all()
    np.testing.assert_allclose(showers.energy_per_layer, np.where(seen["counts"] > 0, seen["energy"], 0), rtol=1e-5)


@pytest.mark.parametrize("options", [{"solver": "euler", "steps": 2}, {"layers": "one-step"}, {"solver": "rk4"}])
def test_other_samplers(fitted: AllShowers, request_: Incident, options: dict[str, object]) -> None:
    showers = fitted.sample(request_[:3], seed=1, **options)  # type: ignore[arg-type]
    assert np.isfinite(showers.energy).all()
    assert showers.n_points > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "leapfrog"}, "unknown solver 'leapfrog'"),
        ({"solver": "euler", "steps": 0}, "steps=0"),
        ({"layers": "two"}, "unknown sampler 'two'"),
        ({"precision": "half"}, "unknown precision"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_wrong_options(fitted: AllShowers, request_: Incident, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fitted.sample(request_, seed=1, **options)  # type: ignore[arg-type]


def test_state_round_trip(fitted: AllShowers, request_: Incident, tmp_path: Path) -> None:
    fitted.save(tmp_path / "s.safetensors")
    again = SYSTEMS["allshowers"].from_state(State.read(tmp_path / "s.safetensors"))
    assert same(fitted.sample(request_, seed=2), again.sample(request_, seed=2))


def test_published_preset_has_the_published_networks() -> None:
    system = AllShowers(PRESETS["allshowers"]["published"].config, ILD)
    assert sum(p.numel() for p in system.point_flow.parameters()) == 263_491
    assert sum(p.numel() for p in system.layer_flow.flows.parameters()) == 351_822


def test_the_published_preset_runs(tmp_path: Path) -> None:
    """On a small detector, end to end."""
    small = {"layer_widths": (16,), "width": 16, "feedforward": 16, "counts_width": 16}
    system = AllShowers.create(replace(PRESETS["allshowers"]["published"].config, **small), SMALL_ILD)
    plans = small_plans(system, 3)
    with pytest.warns(UserWarning, match="calibrat"):
        system.fit(mixed(120), plans, run_dir=tmp_path / "run", progress=False)
    showers = system.sample(mixed(4).incident, seed=0)
    assert len(showers) == 4


def test_a_network_of_properties_fits_another_detector(fitted: AllShowers) -> None:
    """The transformer's parameters know layers by what they are: they load where there are fewer layers."""
    fewer = replace(SMALL_ILD, name="fewer", layers=SMALL_ILD.layers[::2])
    other = AllShowers.create(SMALL, fewer, seed=9)
    other.point_flow.load_state_dict(fitted.point_flow.state_dict())
    assert other.point_flow.network.layers == fewer.n_layers


def in_layers(showers: Showers, chosen: np.ndarray, detector: Detector) -> Showers:
    """Showers as a detector sees them that has some of the layers alone."""
    new = np.full(showers.detector.n_layers, -1)
    new[chosen] = np.arange(len(chosen))
    kept = new[showers.layer] >= 0
    counts = np.bincount(showers.shower_index[kept], minlength=len(showers))
    offsets = np.concatenate([[0], np.cumsum(counts)])
    x, y, energy = showers.x[kept], showers.y[kept], showers.energy[kept]
    return Showers(x, y, new[showers.layer[kept]], energy, offsets, showers.incident, detector)


def test_fine_tuning_of_biases_moves_biases_alone(fitted: AllShowers, tmp_path: Path) -> None:
    """From a fitted state, on another detector: weights stay to the bit, biases move, new layers are learned."""
    fewer = replace(SMALL_ILD, name="fewer", layers=SMALL_ILD.layers[::2])
    other = in_layers(mixed(96, seed=7), np.arange(0, SMALL_ILD.n_layers, 2), fewer)
    system = AllShowers.create(SMALL, fewer, seed=9)
    taken, total = system.start_from(fitted, tune="bias", label="fitted")
    assert 0 < taken < total
    system.fit(other, small_plans(system, 3), run_dir=tmp_path / "run", progress=False)
    before = dict(fitted.point_flow.named_parameters())
    moved = {name for name, p in system.point_flow.named_parameters() if not torch.equal(p, before[name])}
    assert moved
    assert all(name.endswith("bias") for name in moved)
    assert system.provenance["from"]["state"] == "fitted"


ECAL_ALONE = replace(SMALL_ILD, name="small-ecal", layers=SMALL_ILD.layers[:6])


def ecal_showers(n: int, seed: int) -> Showers:
    return in_layers(mixed(n, seed=seed), np.arange(6), ECAL_ALONE)


def test_one_transformer_learns_two_detectors(tmp_path: Path) -> None:
    """With another number of layers and of sections: each has its own layers and transforms, the transformer is one."""
    first, second = (AllShowers.create(SMALL, detector, seed=4) for detector in (SMALL_ILD, ECAL_ALONE))
    others = ecal_showers(80, 7)
    first.learn_with(second, others)
    before = [p.detach().clone() for p in second.point_flow.parameters()]
    first.fit(mixed(96), small_plans(first, 3), run_dir=tmp_path / "run", progress=False)
    assert first.provenance["with"].keys() == {"small-ecal"}
    learned = [p.detach().clone() for p in first.point_flow.parameters()]
    assert any(not torch.equal(p, q) for p, q in zip(before, learned, strict=True))
    reports = second.fit(others, small_plans(second, 3), run_dir=tmp_path / "other", validation=0.0, progress=False)
    assert {report.name: report.stopped for report in reports}["points"] == "held"
    second.save(tmp_path / "second.safetensors")
    again = calogen.load(tmp_path / "second.safetensors")
    assert isinstance(again, AllShowers)
    for one, two in zip(learned, again.point_flow.parameters(), strict=True):
        assert torch.equal(one, two)
    assert torch.equal(again.particles.mean, first.particles.mean)  # energies mean the same to both
    assert not torch.equal(again.points.radial[0].knots, first.points.radial[0].knots)
    showers = again.sample(mixed(5, seed=3).incident, seed=1)
    assert showers.detector.n_layers == 6
    assert np.isfinite(showers.energy).all()


def test_showers_of_the_other_detector_are_learned(tmp_path: Path) -> None:
    """Trained with a companion the loss on its showers falls, which without it it does not as far."""

    def loss_there(joint: bool) -> float:
        one, two = (AllShowers.create(SMALL, detector, seed=4) for detector in (SMALL_ILD, ECAL_ALONE))
        others = ecal_showers(80, 7)
        two_alone = AllShowers.create(SMALL, ECAL_ALONE, seed=4)
        if joint:
            one.learn_with(two, others)
        plans = small_plans(one, 2) | {"points": replace(small_plans(one, 2)["points"], steps=40)}
        one.fit(mixed(96), plans, run_dir=tmp_path / str(joint), progress=False)
        two_alone.point_flow.load_state_dict(one.point_flow.state_dict())
        stages = {stage.name: stage for stage in two_alone.stages()}
        stages["whole"].prepare(others)
        points = stages["points"]
        assert isinstance(points, PointsStage)
        points.prepare(others)
        batch = points.batch(others, np.arange(80), np.random.default_rng(0))
        torch.manual_seed(0)
        with torch.no_grad():
            return float((points.loss(batch) * points.weights(batch)).sum() / points.weights(batch).sum())

    assert loss_there(joint=True) < loss_there(joint=False)


def test_detectors_that_cannot_be_joined(fitted: AllShowers) -> None:
    others = ecal_showers(40, 7)
    by_index, wider = replace(SMALL, layer_by="index"), replace(SMALL, width=2 * SMALL.width)
    with pytest.raises(ValueError, match="already"):
        AllShowers.create(SMALL, SMALL_ILD).learn_with(AllShowers.create(SMALL, SMALL_ILD), mixed(40))
    with pytest.raises(ValueError, match="'small-ecal'"):
        AllShowers.create(SMALL, ECAL_ALONE).learn_with(AllShowers.create(SMALL, SMALL_ILD), others)
    with pytest.raises(ValueError, match="index"):
        AllShowers.create(by_index, SMALL_ILD).learn_with(AllShowers.create(SMALL, ECAL_ALONE), others)
    with pytest.raises(ValueError, match="cannot share"):
        AllShowers.create(SMALL, SMALL_ILD).learn_with(AllShowers.create(wider, ECAL_ALONE), others)


def test_joint_training_from_the_command_line(
    fitted: AllShowers, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    fitted.save(tmp_path / "start.safetensors")
    calogen.write(tmp_path / "ecal.h5", ecal_showers(64, 8))
    calogen.write(tmp_path / "both.h5", mixed(64, seed=8))
    few = [f"--set=*.{key}" for key in ("steps=2", "batch_size=16", "warmup_steps=0", "validate_every=2")]
    data = ["--data", str(tmp_path / "ecal.h5"), "--data", str(tmp_path / "both.h5")]
    start = ["--from", str(tmp_path / "start.safetensors")]
    run = tmp_path / "run"
    command = ["train", "allshowers", *data, *start, "-o", str(run), *few, "--threads", "1"]
    assert main(command) == 0
    assert "the same transformer in detector small-ecal" in capsys.readouterr().out
    one, two = calogen.load(run / "state.safetensors"), calogen.load(run / "small-ecal" / "state.safetensors")
    assert (one.detector.name, two.detector.name) == ("small-ild", "small-ecal")
    for p, q in zip(one.parts()["flow"].parameters(), two.parts()["flow"].parameters(), strict=True):
        assert torch.equal(p, q)
    finished = (run / "small-ecal" / "state.safetensors").read_bytes()
    shutil.rmtree(run / "small-ecal")  # what a kill between the two leaves
    assert main(command) == 0
    two, again = State.read(run / "small-ecal" / "state.safetensors"), tmp_path / "finished.safetensors"
    again.write_bytes(finished)
    for name, tensor in State.read(again).tensors.items():
        assert torch.equal(torch.as_tensor(tensor), torch.as_tensor(two.tensors[name])), name
    assert main(["train", "calohadronic", *data, "-o", str(tmp_path / "no")]) == 2
    assert "calohadronic learns one" in capsys.readouterr().err
    calogen.write(tmp_path / "evil.h5", replace(ecal_showers(64, 8), detector=replace(ECAL_ALONE, name="../evil")))
    refused = ["train", "allshowers", *data, *start, "-o", str(tmp_path / "no")]
    assert main([*refused, "--data", str(tmp_path / "evil.h5")]) == 2
    assert "can be no folder" in capsys.readouterr().err
    other = replace(ECAL_ALONE, layers=tuple(replace(layer, z_mm=layer.z_mm + 1) for layer in ECAL_ALONE.layers))
    calogen.write(tmp_path / "twin.h5", replace(ecal_showers(64, 8), detector=other))
    assert main([*refused, "--data", str(tmp_path / "twin.h5")]) == 2
    assert "both named 'small-ecal'" in capsys.readouterr().err


def test_starting_from_another_system_is_refused(fitted: AllShowers) -> None:
    with pytest.raises(ValueError, match="not of 'allshowers'"):
        AllShowers.create(SMALL, SMALL_ILD).start_from(calogen.load("caloclouds3"))
    with pytest.raises(ValueError, match="unknown tune"):
        AllShowers.create(SMALL, SMALL_ILD).start_from(fitted, tune="heads")  # type: ignore[arg-type]


def test_fine_tuning_from_the_command_line(fitted: AllShowers, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    fitted.save(tmp_path / "start.safetensors")
    calogen.write(tmp_path / "data.h5", mixed(64, seed=8))
    few = [f"--set=*.{key}" for key in ("steps=2", "batch_size=16", "warmup_steps=0", "validate_every=2")]
    command = [
        "train",
        "allshowers",
        "--data",
        str(tmp_path / "data.h5"),
        "--from",
        str(tmp_path / "start.safetensors"),
    ]
    assert main([*command, "-o", str(tmp_path / "run"), *few, "--threads", "1"]) == 0
    assert "weights; all move" in capsys.readouterr().out
    tuned = calogen.load(tmp_path / "run" / "state.safetensors")
    assert tuned.config == fitted.config
    assert main([*command, "-o", str(tmp_path / "other"), "--from", "caloclouds3", *few]) == 2
