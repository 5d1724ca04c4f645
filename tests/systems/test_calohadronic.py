"""CaloHadronic: each section given the one before, showers that depend on themselves alone, layers as drawn."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy_hadrons import ECAL, SMALL_ILD, toy_hadrons

from calogen import ILD, ILD_ECAL, Incident, Showers
from calogen.systems import calohadronic_published as published
from calogen.systems.calohadronic import PRESETS, CaloHadronic, CaloHadronicConfig
from calogen.systems.calohadronic_sections import Placed, PointSampling
from calogen.systems.drawing import stream
from calogen.systems.layer_counts import CountSampling
from calogen.systems.points import Points
from calogen.systems.published_points import count_mlp_from_pointcountfm
from calogen.systems.state import State
from calogen.train import LearnedStage, Plan

TINY = CaloHadronicConfig(
    whole_widths=(16,),
    layer_widths=(16,),
    width=16,
    heads=(2, 2),
    blocks=(1, 1),
    feedforward=16,
    frequencies=2,
    highest=1.0,
    bespoke_steps=2,
    least_threshold=0.0,
    halo_mm=30.0,
)
SAMPLERS = [{"sampler": "few"}, {"sampler": "few", "sigmas": (10.0,)}, {"sampler": "bespoke"}]
SAMPLERS += [{"sampler": "teacher", "steps": 3}, {"layers": "one-step"}, {"precision": "bfloat16"}]


def tiny_plans(system: CaloHadronic, steps: int) -> dict[str, Plan]:
    few = {"steps": steps, "batch_size": 4, "max_points": 300, "validate_every": steps, "patience": None}
    return {name: replace(plan, **few) for name, plan in system.plans().items()}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> CaloHadronic:
    system = CaloHadronic.create(TINY, SMALL_ILD, seed=1)
    run = tmp_path_factory.mktemp("run") / "fit"
    warnings.filterwarnings("ignore", message="calibration still moved")  # after so few steps
    reports = system.fit(toy_hadrons(60), tiny_plans(system, 6), run_dir=run, progress=False)
    assert [report.name for report in reports] == list(system.plans())
    assert all(report.train_loss is None or np.isfinite(report.train_loss) for report in reports)
    return system


@pytest.fixture(scope="module")
def request_() -> Incident:
    return Incident.gun(9, pdg=211, energy=(15.0, 80.0), seed=5)


def same(a: Showers, b: Showers) -> bool:
    """Equal up to round-off: it may swap two points of equal depth, so at most one point in fifty may move."""
    if not ((a.offsets == b.offsets).all() and (a.layer == b.layer).all()):
        return False
    key = a.shower_index * SMALL_ILD.n_layers + a.layer
    order_a, order_b = np.lexsort((a.x, key)), np.lexsort((b.x, key))
    moved = np.zeros(a.n_points, dtype=bool)
    for column in ("x", "y", "energy"):
        moved |= ~np.isclose(getattr(a, column)[order_a], getattr(b, column)[order_b], rtol=1e-2, atol=1e-2)
    return bool(moved.mean() < 0.02 and np.allclose(a.visible_energy, b.visible_energy, rtol=1e-3))


@pytest.mark.parametrize("options", SAMPLERS, ids=str)
def test_a_shower_depends_on_its_particle_and_the_seed_alone(
    fitted: CaloHadronic, request_: Incident, options: dict
) -> None:
    together = fitted.sample(request_, seed=3, **options)
    assert same(together, fitted.sample(request_, seed=3, batch_size=4, **options))
    alone = fitted.sample(request_[7:8], seed=3, first=7, **options)
    assert same(together[7:8], alone)
    assert not same(together, fitted.sample(request_, seed=4, **options))


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mates=st.lists(st.integers(0, 8), max_size=6), place=st.integers(0, 6))
def test_points_are_the_same_in_any_company(
    fitted: CaloHadronic, request_: Incident, mates: list[int], place: int
) -> None:
    """Points of shower 4, alone and among any others: no padding, no scale of the batch reaches them."""
    how = PointSampling("teacher", 3)
    rows = np.insert(np.array(mates, dtype=int), min(place, len(mates)), 4)
    profile = fitted._draw_profile(request_, [stream(3, i) for i in range(9)], CountSampling())
    counts = profile.counts.astype(np.int64)
    cut = [slice(None, ECAL), slice(ECAL, None)]
    noise = [
        [stream(i, k).standard_normal((1, counts[i, s].sum(), 4), np.float32) for i in range(9)]
        for k, s in enumerate(cut)
    ]

    def points(chosen: np.ndarray) -> list[Placed]:
        part = type(profile)(profile.counts[chosen], profile.energy[chosen], profile.cog[chosen])
        z = [np.concatenate([own[i] for i in chosen], axis=1) for own in noise]
        with torch.inference_mode():
            return fitted._points(request_[chosen], part, counts[chosen], z, how)

    where = min(place, len(mates))
    for s, one, all_ in zip(cut, points(np.array([4])), points(rows), strict=True):
        sizes = counts[rows][:, s].sum(1)
        start = sizes[:where].sum()
        for mine, alone in zip(all_, one, strict=True):
            np.testing.assert_allclose(mine[start : start + sizes[where]], alone, atol=1e-3, rtol=1e-3)


def test_hcal_follows_the_generated_ecal(fitted: CaloHadronic, request_: Incident) -> None:
    """Other noise in the ECal alone: its points change, and with them the HCal's, whose own noise is the same."""
    how = PointSampling()
    streams = [stream(3, i) for i in range(9)]
    profile = fitted._draw_profile(request_, streams, CountSampling())
    counts = profile.counts.astype(np.int64)
    rng = np.random.default_rng(0)
    shapes = [(2, counts[:, :ECAL].sum(), 4), (2, counts[:, ECAL:].sum(), 4)]
    ecal, other, hcal = (rng.standard_normal(shape, np.float32) for shape in (shapes[0], *shapes))
    with torch.inference_mode():
        one, two = (fitted._points(request_, profile, counts, [z, hcal], how) for z in (ecal, other))
        again = fitted._points(request_, profile, counts, [ecal, hcal], how)
        third = fitted._points(request_, profile, counts, [ecal, -hcal], how)
    assert not np.allclose(one[0].x, two[0].x, atol=1e-2)
    assert np.abs(one[1].x - two[1].x).max() > 1e-4  # little, of a network that has learned nothing,
    assert (one[1].x == again[1].x).all()  # but not round-off
    assert (one[0].x == third[0].x).all()  # the ECal comes first: it does not know the HCal


