"""`calogen scaling` end to end on a small box: its counts are the networks', killed studies go on, bad requests end."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_box import toy_box

from calogen import BOX_30, load, write
from calogen.cli import main
from calogen.evaluate.sliced import sliced_wasserstein
from calogen.networks.token_transformer import modern_token_transformer, published_token_transformer
from calogen.scaling_study import Request, Size, runs
from calogen.scaling_study.counting import parameters_of, spent, vocabulary_multiply_adds
from calogen.scaling_study.request import plan_of_runs
from calogen.scaling_study.runs import TimedStage, part_of, some
from calogen.scaling_study.study import study
from calogen.systems.omnijet import PRESETS, OmniJet
from calogen.systems.token_generator import Codes, GeneratorSizes
from calogen.train import Plan
from calogen.train import fit as fit_stages

N = 30
SMALL = [
    *("code.sizes.codes=64", "code.sizes.code_dim=4", "code.sizes.width=16", "code.sizes.heads=2"),
    *("code.sizes.blocks=1", "network.heads=16", "network.feedforward=192"),
    *("network.groups=8", "network.rank=8", "tokenizer.steps=20", "tokenizer.batch_size=8"),
    *("tokenizer.validate_every=20", "generator.batch_size=8", "generator.validate_every=4"),
]
GRID = [
    "--sizes",
    "16x1",
    "32x2",
    "--data-fractions",
    "0.5",
    "1",
    "--steps",
    "12",
    "-n",
    str(N),
    "--threads",
    "1",
    "-q",
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("scaling")
    truth = toy_box(120, seed=2)
    energy = truth.incident.energy
    made = {"train": toy_box(160, seed=1), "truth": truth[np.flatnonzero((energy > 15) & (energy < 85))[:60]]}
    for name, showers in made.items():
        write(folder / f"{name}.h5", showers)
    return {name: str(folder / f"{name}.h5") for name in made}


def arguments(files: dict[str, str], out: Path, *more: str) -> list[str]:
    changes = [word for change in SMALL for word in ("--set", change)]
    return ["scaling", "omnijet", "--data", files["train"], "--truth", files["truth"], "-o", str(out), *changes, *more]


@pytest.fixture(scope="module")
def whole(files: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    assert main(arguments(files, out, *GRID)) == 0
    return out


def numbers(folder: Path) -> dict[str, Any]:
    """All numbers but those of clocks and of when it was made."""
    found: dict[str, Any] = json.loads((folder / "scores.json").read_text())
    found.pop("provenance")
    return _without_clocks(found)  # type: ignore[no-any-return]


def _without_clocks(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_clocks(v) for key, v in value.items() if "seconds" not in key}
    return [_without_clocks(v) for v in value] if isinstance(value, list) else value


def test_the_grid(whole: Path) -> None:
    found = json.loads((whole / "scores.json").read_text())
    assert [(run["size"], run["fraction"]) for run in found["runs"]] == [
        (size, fraction) for size in ("16x1", "32x2") for fraction in (0.5, 1.0)
    ]
    for run in found["runs"]:
        state = load(whole / "runs" / f"{run['size']}-{run['fraction']:g}" / "state.safetensors")
        assert isinstance(state, OmniJet)
        assert sum(p.numel() for p in state.generator.network.parameters()) == run["all_parameters"]
        tables = sum(p.numel() for p in state.generator.network.vocabulary.parameters())
        assert run["parameters"] == run["all_parameters"] - tables
        losses = [point["loss"] for point in run["curve"]]
        assert run["loss"] == min(losses)
        assert [point["step"] for point in run["curve"]] == [4, 8, 12]
        assert run["curve"][-1]["tokens"] == run["tokens_seen"]
        assert run["curve"][-1]["flops"] == run["flops"]
        assert run["cpu_seconds"] > 0
        assert run["distance"] > 0
        assert run["distance_error"] > 0
        assert run["window_closed"] is None
    half, full = found["runs"][:2]
    assert half["tokens"] < full["tokens"]
    assert half["showers"] == full["showers"] // 2 == 72
    assert "at least 3" in found["both"]["problem"]
    page = (whole / "index.html").read_text()
    for words in ("L(N, D) = E + A / Nᵅ + B / Dᵝ: not fitted", "Sliced Wasserstein", "no share of it is told"):
        assert words in page
    assert "http" not in page.replace("http://www.w3.org", "")


def test_all_runs_have_the_tokens_of_one_tokenizer(whole: Path) -> None:
    first, *others = (load(whole / "runs" / name / "state.safetensors") for name in ("16x1-0.5", "16x1-1", "32x2-1"))
    for other in others:
        for part in ("tokenizer", "groups", "energies"):
            for a, b in zip(first.parts()[part].buffers(), other.parts()[part].buffers(), strict=True):
                assert torch.equal(a, b)
            for a, b in zip(first.parts()[part].parameters(), other.parts()[part].parameters(), strict=True):
                assert torch.equal(a, b)


def test_finished_runs_are_not_done_again(whole: Path, files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    before = numbers(whole)
    monkeypatch.setattr(runs, "fit", _refuse)
    assert main(arguments(files, whole, *GRID)) == 0
    assert numbers(whole) == before


def _refuse(*_: object, **__: object) -> None:
    raise AssertionError("a finished run is fitted again")


@pytest.mark.parametrize("killed", ["training", "drawing"])
def test_killed_studies_go_on(
    killed: str, whole: Path, files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    place, name, calls = {"training": (TimedStage, "batch", 25), "drawing": (runs, "_judged", 2)}[killed]
    with monkeypatch.context() as patch:
        patch.setattr(runs, "fit", partial(fit_stages, checkpoint_seconds=0.0))
        patch.setattr(place, name, _killing(getattr(place, name), calls))
        assert main(arguments(files, out, *GRID)) == 130
    assert not (out / "runs" / "32x2-1" / "score.json").exists()
    assert main(arguments(files, out, *GRID)) == 0
    assert numbers(out) == numbers(whole)


def _killing(function: Callable[..., Any], calls: int) -> Callable[..., Any]:
    left = calls

    def once(*arguments: Any, **options: Any) -> Any:
        nonlocal left
        left -= 1
        if not left:
            raise KeyboardInterrupt
        return function(*arguments, **options)

    return once


def test_a_failed_run_does_not_lose_the_others(
    whole: Path,
    files: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    fitted = runs.fit

    def fails(*arguments_: Any, run_dir: Path, **options: Any) -> Any:
        if run_dir.name == "16x1-1":
            raise ValueError("no memory for it")
        return fitted(*arguments_, run_dir=run_dir, **options)

    with monkeypatch.context() as patch:
        patch.setattr(runs, "fit", fails)
        assert main([word for word in arguments(files, out, *GRID) if word != "-q"]) == 0
    assert "16x1-1 failed, and is tried again when the study goes on: no memory for it" in capsys.readouterr().out
    assert len(numbers(out)["runs"]) == 3
    assert main(arguments(files, out, *GRID)) == 0
    assert numbers(out) == numbers(whole)


def test_another_study_is_refused(whole: Path, files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    before = (whole / "scores.json").read_bytes()
    other = [*GRID[:1], "16x1", "32x1", *GRID[3:]]
    for changed, words in ((other, "sizes.1 was 32x2, is 32x1"), ([*GRID, "--seed", "1"], "seed was 0, is 1")):
        assert main(arguments(files, whole, *changed)) == 2
        error = capsys.readouterr().err
        assert "holds another fit" in error
        assert words.split(" was")[0].split(".")[0] in error
    assert (whole / "scores.json").read_bytes() == before


def test_the_tokenizer_of_a_state_is_taken(whole: Path, files: dict[str, str], tmp_path: Path) -> None:
    state = whole / "runs" / "32x2-1" / "state.safetensors"
    given = ["scaling", "omnijet", "--data", files["train"], "--truth", files["truth"], "--from", str(state)]
    more = ["--sizes", "16x1", "--data-fractions", "1", "--steps", "4", "-n", "0", "-q", "-o", str(tmp_path / "out")]
    assert main([*given, *more, "--set", "generator.batch_size=8"]) == 0
    made, taken = load(tmp_path / "out" / "runs" / "16x1-1" / "state.safetensors"), load(state)
    assert torch.equal(made.parts()["groups"].code, taken.parts()["groups"].code)
    codes = [system.parts()["tokenizer"].state_dict() for system in (made, taken)]
    assert all(torch.equal(codes[0][name], codes[1][name]) for name in codes[0])
    run = json.loads((tmp_path / "out" / "scores.json").read_text())["runs"][0]
    assert run["distance"] is None


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--sizes", "20x2"], "width 20 is no multiple of 8, the width of a head; give 16 or 24"),
        (["--sizes", "big"], "width x blocks"),
        (["--sizes", "16x0"], "width x blocks"),
        (["--data-fractions", "0.01", "-n", "20"], "a run needs at least 32"),
        (["--data-fractions", "1.5"], "above 0 and at most 1"),
        (["--data-fractions", "0.5", "0.5"], "give each once"),
        (["-n", "10"], "at least 20"),
        (["-n", "5000"], "the truth has 60 showers"),
        (["--set", "network.width=64"], "--sizes gives width"),
        (["--set", "generator.max_minutes=1"], "cannot be compared"),
        (["--set", "network.rank=32", "--sizes", "16x1"], "a width below 32"),
        (["--set", "network.groups=7", "-n", "20"], "cannot be cut into 7 groups"),
        (["--validation", "0"], "above 0 and below 1"),
        (["--from", "caloclouds3"], "a state of 'caloclouds3'"),
    ],
)
def test_bad_requests_end(
    more: list[str], words: str, files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(arguments(files, out, *more, "-q")) == 2
    assert words in capsys.readouterr().err
    assert not out.exists()


def test_other_systems_have_no_tokens(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scaling", "caloclouds3", "--data", files["train"], "--truth", files["truth"], "-o", "out"]) == 2
    assert "only omnijet" in capsys.readouterr().err


def test_parts_of_the_data_are_nested() -> None:
    parts = [set(part_of(101, fraction, 5).tolist()) for fraction in (0.125, 0.25, 0.5, 1.0)]
    assert [len(part) for part in parts] == [13, 25, 50, 101]
    assert all(small < large for small, large in itertools.pairwise(parts))
    assert set(part_of(101, 0.25, 6).tolist()) != parts[1]
    codes = Codes(np.arange(10), np.array([0, 3, 3, 7, 10]))
    assert some(codes, np.array([0, 2])).codes.tolist() == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    "network",
    [
        modern_token_transformer(64, condition=3, width=16, blocks=2, heads=2, feedforward=24, groups=8, rank=4),
        modern_token_transformer(64, width=16, blocks=1, heads=2, feedforward=24, groups=0, rank=4),
        published_token_transformer(64, width=16, blocks=2, heads=2, feedforward=24),
    ],
)
def test_counts_are_the_networks(network: torch.nn.Module) -> None:
    made = parameters_of(network)  # type: ignore[arg-type]
    assert made.all == sum(p.numel() for p in network.parameters())
    assert made.vocabulary == sum(p.numel() for p in network.vocabulary.parameters())  # type: ignore[union-attr]


def test_operations_are_counted_by_hand() -> None:
    network = published_token_transformer(10, width=4, blocks=1, heads=2, feedforward=8)
    assert vocabulary_multiply_adds(network) == 4 * 12
    plan = Plan(steps=3, batch_size=2)
    made = spent(network, np.full(4, 3), plan, "generator", 3)
    assert made.tokens.tolist() == [6, 12, 18]
    attention = 12 * 4 * (2 * 3 * 4 / 2)
    assert made.flops[0] == 6 * 6 * (parameters_of(network).per_token + 48) + attention
    assert made.flops[2] == pytest.approx(3 * made.flops[0])


def test_sizes_keep_the_ratios_of_the_preset() -> None:
    like = PRESETS["box-photons-desk"].config.network
    small = Size.read("64x3").of(like)
    assert (small.width, small.blocks, small.heads, small.feedforward, small.drafts) == (64, 3, 2, 176, 0)
    assert Size(like.width, like.blocks).of(like).feedforward == like.feedforward
    assert Size(10, 1).of(GeneratorSizes(form="published", width=20, heads=4, feedforward=80)).heads == 2


def test_plans_in_epochs_are_refused_and_curves_have_points() -> None:
    plan = plan_of_runs(Plan(steps=1000, warmup_steps=200, ema="constant"), frozenset())
    assert (plan.validate_every, plan.warmup_steps, plan.ema) == (50, 100, "none")
    asked = plan_of_runs(Plan(steps=1000, warmup_steps=200, ema="constant"), frozenset({"warmup_steps", "ema"}))
    assert (asked.warmup_steps, asked.ema) == (200, "constant")
    with pytest.raises(ValueError, match="--steps"):
        plan_of_runs(Plan(epochs=3), frozenset())


def test_a_truth_of_another_detector_is_refused(tmp_path: Path) -> None:
    showers = toy_box(60)
    system = PRESETS["box-photons-desk"]
    truth = toy_box(30)
    moved = type(truth)(truth.x, truth.y, truth.layer, truth.energy, truth.offsets, truth.incident, BOX_30)
    with pytest.raises(ValueError, match="box-30"):
        study(
            *(system.config, system.plans, showers, 0.1, moved, Request((Size(64, 1),), (1.0,), 30)),
            folder=tmp_path / "out",
        )
    assert not (tmp_path / "out").exists()


def test_distances_are_the_judges() -> None:
    from calogen.evaluate.scaling_scores import DistanceJudge

    truth, made = toy_box(60, seed=1), toy_box(60, seed=2)
    judge = DistanceJudge(truth, made, paired=False)
    score = judge.score(made)
    assert score.value == pytest.approx(sliced_wasserstein(judge.truth, judge._features(made)))
    assert score.floor == pytest.approx(score.value, rel=0.05)
