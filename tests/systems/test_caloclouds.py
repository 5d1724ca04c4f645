"""CaloClouds3: what every system must keep (contract), and what is its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import toy_showers

from calogen import ILD_ECAL, Incident, Showers
from calogen.systems import PRESETS, SYSTEMS
from calogen.systems.caloclouds import CaloClouds, CaloCloudsConfig
from calogen.systems.drawing import stream
from calogen.systems.published_weights import point_net_from_caloclouds3
from calogen.systems.state import State
from calogen.train import Plan

HERE = Path(__file__).parent
SMALL = CaloCloudsConfig(coupling_width=1, spline_width=1, flow_blocks=1, widths=(16, 16), time_features=8)


def small_plans(system: CaloClouds, steps: int) -> dict[str, Plan]:
    few = {"steps": steps, "batch_size": 16, "validate_every": steps, "patience": None}
    return {name: replace(plan, **few) for name, plan in system.plans().items()}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> CaloClouds:
    system = CaloClouds.create(SMALL, ILD_ECAL, seed=1)
    run = tmp_path_factory.mktemp("run") / "fit"
    system.fit(toy_showers(240), small_plans(system, 30), run_dir=run, progress=False)
    return system


@pytest.fixture(scope="module")
def request_() -> Incident:
    return toy_showers(10, seed=5).incident


def _same(a: Showers, b: Showers) -> bool:
    """Equal up to round-off: it may swap two points of equal depth, so at most one point in a hundred may move."""
    if not ((a.offsets == b.offsets).all() and (a.layer == b.layer).all()):
        return False
    key = a.shower_index * ILD_ECAL.n_layers + a.layer
    order_a, order_b = np.lexsort((a.x, key)), np.lexsort((b.x, key))
    moved = np.zeros(a.n_points, dtype=bool)
    for column in ("x", "y", "energy"):
        moved |= ~np.isclose(getattr(a, column)[order_a], getattr(b, column)[order_b], rtol=1e-2, atol=1e-2)
    return bool(moved.mean() < 0.01 and np.allclose(a.visible_energy, b.visible_energy, rtol=1e-3))


def test_loss_falls_in_every_learned_stage(fitted: CaloClouds) -> None:
    for stage in fitted.provenance["stages"]:
        if stage["name"] == "calibrate":
            assert stage["stopped"] == "solved"
        else:
            assert np.isfinite(stage["train_loss"])


def test_flow_beats_an_untrained_one(fitted: CaloClouds) -> None:
    showers = toy_showers(100, seed=9)
    fresh = CaloClouds.create(SMALL, ILD_ECAL, seed=2)
    losses = []
    for system in (fresh, fitted):
        stage = system.stages()[0]
        if system is fresh:
            stage.prepare(toy_showers(240))
        with torch.no_grad():
            batch = stage.batch(showers, np.arange(100), np.random.default_rng(0))
            losses.append(float(stage.loss(batch).mean()))
    assert losses[1] < losses[0]


def test_a_shower_depends_on_its_particle_and_the_seed_alone(fitted: CaloClouds, request_: Incident) -> None:
    together = fitted.sample(request_, seed=3)
    assert _same(together, fitted.sample(request_, seed=3))
    assert _same(together, fitted.sample(request_, seed=3, batch_size=3))
    alone = fitted.sample(request_[7:8], seed=3, first=7)
    assert _same(together[7:8], alone)
    assert not _same(together, fitted.sample(request_, seed=4))
    torch.manual_seed(0)
    before = torch.rand(1)
    torch.manual_seed(0)
    fitted.sample(request_[:1], seed=3)
    assert torch.equal(before, torch.rand(1))  # the user's own random numbers are left alone


def test_half_precision_moves_points_by_little(fitted: CaloClouds, request_: Incident) -> None:
    exact, rough = (fitted.sample(request_, seed=3, precision=p) for p in ("float32", "bfloat16"))
    np.testing.assert_array_equal(rough.counts_per_layer, exact.counts_per_layer)
    np.testing.assert_allclose(rough.energy_per_layer, exact.energy_per_layer, rtol=1e-5)
    quantiles = [np.quantile(np.hypot(s.x, s.y), [0.1, 0.5, 0.9]) for s in (exact, rough)]
    np.testing.assert_allclose(*quantiles, rtol=0.05)
    assert _same(rough[7:8], fitted.sample(request_[7:8], seed=3, first=7, precision="bfloat16"))
    with pytest.raises(ValueError, match="bfloat16"):
        fitted.sample(request_, seed=3, precision="float16")


def test_threads_change_nothing(fitted: CaloClouds, request_: Incident) -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = fitted.sample(request_, seed=3)
        torch.set_num_threads(2)
        assert _same(one, fitted.sample(request_, seed=3))
    finally:
        torch.set_num_threads(threads)


def test_state_round_trip_samples_the_same(fitted: CaloClouds, request_: Incident, tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    fitted.save(path)
    back = SYSTEMS["caloclouds3"].from_state(State.read(path))
    assert back.config == fitted.config
    assert back.detector == ILD_ECAL
    assert _same(fitted.sample(request_, seed=3), back.sample(request_, seed=3))


def test_particles_outside_the_training_range_are_refused(fitted: CaloClouds) -> None:
    for incident, words in (
        (Incident.gun(2, energy=500.0), "500 GeV is outside"),
        (Incident.gun(2, pdg=11), "PDG code 11 was not trained"),
        (Incident.gun(2, energy=20.0, angles="fixed:80,90"), "p_y/p_z"),
    ):
        with pytest.raises(ValueError, match=words):
            fitted.sample(incident, seed=1)
    with pytest.raises(ValueError, match="not been trained"):
        CaloClouds.create(SMALL, ILD_ECAL).sample(Incident.gun(1), seed=1)
    with pytest.raises(ValueError, match="sampler"):
        fitted.sample(Incident.gun(1, energy=10.0), seed=1, sampler="euler")  # type: ignore[arg-type]


def test_no_particles_give_no_showers(fitted: CaloClouds) -> None:
    assert len(fitted.sample(Incident.gun(0), seed=1)) == 0


def test_teacher_samples_too(fitted: CaloClouds, request_: Incident) -> None:
    assert len(fitted.sample(request_, seed=3, sampler="teacher", steps=4)) == len(request_)


def test_layers_hold_the_energy_that_was_drawn_for_them(fitted: CaloClouds, request_: Incident) -> None:
    showers = fitted.sample(request_, seed=3)
    streams = [stream(3, i) for i in range(len(request_))]
    profile = fitted._draw_profile(request_, fitted.conditioner(request_), streams)
    drawn = profile.energy * fitted.calibration.factor("energy", request_)
    lit = showers.counts_per_layer > 0
    assert (lit == (profile.counts > 0)).all()
    np.testing.assert_allclose(showers.energy_per_layer[lit], drawn[lit], rtol=1e-3)


def test_tilt_follows_the_direction(fitted: CaloClouds) -> None:
    """The energy's centre drifts sideways by p_x/p_z per mm of depth."""
    theta = np.radians(30.0)
    direction = np.tile([np.sin(theta), 0.0, np.cos(theta)], (40, 1))
    incident = Incident(np.full(40, 30.0), direction, np.full(40, 22))
    showers = fitted.sample(incident, seed=2)
    z = ILD_ECAL.z_mm[showers.layer]
    slope = np.polyfit(z, showers.x, 1, w=np.sqrt(showers.energy))[0]
    assert slope == pytest.approx(np.tan(theta), abs=0.08)
    assert abs(np.polyfit(z, showers.y, 1, w=np.sqrt(showers.energy))[0]) < 0.08