def test_hcal_is_given_the_ecal_as_it_ends(fitted: CaloHadronic) -> None:
    """Points put on their layers, seen by the next section, are those points: place, layer and energy."""
    section = fitted.sections[0]
    counts = np.array([[3, 0, 2, 1, 0, 4], [1, 1, 0, 0, 2, 2]])[:, : len(range(ECAL))]
    n = int(counts.sum())
    latent = 0.5 * torch.from_numpy(np.random.default_rng(0).standard_normal((n, 4), np.float32))
    energy = np.where(counts > 0, 1e-3 * (1 + counts), 0.0)
    placed = section.placed(latent, counts, energy, PointSampling())
    back = section.points.decode(section.as_given(latent, placed, counts))
    np.testing.assert_allclose(back.x, placed.x, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(back.energy, placed.energy, rtol=1e-3)
    layers = section.points.layers.inverse(back.depth)
    np.testing.assert_array_equal(layers + section.first, placed.layer)


@pytest.mark.parametrize("options", SAMPLERS, ids=str)
def test_layers_hold_what_was_drawn_for_them(fitted: CaloHadronic, request_: Incident, options: dict) -> None:
    bare = CaloHadronic.from_state(fitted.state())
    bare.calibration.set_scale(request_)  # factors of one
    showers = bare.sample(request_, seed=3, **options)
    how = CountSampling(options.get("layers", "flow"))
    profile = bare._draw_profile(request_, [stream(3, i) for i in range(9)], how)
    np.testing.assert_array_equal(showers.counts_per_layer, profile.counts)
    np.testing.assert_allclose(showers.energy_per_layer, profile.energy, rtol=1e-4, atol=1e-12)
    calibrated = fitted.sample(request_, seed=3, **options)
    target = profile.energy * fitted._factor("energy", request_)
    np.testing.assert_allclose(calibrated.energy_per_layer, target, rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("name", ["ecal", "hcal"])
def test_loss_falls(name: str) -> None:
    """Of the points of a section: that in a layer all have nearly one energy is learned at once."""
    system = CaloHadronic.create(TINY, SMALL_ILD, seed=2)
    train = toy_hadrons(100)
    stages = {stage.name: stage for stage in system.stages()}
    for before in ("whole", "ecal", "hcal"):
        stages[before].prepare(train)
    stage = stages[name]
    assert isinstance(stage, LearnedStage)

    def loss() -> float:
        torch.manual_seed(0)
        with torch.no_grad():
            return float(stage.loss(stage.batch(train, np.arange(100), np.random.default_rng(0))).mean())

    first, rng = loss(), np.random.default_rng(1)
    optimizer = torch.optim.Adam(stage.trainable(), 1e-2)
    for _ in range(50):
        optimizer.zero_grad()
        stage.loss(stage.batch(train, rng.permutation(100)[:8], rng)).mean().backward()
        optimizer.step()
    assert loss() < 0.93 * first


def test_state_round_trip_samples_the_same(fitted: CaloHadronic, request_: Incident, tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    fitted.save(path)
    back = CaloHadronic.from_state(State.read(path))
    assert back.config == fitted.config
    for options in SAMPLERS:
        assert same(fitted.sample(request_, seed=3, **options), back.sample(request_, seed=3, **options))


def test_parameter_counts_are_the_published_ones() -> None:
    def count(module: torch.nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    system = CaloHadronic(PRESETS["published"].config, ILD)
    ecal, hcal = system.sections
    assert count(ecal.teacher) == count(ecal.distillation.target) == 656_260
    assert count(hcal.teacher) == 1_128_400
    assert count(system.layer_flow.flows) == 349_902
    assert [stage.name for stage in system.stages()] == list(PRESETS["published"].plans)


def test_desk_state_is_small(tmp_path: Path) -> None:
    system = CaloHadronic(PRESETS["pions-desk"].config, ILD)
    system.save(tmp_path / "state.safetensors", dtype="float16")
    assert (tmp_path / "state.safetensors").stat().st_size < 3e6
    for preset in ("pions-desk", "pions"):
        system = CaloHadronic(PRESETS[preset].config, ILD)
        assert set(PRESETS[preset].plans) == set(system.plans())


def test_published_preset_runs_and_takes_the_published_counts(shared: Path, tmp_path: Path) -> None:
    file = np.load(shared / "parity" / "pointcountfm_published.npz")
    system = CaloHadronic.create(replace(PRESETS["published"].config, blocks=(1, 1)), ILD, seed=0)
    weights = {name: torch.tensor(file[name]) for name in file.files if name.startswith("sd/")}
    system.layer_flow.flows[0].network.network.load_state_dict(count_mlp_from_pointcountfm(weights))
    energy = np.array([15.0, 15.0, 85.0, 85.0])
    pions = Incident(energy, np.tile([0.0, 0.0, 1.0], (4, 1)), np.full(4, 211))
    system.domain.fit(pions)
    showers = system.sample(pions, seed=1, sigmas=(10.0,), layer_steps=8)
    # The published counts: 481 points at 10 to 15 GeV, 2677 at 85 to 90 GeV, on average.
    assert 100 < showers.counts[:2].mean() < 1000 < showers.counts[2:].mean() < 4500


def test_published_points_there_and_back() -> None:
    box = published.BoxPoints("hcal", 48)
    torch.manual_seed(0)
    points = Points(450 * torch.rand(99), -450 * torch.rand(99), torch.randint(48, (99,)), 1e-3 * torch.rand(99))
    latent = box.encode(points, torch.rand(99))
    assert latent[:, 0].min() >= 0
    assert latent[:, 2].max() <= 0
    assert latent[:, 1].abs().max() <= 1.02
    back = box.decode(latent)
    for a, b in ((back.x, points.x), (back.y, points.y), (back.energy, points.energy)):
        torch.testing.assert_close(a, b.to(a), rtol=1e-4, atol=1e-3)
    layer = (back.depth + 1) * 24  # of 48, from -1 to 1
    assert (layer.round() == points.depth).all()
    assert float((layer - points.depth).abs().max()) > 0.4
    torch.testing.assert_close(box.with_energies(latent)[:, 3], 1e3 * points.energy, rtol=1e-4, atol=1e-6)


def test_what_does_not_fit_is_refused(fitted: CaloHadronic, request_: Incident) -> None:
    with pytest.raises(ValueError, match="sections ecal and hcal"):
        CaloHadronic(TINY, ILD_ECAL)
    with pytest.raises(ValueError, match="unknown sampler 'fast'"):
        fitted.sample(request_, seed=1, sampler="fast")  # type: ignore[arg-type]
    wrong: list[tuple[dict, str]] = [
        ({"sigmas": (1.0, 10.0)}, "must start at 10"),
        ({"sigmas": (5.0, 1.0)}, "must start at 10"),
        ({"sigmas": (10.0, 1e-6)}, "fall to no less than 0.005"),
        ({"sampler": "teacher", "sigmas": (10.0,)}, "noise levels of sampler 'few'"),
        ({"sampler": "teacher", "steps": 1}, "give at least 2"),
        ({"precision": "float8"}, "unknown precision 'float8'"),
    ]
    for options, message in wrong:
        with pytest.raises(ValueError, match=message):
            fitted.sample(request_, seed=1, **options)
    with pytest.raises(ValueError, match="500 GeV is outside"):
        fitted.sample(Incident.gun(1, pdg=211, energy=500.0, angles="perpendicular"), seed=1)
    showers = toy_hadrons(40)
    mixed = replace(showers, incident=replace(showers.incident, pdg=np.resize([211, -211], 40)))
    with pytest.raises(ValueError, match=r"\[-211, 211\]"):
        CaloHadronic.create(TINY, SMALL_ILD).stages()[0].prepare(mixed)
    tilted = np.tile(np.array([0.6, 0.0, 0.8], np.float32), (40, 1))
    inclined = replace(showers, incident=replace(showers.incident, direction=tilted))
    with pytest.raises(ValueError, match=r"inclined showers.*0.75 \(limit 0.1\)"):
        CaloHadronic.create(TINY, SMALL_ILD).stages()[0].prepare(inclined)
    assert len(fitted.sample(request_[:0], seed=1)) == 0
