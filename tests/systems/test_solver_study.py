"""`calogen solvers` end to end on small systems: its numbers are what the network was asked, and bad requests end."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_hadrons import SMALL_ILD, toy_hadrons
from toy_voxels import RINGS, toy_voxels
from toys import toy_showers

from calogen import Incident, Showers, write
from calogen.cli import main
from calogen.evaluate.classifier_settings import PRESETS
from calogen.evaluate.solver_scores import HighLevelJudge, same_spectrum
from calogen.methods.adaptive import AdaptiveSolver, UnreachedToleranceError
from calogen.solver_study import Request, flows_of, study
from calogen.systems import bespoke_stage, kind_calibration_stage
from calogen.systems.allshowers import AllShowers, AllShowersConfig
from calogen.systems.caloclouds import CaloClouds, CaloCloudsConfig
from calogen.systems.calodream import CaloDream, CaloDreamConfig, EnergyNetwork, ShapeNetwork
from calogen.systems.system import System

N = 200
TINY_DREAM = CaloDreamConfig(
    energy_network=EnergyNetwork(
        width=16, heads=2, encoder_blocks=1, decoder_blocks=1, feedforward=16, velocity_width=16, time_std=2.0
    ),
    shape_network=ShapeNetwork(patch=(3, 4, 1), width=12, heads=2, blocks=1, feedforward=16),
    energy_evaluations=(2,),
    shape_evaluations=(2,),
)
TINY_CLOUDS = AllShowersConfig(
    whole_widths=(16,),
    layer_widths=(16,),
    width=16,
    heads=2,
    blocks=1,
    feedforward=16,
    counts_width=16,
    least_threshold=0.0,
    evaluations=2,
)
DREAM_FLOWS = {"energy-solver": "energy_solver", "shape-solver": "solver"}


def fitted(system: System, showers: Showers, folder: Path) -> Path:
    """A state that has seen a few steps."""
    few = {"steps": 3, "batch_size": 8, "max_points": 600, "validate_every": 3, "warmup_steps": 0, "patience": None}
    system.fit(showers, {k: replace(p, **few) for k, p in system.plans().items()}, run_dir=folder, progress=False)
    system.save(folder / "state.safetensors")
    return folder / "state.safetensors"


def within(showers: Showers, n: int) -> Showers:
    """The first n with energies that every training sample covers."""
    energy = showers.incident.energy
    return showers[np.flatnonzero((energy > 15) & (energy < 80))[:n]]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """States, truths and training showers."""
    folder = tmp_path_factory.mktemp("solvers")
    showers = {
        "truth": within(toy_voxels(320, seed=1), N),
        "train": toy_voxels(220, seed=2),
        "hadrons": within(toy_hadrons(300, seed=3), N),
        "few": within(toy_voxels(60, seed=1), 30),
        "ild": toy_showers(220, seed=1),
        "other-particles": _of(within(toy_voxels(320, seed=1), N), 22),
    }
    for name, made in showers.items():
        write(folder / f"{name}.h5", made)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bespoke_stage, "POOL", 4)
        patch.setattr(kind_calibration_stage, "SHOWERS", 20)
        patch.setattr(CaloDream, "solvers", DREAM_FLOWS)
        patch.setitem(PRESETS, "fast-high", replace(PRESETS["fast-high"], epochs=4))
        patch.setitem(PRESETS, "fast", replace(PRESETS["fast"], epochs=4))
        dream = fitted(CaloDream.create(TINY_DREAM, RINGS, seed=1), toy_voxels(120), folder / "dream")
        clouds = fitted(AllShowers.create(TINY_CLOUDS, SMALL_ILD, seed=1), toy_hadrons(80), folder / "clouds")
        states = {"dream": str(dream), "clouds": str(clouds), "folder": str(folder)}
        yield {name: str(folder / f"{name}.h5") for name in showers} | states


def _of(showers: Showers, pdg: int) -> Showers:
    incident = Incident(showers.incident.energy, showers.incident.direction, np.full(len(showers), pdg))
    return Showers(showers.x, showers.y, showers.layer, showers.energy, showers.offsets, incident, showers.detector)


FEW = [
    "--methods",
    "midpoint",
    "adaptive",
    "bespoke",
    "stored",
    "--evaluations",
    "4",
    "--tolerances",
    "0.1",
    "--bespoke",
    "2",
    "--fit-steps",
    "2",
    "--repeats",
    "1",
]


def test_all_solvers_of_both_flows(places: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = ["solvers", places["dream"], "--truth", places["truth"], "--train", places["train"], "-o", str(out)]
    assert main([*arguments, *FEW]) == 0
    printed = capsys.readouterr().out
    for words in ("energy-solver", "shape-solver", "tolerance 0.1", "bespoke, global", "Geant4 against"):
        assert words in printed
    assert sorted(path.name for path in out.iterdir()) == ["auc.png", "index.html", "scores.json"]
    assert not list(tmp_path.glob(".*"))
    found = json.loads((out / "scores.json").read_text())
    each = {(s["flow"], s["solver"]): s for s in found["scores"]}
    assert len(each) == len(found["scores"]) == 2 * 5
    for (_, solver), score in each.items():
        assert 0.3 < score["auc"] <= 1
        assert score["cpu_ms_per_shower"] > 0
        assert (score["fit_seconds"] is not None) == solver.startswith("bespoke")
        if solver == "adaptive":
            assert score["evaluations"] >= 7
        else:
            assert score["evaluations"] == (2 if solver == "stored" or solver.startswith("bespoke") else 4)
    assert 0.3 < found["floor"]["auc"] < 0.7
    assert found["showers"] == N
    page = (out / "index.html").read_text()
    assert "data:image/png;base64," in page
    assert 'src="http' not in page
    assert main([*arguments, *FEW, "-q"]) == 2
    assert "not empty" in capsys.readouterr().err


def test_points_and_what_the_network_was_asked(places: dict[str, str], tmp_path: Path) -> None:
    """Evaluations are those of the network, as its own counter has them."""
    system, truth = _load(places["clouds"]), _read(places["hadrons"])
    asked: list[int] = []
    network = system.point_flow.network
    bind = network.bind

    def counting(c: torch.Tensor, counts: torch.Tensor) -> Any:
        bound = bind(c, counts)

        def v(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            asked.append(len(counts))
            return bound(x, t)

        return v

    network.bind = counting
    request = Request(
        showers=N,
        solvers=("heun", "adaptive"),
        evaluations=(6,),
        tolerances=(1e-2,),
        repeats=1,
        rounds=1,
        batch_size=40,
    )
    made = study(system, truth, truth[:0], request, folder=tmp_path / "work")
    assert made.floor is None
    assert "no floor" in made.notes[0]
    heun, adaptive = made.scores
    assert (heun.solver, heun.setting, heun.evaluations) == ("heun", "3 steps", 6.0)
    assert sum(asked) == pytest.approx(N * (heun.evaluations + adaptive.evaluations))


def _load(path: str) -> Any:
    import calogen

    return calogen.load(path)


def _read(path: str) -> Showers:
    import calogen

    showers: Showers = calogen.read(path)
    return showers


def test_a_killed_study_goes_on(places: dict[str, str], tmp_path: Path) -> None:
    system, truth, train = _load(places["dream"]), _read(places["truth"]), _read(places["train"])
    solvers: dict[str, Any] = {"solvers": ("euler", "bespoke"), "evaluations": (1, 2), "bespoke": (2,)}
    request = Request(
        showers=N,
        flows=("shape-solver",),
        **solvers,
        errors=("local",),
        plan={"steps": 2},
        repeats=1,
        rounds=1,
        batch_size=100,
    )
    folder = tmp_path / "work"
    first = study(system, truth, train, request, folder=folder)

    def stop(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    calls = []
    real = system.sample

    def sample(*args: Any, **options: Any) -> Showers:
        calls.append(1)
        return real(*args, **options)

    system.sample = sample
    again = study(system, truth, train, request, folder=folder)
    assert not calls
    assert again.scores == first.scores
    with pytest.raises(KeyboardInterrupt):
        study(system, truth, train, replace(request, seed=1), folder=folder, progress=stop)
    half = len(calls)
    other = study(system, truth, train, replace(request, seed=1), folder=folder)
    assert len(calls) - half == 2 * math.ceil(N / request.batch_size)  # of three solvers one was done
    assert [s.auc for s in other.scores] != [s.auc for s in first.scores]
    repeated = study(system, truth, train, request, folder=tmp_path / "new")
    assert [(s.auc, s.evaluations) for s in repeated.scores] == [(s.auc, s.evaluations) for s in first.scores]


def test_a_tolerance_out_of_reach_is_noted(
    places: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def give_up(*_: object) -> torch.Tensor:
        raise UnreachedToleranceError("raise the tolerance")

    monkeypatch.setattr(AdaptiveSolver, "integrate", give_up)
    flows, solvers = ("energy-solver",), ("stored", "adaptive")
    request = Request(showers=N, flows=flows, solvers=solvers, tolerances=(1e-6,), repeats=1, rounds=1)
    made = study(_load(places["dream"]), _read(places["truth"]), _read(places["train"]), request, folder=tmp_path / "w")
    assert [s.solver for s in made.scores] == ["stored"]
    assert made.notes == ("energy-solver, tolerance 1e-06: left out: raise the tolerance",)


MISTAKES = {
    "no state": (["{folder}/none.safetensors"], "none.safetensors"),
    "a state without a flow": (["caloclouds3"], "no flow whose solver can be chosen"),
    "truth of another detector": (["{dream}", "--truth", "{ild}"], "rings"),
    "training of another detector": (["{dream}", "--train", "{ild}"], "rings"),
    "other particles": (["{dream}", "--truth", "{other-particles}"], "PDG code 22"),
    "training of other particles": (["{dream}", "--train", "{other-particles}"], "PDG code 22"),
    "too few showers": (["{dream}", "--truth", "{few}"], "needs at least 200"),
    "too few asked for": (["{dream}", "-n", "20"], "needs at least 200"),
    "no training part": (["{dream}", "--train", ""], "marks no training part"),
    "an unknown flow": (["{dream}", "--flows", "shapes"], "shape-solver"),
    "an unknown solver": (["{dream}", "--methods", "eulr"], "euler"),
    "an unknown option": (["{dream}", "--set", "solvr=euler"], "solver"),
    "no evaluations": (["{dream}", "--evaluations", "0"], "at least 1"),
    "a tolerance of nothing": (["{dream}", "--tolerances", "0"], "tolerance 0"),
    "no repeats": (["{dream}", "--repeats", "0"], "repeats=0"),
    "no steps of the fit": (["{dream}", "--fit-steps", "0"], "steps=0"),
    "a full directory": (["{dream}", "-o", "{folder}"], "not empty"),
    "missing truth": (["{dream}", "--truth", "{folder}/none.h5"], "no such file"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_bad_requests_are_one_line(
    mistake: str, places: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments, expected = MISTAKES[mistake]
    given = [a.format(**places) for a in arguments]
    for option, value in (("--truth", places["truth"]), ("--train", places["train"]), ("-o", str(tmp_path / "new"))):
        if option not in given:
            given += [option, value]
    if "" in given:
        del given[given.index("") - 1 : given.index("") + 1]
    assert main(["solvers", *given, "-q"]) == 2
    out, err = capfd.readouterr()
    (line,) = (text for text in err.splitlines() if text.strip())
    assert line.startswith("calogen: error: ")
    assert expected in line
    assert not out
    assert not (tmp_path / "new").exists()


def test_flows_are_found_by_what_the_system_declares(places: dict[str, str]) -> None:
    flows = flows_of(_load(places["dream"]))
    assert {f.name: f.option for f in flows} == DREAM_FLOWS
    assert [f.option for f in flows_of(_load(places["clouds"]))] == ["solver"]
    clouds = CaloClouds(CaloCloudsConfig(coupling_width=1, spline_width=1, flow_blocks=1, widths=(16, 16)), RINGS)
    with pytest.raises(ValueError, match="nothing to compare"):
        flows_of(clouds)


def test_the_judge_knows_a_difference_and_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "fast-high", replace(PRESETS["fast-high"], epochs=40))
    truth, same, other = toy_voxels(400, seed=1), toy_voxels(400, seed=2), toy_voxels(400, seed=3)
    judge = HighLevelJudge(truth, voxels=True, repeats=1)
    auc, error = judge.auc(same)
    assert abs(auc - 0.5) < 4 * error
    brighter = Showers(other.x, other.y, other.layer, other.energy * 1.3, other.offsets, other.incident, RINGS)
    assert judge.auc(brighter)[0] > 0.7
    floor = judge.floor(same)
    assert floor is not None
    assert (floor.auc, floor.showers) == (auc, 400)
    low = toy_voxels(600, seed=4)
    low = low[low.incident.energy < 50]
    assert same_spectrum(same.incident, truth.incident)
    assert not same_spectrum(low.incident, truth.incident)
    halves = judge.floor(low)
    assert halves is not None
    assert halves.showers == 200


def test_systems_walk_adaptively(places: dict[str, str]) -> None:
    """Through the options of `sample`, each shower as if it were alone."""
    options = {"solver": "adaptive:0.01"}
    for state, truth, more in (("clouds", "hadrons", {}), ("dream", "truth", {"energy_solver": "adaptive"})):
        system, incident = _load(places[state]), _read(places[truth]).incident[:5]
        together = system.sample(incident, seed=1, **options, **more)
        alone = system.sample(incident, seed=1, batch_size=1, **options, **more)
        assert np.array_equal(together.offsets, alone.offsets)
        np.testing.assert_allclose(together.x, alone.x, atol=0.1)
        np.testing.assert_allclose(together.energy, alone.energy, rtol=0.05, atol=1e-5)
        with pytest.raises(ValueError, match="positive tolerance"):
            system.sample(incident, seed=1, solver="adaptive:0")


def test_the_command_line_takes_a_tolerance(places: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "new.h5"
    arguments = ["sample", places["dream"], "-n", "2", "--pdg", "11", "--energy", "20:60", "--angles", "perpendicular"]
    assert main([*arguments, "--set", "solver=adaptive:0.1", "-o", str(out), "-q"]) == 0
    assert len(_read(str(out))) == 2