def test_parameter_counts_are_the_published_ones() -> None:
    def count(module: torch.nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    published = CaloClouds(PRESETS["caloclouds3"]["published"].config, ILD_ECAL)
    assert count(published.teacher) == 69_608
    assert count(published.distillation.target) == 69_608
    assert count(published.profile) == 6_433_244  # 62 dimensions, as in the authors' file
    no_cog = CaloClouds(replace(PRESETS["caloclouds3"]["published"].config, columns=(), halo_mm=0.0), ILD_ECAL)
    assert count(no_cog.profile) == 6_026_520  # 60 dimensions, as in the paper
    second = CaloClouds(PRESETS["caloclouds3"]["caloclouds2"].config, ILD_ECAL)
    assert count(second.profile) == 35_235_910
    assert count(second.teacher) == 504_920


def test_published_point_model_runs_in_the_system(shared: Path) -> None:
    """Their weights in our parts draw their points: one step from the stored noise, then their normalisation."""
    data = np.load(shared / "parity" / "caloclouds3_point_published.npz")
    system = CaloClouds(PRESETS["caloclouds3"]["published"].config, ILD_ECAL)
    network = {k.split("/", 1)[1]: data[k] for k in data.files if k.startswith("student_ema/")}
    system.distillation.target.network.load_state_dict(point_net_from_caloclouds3(network))
    incident = Incident.gun(1, energy=50.0)
    noise = torch.from_numpy(data["sample_xT"][1] / 80.0 if data["sample_xT"].std() > 10 else data["sample_xT"][1])
    latent = system.distillation.target.sample(
        system.conditioner(incident), counts=torch.tensor([len(noise)]), noise=noise.float()
    )
    theirs = data["student_1step"][1]
    assert float((latent - torch.from_numpy(theirs)).abs().max()) < 1e-5 * np.abs(theirs).max()
    points = system.points.decode(latent)
    # 50 GeV photons: mean layer 15.1 (measured on the published weights), millimetre core on the axis.
    assert float(points.depth.mean()) == pytest.approx(15.1, abs=0.3)
    assert float(points.x.median().abs()) < 2.0


def test_merging_halves_the_points_and_keeps_the_energy() -> None:
    from calogen.data.merging import merge

    showers = toy_showers(50)
    merged = merge(showers, 5.0, seed=1)
    np.testing.assert_allclose(merged.energy_per_layer, showers.energy_per_layer, rtol=1e-5)
    assert merged.n_points < showers.n_points
    assert merge(showers, 1e-4, seed=1).n_points == showers.n_points
    with pytest.raises(ValueError, match="pitch"):
        merge(showers, 0.0, seed=1)


SCRIPT = """
import sys, torch
torch.set_num_threads(1)
sys.path.insert(0, {here!r})
from test_caloclouds import SMALL, small_plans
from toys import toy_showers
from calogen import ILD_ECAL
from calogen.systems.caloclouds import CaloClouds
if __name__ == "__main__":
    system = CaloClouds.create(SMALL, ILD_ECAL, seed=1)
    system.fit(toy_showers(120), small_plans(system, 40), run_dir=sys.argv[1], progress=False, devices=int(sys.argv[2]))
    system.save(sys.argv[1] + "/state.safetensors", overwrite=True)
"""


def _train(folder: Path, devices: int = 1, kill_after: float | None = None) -> None:
    script = folder.parent / "train.py"
    script.write_text(SCRIPT.format(here=str(HERE)))
    process = subprocess.Popen([sys.executable, str(script), str(folder), str(devices)], start_new_session=True)
    if kill_after is None:
        assert process.wait(timeout=300) == 0
        return
    deadline = time.time() + 120
    while not (folder / "logs" / "teacher.jsonl").exists() and time.time() < deadline and process.poll() is None:
        time.sleep(0.05)
    time.sleep(kill_after)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(State.read(folder / "state.safetensors").tensors)


def test_killed_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    _train(whole)
    _train(killed, kill_after=0.3)
    _train(killed)
    a, b = _weights(whole), _weights(killed)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_two_processes_train_together(tmp_path: Path) -> None:
    _train(tmp_path / "two", devices=2)
    weights = _weights(tmp_path / "two")
    assert all(torch.isfinite(w).all() for w in weights.values() if w.is_floating_point())


def test_several_kinds_of_particles_are_refused() -> None:
    showers = toy_showers(40)
    mixed = replace(showers, incident=replace(showers.incident, pdg=np.resize([22, 11], 40)))
    with pytest.raises(ValueError, match=r"\[11, 22\]"):
        CaloClouds.create(SMALL, ILD_ECAL).stages()[0].prepare(mixed)
