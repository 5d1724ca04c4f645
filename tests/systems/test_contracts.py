"""What every system keeps, whichever paper it is of: one test over all members of `SYSTEMS`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_box import BOX, toy_box
from toy_hadrons import SMALL_ILD, toy_hadrons
from toy_voxels import RINGS, toy_voxels
from toys import toy_showers

from calogen import ILD_ECAL, Detector, Incident, Showers
from calogen.detector.catalog import CATALOG
from calogen.networks.voxel_vae import Level
from calogen.systems import PRESETS, SYSTEMS, System, bespoke_stage, kind_calibration_stage
from calogen.systems.allshowers import AllShowersConfig
from calogen.systems.caloclouds import CaloCloudsConfig
from calogen.systems.calodream import CaloDreamConfig, EnergyNetwork, ShapeNetwork
from calogen.systems.calohadronic import CaloHadronicConfig
from calogen.systems.hit_autoencoder import AutoencoderSizes
from calogen.systems.hit_tokenizer import TokenizerConfig
from calogen.systems.omnijet import OmniJetConfig
from calogen.systems.shape_spaces import Autoencoder
from calogen.systems.state import State
from calogen.systems.token_generator import GeneratorSizes
from calogen.train import LearnedStage, Plan, SolvedStage


@dataclass(frozen=True)
class Small:
    """A system small enough to be fitted in seconds, and showers for it."""

    config: Any
    detector: Detector
    showers: Showers
    request: Incident
    unknown_pdg: int


def within(incident: Incident, low: float, high: float) -> Incident:
    """The particles with energies brought into a range that every training sample covers."""
    return Incident(np.clip(incident.energy, low, high), incident.direction, incident.pdg)


SMALL = {
    "caloclouds3": Small(
        CaloCloudsConfig(coupling_width=1, spline_width=1, flow_blocks=1, widths=(16, 16), time_features=8),
        ILD_ECAL,
        toy_showers(120),
        within(toy_showers(9, seed=5).incident, 5.0, 50.0),
        11,
    ),
    "calohadronic": Small(
        CaloHadronicConfig(
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
        ),
        SMALL_ILD,
        toy_hadrons(80),
        within(toy_hadrons(9, seed=5).incident, 20.0, 80.0),
        22,
    ),
    "allshowers": Small(
        AllShowersConfig(
            whole_widths=(16,),
            layer_widths=(16,),
            width=16,
            heads=2,
            blocks=1,
            feedforward=16,
            counts_width=16,
            least_threshold=0.0,
            evaluations=2,
        ),
        SMALL_ILD,
        toy_hadrons(80),
        within(toy_hadrons(9, seed=5).incident, 20.0, 80.0),
        2212,
    ),
    "calodream": Small(
        CaloDreamConfig(
            energy_network=EnergyNetwork(
                width=16, heads=2, encoder_blocks=1, decoder_blocks=1, feedforward=16, velocity_width=16
            ),
            shape_network=ShapeNetwork(patch=(3, 4, 1), width=12, heads=2, blocks=1, feedforward=16),
            energy_evaluations=(2,),
            shape_evaluations=(2, 3),
        ),
        RINGS,
        toy_voxels(80),
        within(toy_voxels(9, seed=5).incident, 20.0, 80.0),
        22,
    ),
    "omnijet": Small(
        OmniJetConfig(
            TokenizerConfig(
                AutoencoderSizes(codes=64, code_dim=4, width=16, heads=2, blocks=1, dropout=0.0, start="hits"),
                scaling="fitted",
                conditioned=True,
            ),
            GeneratorSizes(width=16, blocks=1, heads=2, feedforward=24, groups=32, rank=8, drafts=1),
            calibrated=True,
        ),
        BOX,
        toy_box(80),
        within(toy_box(9, seed=5).incident, 20.0, 80.0),
        11,
    ),
}
SMALL["calodream, latent"] = replace(
    SMALL["calodream"],
    config=replace(
        SMALL["calodream"].config,
        shape_network=ShapeNetwork(patch=(1, 2, 3), width=12, heads=2, blocks=1, feedforward=16),
        autoencoder=Autoencoder((Level(4, (3, 4, 1), (3, 2, 1)), Level(4)), width=8),
    ),
)


def few_steps(system: System, steps: int) -> dict[str, Plan]:
    """The plans of all stages, cut to a few steps of few showers."""
    few = {"steps": steps, "batch_size": 8, "max_points": 600, "validate_every": steps, "warmup_steps": 0}
    return {name: replace(plan, **few, patience=None) for name, plan in system.plans().items()}


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Fewer showers to calibrate on and to solve finely; nobody wonders that so few steps leave factors moving."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(kind_calibration_stage, "SHOWERS", 40)
        patch.setattr(bespoke_stage, "POOL", 4)
        yield


@pytest.fixture(scope="module", params=SMALL)
def fitted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[System, Small]:
    """Each system, in each of its forms, fitted for a few steps."""
    small = SMALL[request.param]
    system = SYSTEMS[request.param.partition(",")[0]].create(small.config, small.detector, seed=1)
    run = tmp_path_factory.mktemp("run") / "fit"
    system.fit(small.showers, few_steps(system, 8), run_dir=run, progress=False)
    return system, small


def same(a: Showers, b: Showers) -> bool:
    """Equal up to round-off, which may swap two points of equal depth: at most one point in fifty may move."""
    if not ((a.offsets == b.offsets).all() and (a.layer == b.layer).all()):
        return False
    key = a.shower_index * a.detector.n_layers + a.layer
    order_a, order_b = np.lexsort((a.x, key)), np.lexsort((b.x, key))
    moved = np.zeros(a.n_points, dtype=bool)
    for column in ("x", "y", "energy"):
        moved |= ~np.isclose(getattr(a, column)[order_a], getattr(b, column)[order_b], rtol=1e-2, atol=1e-2)
    return bool(moved.mean() < 0.02 and np.allclose(a.visible_energy, b.visible_energy, rtol=1e-3))


def test_every_system_is_here() -> None:
    assert {name.partition(",")[0] for name in SMALL} == set(SYSTEMS) == set(PRESETS)


def test_every_preset_has_a_plan_for_every_stage() -> None:
    for name, presets in PRESETS.items():
        for preset in presets.values():
            assert isinstance(preset.config, SYSTEMS[name].Config)
            system = SYSTEMS[name].create(preset.config, CATALOG[preset.detector])
            assert set(preset.plans) >= set(system.plans())
            assert "published" in presets


def test_stages_learn_or_are_solved(fitted: tuple[System, Small]) -> None:
    system, _ = fitted
    stages = {stage.name: stage for stage in system.stages()}
    reports = {report["name"]: report for report in system.provenance["stages"]}
    assert list(reports) == list(stages)
    for name, stage in stages.items():
        if isinstance(stage, SolvedStage):
            assert reports[name]["stopped"] == "solved"
        else:
            assert isinstance(stage, LearnedStage)
            assert np.isfinite(reports[name]["train_loss"])
            assert reports[name]["parameters"] > 0


def test_samples_are_showers_of_the_request(fitted: tuple[System, Small]) -> None:
    system, small = fitted
    showers = system.sample(small.request, seed=3)
    assert showers.detector == small.detector
    np.testing.assert_array_equal(showers.incident.energy, small.request.energy)
    np.testing.assert_array_equal(showers.incident.pdg, small.request.pdg)
    assert (showers.counts > 0).all()
    assert (showers.visible_energy < small.request.energy).all()
    assert len(system.sample(small.request[:0], seed=3)) == 0


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_shower_depends_on_its_particle_and_seed_alone(fitted: tuple[System, Small], batch_size: int) -> None:
    system, small = fitted
    together = system.sample(small.request, seed=3)
    assert same(together, system.sample(small.request, seed=3, batch_size=batch_size))
    assert same(together[5:8], system.sample(small.request[5:8], seed=3, first=5, batch_size=batch_size))
    assert not same(together, system.sample(small.request, seed=4))


def test_the_users_random_numbers_are_left_alone(fitted: tuple[System, Small]) -> None:
    system, small = fitted
    torch.manual_seed(0)
    before = torch.rand(1)
    torch.manual_seed(0)
    system.sample(small.request[:1], seed=3)
    assert torch.equal(before, torch.rand(1))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_state_is_the_system(fitted: tuple[System, Small], tmp_path: Path, dtype: str) -> None:
    system, small = fitted
    system.save(tmp_path / "s.safetensors", dtype=dtype)
    again = SYSTEMS[system.name].from_state(State.read(tmp_path / "s.safetensors"))
    assert again.config == system.config
    made, kept = (s.sample(small.request, seed=3) for s in (system, again))
    assert (made.detector, len(made)) == (kept.detector, len(kept))
    if dtype == "float32":
        assert same(made, kept)


def test_a_state_of_another_system_is_refused(fitted: tuple[System, Small], tmp_path: Path) -> None:
    system, _ = fitted
    system.save(tmp_path / "s.safetensors")
    other = next(kind for name, kind in SYSTEMS.items() if name != system.name)
    with pytest.raises(ValueError, match=f"a state of '{system.name}'"):
        other.from_state(State.read(tmp_path / "s.safetensors"))


def test_other_particles_are_refused(fitted: tuple[System, Small]) -> None:
    system, small = fitted
    request = small.request
    strange = Incident(request.energy, request.direction, np.full(len(request), small.unknown_pdg))
    with pytest.raises(ValueError, match=f"PDG code {small.unknown_pdg} was not trained"):
        system.sample(strange, seed=1)
    far = Incident(request.energy * 100, request.direction, request.pdg)
    with pytest.raises(ValueError, match="outside the trained range"):
        system.sample(far, seed=1)
    fresh = SYSTEMS[system.name].create(small.config, small.detector)
    with pytest.raises(ValueError, match="not been trained"):
        fresh.sample(request, seed=1)


def test_showers_of_another_detector_are_refused(fitted: tuple[System, Small], tmp_path: Path) -> None:
    system, small = fitted
    other = toy_showers(40) if small.detector != ILD_ECAL else toy_hadrons(40)
    with pytest.raises(ValueError, match="showers of detector"):
        system.fit(other, run_dir=tmp_path / "run", progress=False)


def test_tuning_biases_moves_biases_alone(fitted: tuple[System, Small], tmp_path: Path) -> None:
    """In every stage, those of students too."""
    system, small = fitted
    tuned = SYSTEMS[system.name].create(small.config, small.detector, seed=2)
    tuned.start_from(system, tune="bias", label="fitted")
    tuned.fit(small.showers, few_steps(tuned, 2), run_dir=tmp_path / "run", progress=False)
    for stage in tuned.stages():
        if isinstance(stage, LearnedStage):
            moving = [name for name, p in stage.model.named_parameters() if p.requires_grad and "." in name]
            assert all(name.endswith("bias") for name in moving), stage.name


def test_empty_showers_do_not_end_a_training(fitted: tuple[System, Small], tmp_path: Path) -> None:
    """Batches without a single point move nothing; nor do points without energy."""
    _, small = fitted
    showers = small.showers
    first = 40
    none = np.concatenate([showers.offsets[: first + 1], np.full(len(showers) - first, showers.offsets[first])])
    end = showers.offsets[first]
    dark = np.where(np.arange(end) % 7 == 3, 0.0, showers.energy[:end])
    half_empty = Showers(
        *(column[:end] for column in (showers.x, showers.y, showers.layer)),
        dark,
        none,
        showers.incident,
        small.detector,
    )
    system = SYSTEMS[fitted[0].name].create(small.config, small.detector, seed=1)
    system.fit(half_empty, few_steps(system, 12), run_dir=tmp_path / "run", progress=False)
    for part in system.parts().values():
        assert all(bool(torch.isfinite(p).all()) for p in part.parameters())
